//! Who is who: the cluster's authority, server and node certificates, node keys, and what a certificate says.
//!
//! Certificates tell a node's id and key; whether that node is still welcome is the store's business, never this
//! module's.

mod authority;
mod certificate;
pub(crate) mod files;
mod node;
mod token;

pub use authority::{ClusterAuthority, ClusterId, IssuedCertificate, ServerIdentity, VerifiedKey};
pub use certificate::{CertificateFacts, Serial, spki_sha256};
pub(crate) use certificate::{NODE_URI_PREFIX, validity_seconds};
pub use node::{NodeIdentity, NodeKey};
pub use token::{JoinToken, TOKEN_ADDRESSES_MAX, TokenError, TokenSecret};

use std::io;
use std::path::PathBuf;

/// What goes wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file is there that must not be replaced.
    #[error("{} exists already; it is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {detail}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A certificate that cannot be understood.
    #[error("not a certificate of this cluster: {detail}")]
    Certificate {
        /// What is wrong with it.
        detail: String,
    },
    /// A signing request that cannot be accepted.
    #[error("the certificate request is not acceptable: {detail}")]
    Request {
        /// What is wrong with it.
        detail: String,
    },
    /// The cryptography library refused.
    #[error("cannot {action}: {detail}")]
    Crypto {
        /// What was tried.
        action: &'static str,
        /// The library's word.
        detail: String,
    },
}

impl IdentityError {
    pub(crate) fn crypto(action: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Crypto {
            action,
            detail: error.to_string(),
        }
    }
}

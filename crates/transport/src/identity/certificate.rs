//! What a certificate of ours says: which node, which key, from when to when.

use std::fmt;

use sha2::{Digest as _, Sha256};
use sluice_model::{NodeId, UnixMs};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::IdentityError;

/// A node certificate's subject name is this and the node's id.
pub(crate) const NODE_URI_PREFIX: &str = "sluice:node:";

/// A certificate's serial number: 16 random bytes, unique in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Takes the 16 bytes of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as they are stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// What a node's certificate says. Read from it, not checked: only the handshake proves that the authority signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The node that the authority gave the certificate to.
    pub node: NodeId,
    /// The certificate's own number.
    pub serial: Serial,
    /// SHA-256 of the public key, as DER SubjectPublicKeyInfo; stays the same when only the certificate is renewed.
    pub spki_sha256: [u8; 32],
    /// From when it is valid.
    pub not_before: UnixMs,
    /// Until when it is valid.
    pub not_after: UnixMs,
}

impl CertificateFacts {
    /// Reads a node's certificate.
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| invalid(format!("its names cannot be read ({error})")))?
            .ok_or_else(|| invalid("it names no node"))?;
        let mut nodes = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(NODE_URI_PREFIX),
                _ => None,
            });
        let (Some(node), None) = (nodes.next(), nodes.next()) else {
            return Err(invalid("it does not name exactly one node"));
        };
        let node = node
            .parse()
            .map_err(|_| invalid("its node id is not a UUID"))?;
        let serial = certificate
            .tbs_certificate
            .raw_serial()
            .try_into()
            .map_err(|_| invalid("its serial number does not have 16 bytes"))?;
        let validity = certificate.validity();
        Ok(Self {
            node,
            serial: Serial(serial),
            spki_sha256: Sha256::digest(certificate.public_key().raw).into(),
            not_before: UnixMs(validity.not_before.timestamp().saturating_mul(1000)),
            not_after: UnixMs(validity.not_after.timestamp().saturating_mul(1000)),
        })
    }

    /// Whether the certificate's time is over at `now`.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        now > self.not_after
    }
}

/// SHA-256 of a certificate's public key, as DER SubjectPublicKeyInfo.
pub fn spki_sha256(certificate_der: &[u8]) -> Result<[u8; 32], IdentityError> {
    Ok(Sha256::digest(parse(certificate_der)?.public_key().raw).into())
}

/// The first of a certificate's validity and its last, in seconds since 1970.
pub(crate) fn validity_seconds(der: &[u8]) -> Option<(u64, u64)> {
    let certificate = parse(der).ok()?;
    let validity = certificate.validity();
    let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    Some((
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    ))
}

/// The common name in a certificate's subject.
pub(crate) fn common_name(der: &[u8]) -> Result<String, IdentityError> {
    let certificate = parse(der)?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()
        .ok_or_else(|| invalid("it has no common name"))?;
    Ok(name
        .as_str()
        .map_err(|error| invalid(error.to_string()))?
        .to_owned())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(invalid("bytes follow the certificate")),
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn invalid(detail: impl Into<String>) -> IdentityError {
    IdentityError::Certificate {
        detail: detail.into(),
    }
}

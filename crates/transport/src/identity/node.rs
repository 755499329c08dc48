//! A node's own side of identity: its key, made on the machine and never sent, and the certificate it was given.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

use super::authority::ClusterId;
use super::certificate::{self, CertificateFacts};
use super::{IdentityError, files};

const KEY_TAG: &str = "PRIVATE KEY";
const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// A node's private key (ECDSA P-256).
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate()
            .map(Self)
            .map_err(|error| IdentityError::crypto("make a node key", error))
    }

    /// Reads a key; `None` when `path` is not there.
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = files::read(path)? else {
            return Ok(None);
        };
        let blocks = files::pem_blocks(path, &bytes)?;
        Self::from_der(path, files::pem_block(path, &blocks, KEY_TAG, 0)?).map(Some)
    }

    /// Writes the key as PEM: mode 0600, whole or not at all, durable on return. Replaces what is there.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        files::replace(
            path,
            pem::encode(&pem::Pem::new(KEY_TAG, self.0.serialize_der())).as_bytes(),
        )
    }

    /// A signing request: the public key, signed by the private one. It asks for no name.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&self.0)
            .map_err(|error| IdentityError::crypto("make a certificate request", error))?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 of the public key as DER SubjectPublicKeyInfo.
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&self.0)).into()
    }

    fn from_der(path: &Path, der: Vec<u8>) -> Result<Self, IdentityError> {
        KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(der),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map(Self)
        .map_err(|error| files::damaged(path, format!("its key cannot be used ({error})")))
    }

    fn to_private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

/// All a node needs to speak to its orchestrator: key, certificate, and the authority it trusts.
pub struct NodeIdentity {
    key: NodeKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    facts: CertificateFacts,
    cluster: ClusterId,
}

impl NodeIdentity {
    /// Puts a key and the certificate that was issued for it together; refuses what does not match.
    pub fn new(
        key: NodeKey,
        certificate_der: Vec<u8>,
        authority_der: Vec<u8>,
    ) -> Result<Self, IdentityError> {
        let facts = CertificateFacts::parse(&certificate_der)?;
        if facts.spki_sha256 != key.spki_sha256() {
            return Err(IdentityError::Certificate {
                detail: "it was issued for another key".to_owned(),
            });
        }
        let cluster = ClusterId::of_authority(&authority_der)?;
        certificate::spki_sha256(&authority_der)?;
        Ok(Self {
            key,
            certificate: certificate_der.into(),
            authority: authority_der.into(),
            facts,
            cluster,
        })
    }

    /// Reads an identity; `None` when `path` is not there.
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = files::read(path)? else {
            return Ok(None);
        };
        let blocks = files::pem_blocks(path, &bytes)?;
        let key = NodeKey::from_der(path, files::pem_block(path, &blocks, KEY_TAG, 0)?)?;
        let certificate = files::pem_block(path, &blocks, CERTIFICATE_TAG, 0)?;
        let authority = files::pem_block(path, &blocks, CERTIFICATE_TAG, 1)?;
        Self::new(key, certificate, authority)
            .map(Some)
            .map_err(|error| files::damaged(path, error.to_string()))
    }

    /// Writes key, certificate and authority as one PEM file: mode 0600, whole or not at all, durable on return.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let blocks = [
            pem::Pem::new(KEY_TAG, self.key.0.serialize_der()),
            pem::Pem::new(CERTIFICATE_TAG, self.certificate.to_vec()),
            pem::Pem::new(CERTIFICATE_TAG, self.authority.to_vec()),
        ];
        files::replace(path, pem::encode_many(&blocks).as_bytes())
    }

    /// What the node's certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The cluster that the node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node's key, for a renewal's signing request.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The node's certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate, DER.
    pub fn authority_der(&self) -> &[u8] {
        &self.authority
    }

    /// The same key with a newer certificate.
    pub fn renewed(&self, certificate_der: Vec<u8>) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(self.key.0.serialize_der()),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map_err(|error| IdentityError::crypto("copy the node key", error))?;
        Self::new(NodeKey(key), certificate_der, self.authority.to_vec())
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.to_private_key()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(crate) fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("cluster", &self.cluster)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

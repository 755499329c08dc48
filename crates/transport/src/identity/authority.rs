//! The cluster's certificate authority: one key, made at the orchestrator's first start, that signs every certificate.
//!
//! The authority writes every name itself; from a node's request only the public key is taken, after its signature
//! has shown that the node holds the private half. One PEM file holds the authority's key and certificate, so that
//! no crash can leave one without the other.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKey, SanType, SerialNumber,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use sha2::{Digest as _, Sha256};
use sluice_model::{NodeId, UnixMs};

use super::certificate::{self, CertificateFacts, NODE_URI_PREFIX};
use super::{IdentityError, files};
use crate::bounds::{AUTHORITY_LIFE, BACKDATE, BACKDATE_SHARE, CSR_BYTES_MAX, SERVER_LIFE};
use crate::{SERVER_NAME, random};

const CLUSTER_NAME_PREFIX: &str = "sluice cluster ";
const KEY_TAG: &str = "PRIVATE KEY";
const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// A cluster's identity: 16 random bytes in the name of its authority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// Takes the 16 bytes of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as they travel.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Reads the cluster's id from its authority's certificate.
    pub fn of_authority(certificate_der: &[u8]) -> Result<Self, IdentityError> {
        let name = certificate::common_name(certificate_der)?;
        name.strip_prefix(CLUSTER_NAME_PREFIX)
            .filter(|hex| hex.len() == 32 && hex.is_ascii())
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
            .map(|id| Self(id.to_be_bytes()))
            .ok_or_else(|| IdentityError::Certificate {
                detail: format!("`{name}` is not a cluster's name"),
            })
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// The key and certificate that sign all others. Whoever holds them is the cluster.
pub struct ClusterAuthority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    cluster: ClusterId,
}

impl ClusterAuthority {
    /// Makes a new cluster and writes it to `path` (one PEM file, mode 0600, durable on return).
    ///
    /// Refuses when `path` is there: an authority is never replaced.
    pub fn create(path: &Path, now: UnixMs) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()
            .map_err(|error| IdentityError::crypto("make the cluster's key", error))?;
        let cluster = ClusterId(random::bytes()?);
        let mut params = base_params(
            &format!("{CLUSTER_NAME_PREFIX}{cluster}"),
            now,
            AUTHORITY_LIFE,
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let certificate = params
            .self_signed(&key)
            .map_err(|error| IdentityError::crypto("sign the cluster's certificate", error))?
            .der()
            .clone();
        let blocks = [
            pem::Pem::new(KEY_TAG, key.serialize_der()),
            pem::Pem::new(CERTIFICATE_TAG, certificate.to_vec()),
        ];
        files::create(path, pem::encode_many(&blocks).as_bytes())?;
        Ok(Self {
            key,
            certificate,
            cluster,
        })
    }

    /// Reads the authority back; `None` when `path` is not there.
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = files::read(path)? else {
            return Ok(None);
        };
        let blocks = files::pem_blocks(path, &bytes)?;
        let key = PrivatePkcs8KeyDer::from(files::pem_block(path, &blocks, KEY_TAG, 0)?);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| files::damaged(path, format!("its key cannot be used ({error})")))?;
        let certificate =
            CertificateDer::from(files::pem_block(path, &blocks, CERTIFICATE_TAG, 0)?);
        let cluster = ClusterId::of_authority(&certificate)
            .map_err(|error| files::damaged(path, error.to_string()))?;
        let of_key: [u8; 32] =
            Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into();
        if certificate::spki_sha256(&certificate).ok() != Some(of_key) {
            return Err(files::damaged(
                path,
                "its key and its certificate do not belong together",
            ));
        }
        Ok(Some(Self {
            key,
            certificate,
            cluster,
        }))
    }

    /// [`Self::load`], or [`Self::create`] at the first start.
    pub fn load_or_create(path: &Path, now: UnixMs) -> Result<Self, IdentityError> {
        match Self::load(path)? {
            Some(authority) => Ok(authority),
            None => Self::create(path, now),
        }
    }

    /// The cluster that this authority is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate, PEM, for `operator.toml`.
    pub fn certificate_pem(&self) -> String {
        pem::encode(&pem::Pem::new(CERTIFICATE_TAG, self.certificate.to_vec()))
    }

    /// SHA-256 of the authority's certificate, as join tokens carry it.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// Makes a fresh server key and its certificate for the cluster's fixed server name and `localhost`.
    ///
    /// The key is never stored: peers trust the authority, not this key.
    pub fn issue_server(&self, now: UnixMs) -> Result<ServerIdentity, IdentityError> {
        let key = KeyPair::generate()
            .map_err(|error| IdentityError::crypto("make a server key", error))?;
        let mut params = base_params(SERVER_NAME, now, SERVER_LIFE)?;
        params.subject_alt_names = [SERVER_NAME, "localhost"]
            .into_iter()
            .map(|name| name.try_into().map(SanType::DnsName))
            .collect::<Result<_, _>>()
            .map_err(|error| IdentityError::crypto("name the server", error))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .map_err(|error| IdentityError::crypto("sign the server's certificate", error))?;
        Ok(ServerIdentity {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// Signs a node's certificate: the names are ours, only the key is the node's.
    pub fn issue_node(
        &self,
        node: NodeId,
        key: &VerifiedKey,
        now: UnixMs,
        validity: Duration,
    ) -> Result<IssuedCertificate, IdentityError> {
        let mut params = base_params(&format!("node {node}"), now, validity)?;
        let uri = format!("{NODE_URI_PREFIX}{node}");
        let uri = uri
            .as_str()
            .try_into()
            .map_err(|error| IdentityError::crypto("name the node", error))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&key.0, &self.issuer()?)
            .map_err(|error| IdentityError::crypto("sign the node's certificate", error))?;
        let facts = CertificateFacts::parse(certificate.der())?;
        Ok(IssuedCertificate {
            der: certificate.der().to_vec(),
            facts,
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, IdentityError> {
        Issuer::from_ca_cert_der(&self.certificate, &self.key)
            .map_err(|error| IdentityError::crypto("use the cluster's certificate", error))
    }
}

impl fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAuthority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// What a server shows: its key, and the chain of its certificate and the authority's.
pub struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// The authority's certificate, DER.
    pub fn authority_der(&self) -> &[u8] {
        &self.chain[1]
    }

    /// The server's own certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.chain[0]
    }
}

impl Clone for ServerIdentity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

/// A node's certificate, fresh from the authority, and what it says.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// What it says.
    pub facts: CertificateFacts,
}

/// A public key whose owner has shown that it holds the private half.
#[derive(Clone, Debug)]
pub struct VerifiedKey(PublicKey);

impl VerifiedKey {
    /// Checks a signing request's signature and takes its public key; everything else in it is ignored.
    pub fn from_csr(csr_der: &[u8]) -> Result<Self, IdentityError> {
        if csr_der.len() > CSR_BYTES_MAX {
            return Err(IdentityError::Request {
                detail: format!("it has {} bytes, more than {CSR_BYTES_MAX}", csr_der.len()),
            });
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
                .map_err(|error| IdentityError::Request {
                    detail: error.to_string(),
                })?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::Request {
                detail: "its key is not ECDSA P-256".to_owned(),
            });
        }
        Ok(Self(request.public_key))
    }

    /// SHA-256 of the key as DER SubjectPublicKeyInfo; equals that of every certificate issued for it.
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&self.0)).into()
    }
}

fn base_params(
    common_name: &str,
    now: UnixMs,
    life: Duration,
) -> Result<CertificateParams, IdentityError> {
    // A clock before 1970 or a life past the calendar's end would overflow the date below.
    let now_ms = u64::try_from(now.0).unwrap_or(0).min(4_000_000_000_000);
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut serial: [u8; 16] = random::bytes()?;
    // Positive and always 16 bytes long in DER.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = now - BACKDATE.min(life / BACKDATE_SHARE);
    params.not_after = now + life.min(AUTHORITY_LIFE);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

//! Who is believed: the certificate checks of both sides.
//!
//! - An edge believes servers of its own authority, with a clock that never runs behind what it knows for certain.
//! - A joining machine believes the authority whose hash its token carries.
//! - The orchestrator believes certificates of its own authority *at any time of theirs*: an expired node must be able
//!   to come and renew, so its date is judged by the session, which sees it in `PeerIdentity`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use sluice_model::UnixMs;

use crate::error::TlsError;
use crate::identity::validity_seconds;

/// ring, named everywhere, so that nothing depends on a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The latest time that is certain to have passed: a machine without a clock battery starts in 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeFloor(Arc<AtomicU64>);

impl TimeFloor {
    pub(crate) fn new(floor: UnixMs) -> Self {
        Self(Arc::new(AtomicU64::new(
            u64::try_from(floor.0 / 1000).unwrap_or(0),
        )))
    }

    pub(crate) fn raise(&self, to: UnixMs) {
        self.0
            .fetch_max(u64::try_from(to.0 / 1000).unwrap_or(0), Ordering::Relaxed);
    }

    /// The system's time, but never before the floor nor before the start of a certificate: that it was signed
    /// (which is checked next) shows that its start has passed.
    fn now(&self, system: UnixTime, certificate: &CertificateDer<'_>) -> UnixTime {
        let started = validity_seconds(certificate).map_or(0, |(start, _)| start);
        let seconds = system
            .as_secs()
            .max(self.0.load(Ordering::Relaxed))
            .max(started);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }
}

/// An edge's check of its orchestrator.
#[derive(Debug)]
pub(crate) struct AuthorityVerifier {
    inner: Arc<WebPkiServerVerifier>,
    floor: TimeFloor,
}

impl AuthorityVerifier {
    pub(crate) fn new(
        authority: CertificateDer<'static>,
        floor: TimeFloor,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            inner: server_verifier(authority)?,
            floor,
        })
    }
}

impl ServerCertVerifier for AuthorityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = self.floor.now(now, end_entity);
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(foreign_signature_is_unknown_issuer)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A joining machine's check: the chain must hold the authority of the token and be signed by it.
#[derive(Debug)]
pub(crate) struct PinnedAuthorityVerifier {
    authority_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedAuthorityVerifier {
    pub(crate) fn new(authority_sha256: [u8; 32]) -> Self {
        Self {
            authority_sha256,
            provider: provider(),
        }
    }
}

/// The certificate in a chain that has the hash.
pub(crate) fn find_pinned<'a>(
    mut chain: impl Iterator<Item = &'a CertificateDer<'a>>,
    sha256: &[u8; 32],
) -> Option<&'a CertificateDer<'a>> {
    chain.find(|certificate| Sha256::digest(certificate.as_ref())[..] == sha256[..])
}

impl ServerCertVerifier for PinnedAuthorityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = find_pinned(intermediates.iter(), &self.authority_sha256)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let verifier = server_verifier(authority.clone().into_owned())
            .map_err(|error| Error::General(error.to_string()))?;
        let now = TimeFloor::default().now(now, end_entity);
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(foreign_signature_is_unknown_issuer)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The orchestrator's check of nodes: optional (joining machines have no certificate), by authority, at any date.
#[derive(Debug)]
pub(crate) struct NodeVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl NodeVerifier {
    pub(crate) fn new(authority: CertificateDer<'static>) -> Result<Self, TlsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::new)?;
        Ok(Self { inner })
    }
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = match validity_seconds(end_entity) {
            Some((start, end)) if start <= end => {
                UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().clamp(start, end)))
            }
            _ => now,
        };
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

pub(crate) fn roots(authority: CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(TlsError::new)?;
    Ok(Arc::new(roots))
}

fn server_verifier(
    authority: CertificateDer<'static>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(roots(authority)?, provider())
        .build()
        .map_err(TlsError::new)
}

/// A signature that our authority did not make means the same to us as an issuer that we do not know.
fn foreign_signature_is_unknown_issuer(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        }
        other => other,
    }
}

//! Authorities, keys and certificates: made, kept, read back, refused.

use std::os::unix::fs::PermissionsExt;

use quinn::{ConnectionId, ConnectionIdGenerator as _};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use sluice_model::{NodeId, UnixMs};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Cluster, DAY, now};
use crate::identity::{
    CertificateFacts, ClusterAuthority, IdentityError, NodeIdentity, NodeKey, VerifiedKey,
    spki_sha256,
};
use crate::{EndpointKeys, SERVER_NAME};

#[test]
fn an_authority_is_made_once_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authority.pem");
    assert!(ClusterAuthority::load(&path).unwrap().is_none());
    // What a process left that died while writing.
    std::fs::write(directory.path().join("authority.pem.new"), "half").unwrap();
    let made = ClusterAuthority::load_or_create(&path, now()).unwrap();
    let read = ClusterAuthority::load_or_create(&path, now()).unwrap();
    assert_eq!(made.cluster(), read.cluster());
    assert_eq!(made.certificate_sha256(), read.certificate_sha256());
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!directory.path().join("authority.pem.new").exists());
    assert!(matches!(
        ClusterAuthority::create(&path, now()),
        Err(IdentityError::Exists { .. })
    ));
    // What the one signs, the other's certificate verifies: same key.
    assert_eq!(
        spki_sha256(made.certificate_der()).unwrap(),
        spki_sha256(read.certificate_der()).unwrap()
    );
    assert!(
        made.certificate_pem()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
}

#[test]
fn a_damaged_authority_is_named_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authority.pem");
    ClusterAuthority::create(&path, now()).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let other_path = directory.path().join("other.pem");
    ClusterAuthority::create(&other_path, now()).unwrap();
    let other = std::fs::read_to_string(&other_path).unwrap();
    let split = |text: &str| {
        text.split_once("-----BEGIN CERTIFICATE")
            .map(|(key, _)| key.len())
            .unwrap()
    };
    let mixed = format!("{}{}", &whole[..split(&whole)], &other[split(&other)..]);
    let without_certificate = whole[..split(&whole)].to_owned();
    let broken_key = whole.replacen("MI", "AA", 1);
    let huge = "x".repeat(100_000);
    for bad in [
        "",
        "nonsense",
        &mixed,
        &without_certificate,
        &broken_key,
        &huge,
    ] {
        std::fs::write(&path, bad).unwrap();
        let error = ClusterAuthority::load_or_create(&path, now()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("authority.pem"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn names_in_a_request_are_ignored() {
    let cluster = Cluster::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "orchestrator");
    params.subject_alt_names = vec![
        SanType::DnsName(SERVER_NAME.try_into().unwrap()),
        SanType::URI(
            "sluice:node:11111111-1111-4111-9111-111111111111"
                .try_into()
                .unwrap(),
        ),
    ];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let csr = params.serialize_request(&key).unwrap();

    let verified = VerifiedKey::from_csr(csr.der()).unwrap();
    let node = NodeId::from_random([5; 16]);
    let at = UnixMs(1_800_000_000_000);
    let issued = cluster
        .authority
        .issue_node(node, &verified, at, DAY)
        .unwrap();
    assert_eq!(issued.facts, CertificateFacts::parse(&issued.der).unwrap());
    assert_eq!(issued.facts.node, node);
    assert_eq!(issued.facts.spki_sha256, verified.spki_sha256());
    assert_eq!(issued.facts.not_after, UnixMs(at.0 + 24 * 60 * 60 * 1000));
    // A tenth of its life, since a whole day would be all of it.
    assert_eq!(issued.facts.not_before, UnixMs(at.0 - 144 * 60 * 1000));

    let (_, certificate) = X509Certificate::from_der(&issued.der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let uri = format!("sluice:node:{node}");
    assert_eq!(names.value.general_names, vec![GeneralName::URI(&uri)]);
    assert_eq!(certificate.subject().to_string(), format!("CN=node {node}"));
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
}

#[test]
fn every_certificate_has_its_own_serial() {
    let cluster = Cluster::new();
    let key = VerifiedKey::from_csr(&NodeKey::generate().unwrap().csr().unwrap()).unwrap();
    let serials: std::collections::BTreeSet<_> = (0..20)
        .map(|_| {
            cluster
                .authority
                .issue_node(NodeId::from_random([1; 16]), &key, now(), DAY)
                .unwrap()
                .facts
                .serial
        })
        .collect();
    assert_eq!(serials.len(), 20);
}

#[test]
fn a_request_must_prove_its_key() {
    let honest = NodeKey::generate().unwrap().csr().unwrap();
    for index in [honest.len() / 2, honest.len() - 1] {
        let mut forged = honest.clone();
        forged[index] ^= 1;
        assert!(
            matches!(
                VerifiedKey::from_csr(&forged),
                Err(IdentityError::Request { .. })
            ),
            "byte {index}"
        );
    }
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other_kind = CertificateParams::default()
        .serialize_request(&ed25519)
        .unwrap();
    let error = VerifiedKey::from_csr(other_kind.der()).unwrap_err();
    assert!(error.to_string().contains("not ECDSA P-256"), "{error}");
    for bad in [
        vec![],
        vec![0x30; 100],
        vec![0; 100_000],
        honest[..honest.len() - 1].to_vec(),
    ] {
        assert!(matches!(
            VerifiedKey::from_csr(&bad),
            Err(IdentityError::Request { .. })
        ));
    }
}

#[test]
fn an_identity_survives_the_disk_and_renewal_keeps_its_key() {
    let cluster = Cluster::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.pem");
    assert!(NodeIdentity::load(&path).unwrap().is_none());
    let identity = cluster.node(3);
    identity.save(&path).unwrap();
    let read = NodeIdentity::load(&path).unwrap().unwrap();
    assert_eq!(read.facts(), identity.facts());
    assert_eq!(read.authority_der(), cluster.authority.certificate_der());
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let verified = VerifiedKey::from_csr(&read.key().csr().unwrap()).unwrap();
    let issued = cluster
        .authority
        .issue_node(read.facts().node, &verified, now(), DAY * 2)
        .unwrap();
    let renewed = read.renewed(issued.der).unwrap();
    assert_eq!(renewed.facts().spki_sha256, identity.facts().spki_sha256);
    assert_ne!(renewed.facts().serial, identity.facts().serial);
    assert!(
        read.renewed(cluster.node(3).certificate_der().to_vec())
            .is_err(),
        "another key's certificate"
    );

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(
        NodeIdentity::load(&path),
        Err(IdentityError::Damaged { .. })
    ));
}

#[test]
fn only_node_certificates_are_read_as_such() {
    let cluster = Cluster::new();
    let mut trailing = cluster.node(1).certificate_der().to_vec();
    trailing.push(0);
    for not_a_node in [
        cluster.server.certificate_der(),
        cluster.authority.certificate_der(),
        &trailing,
        b"",
        b"\x30",
    ] {
        assert!(matches!(
            CertificateFacts::parse(not_a_node),
            Err(IdentityError::Certificate { .. })
        ));
    }
}

#[test]
fn strange_clocks_make_certificates_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    for (index, at) in [i64::MIN, -1, 0, i64::MAX].into_iter().enumerate() {
        let path = directory.path().join(format!("{index}.pem"));
        let authority = ClusterAuthority::create(&path, UnixMs(at)).unwrap();
        authority.issue_server(UnixMs(at)).unwrap();
        let key = VerifiedKey::from_csr(&NodeKey::generate().unwrap().csr().unwrap()).unwrap();
        authority
            .issue_node(
                NodeId::from_random([1; 16]),
                &key,
                UnixMs(at),
                std::time::Duration::MAX,
            )
            .unwrap();
    }
}

#[test]
fn endpoint_keys_survive_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("endpoint.keys");
    let made = EndpointKeys::load_or_create(&path).unwrap();
    assert_eq!(EndpointKeys::load_or_create(&path).unwrap(), made);
    assert_eq!(
        EndpointKeys::from_slice(&made.to_bytes()),
        Some(made.clone())
    );
    assert_eq!(EndpointKeys::from_slice(&made.to_bytes()[1..]), None);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(
        EndpointKeys::load_or_create(&path),
        Err(IdentityError::Damaged { .. })
    ));
    assert!(!format!("{made:?}").contains(&made.to_bytes()[0].to_string()));
}

#[test]
fn connection_ids_are_known_by_their_key_alone() {
    let keys = EndpointKeys::generate().unwrap();
    let mut ours = keys.connection_ids();
    let after_restart = EndpointKeys::from_slice(&keys.to_bytes())
        .unwrap()
        .connection_ids();
    let strangers = EndpointKeys::generate().unwrap().connection_ids();
    for _ in 0..100 {
        let id = ours.generate_cid();
        assert_eq!(id.len(), ours.cid_len());
        assert!(after_restart.validate(&id).is_ok());
        assert!(strangers.validate(&id).is_err());
        let mut forged = id.to_vec();
        forged[0] ^= 1;
        assert!(ours.validate(&ConnectionId::new(&forged)).is_err());
    }
    assert!(ours.validate(&ConnectionId::new(&[])).is_err());
    assert!(ours.validate(&ConnectionId::new(&[0; 8])).is_err());
}

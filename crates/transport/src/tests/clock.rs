//! Clocks that are years off.

use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sluice_model::UnixMs;

use super::{Cluster, now};
use crate::SERVER_NAME;
use crate::verify::{AuthorityVerifier, NodeVerifier, PinnedAuthorityVerifier, TimeFloor};

const YEAR_S: u64 = 365 * 24 * 60 * 60;

fn check(
    verifier: &dyn ServerCertVerifier,
    chain: &[CertificateDer<'static>],
    name: &str,
    at_s: u64,
) -> bool {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
    verifier
        .verify_server_cert(&chain[0], &chain[1..], &name, &[], at)
        .is_ok()
}

fn verifier(cluster: &Cluster, floor: UnixMs) -> AuthorityVerifier {
    let authority = CertificateDer::from(cluster.authority.certificate_der().to_vec());
    AuthorityVerifier::new(authority, TimeFloor::new(floor)).unwrap()
}

#[test]
fn a_machine_whose_clock_starts_in_1970_believes_its_orchestrator() {
    let cluster = Cluster::new();
    let chain = &cluster.server.chain;
    let pinned = PinnedAuthorityVerifier::new(cluster.authority.certificate_sha256());
    for at_s in [0, now_s() - 10 * YEAR_S, now_s(), now_s() + 10 * YEAR_S] {
        assert!(
            check(&verifier(&cluster, UnixMs(0)), chain, SERVER_NAME, at_s),
            "at {at_s}"
        );
        assert!(
            check(&pinned, chain, SERVER_NAME, at_s),
            "joining at {at_s}"
        );
    }
}

#[test]
fn a_slow_clock_does_not_bring_an_expired_certificate_back() {
    let cluster = Cluster::new();
    let chain = &cluster.server.chain;
    let after_its_end = UnixMs(now().0 + 31 * i64::try_from(YEAR_S).unwrap() * 1000);
    assert!(!check(
        &verifier(&cluster, UnixMs(0)),
        chain,
        SERVER_NAME,
        now_s() + 31 * YEAR_S
    ));
    assert!(!check(
        &verifier(&cluster, after_its_end),
        chain,
        SERVER_NAME,
        0
    ));
    let floor = TimeFloor::new(UnixMs(0));
    let authority = CertificateDer::from(cluster.authority.certificate_der().to_vec());
    let verifier = AuthorityVerifier::new(authority, floor.clone()).unwrap();
    assert!(check(&verifier, chain, SERVER_NAME, 0));
    floor.raise(after_its_end);
    floor.raise(UnixMs(0));
    assert!(
        !check(&verifier, chain, SERVER_NAME, 0),
        "a floor only rises"
    );
}

#[test]
fn only_the_clusters_names_are_believed() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let verifier = verifier(&cluster, UnixMs(0));
    assert!(check(
        &verifier,
        &cluster.server.chain,
        "localhost",
        now_s()
    ));
    assert!(!check(
        &verifier,
        &cluster.server.chain,
        "elsewhere.example",
        now_s()
    ));
    assert!(!check(&verifier, &other.server.chain, SERVER_NAME, now_s()));
    let pinned = PinnedAuthorityVerifier::new([0; 32]);
    assert!(!check(&pinned, &cluster.server.chain, SERVER_NAME, now_s()));
}

#[test]
fn nodes_are_believed_at_any_date_but_only_by_our_authority() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let verifier = NodeVerifier::new(cluster.authority.certificate_der().to_vec().into()).unwrap();
    let ours = CertificateDer::from(cluster.node(1).certificate_der().to_vec());
    let theirs = CertificateDer::from(other.node(1).certificate_der().to_vec());
    for at_s in [0, now_s(), now_s() + 40 * YEAR_S] {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
        assert!(
            verifier.verify_client_cert(&ours, &[], at).is_ok(),
            "at {at_s}"
        );
        assert!(
            verifier.verify_client_cert(&theirs, &[], at).is_err(),
            "at {at_s}"
        );
        assert!(
            verifier
                .verify_client_cert(&cluster.server.chain[0], &[], at)
                .is_err(),
            "a server is no node"
        );
    }
}

fn now_s() -> u64 {
    u64::try_from(now().0 / 1000).unwrap()
}

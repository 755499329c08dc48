//! When a certificate is renewed: at two thirds of its life, by the orchestrator's clock, and again until it is done.
//!
//! No clock is read here. Renewing happens in sessions only, and there the orchestrator has told its time: a machine
//! whose own clock is years off neither renews all the time nor never.

use std::time::Duration;

use sluice_model::UnixMs;
use sluice_transport::identity::CertificateFacts;

/// Longest time between two looks: a timer of months would not notice a machine that slept.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(600);

/// Shortest time between two tries: an orchestrator that cannot sign now must not be asked in a loop.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// A try that was not answered is repeated after this part of the certificate's life: many tries fit into the last
/// third.
const RETRY_SHARE: u32 = 30;

/// How long until `facts`' certificate should be renewed; zero when that time has come.
pub(crate) fn due_in(facts: &CertificateFacts, now: UnixMs) -> Duration {
    let due = facts.not_before.plus(life(facts) / 3 * 2);
    let left_ms = u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0);
    Duration::from_millis(left_ms)
}

/// How long to wait before looking again, after [`due_in`] said this.
pub(crate) fn look_again(facts: &CertificateFacts, due_in: Duration) -> Duration {
    if due_in.is_zero() {
        (life(facts) / RETRY_SHARE).clamp(RETRY_MIN, LOOK_EVERY_MAX)
    } else {
        due_in.min(LOOK_EVERY_MAX)
    }
}

fn life(facts: &CertificateFacts) -> Duration {
    let life_ms = facts.not_after.0.saturating_sub(facts.not_before.0);
    Duration::from_millis(u64::try_from(life_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::NodeId;
    use sluice_transport::identity::{ClusterAuthority, NodeKey, VerifiedKey};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MADE: UnixMs = UnixMs(1_800_000_000_000);

    fn certificate(life: Duration) -> CertificateFacts {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let authority = ClusterAuthority::create(&path, MADE).unwrap();
        let key = VerifiedKey::from_csr(&NodeKey::generate().unwrap().csr().unwrap()).unwrap();
        let node = NodeId::from_random([1; 16]);
        authority.issue_node(node, &key, MADE, life).unwrap().facts
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        for life in [Duration::from_secs(5), DAY, 90 * DAY, 3650 * DAY] {
            let facts = certificate(life);
            let fresh = due_in(&facts, MADE);
            assert!(
                fresh > life / 2 && fresh <= life / 3 * 2,
                "{life:?}: {fresh:?}"
            );
            assert!(look_again(&facts, fresh) <= LOOK_EVERY_MAX);
            let at_three_quarters = MADE.plus(life / 4 * 3);
            assert_eq!(due_in(&facts, at_three_quarters), Duration::ZERO);
            assert_eq!(due_in(&facts, facts.not_after), Duration::ZERO);
            let left = Duration::from_millis(
                u64::try_from(facts.not_after.0 - MADE.plus(life / 3 * 2).0).unwrap(),
            );
            let tries = left.as_millis() / look_again(&facts, Duration::ZERO).as_millis();
            assert!(tries >= 3, "{life:?}: {tries}");
        }
    }

    #[test]
    fn case_51_a_clock_that_is_no_time_at_all_overflows_nothing() {
        let facts = certificate(DAY);
        assert!(due_in(&facts, UnixMs(0)) > 1000 * DAY);
        assert_eq!(due_in(&facts, UnixMs(i64::MAX)), Duration::ZERO);
        assert!(due_in(&facts, UnixMs(i64::MIN)) > DAY);
    }
}

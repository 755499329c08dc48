//! The edge's store: what is written is read back, and each call can fail.

#![allow(clippy::unwrap_used)]

use super::*;
use sluice_agent::{Assignment, BringUp, EndedHow, FailedTries, Label};
use sluice_model::{Attempt, Desired, FailReason, JobId, Slot, Version};

impl Store {
    /// Something changes the file under the running process.
    pub(crate) fn damage(&mut self, sql: &str) {
        self.connection.execute(sql, []).unwrap();
    }
}

fn full_meta() -> Meta {
    Meta {
        incarnation: Some(Incarnation::from_random([1; 16])),
        boot_counter: BootCounter(3),
        life: Some((Epoch(2), LifeNonce::from_random([2; 16]))),
        desired_rev: Revision(9),
        desired_digest: SetDigest::EMPTY.with(RowHash::of(b"x")),
        observed_rev: Revision(4),
        node: Some((NodeId::from_random([4; 16]), "e1".parse().unwrap())),
        server_time: UnixMs(-5),
        suspended: Some("revoked".to_owned()),
    }
}

#[test]
fn facts_and_rows_survive_and_uncommitted_ones_do_not() {
    let mut store = Store::in_memory().unwrap();
    assert_eq!(store.meta().unwrap(), Meta::default());
    store.begin().unwrap();
    store.put_meta(&Meta::default(), &full_meta()).unwrap();
    store
        .put_desired(b"k", b"row", RowHash::of(b"row"))
        .unwrap();
    store.commit().unwrap();
    store.begin().unwrap();
    let without = Meta {
        suspended: None,
        node: None,
        ..full_meta()
    };
    store.put_meta(&full_meta(), &without).unwrap();
    store.remove_desired(b"k").unwrap();
    assert_eq!(store.meta().unwrap(), without);
    let mut store = Store::from_connection(store.into_connection()).unwrap();
    assert_eq!(store.meta().unwrap(), full_meta());
    assert_eq!(store.desired().unwrap().len(), 1);
}

#[test]
fn observed_changes_are_told_after_a_revision_and_outcomes_until_received() {
    let mut store = Store::in_memory().unwrap();
    store.put_live(b"a", Revision(1), b"a1").unwrap();
    store.put_live(b"b", Revision(2), b"b2").unwrap();
    store.put_outcome(b"o", Revision(2), b"o2").unwrap();
    store.put_outcome(b"o", Revision(3), b"another").unwrap();
    store.remove_live(b"a", Revision(3)).unwrap();
    let after = |store: &mut Store, rev| store.observed_after(Revision(rev)).unwrap();
    let all = after(&mut store, 0);
    assert_eq!(all.upserts, [(b"b".to_vec(), b"b2".to_vec())]);
    assert_eq!(all.removed, [b"a".to_vec()]);
    assert_eq!(all.outcomes, [(b"o".to_vec(), b"o2".to_vec())]);
    assert_eq!(after(&mut store, 2).removed, [b"a".to_vec()]);
    assert!(after(&mut store, 2).upserts.is_empty());
    store.observed_received(Revision(2)).unwrap();
    assert!(store.outcomes().unwrap().is_empty());
    assert_eq!(
        after(&mut store, 0).removed,
        [b"a".to_vec()],
        "not received yet"
    );
    store.put_live(b"a", Revision(4), b"a4").unwrap();
    assert!(after(&mut store, 0).removed.is_empty(), "it is back");
    store.renumber_observed(Revision(9)).unwrap();
    assert_eq!(after(&mut store, 8).upserts.len(), 2);
}

#[test]
fn local_facts_round_trip_and_foreign_ones_are_left_out() {
    let mut store = Store::in_memory().unwrap();
    let execution = ExecutionId::from_random([7; 16]);
    let label = Label {
        version: Version(2),
        attempt: Attempt(3),
    };
    let started = Assignment {
        execution,
        job: JobId::from_random([8; 16]),
        job_name: "a-job".parse().unwrap(),
        label,
        desired: Desired::Run,
        slot: Slot(0),
        spec: Digest::of(b"spec"),
        once: true,
    };
    for ended in [
        EndedHow::Completed,
        EndedHow::Failed {
            reason: FailReason::Configure,
            message: "no".to_owned(),
        },
        EndedHow::Quarantined {
            message: "too often".to_owned(),
        },
    ] {
        let local = Local {
            execution,
            started: Some(started.clone()),
            ended: Some((label, ended)),
            restarts: 5,
            bring_ups: vec![BringUp {
                label,
                in_progress: true,
                deaths: 2,
            }],
            tries: Some(FailedTries {
                label,
                failed: 3,
                took_ms: 7_500,
            }),
            leftover_ms: Some(6),
        };
        store.put_local(&local).unwrap();
        assert_eq!(store.locals().unwrap(), [local]);
    }
    store
        .connection
        .execute("UPDATE local SET facts = x'00'", [])
        .unwrap();
    assert!(store.locals().unwrap().is_empty());
}

#[test]
fn case_77_a_newer_format_is_refused() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("PRAGMA user_version = 2").unwrap();
    let error = Store::from_connection(connection).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2 }), "{error}");
}

#[test]
fn a_fault_point_fails_what_it_names() {
    let mut store = Store::in_memory().unwrap();
    store.set_fault_point(Some(Box::new(|at| match at {
        "put_spec" => Err(StoreError::Full),
        _ => Ok(()),
    })));
    store.begin().unwrap();
    assert!(
        store
            .put_spec(Digest::of(b"s"), b"s")
            .unwrap_err()
            .is_full()
    );
    store.rollback().unwrap();
    store.rollback().unwrap();
}

#[test]
fn opening_a_store_that_is_there_writes_nothing() {
    let connection = Store::in_memory().unwrap().into_connection();
    connection.execute_batch("PRAGMA query_only = ON").unwrap();
    let mut store = Store::from_connection(connection).unwrap();
    assert_eq!(store.meta().unwrap(), Meta::default());
}

#[test]
fn a_full_disk_is_told_apart_from_a_broken_one() {
    let mut store = Store::in_memory().unwrap();
    store
        .connection
        .execute_batch("PRAGMA max_page_count = 20")
        .unwrap();
    let error = store
        .put_spec(Digest::of(b"s"), &vec![1; 1 << 20])
        .unwrap_err();
    assert!(error.is_full(), "{error:?}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.db");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("join again"), "{error}");
}

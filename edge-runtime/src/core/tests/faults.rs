//! Crashes and errors at every step, full disks, flipped bits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_agent::Ending;
use sluice_model::{Desired, ObservedPhase};

use super::rig::{Rig, id};
use crate::store::{Store, StoreError};

/// Makes the store call number `at` fail, counted from now on.
fn fail_at(rig: &mut Rig, at: usize, error: fn(&'static str) -> StoreError) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    rig.core()
        .store_mut()
        .set_fault_point(Some(Box::new(move |point| {
            if counted.fetch_add(1, Ordering::Relaxed) == at {
                return Err(error(point));
            }
            Ok(())
        })));
    calls
}

fn injected(at: &'static str) -> StoreError {
    StoreError::Injected { at }
}

/// A store's file, and the log beside it.
fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[test]
fn case_45_a_torn_tail_of_the_log_is_cut_and_the_session_closes_the_gap() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_of = |path: &Path| std::fs::read(path).unwrap();
    // The power goes while the last commit is being written: some of it is on the disk, or all but a wrong byte.
    for eighths in (0..8).chain([9]) {
        let path = directory.path().join(format!("{eighths}.db"));
        let mut rig = Rig::without_core();
        rig.boot(Store::open(&path).unwrap()).unwrap();
        rig.connect();
        rig.order(1, 1, 1, Desired::Run, "a");
        rig.sync();
        let known = rig.core().desired_position();
        let before = bytes_of(&log_of(&path)).len();
        rig.order(1, 2, 1, Desired::Run, "a2");
        let frame = sluice_protocol::encode(&rig.fake.delta(Some(rig.fake.acked)));
        let (connection, now) = (rig.core().session().unwrap(), rig.now);
        let inputs = vec![super::super::Input::Frame { connection, frame }];
        // Nothing of it left the process.
        drop(rig.core().handle(inputs, now).unwrap());
        assert_ne!(rig.core().desired_position(), known);
        let (file, mut log) = (bytes_of(&path), bytes_of(&log_of(&path)));
        let written = log.len() - before;
        assert!(written > 4096, "{written} bytes");
        if eighths > 8 {
            log[before + written / 2] ^= 1;
        } else {
            log.truncate(before + written * eighths / 8);
        }
        let torn = directory.path().join(format!("{eighths}-torn.db"));
        std::fs::write(&torn, file).unwrap();
        std::fs::write(log_of(&torn), log).unwrap();

        rig.boot(Store::open(&torn).unwrap()).unwrap();
        assert_eq!(rig.core().desired_position(), known, "{eighths}");
        rig.connect();
        assert!(rig.runs(1, "a2"), "{eighths}");
        rig.assert_in_sync();
    }
}

/// A life with everything in it; returns early when the store fails.
fn live(rig: &mut Rig) -> Result<(), StoreError> {
    rig.try_connect()?;
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.order(3, 1, 1, Desired::Run, "c");
    step(rig)?;
    rig.order(1, 2, 1, Desired::Run, "a2");
    rig.order(3, 1, 1, Desired::Stop, "c");
    step(rig)?;
    if let Some((ticket, _)) = rig.machine.running.remove(&id(2)) {
        rig.try_input(super::super::Input::Ended {
            ticket,
            ending: Ending::Completed,
            counters: crate::runner::Counters::default(),
        })?;
    }
    rig.order(3, 1, 1, Desired::Purge, "c");
    step(rig)
}

fn step(rig: &mut Rig) -> Result<(), StoreError> {
    let delta = rig.fake.delta(Some(rig.fake.acked));
    let frame = sluice_protocol::encode(&delta);
    let Some(connection) = rig.core().session() else {
        return Ok(());
    };
    rig.try_input(super::super::Input::Frame { connection, frame })
}

fn assert_end(rig: &mut Rig, at: usize) {
    assert!(rig.runs(1, "a2"), "{at}");
    assert!(!rig.machine.running.contains_key(&id(3)), "{at}");
    assert_eq!(rig.seen(3).phase, ObservedPhase::Purged, "{at}");
    assert!(rig.machine.purges.contains(&id(3)), "{at}");
    rig.assert_in_sync();
    let v1_after_v2 = rig
        .machine
        .starts
        .iter()
        .skip_while(|it| **it != (id(1), 2, 1));
    assert!(
        v1_after_v2.filter(|it| it.0 == id(1)).all(|it| it.1 == 2),
        "{at}: never back"
    );
    let completed = rig
        .fake
        .outcomes
        .iter()
        .filter(|it| it.execution == id(2))
        .count();
    assert!(completed <= 1, "{at}");
}

/// Everything is ordered again after the fault, so that each run ends with the same desired set.
fn finish(rig: &mut Rig) {
    rig.connect();
    rig.order(1, 2, 1, Desired::Run, "a2");
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.order(3, 1, 1, Desired::Purge, "c");
    rig.sync();
    rig.pass(Duration::from_secs(30));
}

#[test]
fn case_98_a_crash_at_every_store_call_heals() {
    let mut clean = Rig::new();
    let calls = fail_at(&mut clean, usize::MAX, injected);
    live(&mut clean).unwrap();
    let total = calls.load(Ordering::Relaxed);
    assert!(total > 100, "{total}");
    for at in 0..total {
        let mut rig = Rig::new();
        fail_at(&mut rig, at, injected);
        live(&mut rig).unwrap_err();
        rig.crash();
        finish(&mut rig);
        assert_end(&mut rig, at);
    }
}

#[test]
fn a_crash_at_every_store_call_of_a_start_heals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.db");
    for at in 0.. {
        // What is left of the last round goes, so that each starts from the same disk.
        for file in std::fs::read_dir(directory.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        let mut rig = Rig::without_core();
        rig.boot(Store::open(&path).unwrap()).unwrap();
        live(&mut rig).unwrap();
        drop(rig.core.take());
        let mut store = Store::open(&path).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        store.set_fault_point(Some(Box::new(move |point| {
            match counted.fetch_add(1, Ordering::Relaxed) == at {
                true => Err(injected(point)),
                false => Ok(()),
            }
        })));
        let booted = rig.boot(store);
        if calls.load(Ordering::Relaxed) <= at {
            assert!(at > 20 && booted.is_ok(), "{at}");
            return;
        }
        booted.unwrap_err();
        drop(rig.core.take());
        rig.boot(Store::open(&path).unwrap()).unwrap();
        finish(&mut rig);
        assert_end(&mut rig, at);
    }
}

#[test]
fn case_42_a_full_disk_acknowledges_nothing_and_stops_nothing() {
    let mut rig = Rig::new();
    rig.connect();
    rig.order(1, 1, 1, Desired::Run, "a");
    rig.sync();
    let acked = rig.fake.acked;
    rig.core()
        .store_mut()
        .set_fault_point(Some(Box::new(|point| match point {
            "put_desired" | "put_outcome" | "put_live" | "put_local" => Err(StoreError::Full),
            _ => Ok(()),
        })));
    rig.order(2, 1, 1, Desired::Run, "b");
    rig.sync();
    assert_eq!(rig.fake.acked, acked);
    assert!(rig.runs(1, "a") && !rig.machine.running.contains_key(&id(2)));
    assert!(!rig.is_connected());
    assert_eq!(rig.closes[0].code, "disk-full");

    assert!(rig.core().waits_for_room() && !rig.core().retains_an_end());
    rig.end(1, Ending::Completed);
    assert!(rig.core().retains_an_end());
    rig.pass(Duration::from_secs(5));
    assert!(rig.core().waits_for_room() && rig.fake.outcomes.is_empty());
    rig.core().store_mut().set_fault_point(None);
    rig.pass(Duration::from_secs(2));
    assert!(!rig.core().waits_for_room());
    rig.connect();
    assert_eq!(
        rig.fake.outcomes.len(),
        1,
        "what happened meanwhile is not forgotten"
    );
    assert!(rig.runs(2, "b"));
    assert_eq!(rig.machine.starts.len(), 2);
    rig.assert_in_sync();
}

#[test]
fn a_full_disk_at_every_store_call_heals_by_itself() {
    let mut clean = Rig::new();
    let calls = fail_at(&mut clean, usize::MAX, injected);
    live(&mut clean).unwrap();
    for at in 0..calls.load(Ordering::Relaxed) {
        let mut rig = Rig::new();
        fail_at(&mut rig, at, |_| StoreError::Full);
        live(&mut rig).unwrap();
        rig.core().store_mut().set_fault_point(None);
        rig.pass(Duration::from_secs(2));
        finish(&mut rig);
        assert_end(&mut rig, at);
    }
}

#[test]
fn case_46_a_text_that_was_damaged_meanwhile_ends_the_process_and_the_next_one_mends_it() {
    for sql in [
        "UPDATE specs SET bytes = x'00'",
        "UPDATE specs SET bytes = zeroblob(70)",
        "DELETE FROM specs",
    ] {
        let mut rig = Rig::new();
        rig.connect();
        rig.order(1, 1, 1, Desired::Run, "a");
        rig.sync();
        rig.damage(sql);
        // It is only read again when it is to be prepared again.
        let (ticket, _) = rig.machine.running.remove(&id(1)).unwrap();
        rig.input(super::super::Input::Ended {
            ticket,
            ending: Ending::Backoff("no such file".to_owned()),
            counters: crate::runner::Counters::default(),
        });
        rig.now = rig.now.plus(Duration::from_secs(2));
        let error = rig.try_input(super::super::Input::Tick).unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }), "{error}");
        assert!(
            error.to_string().contains("start the edge again"),
            "{error}"
        );
        rig.crash();
        rig.connect();
        assert!(rig.runs(1, "a"), "{sql}");
        rig.assert_in_sync();
    }
}

#[test]
fn case_46_a_flipped_bit_in_a_row_is_noticed_and_the_work_runs_on() {
    let flip = [
        "UPDATE desired SET body = x'00'",
        "UPDATE desired SET hash = x'00'",
        "DELETE FROM desired",
        "UPDATE specs SET bytes = x'00'",
    ];
    for sql in flip {
        let mut rig = Rig::new();
        rig.connect();
        rig.order(1, 1, 1, Desired::Run, "a");
        rig.sync();
        let store = rig.core.take().unwrap().into_store();
        let connection = store.into_connection();
        connection.execute(sql, []).unwrap();
        rig.boot(Store::from_connection(connection).unwrap())
            .unwrap();
        let text_is_lost = sql.contains("specs");
        assert_eq!(rig.runs(1, "a"), !text_is_lost, "{sql}");
        assert!(rig.machine.purges.is_empty());
        rig.crash();
        assert_eq!(
            rig.runs(1, "a"),
            !text_is_lost,
            "{sql}: also after another restart"
        );
        rig.connect();
        assert!(!rig.fake.resyncs.is_empty(), "{sql}");
        assert!(rig.runs(1, "a"), "{sql}");
        rig.assert_in_sync();
        assert_eq!(rig.seen(1).phase, ObservedPhase::Running);
    }
}

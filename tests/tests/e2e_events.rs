//! Watching with real processes: hints come when something changed, and a restart is said, not passed over.

#![allow(clippy::unwrap_used)]

use sluice_api::{EventKind, Run};
use sluice_model::RunState;
use sluice_tests::e2e::{Cluster, Watch, wait};

const DAEMON: &str = "name = \"steady\"\n[input.generate]\ninterval = \"100ms\"\ntemplate = \"x\"\n[output.discard]\n";
const BATCH: &str = "name = \"once\"\nkind = \"batch\"\n[input.generate]\ncount = 3\ntemplate = \"x\"\n[output.discard]\n";

#[test]
fn a_watcher_sees_a_deploy_an_execution_a_run_and_that_a_restart_made_it_miss_something() {
    let mut cluster = Cluster::start(&["e1"]);
    let context = cluster.context_file();
    let all = Watch::open(&context, "", None);
    let of_runs = Watch::open(&context, "?kind=run&job=once", None);

    cluster.try_deploy(DAEMON).json::<serde_json::Value>();
    all.wait("the deploy", |event| {
        event.kind == EventKind::Job && event.name.as_deref() == Some("steady")
    });
    let running = cluster.wait_running("steady", "e1");
    let id = running.id.to_string();
    all.wait("the execution", |event| {
        event.kind == EventKind::Execution
            && event.id.as_deref() == Some(&id)
            && event
                .node
                .as_ref()
                .is_some_and(|node| node.as_str() == "e1")
    });

    cluster.try_deploy(BATCH).json::<serde_json::Value>();
    let launched = cluster.sluice(&["run", "launch", "once"]);
    assert_eq!(launched.code, 0, "{launched:?}");
    let id = launched.stdout.trim().to_owned();
    // Whoever asks with each hint sees the end: the last one is not older.
    let last = wait::until("a hint of the run's end", || {
        let run: Run = cluster
            .sluice(&["run", "describe", &id, "--output", "json"])
            .json();
        let told = of_runs.told();
        let newest = told
            .iter()
            .rev()
            .find(|(_, event)| event.id.as_deref() == Some(&id));
        match (run.state, newest) {
            (RunState::Completed, Some((last, event))) if run.ended_at.unwrap() <= event.at => {
                Ok(last.clone())
            }
            _ => Err(format!("{run:?} {told:?}")),
        }
    });
    let told = of_runs.told();
    assert!(
        told.iter().all(|(_, event)| event.kind == EventKind::Run),
        "{told:?}"
    );

    // Within one life a watcher goes on where it was cut.
    let resumed = Watch::open(&context, "?kind=run", Some(&told[0].0));
    resumed.wait("the run's end again", |event| {
        event.id.as_deref() == Some(&id)
    });
    assert!(
        resumed
            .told()
            .iter()
            .all(|(_, event)| event.kind == EventKind::Run)
    );

    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    let after = Watch::open(&context, "", Some(&last));
    let missed = after.wait("word that something was missed", |event| {
        event.kind == EventKind::Missed
    });
    assert_eq!(after.told()[0].0, missed, "it comes first");
    cluster
        .try_deploy(&DAEMON.replace("steady", "later"))
        .json::<serde_json::Value>();
    after.wait("the next deploy", |event| {
        event.kind == EventKind::Job && event.name.as_deref() == Some("later")
    });
}

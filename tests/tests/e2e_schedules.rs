//! Schedules with real processes and `kill -9`: every tick launches at most one run, and a pause stops it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_api::{Run, Schedule, ScheduleDetail, ScheduleTick, TICKS_SHOWN};
use sluice_model::{RunState, TickOutcome};
use sluice_tests::e2e::{Cluster, wait};

const JOB: &str = "name = \"blink\"\nkind = \"batch\"\n[params]\ntag = { type = \"string\" }\n\
    [input.generate]\ncount = 1\ntemplate = '${param.tag}'\n[output.file]\npath = \"blink.out\"\n";

fn history(cluster: &Cluster) -> Vec<ScheduleTick> {
    let args = ["schedule", "history", "often", "--limit", "1000"];
    cluster
        .sluice(&[&args[..], &["--output", "json"]].concat())
        .json()
}

fn completed(cluster: &Cluster) -> usize {
    let is_completed = |tick: &&ScheduleTick| tick.state == Some(RunState::Completed);
    history(cluster).iter().filter(is_completed).count()
}

#[track_caller]
fn wait_completed(cluster: &Cluster, count: usize) {
    wait::until("ticks whose runs completed", || match completed(cluster) {
        found if found >= count => Ok(()),
        found => Err(format!("{found} of {count}")),
    });
}

#[test]
fn case_33_each_tick_launches_at_most_one_run_though_the_orchestrator_is_killed_midway() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.try_deploy(JOB).json::<serde_json::Value>();
    let create = [
        "schedule", "create", "often", "--job", "blink", "--every", "1s",
    ];
    cluster
        .sluice(&create)
        .fails(2, &["needs the parameter `tag`"]);
    let wrong = [
        "schedule", "create", "x", "--job", "blink", "--param", "tag=x",
    ];
    cluster
        .sluice(&[&wrong[..], &["--cron", "0 25 * * *"]].concat())
        .fails(2, &["`0 25 * * *` is no cron expression", "five fields"]);
    cluster
        .sluice(&[&wrong[..], &["--cron", "@daily", "--tz", "Berlin"]].concat())
        .fails(2, &["is it Europe/Berlin?"]);
    let more = [
        "--param",
        "tag=tick",
        "--catch-up",
        "all",
        "--overlap",
        "allow",
    ];
    let made = cluster.sluice(&[&create[..], &more].concat());
    assert_eq!(made.code, 0, "{made:?}");
    wait_completed(&cluster, 2);
    let listed: Vec<Value> = cluster
        .sluice(&["schedule", "list", "--output", "json"])
        .json();
    // The names that scripts rely on.
    let told = &listed[0];
    for (key, expected) in [("name", "often"), ("job", "blink")] {
        assert_eq!(told[key], expected);
    }
    assert_eq!(told["enabled"], true);
    assert!(told["next_run_at"].as_str().unwrap().ends_with('Z'));
    assert!(told["last_run"]["id"].is_string(), "{told}");
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    let before = completed(&cluster);
    wait_completed(&cluster, before + 3);

    let paused = cluster.sluice(&["schedule", "pause", "often", "--output", "json"]);
    let schedule: Schedule = paused.json();
    assert!(!schedule.enabled && schedule.next_run_at.is_none());
    let ticks = wait::until("what was launched to end", || {
        let ticks = history(&cluster);
        match ticks
            .iter()
            .find(|it| it.state != Some(RunState::Completed))
        {
            Some(open) => Err(format!("{open:?}")),
            None => Ok(ticks),
        }
    });
    let mut times: Vec<i64> = ticks.iter().map(|tick| tick.scheduled_for.0).collect();
    times.reverse();
    for pair in times.windows(2) {
        assert_eq!(
            pair[1] - pair[0],
            1_000,
            "none is left out, none is there twice"
        );
    }
    assert_eq!((times[0] - schedule.created_at.0) % 1_000, 0);
    let runs: BTreeSet<_> = ticks.iter().map(|tick| tick.run.unwrap()).collect();
    assert_eq!(runs.len(), ticks.len());
    let list = ["run", "list", "--limit", "1000", "--output", "json"];
    let all: Vec<Run> = cluster.sluice(&list).json();
    assert_eq!(all.len(), ticks.len(), "no run without its tick");
    assert!(
        all.iter()
            .all(|run| run.schedule.as_ref().unwrap().as_str() == "often")
    );
    assert_eq!(cluster.lines("e1", "blink.out").len(), ticks.len());
    assert!(ticks.iter().all(|it| it.outcome == TickOutcome::Launched));

    // Another run that a person launches shows that time passes, and that no tick comes in it.
    let waited = cluster.sluice(&[
        "run",
        "launch",
        "blink",
        "--param",
        "tag=by-hand",
        "--wait=40s",
    ]);
    assert_eq!(waited.code, 0, "{waited:?}");
    assert_eq!(history(&cluster).len(), ticks.len());
    let resumed = cluster.sluice(&["schedule", "resume", "often"]);
    assert!(resumed.stdout.contains("next at"), "{resumed:?}");
    wait_completed(&cluster, ticks.len() + 1);

    let deleted = cluster.sluice(&["job", "delete", "blink", "--yes"]);
    assert!(
        deleted
            .stderr
            .contains("the schedule often still names blink"),
        "{deleted:?}"
    );
    wait::until("a refused tick", || {
        match history(&cluster)
            .iter()
            .find(|it| it.outcome == TickOutcome::Refused)
        {
            Some(tick) if tick.why.as_ref().unwrap().contains("no job blink") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let detail: ScheduleDetail = cluster
        .sluice(&["schedule", "describe", "often", "--output", "json"])
        .json();
    assert!(detail.schedule.last_run.is_some());
    // It shows the newest twenty of its history, and a tick a second may have come since.
    let told = history(&cluster);
    let shown: Vec<_> = detail.ticks.iter().map(|tick| tick.scheduled_for).collect();
    let newest: Vec<_> = told.iter().map(|tick| tick.scheduled_for).collect();
    let at = newest.iter().position(|at| Some(at) == shown.first());
    let newest = &newest[at.expect("it is in the history")..];
    assert_eq!(shown, newest[..newest.len().min(TICKS_SHOWN as usize)]);
    let gone = cluster.sluice(&["schedule", "delete", "often", "--yes"]);
    assert_eq!(gone.code, 0, "{gone:?}");
    cluster
        .sluice(&["schedule", "describe", "often"])
        .fails(3, &["no schedule often", "schedule list"]);
}

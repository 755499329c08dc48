//! What people and programs see, line by line.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use sluice_api::{JobKind, Status};
use sluice_model::{Digest, ExecutionState, JobState, NodeState};

use super::*;

const PLAIN: Style = Style {
    terminal: false,
    color: false,
};

#[test]
fn plain_tables_are_columns_without_lines() {
    let list = [
        fixtures::node("e1", NodeState::Connected),
        fixtures::node("edge-number-2", NodeState::Held),
    ];
    assert_eq!(
        nodes(PLAIN, &list),
        "NAME           STATE      EXECUTIONS  LABELS        LAST SEEN             NOTE\n\
         e1             connected  1           site=plant-7  2026-11-22T10:00:00Z  -\n\
         edge-number-2  held       1           site=plant-7  2026-11-22T10:00:00Z  it knows revision 9, and we are at 7\n"
    );
    assert_eq!(
        jobs(PLAIN, &[fixtures::job("field-temps", JobState::Running)]),
        "NAME         KIND    VERSION  STATE    DESIRED  RUNNING  WAITING  FAILED  COMPLETED  UPDATED\n\
         field-temps  daemon  2        running  2        1        1        0       0          2026-11-22T10:00:00Z\n"
    );
    let list = [
        fixtures::running("e1"),
        fixtures::away("e2"),
        fixtures::backing_off("e3"),
    ];
    assert_eq!(
        executions(PLAIN, &list),
        "JOB          NODE  VERSION  DESIRED  STATE                     IN    OUT  DEAD  REASON                                      NEXT\n\
         field-temps  e1    2        run      running                   2000  520  3     -                                           -\n\
         field-temps  e2    2        run      pending/waiting-for-node  0     0    0     e2 is disconnected since 09:58              when e2 connects\n\
         field-temps  e3    2        run      pending/backoff           2000  520  3     cannot open in.log: \\u{1b}[31mno such file  try again at 2026-11-22T10:00:05Z\n"
    );
    let text = plugins(PLAIN, &[fixtures::plugin()]);
    assert!(
        text.contains("  120.6 KiB  transform  1        a@1, b@2\n"),
        "{text}"
    );
}

#[test]
fn a_component_and_a_token_are_described() {
    let mut detail = sluice_api::PluginDetail {
        plugin: fixtures::plugin(),
        exports: vec!["sluice:pipeline/stage@0.1.0".to_owned()],
        uploaded_at: Some(sluice_model::UnixMs(0)),
        uploaded_by: Some("ci".to_owned()),
    };
    let text = plugin_detail(&detail);
    assert!(
        text.ends_with(
            "world:    transform\nuploaded: 1970-01-01T00:00:00Z\nby:       ci\nin use:   by job versions\n\
             imports:\n  sluice:pipeline/log@0.1.0\nexports:\n  sluice:pipeline/stage@0.1.0\n\
             job versions:\n  a@1\n  b@2\n"
        ),
        "{text}"
    );
    detail.plugin.used_by.clear();
    detail.plugin.in_use = false;
    let text = plugin_detail(&detail);
    assert!(text.contains("no: it is forgotten"), "{text}");
    assert!(text.ends_with("job versions: none\n"), "{text}");

    let token = sluice_api::Token {
        id: sluice_model::TokenId::from_random([7; 16]),
        kind: sluice_model::TokenKind::Api,
        state: sluice_model::TokenState::Revoked,
        node: None,
        rejoin: false,
        uses_left: None,
        expires_at: sluice_model::UnixMs(60_000),
        ended_at: Some(sluice_model::UnixMs(1_000)),
        created_at: sluice_model::UnixMs(0),
        created_by: Some("operator.toml".to_owned()),
        role: Some(sluice_model::Role::Deployer),
        name: Some("ci\u{1b}".to_owned()),
    };
    let text = token_detail(&token);
    let rest = text.split_once('\n').unwrap().1;
    assert_eq!(
        rest,
        "for:       the API as deployer: ci\\u{1b}\nstate:     revoked\nuses left: any\n\
         created:   1970-01-01T00:00:00Z\nby:        operator.toml\nexpires:   1970-01-01T00:01:00Z\n\
         ended:     1970-01-01T00:00:01Z\n"
    );
    let listed = tokens(PLAIN, &[token]);
    assert!(listed.contains("  revoked  any "), "{listed}");
}

#[test]
fn a_terminal_gets_lines_and_colours_only_when_it_wants_them() {
    let list = [fixtures::node("e1", NodeState::Connected)];
    let lines = Style {
        terminal: true,
        color: false,
    };
    let text = nodes(lines, &list);
    assert!(text.contains('─'), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn explain_says_for_each_node_why_and_what_comes_next() {
    let text = explain(PLAIN, &fixtures::explain());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "field-temps version 2 is running: it runs on every connected node that matches"
    );
    for (line, parts) in [
        (
            3,
            [
                "e1 (connected)",
                "yes",
                "running",
                "revision 7 at 2026-11-22T10:00:00Z",
            ]
            .as_slice(),
        ),
        (
            4,
            &[
                "e2 (disconnected)",
                "pending/waiting-for-node",
                "e2 is disconnected since 09:58",
                "when e2 connects",
                "7 is on its way",
            ],
        ),
        (5, &["e3 (connected)", "no", "its label site is `plant-9`"]),
    ] {
        for part in parts {
            assert!(lines[line].contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn one_thing_is_described_field_by_field() {
    let text = execution_detail(&fixtures::backing_off("e3"));
    for line in [
        "state:      pending/backoff\n",
        "reason:     cannot open in.log: \\u{1b}[31mno such file\n",
        "next:       try again at 2026-11-22T10:00:05Z\n",
        "records:    2000 in, 520 out, 3 dead letters\n",
        "observed:   running (version 2, attempt 1) at 2026-11-22T10:00:00Z\n",
        "assignment: revision 7, received: yes\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let text = job_detail(PLAIN, &fixtures::job_detail());
    assert!(
        text.contains("nodes:      site=plant-7|plant-8\n"),
        "{text}"
    );
    assert!(text.contains("stage: drop-debug, sha256:"), "{text}");
    assert!(
        text.ends_with("\n  name = \"field-temps\"\n  [input.generate]\n"),
        "{text}"
    );
    let text = node_detail(PLAIN, &fixtures::node_detail());
    assert!(
        text.contains("7, received 6 at 2026-11-22T10:00:00Z"),
        "{text}"
    );
    assert!(!text.contains("held because"), "{text}");
}

#[test]
fn an_empty_cluster_says_what_to_do_first() {
    let mut everything = Status {
        version: "0.1.0".to_owned(),
        nodes: Vec::new(),
        jobs: Vec::new(),
        waiting: Vec::new(),
        unplaced: Vec::new(),
        schedules: Vec::new(),
        tasks_waiting: 0,
        waiting_tasks: Vec::new(),
    };
    let text = status(PLAIN, &everything);
    assert!(text.contains("sluice token create"), "{text}");
    assert!(text.contains("sluice deploy"), "{text}");
    everything.jobs.push(fixtures::job("a", JobState::Running));
    assert!(status(PLAIN, &everything).ends_with("Nothing waits.\n"));
    everything.jobs.push(fixtures::job("b", JobState::Queued));
    assert!(status(PLAIN, &everything).ends_with("`sluice explain b` says why none does.\n"));
    let mut batch = fixtures::job("c", JobState::Queued);
    (batch.kind, batch.desired) = (JobKind::Batch, 0);
    everything.jobs = vec![batch];
    let text = status(PLAIN, &everything);
    assert!(
        text.ends_with("c is queued until it is launched: `sluice run launch c`.\n"),
        "{text}"
    );
    everything.jobs[0].desired = 1;
    let text = status(PLAIN, &everything);
    assert!(
        text.ends_with("c is launched and waits; `sluice explain c` says for what.\n"),
        "{text}"
    );

    everything.jobs = vec![fixtures::job("a", JobState::Running)];
    everything.tasks_waiting = 5;
    everything.waiting_tasks.push(sluice_api::WaitingTasks {
        job: "b".parse().unwrap(),
        count: 2,
        run: sluice_model::RunId::from_random([1; 16]),
        reason: "e2 could take it and is not connected".to_owned(),
        next_action: "when e2 connects".to_owned(),
        next_at: None,
    });
    let text = status(PLAIN, &everything);
    assert!(
        text.ends_with(
            "b: 2 tasks wait, e2 could take it and is not connected; next: when e2 connects\n\
             3 more tasks wait; `sluice explain JOB` says for what.\n"
        ),
        "{text}"
    );
    everything.waiting.push(fixtures::away("e2"));
    assert!(status(PLAIN, &everything).contains("e2 is disconnected since 09:58"));
}

#[test]
fn an_inspected_component_says_whether_a_deploy_would_take_it() {
    let mut found = Inspected {
        digest: Digest::of(b"x"),
        size: 10,
        stage: Some("0.1.0".to_owned()),
        world: Some("report".to_owned()),
        imports: Vec::new(),
        exports: vec!["sluice:pipeline/stage@0.1.0".to_owned()],
        memory_bytes_min: 1 << 20,
        functions: 3,
        problems: Vec::new(),
    };
    let text = inspected(&found);
    assert!(text.contains("imports: none\n"), "{text}");
    assert!(text.contains("memory at start: 1.0 MiB\n"), "{text}");
    assert!(text.contains("world:           report\n"), "{text}");
    assert!(text.ends_with("a deploy would take it\n"), "{text}");
    found.problems.push("it imports `x`".to_owned());
    assert!(inspected(&found).ends_with("would refuse it:\n  it imports `x`\n"));
}

/// The names that scripts outside the project rely on.
#[test]
fn json_has_the_fields_that_must_exist() {
    let keys =
        |value: Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let has = |value: Value, names: &str| {
        let keys = keys(value);
        for name in names.split_whitespace() {
            assert!(keys.iter().any(|key| key == name), "{name} not in {keys:?}");
        }
    };
    let node = fixtures::node("e1", NodeState::Connected);
    let names = "name id state labels executions cordoned draining";
    has(serde_json::to_value(&node).unwrap(), names);
    has(
        serde_json::to_value(fixtures::node_detail()).unwrap(),
        names,
    );
    let job = fixtures::job("a", JobState::Running);
    let names = "id name kind version state desired running waiting failed";
    has(serde_json::to_value(&job).unwrap(), names);
    has(serde_json::to_value(fixtures::job_detail()).unwrap(), names);

    let execution = serde_json::to_value(fixtures::away("e1")).unwrap();
    let names = "id job version node desired state reason_code reason next_action next_at attempt restarts \
                 records_in records_out dead_letters observed";
    has(execution.clone(), names);
    assert_eq!(execution["reason_code"], "waiting-for-node");
    assert_eq!(execution["version"], 2);
    assert!(execution["observed"].is_null() && execution["next_at"].is_null());
    let execution = serde_json::to_value(fixtures::running("e1")).unwrap();
    has(execution["observed"].clone(), "version attempt state at");
    assert_eq!(execution["observed"]["at"], "2026-11-22T10:00:00.000Z");
    assert_eq!(execution["records_in"], 2000);
    assert!(execution["reason_code"].is_null());

    let failed = sluice_api::Execution {
        state: ExecutionState::Failed,
        reason_code: Some(sluice_model::FailReason::TimedOut.into()),
        ..fixtures::running("e1")
    };
    let json = serde_json::to_string(&failed).unwrap();
    let back: sluice_api::Execution = serde_json::from_str(&json).unwrap();
    assert_eq!(back, failed);
    let json = serde_json::to_string(&fixtures::explain()).unwrap();
    assert_eq!(
        serde_json::from_str::<sluice_api::Explain>(&json).unwrap(),
        fixtures::explain()
    );
    let json = serde_json::to_string(&fixtures::job_detail()).unwrap();
    assert_eq!(
        serde_json::from_str::<sluice_api::JobDetail>(&json).unwrap(),
        fixtures::job_detail()
    );
}

#[test]
fn text_from_elsewhere_cannot_steer_a_terminal() {
    assert_eq!(clean("a\r\nb\tc\u{7}\u{9b}2J\n"), "a b c\\u{7}\\u{9b}2J");
    assert_eq!(size(0), "0 B");
    assert_eq!(size(1536), "1.5 KiB");
    assert_eq!(size(64 << 20), "64.0 MiB");
    assert_eq!(next(None, None), "");
    assert_eq!(next(Some("when e1 connects"), None), "when e1 connects");
}

#[test]
fn the_fullest_report_of_a_rollout_fits_a_screen() {
    let mut full = fixtures::rolled_back();
    // As many as the orchestrator keeps.
    full.failures = vec![full.failures[0].clone(); 20];
    full.events = vec![full.events[0].clone(); 20];
    let text = rollout(PLAIN, &full);
    assert!(text.contains("\nand 15 more\n"), "{text}");
    let lines = text.lines().count();
    assert!(lines <= 40, "{lines} lines: {text}");
}

#[test]
fn a_rollout_is_one_screen() {
    let text = rollout(PLAIN, &fixtures::rolled_back());
    let at = super::at(fixtures::NOON);
    assert_eq!(
        text,
        format!(
            "job:     field-temps\n\
             rollout: version 1 -> version 2 -> version 3, the old content again\n\
             phase:   rolled-back\n\
             reason:  e1: failed/configure, no such key\n\
             next:    nothing\n\
             nodes:   50 match: 0 proven, 0 under way, 45 waiting, 5 away\n\
             rules:   canary 1, max parallel 10%, min healthy 10s, error rate max 0.01, deadline 300s\n\
             started: {at}\n\
             changed: {at}\n\
             \n\
             FAILED ON  AT                    REASON\n\
             e1         {at}  failed/configure, no such key\\u{{1b}}[2J\n\
             \n\
             {at}  e1 gets version 2\n\
             {at}  e1 failed\\u{{1b}}[2J\n"
        )
    );
}

#[test]
fn durations_read_as_they_are_typed() {
    for (ms, written) in [
        (0, "0s"),
        (300, "300ms"),
        (90_000, "90s"),
        (120_000, "2m"),
        (7_200_000, "2h"),
    ] {
        assert_eq!(duration(Duration::from_millis(ms)), written);
    }
}

#[test]
fn what_an_absent_node_runs_is_said_to_be_the_last_known() {
    let mut running = fixtures::running("e1");
    let line = |text: String| text.lines().nth(1).unwrap().to_owned();
    assert!(!line(executions(PLAIN, &[running.clone()])).contains("last known"));
    running.last_known = true;
    let text = line(executions(PLAIN, &[running.clone()]));
    assert!(text.contains("  running (last known)  "), "{text}");
    assert!(execution_detail(&running).contains("state:      running (last known)\n"));
    running.state = ExecutionState::Pending;
    running.reason_code = Some(sluice_model::PendingReason::Backoff.into());
    let text = line(executions(PLAIN, &[running]));
    assert!(text.contains("pending/backoff (last known)"), "{text}");
}

//! How executions end, and what stages that misbehave do to them.

use super::*;

fn hostile(config: &str, input: &str, output: &str) -> String {
    format!(
        "[input.{input}\n[[stage]]\nname = \"hostile\"\nplugin = \"./hostile.wasm\"\nconfig = {{ {config} }}\n[output.{output}\n"
    )
}

const FILE: &str = "file]\npath = \"in.log\"";
const OUT: &str = "file]\npath = \"out.log\"";

#[tokio::test]
async fn what_cannot_start_says_why() {
    let fixture = Fixture::new();
    let check = async |text: &str, expected: &str| {
        let error = fixture
            .prepare(fixture.plan(text))
            .await
            .map(|_| ())
            .unwrap_err();
        let kind = match &error {
            PrepareError::Configure { .. } => "configure",
            PrepareError::Refused { .. } => "refused",
            PrepareError::Corrupt { .. } => "corrupt",
            PrepareError::Retry { .. } => "retry",
        };
        let shown = format!("{kind}: {error}");
        for part in expected.split(" ... ") {
            assert!(shown.contains(part), "{shown} lacks {part}");
        }
        assert!(fixture.logged("cannot start"), "the log says it too");
        std::fs::remove_dir_all(fixture.state_dir()).unwrap();
    };
    check(
        "[input.file]\npath = \"${node.labels.line}\"\n[output.discard]\n",
        "configure: ... no label `line`",
    )
    .await;
    check(
        "[input.file]\npath = \"/etc/passwd\"\n[output.discard]\n",
        "refused: ... \"/etc/passwd\" ... --allow-path",
    )
    .await;
    check(
        "[input.generate]\ntemplate = \"x\"\n[output.file]\npath = \"../x\"\n",
        "refused: ... \"../x\" ... --allow-path",
    )
    .await;
    check(
        "[input.exec]\ncommand = \"four\"\n[output.discard]\n",
        "refused: ... no command `four` ... --allow-command",
    )
    .await;
    check(
        "[input.stdin]\n[output.discard]\n",
        "refused: ... sluice pipeline run",
    )
    .await;
    check(
        &hostile("do = \"configure-error\"", FILE, OUT),
        "configure: ... hostile ... refused its config",
    )
    .await;
    check(
        &hostile("do = \"configure-trap\"", FILE, OUT),
        "configure: ... hostile ... failed to start",
    )
    .await;
    check(
        &hostile("do = \"no-such-thing\"", FILE, OUT),
        "configure: ... no-such-thing",
    )
    .await;
    check(
        "[input.generate]\ntemplate = \"x\"\n[[stage]]\nname = \"net\"\nplugin = \"./wasi_sockets.wasm\"\n[output.discard]\n",
        "refused: ... stage net ... wasi:sockets",
    )
    .await;

    let good = hostile("do = \"keep\"", FILE, OUT);
    let mut plan = fixture.plan(&good);
    plan.components[0].1 = fixture.path("nowhere.wasm");
    plan.components[0].0 = Digest::of(b"not there");
    assert!(matches!(
        fixture.prepare(plan).await,
        Err(PrepareError::Retry { .. })
    ));
    let mut plan = fixture.plan(&good);
    plan.components[0].0 = Digest::of(b"another");
    let corrupt = fixture.prepare(plan).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(corrupt, PrepareError::Corrupt { digest, .. } if digest == Digest::of(b"another"))
    );
}

#[tokio::test]
async fn a_command_s_lines_are_records_and_its_failure_is_the_execution_s() {
    let fixture = Fixture::new();
    let (end, counters) = fixture
        .run("[input.exec]\ncommand = \"three\"\n[output.file]\npath = \"out.log\"\n")
        .await;
    assert_eq!((end, counters), (End::Completed, numbers(3, 3, 0)));
    assert_eq!(fixture.read("out.log"), "1\n2\n3\n");
    std::fs::remove_dir_all(fixture.state_dir()).unwrap();
    let (end, counters) = fixture
        .run("[input.exec]\ncommand = \"broken\"\n[output.discard]\n")
        .await;
    assert_eq!(counters.records_in, 1, "what it said before counts");
    assert!(
        matches!(&end, End::Backoff { message } if message.contains("exit code 9") && message.contains("no device")),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_command_that_is_stopped_says_that_it_cannot_go_on_where_it_was() {
    let fixture = Fixture::new();
    let mut started = fixture
        .start(fixture.plan("[input.exec]\ncommand = \"endless\"\n[output.discard]\n"))
        .await;
    started
        .until("its line is there", |counters| counters.records_out == 1)
        .await;
    started.running.stop();
    let (end, counters) = started.ended().await;
    assert_eq!((end, counters), (End::Cut, numbers(1, 1, 0)));
}

#[tokio::test]
async fn no_command_is_run_for_an_output_that_is_not_there() {
    let fixture = Fixture::new();
    let mark = fixture.path("ran");
    std::fs::create_dir(fixture.path("taken")).unwrap();
    let (end, _) = fixture
        .run("[input.exec]\ncommand = \"marks\"\n[output.file]\npath = \"taken\"\n")
        .await;
    assert!(matches!(end, End::Backoff { .. }), "{end:?}");
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_missing_file_waits_for_another_try() {
    let fixture = Fixture::new();
    let (end, _) = fixture
        .run("[input.file]\npath = \"none.log\"\n[output.discard]\n")
        .await;
    assert!(
        matches!(&end, End::Backoff { message } if message.contains("none.log") && message.contains("No such file")),
        "{end:?}"
    );
    assert!(fixture.logged("none.log"));
    fixture.write("none.log", "now\n");
    let (end, counters) = fixture
        .run("[input.file]\npath = \"none.log\"\n[output.discard]\n")
        .await;
    assert_eq!((end, counters), (End::Completed, numbers(1, 1, 0)));
}

#[tokio::test]
async fn a_poison_record_dies_alone() {
    let fixture = Fixture::new();
    let text = lines(700).replace("line 300\n", "line 300 poison\n");
    fixture.write("in.log", &text);
    let (end, counters) = fixture.run(&hostile("do = \"trap-on\"", FILE, OUT)).await;
    assert_eq!((end, counters), (End::Completed, numbers(700, 699, 1)));
    assert_eq!(
        fixture.read("out.log"),
        lines(700).replace("line 300\n", "")
    );
    let letters = dead_letters_tail(&fixture.state_dir(), 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].kind, "trap");
    assert_eq!(letters[0].text.as_deref(), Some("line 300 poison"));
    assert_eq!(
        letters[0].stage.as_ref().map(StageName::as_str),
        Some("hostile")
    );
    assert_eq!(letters[0].digest, Some(component("hostile.wasm").0));
    assert!(letters[0].attempts >= 2);
    assert!(fixture.logged("a record became a dead letter"));
}

#[tokio::test]
async fn rejects_become_dead_letters() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(2000));
    let (end, counters) = fixture
        .run(&hostile("do = \"reject-every-other\"", FILE, OUT))
        .await;
    assert_eq!((end, counters), (End::Completed, numbers(2000, 1000, 1000)));
    let letters = dead_letters_tail(&fixture.state_dir(), 5000).unwrap();
    let kept = fixture.read("out.log");
    let mut all: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter.text.as_deref())
        .chain(kept.lines())
        .collect();
    all.sort_unstable();
    let expected = lines(2000);
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_unstable();
    assert_eq!(all, expected, "each record is in one place");
}

#[tokio::test]
async fn fatal_fails_and_keeps_what_was_acked() {
    let fixture = Fixture::new();
    let text = lines(700).replace("line 600\n", "line 600 poison\n");
    fixture.write("in.log", &text);
    let (end, counters) = fixture
        .run(&hostile("do = \"fatal\", when = \"poison\"", FILE, OUT))
        .await;
    assert!(
        matches!(&end, End::Failed { reason: FailReason::Fatal, message } if message.contains("hostile")),
        "{end:?}"
    );
    assert_eq!(counters.records_out, 512, "the batches before it");
    assert_eq!(fixture.read("out.log"), lines(512));
}

#[tokio::test]
async fn a_stage_that_asks_again_gets_the_batch_again() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(300));
    let (end, counters) = fixture
        .run(&hostile("do = \"retry\", count = 2", FILE, OUT))
        .await;
    assert_eq!(end, End::Completed);
    assert_eq!(
        counters,
        Counters {
            retries: 2,
            ..numbers(300, 300, 0)
        }
    );
    assert_eq!(fixture.read("out.log"), lines(300));
    assert!(fixture.logged("asks to retry"));
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_asks_for_ever_is_given_up_on() {
    let fixture = Fixture::new();
    fixture.write("in.log", "one\ntwo\n");
    let text = hostile("do = \"retry\", count = 1000000", FILE, OUT);
    let (end, counters) = fixture.run_paused(&text).await;
    assert_eq!(end, End::Completed);
    assert_eq!(
        counters,
        Counters {
            retries: 9,
            ..numbers(2, 0, 2)
        }
    );
    let letters = dead_letters_tail(&fixture.state_dir(), 5).unwrap();
    assert_eq!(
        letters
            .iter()
            .map(|letter| letter.kind.as_str())
            .collect::<Vec<_>>(),
        ["retry", "retry"]
    );
}

#[tokio::test]
async fn stopping_while_a_stage_asks_again_leaves_the_batch_unacked() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(10));
    let mut started = fixture
        .start(fixture.plan(&hostile("do = \"retry\", count = 1000000", FILE, OUT)))
        .await;
    started
        .until("it asks", |counters| counters.retries > 0)
        .await;
    started.running.stop();
    let (end, counters) = started.ended().await;
    assert_eq!(end, End::Stopped, "not completed: a batch stayed behind");
    assert_eq!((counters.records_in, counters.records_out), (0, 0));
    assert_eq!(
        fixture.run(COPY_OUT).await,
        (End::Completed, numbers(10, 10, 0))
    );
}

const COPY_OUT: &str = "[input.file]\npath = \"in.log\"\n[output.file]\npath = \"out.log\"\n";

#[tokio::test]
async fn a_remote_stdout_goes_to_the_log() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(2000));
    let (end, counters) = fixture
        .run("[input.file]\npath = \"in.log\"\n[output.stdout]\n")
        .await;
    assert_eq!((end, counters), (End::Completed, numbers(2000, 2000, 0)));
    let records: String = fixture
        .log()
        .iter()
        .filter(|line| line.level == LogLevel::Record)
        .map(|line| format!("{}\n", line.message))
        .collect();
    assert_eq!(records, lines(2000));
    let last = log_tail(&fixture.state_dir(), 1).unwrap();
    assert_eq!(last[0].message, "completed");
}

#[tokio::test]
async fn the_log_keeps_its_bound_and_counts_what_it_drops() {
    let fixture = Fixture::new();
    let (end, counters) = fixture
        .run("[input.generate]\ninterval = \"\"\ncount = 200000\ntemplate = \"${seq} ................................................................................\"\n[output.stdout]\n")
        .await;
    assert_eq!(end, End::Completed);
    assert_eq!(
        counters.records_out, 200_000,
        "acked at once, whatever the log does"
    );
    let log = fixture.state_dir().join("log");
    let bytes: u64 = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 2 * 8 * 1024 * 1024, "{bytes} bytes");
    assert!(bytes > 8 * 1024 * 1024, "both halves were used");
}

#[tokio::test]
async fn logs_of_stages_are_kept_with_their_stage() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(10));
    fixture
        .run(&hostile("do = \"log-flood\", count = 500", FILE, OUT))
        .await;
    let said = fixture
        .log()
        .into_iter()
        .filter(|line| {
            line.stage
                .as_ref()
                .is_some_and(|stage| stage.as_str() == "hostile")
        })
        .count();
    assert!(
        (100..=110).contains(&said),
        "{said} lines: the rate limit holds"
    );
}

#[tokio::test]
async fn purging_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(10));
    fixture.run(COPY_OUT).await;
    assert!(fixture.state_dir().join("checkpoint").exists());
    for _ in 0..2 {
        purge_state(&fixture.state_dir()).unwrap();
        assert!(!fixture.state_dir().exists());
    }
    assert_eq!(stored_counters(&fixture.state_dir()), None);
    assert!(fixture.log().is_empty());
}

#[tokio::test]
async fn a_bug_ends_its_execution_only() {
    for (stdout_fails, message) in [
        (StdoutFails::Panics, "stdout fell over"),
        (StdoutFails::Closed, "closed by its reader"),
    ] {
        let fixture = Fixture::with(Some(ConsoleEnds {
            stdout_fails: Some(stdout_fails),
            ..ConsoleEnds::default()
        }));
        fixture.write("in.log", lines(3));
        let neighbour = fixture
            .plan("[input.generate]\ninterval = \"1ms\"\ntemplate = \"x\"\n[output.discard]\n");
        let mut neighbour = fixture
            .start(ExecutionPlan {
                state_dir: fixture.path("neighbour"),
                ..neighbour
            })
            .await;
        let (end, _) = fixture
            .run("[input.file]\npath = \"in.log\"\n[output.stdout]\n")
            .await;
        let as_expected = match (&end, stdout_fails) {
            (End::Crashed { message: said }, StdoutFails::Panics)
            | (
                End::Failed {
                    reason: FailReason::Cancelled,
                    message: said,
                },
                StdoutFails::Closed,
            ) => said.contains(message),
            _ => false,
        };
        assert!(as_expected, "{end:?}");
        let before = neighbour.running.counters().records_out;
        neighbour
            .until("it runs on", |counters| counters.records_out > before)
            .await;
        neighbour.running.stop();
        assert_eq!(neighbour.ended().await.0, End::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_drain_is_cut() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(10));
    // Spins in every call, for as long as its deadline allows: with isolation much longer than draining may take.
    let text = hostile("do = \"spin\", when = \"always\"", FILE, OUT)
        .replace("[output", "[stage.limits]\ndeadline = \"1s\"\n[output");
    let Started {
        running,
        mut events,
    } = fixture.start(fixture.plan(&text)).await;
    assert!(matches!(
        events.recv().await.unwrap(),
        RunnerEvent::Running { .. }
    ));
    while running.counters().records_in < 10 {
        tokio::task::yield_now().await;
    }
    running.stop();
    let ended = events.recv().await.unwrap();
    assert!(
        matches!(
            ended,
            RunnerEvent::Ended {
                end: End::Cut,
                counters: Counters { records_out: 0, .. },
                ..
            }
        ),
        "{ended:?}"
    );
    assert!(fixture.logged("cut after 10s"));
    assert_eq!(
        fixture.run_paused(COPY_OUT).await,
        (End::Completed, numbers(10, 10, 0)),
        "nothing was lost"
    );
}

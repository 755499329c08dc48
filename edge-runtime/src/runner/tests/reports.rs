//! Stages that gather, and have something to say when their input has ended.

use super::*;

fn stage(name: &str, config: &str) -> String {
    called(name, name, config)
}

/// A stage that calls itself something else in its report.
fn called(stage: &str, name: &str, config: &str) -> String {
    let comma = if config.is_empty() { "" } else { ", " };
    format!(
        "[[stage]]\nname = \"{stage}\"\nplugin = \"./hostile_report.wasm\"\nconfig = {{ name = \"{name}\"{comma}{config} }}\n"
    )
}

fn pipeline(stages: &[String]) -> String {
    format!(
        "[input.file]\npath = \"in.log\"\n{}[output.file]\npath = \"out.log\"\n",
        stages.concat()
    )
}

fn failed(end: &End) -> &str {
    match end {
        End::Failed {
            reason: FailReason::Fatal,
            message,
        } => message,
        other => panic!("not failed for good: {other:?}"),
    }
}

#[tokio::test]
async fn a_report_follows_the_last_record_and_counts_as_no_record_of_the_input() {
    let fixture = Fixture::new();
    fixture.write("in.log", format!("{}pass me\nreject me\n", lines(1000)));
    let ran = fixture.run(&pipeline(&[stage("sum", "")])).await;
    assert_eq!(ran, (End::Completed, numbers(1002, 2, 1)));
    assert_eq!(fixture.read("out.log"), "pass me\nsum counted 1000\n");
    assert_eq!(
        stored_counters(&fixture.state_dir()),
        Some(numbers(1002, 2, 1))
    );
}

#[tokio::test]
async fn an_empty_input_has_a_report_and_an_empty_report_is_nothing() {
    let fixture = Fixture::new();
    fixture.write("in.log", "");
    let ran = fixture.run(&pipeline(&[stage("sum", "")])).await;
    assert_eq!(ran, (End::Completed, numbers(0, 1, 0)));
    assert_eq!(fixture.read("out.log"), "sum counted 0\n");
    std::fs::remove_dir_all(fixture.state_dir()).unwrap();
    fixture.write("in.log", lines(3));
    let ran = fixture
        .run(&pipeline(&[stage("sum", "finish = \"nothing\"")]))
        .await;
    assert_eq!(ran, (End::Completed, numbers(3, 0, 0)));
    assert_eq!(fixture.read("out.log"), "sum counted 0\n");
}

#[tokio::test]
async fn what_one_stage_reports_goes_through_those_behind_it_before_they_report() {
    let fixture = Fixture::new();
    fixture.write("in.log", format!("{}reject and die\n", lines(600)));
    let text = pipeline(&[
        called("first", "first pass", ""),
        called("second", "second reject", ""),
        "[[stage]]\nname = \"upper\"\nplugin = \"./hostile.wasm\"\nconfig = { do = \"uppercase\" }\n"
            .to_owned(),
        stage("third", ""),
    ]);
    // What the first says is passed by the second; what the second says is upper case when the third counts it.
    let (end, counters) = fixture.run(&text).await;
    assert_eq!(end, End::Completed);
    assert_eq!(fixture.read("out.log"), "third counted 2\n");
    assert_eq!(counters, numbers(601, 1, 1));
}

#[tokio::test]
async fn a_report_that_a_later_stage_rejects_is_a_dead_letter_with_its_bytes() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(5));
    let text = pipeline(&[stage("reject", ""), stage("sum", "")]);
    let ran = fixture.run(&text).await;
    assert_eq!(ran, (End::Completed, numbers(5, 1, 1)));
    assert_eq!(fixture.read("out.log"), "sum counted 0\n");
    let dead = dead_letters_tail(&fixture.state_dir(), 10).unwrap();
    assert_eq!(dead.len(), 1);
    let shown = format!("{:?}", dead[0]);
    assert!(
        shown.contains("reject counted 5") && shown.contains("\"sum\""),
        "{shown}"
    );
}

#[tokio::test]
async fn an_end_that_goes_wrong_fails_the_execution_and_says_what_is_lost() {
    for (config, said) in [
        ("finish = \"fatal\"", "stopped at the end, as asked"),
        (
            "finish = \"trap\"",
            "what it had gathered of its input is lost: trapped",
        ),
        ("finish = \"spin\"", "longer than its deadline of 500ms"),
        ("finish = \"huge\"", "the output is over the limit"),
        (
            "finish = \"flood\"",
            "the output is over the limit of 65536 records",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.write("in.log", lines(3));
        let limited = format!(
            "{}[stage.limits]\ndeadline = \"50ms\"\nmemory = \"128MiB\"\n",
            stage("sum", config)
        );
        let (end, counters) = fixture.run(&pipeline(&[limited])).await;
        let message = failed(&end);
        assert!(
            message.contains("stage \"sum\"") && message.contains(said),
            "{message}"
        );
        assert_eq!(counters.records_out, 0, "{config}");
        assert_eq!(fixture.read("out.log"), "");
    }
}

#[tokio::test]
async fn a_lost_instance_is_fatal_whenever_it_is_lost_and_nothing_is_halved() {
    for place in [0, 700] {
        let fixture = Fixture::new();
        let text = lines(1000).replace(&format!("line {place}\n"), "poison\n");
        fixture.write("in.log", text);
        let (end, counters) = fixture.run(&pipeline(&[stage("sum", "")])).await;
        let message = failed(&end);
        assert!(
            message.contains("what it had gathered of its input is lost: trapped"),
            "{message}"
        );
        assert_eq!((counters.records_out, counters.dead_letters), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_asks_to_retry_is_tried_like_a_batch_and_no_longer() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(3));
    let (end, counters) = fixture
        .run_paused(&pipeline(&[stage("sum", "retries = 9")]))
        .await;
    assert_eq!((end, counters.retries), (End::Completed, 9));
    assert_eq!(fixture.read("out.log"), "sum counted 3\n");
    std::fs::remove_dir_all(fixture.state_dir()).unwrap();
    let (end, _) = fixture
        .run_paused(&pipeline(&[stage("sum", "retries = 10")]))
        .await;
    let message = failed(&end);
    assert!(
        message.contains("at the end of its input it still asks to retry: not yet"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_a_later_stage_asks_for_again_is_not_gathered_twice() {
    let fixture = Fixture::new();
    let text = lines(300).replace("line 7\n", "pass and retry\n");
    fixture.write("in.log", text);
    // The second stage answers `retry` to what passes the first, which has counted the batch by then.
    let text = pipeline(&[
        called("first", "first pass", ""),
        "[[stage]]\nname = \"late\"\nplugin = \"./hostile.wasm\"\nconfig = { do = \"retry\", count = 2 }\n".to_owned(),
    ]);
    let (end, counters) = fixture.run_paused(&text).await;
    assert_eq!(
        (end, counters.retries),
        (End::Completed, 3),
        "the first asks once, the second twice"
    );
    assert_eq!(
        fixture.read("out.log"),
        "pass and retry\nfirst pass counted 299\n"
    );
}

#[tokio::test]
async fn a_stopped_execution_says_nothing_and_starts_over() {
    let fixture = Fixture::new();
    let text = format!(
        "[input.generate]\ncount = 40\ninterval = \"20ms\"\ntemplate = \"line ${{seq}}\"\n{}[output.file]\npath = \"out.log\"\n",
        stage("sum", "")
    );
    let plan = fixture.plan(&text);
    let mut started = fixture.start(plan.clone()).await;
    started
        .until("some records", |counters| counters.records_in >= 5)
        .await;
    started.running.stop();
    let (end, counters) = started.ended().await;
    assert_eq!(end, End::Cut, "it does not go on where it was");
    assert!(counters.records_in < 40, "{counters:?}");
    assert_eq!(fixture.read("out.log"), "", "no report of a part");

    let ran = fixture.start(plan.clone()).await.ended().await;
    assert_eq!(
        ran,
        (End::Completed, numbers(40, 1, 0)),
        "counted anew from the beginning"
    );
    assert_eq!(fixture.read("out.log"), "sum counted 40\n");
    assert!(fixture.logged("starts at the beginning of its input"));

    // A process that dies before it has recorded the end makes the report again, and a right one.
    let ran = fixture.start(plan).await.ended().await;
    assert_eq!(ran, (End::Completed, numbers(40, 1, 0)));
    assert_eq!(fixture.read("out.log"), "sum counted 40\nsum counted 40\n");
}

#[tokio::test]
async fn no_checkpoint_of_the_input_is_ever_on_disk() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(2000));
    fixture.run(&pipeline(&[stage("sum", "")])).await;
    let saved = checkpoint::Checkpoint::load(&fixture.state_dir())
        .unwrap()
        .unwrap();
    assert_eq!(saved.input, None);
}

#[tokio::test]
async fn a_report_of_an_endless_input_is_refused() {
    let fixture = Fixture::new();
    let text = format!(
        "[input.generate]\ninterval = \"1s\"\ntemplate = \"x\"\n{}[output.discard]\n",
        stage("sum", "")
    );
    let error = fixture
        .prepare(fixture.plan(&text))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(&error, PrepareError::Refused { message } if message.contains("this input never does") && message.contains("`count`")),
        "{error}"
    );
}

//! Waiting against a stream of hints that the test holds, in virtual time.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;

use futures_util::stream;
use tokio::sync::mpsc;

use super::*;
use crate::failure::Exit;

/// Nothing but a hint or the deadline brings a look.
const DEAF: Pace = Pace {
    rest: Duration::from_millis(150),
    quiet: Duration::from_secs(3600),
    blind: Duration::from_secs(3600),
};

const WITHIN: Duration = Duration::from_secs(2 * 3600);

fn late() -> Failure {
    Failure::new(Exit::TimedOut, "too late")
}

fn hints() -> (mpsc::UnboundedSender<Heard>, impl Stream<Item = Heard>) {
    let (to, from) = mpsc::unbounded_channel();
    let hints = stream::unfold(
        from,
        |mut from| async move { Some((from.recv().await?, from)) },
    );
    (to, hints)
}

fn gone() -> Failure {
    Failure::new(Exit::Unreachable, "cannot reach it")
}

#[tokio::test(start_paused = true)]
async fn an_end_is_seen_at_its_hint_and_not_at_the_next_poll() {
    for told in [Heard::Listening, Heard::Hint, Heard::Cut] {
        let (tell, hints) = hints();
        let there = Rc::new(Cell::new(false));
        let begun = Instant::now();
        let look = async || match there.get() {
            true => Ok(Look::There(())),
            false => Ok(Look::Missing(vec!["it".to_owned()])),
        };
        let waits = drive(DEAF, WITHIN, hints, |_| {}, look, late());
        let happens = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            there.set(true);
            tell.send(told).unwrap();
            // Held, so that it does not end.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = waits => result.unwrap(),
            () = happens => unreachable!("it is held"),
        }
        // Virtual time: no clock of a busy machine has a part in this.
        assert_eq!(begun.elapsed().as_secs(), 7, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_hints_are_one_look_and_a_stream_that_ends_leaves_the_poll() {
    let (tell, hints) = hints();
    for _ in 0..1000 {
        tell.send(Heard::Hint).unwrap();
    }
    drop(tell);
    let looks = Cell::new(0);
    let begun = Instant::now();
    let look = async || {
        looks.set(looks.get() + 1);
        Ok(match looks.get() {
            3 => Look::There(()),
            _ => Look::Missing(Vec::new()),
        })
    };
    drive(DEAF, WITHIN, hints, |_| {}, look, late())
        .await
        .unwrap();
    assert_eq!(begun.elapsed().as_secs(), DEAF.blind.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_is_away_is_waited_for_until_the_deadline_and_no_other_failure_is() {
    let looks = Cell::new(0);
    let look = async || -> Result<Look<()>, Failure> {
        looks.set(looks.get() + 1);
        match looks.get() {
            1 => Ok(Look::Missing(vec!["e1: pending/sending".to_owned()])),
            _ => Err(gone()),
        }
    };

#[test]
fn replicas_are_expected_where_they_are_placed_and_the_unplaced_are_named() {
    let mut detail = fixtures::job_detail();
    detail.job.kind = JobKind::Replicas;
    detail.executions = vec![at_version(2, fixtures::running("e1"))];
    let nodes = [fixtures::node("e1", UP), fixtures::node("e2", UP)];
    let matching = ["e1".parse().unwrap(), "e2".parse().unwrap()];
    let done = judge(Version(2), &matching, &detail, &nodes);
    assert_eq!(done, Verdict::Done { absent: vec![] });
    detail.unplaced = Some(sluice_api::Unplaced {
        job: detail.job.name.clone(),
        count: 1,
        reason_code: PendingReason::NoNode,
        reason: "of 2 nodes: 1 taken by its other replicas, 1 lost".to_owned(),
        next_action: "when a node joins".to_owned(),
        next_at: None,
    });
    let Verdict::Done { absent } = judge(Version(2), &matching, &detail, &nodes) else {
        panic!("an unplaced replica holds nothing up");
    };
    assert!(
        absent[0].contains("1 replica pending/no-node"),
        "{absent:?}"
    );
    // A cordoned node gets nothing new, and nobody waits for it.
    detail.job.kind = JobKind::Daemon;
    detail.unplaced = None;
    let mut cordoned = nodes.clone();
    cordoned[1].cordoned = true;
    assert!(matches!(
        judge(Version(2), &matching, &detail, &nodes),
        Verdict::Waiting { .. }
    ));
    assert!(matches!(
        judge(Version(2), &matching, &detail, &cordoned),
        Verdict::Done { .. }
    ));
}

fn with_rollout(phase: RolloutPhase, executions: Vec<Execution>) -> Verdict {
    let mut detail = fixtures::job_detail();
    detail.executions = executions;
    detail.job.rollout = Some(RolloutSummary {
        candidate: Version(2),
        good: Some(Version(1)),
        restored_by: (phase == RolloutPhase::RolledBack).then_some(Version(3)),
        phase,
        reason: (!matches!(phase, RolloutPhase::Canary | RolloutPhase::Rolling))
            .then(|| "e1: failed/configure, no such key".to_owned()),
        next_action: None,
    });
    let nodes = [fixtures::node("e1", UP), fixtures::node("e2", UP)];
    let matching = ["e1".parse().unwrap(), "e2".parse().unwrap()];
    let version = match phase {
        // Asked about the version that brought the old content back.
        RolloutPhase::Done => Version(3),
        _ => Version(2),
    };
    if phase == RolloutPhase::Done
        && let Some(rollout) = &mut detail.job.rollout
    {
        (rollout.phase, rollout.restored_by) = (RolloutPhase::RolledBack, Some(Version(3)));
    }
    judge(version, &matching, &detail, &nodes)
}

#[test]
fn a_rollout_that_went_back_is_a_failure_with_its_reason() {
    let runs = || {
        vec![
            at_version(3, fixtures::running("e1")),
            at_version(1, fixtures::running("e2")),
        ]
    };
    let Verdict::Failed { where_and_why } = with_rollout(RolloutPhase::RolledBack, runs()) else {
        panic!("it failed");
    };
    let within = Duration::from_secs(10);
    let said = Cell::new(0);
    let missed = |_: &[String]| said.set(said.get() + 1);
    let result = drive(PACE, within, stream::pending(), missed, look, late()).await;
    let failure = result.unwrap_err();
    assert_eq!(
        (failure.exit, &failure.message[..]),
        (Exit::TimedOut, "too late")
    );
    // What was known last is not forgotten over many looks at nothing.
    assert_eq!(
        failure.detail.unwrap(),
        "no answer: cannot reach it\nwhen it was last heard: e1: pending/sending"
    );
    assert!(looks.get() > 10 && said.get() + 1 == looks.get());

    // It answers in the end.
    let looks = Cell::new(0);
    let look = async || {
        looks.set(looks.get() + 1);
        match looks.get() {
            1..5 => Err(gone()),
            _ => Ok(Look::There(7)),
        }
    };
    let found = drive(PACE, within, stream::pending(), |_| {}, look, late()).await;
    assert_eq!(found.unwrap(), 7);

    let look =
        async || -> Result<Look<()>, Failure> { Err(Failure::new(Exit::NotFound, "no job")) };
    let result = drive(PACE, within, stream::pending(), |_| {}, look, late()).await;
    assert_eq!(result.unwrap_err().exit, Exit::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_look_without_an_answer_does_not_outlast_the_deadline_for_long() {
    let look = async || -> Result<Look<()>, Failure> { std::future::pending().await };
    let begun = Instant::now();
    let within = Duration::from_secs(10);
    let result = drive(PACE, within, stream::pending(), |_| {}, look, late()).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.exit, Exit::TimedOut);
    assert_eq!(
        failure.detail.unwrap(),
        "no answer: the orchestrator does not answer"
    );
    assert_eq!(
        begun.elapsed().as_secs(),
        (within + LAST_LOOK_MAX).as_secs()
    );
}

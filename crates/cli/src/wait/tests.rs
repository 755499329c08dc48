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
            tokio::time::advance(Duration::from_secs(7)).await;
            there.set(true);
            tell.send(told).unwrap();
            // Held, so that it does not end.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // First, so that its first look is before anything happens.
            biased;
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

//! The pool with chains made for the purpose.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

/// A chain that does what a closure says.
struct Acts<F>(F);

impl<F> Chain for Acts<F>
where
    F: FnMut(Call<'_>) -> Result<Turn, ChainFault> + Send,
{
    fn process(
        &mut self,
        input: &Batch,
        output: &mut ChainOutput,
        _: OnRetry,
    ) -> Result<Turn, ChainFault> {
        output.clear();
        (self.0)(Call::Process(input))
    }

    fn cancel(&mut self) {
        let _ = (self.0)(Call::Cancel);
    }
}

enum Call<'a> {
    Process(&'a Batch),
    Cancel,
}

fn acts(act: impl FnMut(Call<'_>) -> Result<Turn, ChainFault> + Send + 'static) -> Box<dyn Chain> {
    Box::new(Acts(act))
}

fn record(text: &str) -> Batch {
    [text].into_iter().collect()
}

fn run(handle: &mut ChainHandle, text: &str) -> Processed {
    handle.process_blocking(record(text), ChainOutput::new(), OnRetry::Report)
}

/// Polls once.
fn poll(processing: &mut Processing<'_>) -> Poll<Processed> {
    Pin::new(processing).poll(&mut Context::from_waker(Waker::noop()))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "{what}");
        thread::yield_now();
    }
}

#[test]
fn buffers_come_back_with_the_result() {
    let pool = GuestPool::new(2).unwrap();
    let mut handle = pool.add(acts(|call| match call {
        Call::Process(input) if input.record(0) == b"bad" => Err(ChainFault::Host("no".into())),
        _ => Ok(Turn::Done),
    }));
    let done = run(&mut handle, "good");
    assert_eq!((done.result, done.input), (Ok(()), record("good")));
    let done = run(&mut handle, "bad");
    assert_eq!(
        (done.result, done.input),
        (Err(ChainFault::Host("no".into())), record("bad"))
    );
}

#[test]
fn turns_go_round() {
    let pool = GuestPool::new(1).unwrap();
    let (gate_in, gate) = mpsc::channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut blocker = pool.add(acts(move |_| {
        gate.recv().unwrap();
        Ok(Turn::Done)
    }));
    let mut handles: Vec<ChainHandle> = (0..3)
        .map(|name| {
            let order = order.clone();
            let mut turns = 0;
            pool.add(acts(move |_| {
                order.lock().unwrap().push(name);
                turns += 1;
                Ok(if turns < 3 { Turn::Again } else { Turn::Done })
            }))
        })
        .collect();
    // Nobody starts before all stand in line.
    let blocked = blocker.process(record("b"), ChainOutput::new(), OnRetry::Report);
    let mut waiting: Vec<Processing<'_>> = handles
        .iter_mut()
        .map(|handle| handle.process(record("x"), ChainOutput::new(), OnRetry::Report))
        .collect();
    gate_in.send(()).unwrap();
    wait_until("all finish", || order.lock().unwrap().len() == 9);
    for processing in &mut waiting {
        let mut polled = Poll::Pending;
        wait_until("it ends", || true);
        while polled.is_pending() {
            polled = poll(processing);
            thread::yield_now();
        }
    }
    drop(blocked);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_panic_breaks_its_chain_and_nothing_else() {
    let pool = GuestPool::new(1).unwrap();
    let mut bad = pool.add(acts(|_| panic!("as asked")));
    let mut good = pool.add(acts(|_| Ok(Turn::Done)));
    for _ in 0..2 {
        let done = run(&mut bad, "x");
        let Err(ChainFault::Host(reason)) = done.result else {
            panic!("{:?}", done.result)
        };
        assert_eq!(reason, "a bug in the host: as asked");
        assert_eq!(done.input, record("x"));
        assert!(done.output.view(&done.input).is_empty());
        assert_eq!(run(&mut good, "y").result, Ok(()));
    }
}

#[test]
fn a_chain_that_panics_when_dropped_does_no_harm() {
    struct Mine;
    impl Chain for Mine {
        fn process(
            &mut self,
            _: &Batch,
            _: &mut ChainOutput,
            _: OnRetry,
        ) -> Result<Turn, ChainFault> {
            panic!("first")
        }
    }
    impl Drop for Mine {
        fn drop(&mut self) {
            panic!("second")
        }
    }
    let pool = GuestPool::new(1).unwrap();
    let mut bad = pool.add(Box::new(Mine));
    assert!(run(&mut bad, "x").result.is_err());
    assert!(
        run(&mut pool.add(acts(|_| Ok(Turn::Done))), "y")
            .result
            .is_ok()
    );
}

#[test]
fn a_batch_given_up_between_turns_is_cancelled_and_the_next_one_runs() {
    let pool = GuestPool::new(1).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let theirs = log.clone();
    let mut handle = pool.add(acts(move |call| {
        let mut log = theirs.lock().unwrap();
        match call {
            Call::Process(input) => {
                log.push(String::from_utf8(input.record(0).to_vec()).unwrap());
                Ok(if input.record(0) == b"long" {
                    Turn::Again
                } else {
                    Turn::Done
                })
            }
            Call::Cancel => {
                log.push("cancel".into());
                Ok(Turn::Done)
            }
        }
    }));
    let mut processing = handle.process(record("long"), ChainOutput::new(), OnRetry::Report);
    assert!(poll(&mut processing).is_pending());
    wait_until("it has turns", || log.lock().unwrap().len() > 2);
    drop(processing);
    assert_eq!(run(&mut handle, "next").result, Ok(()));
    let log = log.lock().unwrap();
    assert_eq!(log[log.len() - 2..], ["cancel", "next"]);
    assert_eq!(log.iter().filter(|entry| *entry == "cancel").count(), 1);
}

#[test]
fn dropping_the_pool_ends_what_waits() {
    let (gate_in, gate) = mpsc::channel::<()>();
    let (begun_in, begun) = mpsc::channel::<()>();
    let pool = GuestPool::new(1).unwrap();
    let mut busy = pool.add(acts(move |_| {
        begun_in.send(()).unwrap();
        gate.recv().unwrap();
        Ok(Turn::Again)
    }));
    let mut waiting = pool.add(acts(|_| Ok(Turn::Done)));
    let mut first = busy.process(record("a"), ChainOutput::new(), OnRetry::Report);
    begun.recv().unwrap();
    let mut second = waiting.process(record("b"), ChainOutput::new(), OnRetry::Report);
    thread::scope(|scope| {
        let closing = scope.spawn(|| drop(pool));
        let mut refused = Poll::Pending;
        let give_up = Instant::now() + Duration::from_secs(20);
        while refused.is_pending() {
            refused = poll(&mut second);
            assert!(Instant::now() < give_up);
        }
        assert!(matches!(
            refused,
            Poll::Ready(Processed {
                result: Err(ChainFault::Host(_)),
                ..
            })
        ));
        gate_in.send(()).unwrap();
        closing.join().unwrap();
    });
    assert!(matches!(
        poll(&mut first),
        Poll::Ready(Processed {
            result: Err(ChainFault::Host(_)),
            ..
        })
    ));
    drop(second);
    assert!(run(&mut waiting, "late").result.is_err());
}

#[test]
fn a_dropped_handle_drops_its_chain() {
    let pool = GuestPool::new(1).unwrap();
    let alive = Arc::new(());
    let held = alive.clone();
    let mut handle = pool.add(acts(move |_| {
        let _ = &held;
        Ok(Turn::Done)
    }));
    run(&mut handle, "x").result.unwrap();
    drop(handle);
    assert_eq!(Arc::strong_count(&alive), 1);
}

//! Stages that report when their input has ended: one function more, and the macro that exports it.
//!
//! `wit/` has a world of its own for them, and so the generated bindings have the contract's types a second time. What is
//! here moves the buffers from one to the other; nothing is copied.

use crate::bindings::report::exports::sluice::pipeline::stage as wire;
use crate::guest::Slot;
use crate::{Batch, BatchStage, Column, Emit, Fault, Outcome, Output};

/// A stage with something to say when its input has ended. It is a [`RecordStage`](crate::RecordStage) or a
/// [`BatchStage`] that gathers: records that it takes in are dropped, the others pass. Exported with
/// [`report!`](crate::report).
///
/// What it gathers lives in its memory until then, so bound it. A panic ends the execution: reject what cannot be processed.
/// It sees each record once, unless it answers `retry` itself.
pub trait Report: BatchStage {
    /// Says it. Called once, after the last record; again if it answers `retry`. Never called when the execution is stopped
    /// before its input ends.
    fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault>;
}

/// Exports a stage that reports from the component: `report!(Type)`, for a type that implements
/// [`Report`](crate::Report). Once in a crate, in place of [`stage!`](crate::stage).
///
/// On any target but Wasm it only checks the type.
#[macro_export]
macro_rules! report {
    ($stage:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::guest::Slot<$stage> = const { $crate::guest::Slot::new() };
            }

            struct Component;

            impl $crate::bindings::report::exports::sluice::pipeline::stage::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    SLOT.with(|slot| slot.configure(&config))
                }

                fn process(
                    batch: $crate::bindings::report::exports::sluice::pipeline::stage::Batch,
                ) -> ::core::result::Result<
                    $crate::bindings::report::exports::sluice::pipeline::stage::Output,
                    $crate::bindings::report::exports::sluice::pipeline::stage::Fault,
                > {
                    SLOT.with(|slot| $crate::guest::process(slot, batch))
                }
            }

            impl $crate::bindings::report::exports::sluice::pipeline::ending::Guest for Component {
                fn finish() -> ::core::result::Result<
                    $crate::bindings::report::exports::sluice::pipeline::stage::Batch,
                    $crate::bindings::report::exports::sluice::pipeline::stage::Fault,
                > {
                    SLOT.with(|slot| $crate::guest::finish(slot))
                }
            }

    $crate::export_report_component!(Component with_types_in $crate::bindings::report);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = $crate::guest::is_report::<$stage>;
    };
}

/// A batch of the world `report`, handed to the stage.
pub fn process<S: BatchStage>(
    slot: &Slot<S>,
    batch: wire::Batch,
) -> Result<wire::Output, wire::Fault> {
    let output = slot.process(from_wire(batch)).map_err(fault)?;
    let Output { outcome, rejects } = output;
    let rejects = rejects.into_iter().map(|reject| wire::Reject {
        index: reject.index,
        reason: reject.reason,
    });
    Ok(wire::Output {
        outcome: match outcome {
            Outcome::Keep => wire::Outcome::Keep,
            Outcome::Select(kept) => wire::Outcome::Select(kept),
            Outcome::Replace(new) => wire::Outcome::Replace(wire::Replacement {
                batch: to_wire(new.batch),
                origin: new.origin,
            }),
        },
        rejects: rejects.collect(),
    })
}

/// What the stage says at the end.
pub fn finish<S: Report>(slot: &Slot<S>) -> Result<wire::Batch, wire::Fault> {
    slot.finish().map(to_wire).map_err(fault)
}

/// Checks natively what the export needs on Wasm.
pub fn is_report<S: Report>() {}

impl<S: Report> Slot<S> {
    /// Asks the stage for what it has to say at the end.
    pub fn finish(&self) -> Result<Batch, Fault> {
        self.with(|stage| {
            let mut emit = Emit::default();
            stage.finish(&mut emit)?;
            Ok(emit.into_batch())
        })
    }
}

fn fault(fault: Fault) -> wire::Fault {
    match fault {
        Fault::Retry(reason) => wire::Fault::Retry(reason),
        Fault::Fatal(reason) => wire::Fault::Fatal(reason),
    }
}

fn from_wire(batch: wire::Batch) -> Batch {
    let attributes = batch.attributes.into_iter().map(|column| Column {
        name: column.name,
        data: column.data,
        ends: column.ends,
    });
    Batch {
        data: batch.data,
        ends: batch.ends,
        times: batch.times,
        attributes: attributes.collect(),
    }
}

fn to_wire(batch: Batch) -> wire::Batch {
    let attributes = batch.attributes.into_iter().map(|column| wire::Column {
        name: column.name,
        data: column.data,
        ends: column.ends,
    });
    wire::Batch {
        data: batch.data,
        ends: batch.ends,
        times: batch.times,
        attributes: attributes.collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::Harness;
    use crate::{Decision, NoConfig, Record, RecordStage};

    /// Takes lines with an `a` in and lets the others pass.
    struct Count(u64);

    impl RecordStage for Count {
        type Config = NoConfig;
        fn configure(_config: NoConfig) -> Result<Self, String> {
            Ok(Self(0))
        }
        fn record(&mut self, record: Record<'_>, _emit: &mut Emit) -> Decision {
            let takes = record.contains(&b'a');
            self.0 += u64::from(takes);
            Decision::from(!takes)
        }
    }

    impl Report for Count {
        fn finish(&mut self, emit: &mut Emit) -> Result<(), Fault> {
            if self.0 == 0 {
                return Err(Fault::Fatal("nothing came".to_owned()));
            }
            emit.push(self.0.to_string().as_bytes());
            emit.push(b"end");
            let unfinished = emit.start();
            drop(unfinished);
            Ok(())
        }
    }

    report!(Count);

    #[test]
    fn a_report_gathers_over_batches_and_says_it_at_the_end() {
        let mut harness = Harness::<Count>::new("{}").unwrap();
        assert_eq!(harness.process(&["a", "b"]).unwrap().text(), ["b"]);
        assert!(harness.process(&["ab"]).unwrap().records.is_empty());
        assert_eq!(harness.finish().unwrap(), ["2", "end"]);
        let mut empty = Harness::<Count>::new("{}").unwrap();
        assert!(matches!(empty.finish(), Err(Fault::Fatal(reason)) if reason == "nothing came"));
    }

    #[test]
    fn the_second_set_of_types_says_the_same() {
        let slot = Slot::<Count>::new();
        slot.configure("{}").unwrap();
        let mut batch = to_wire(Batch::of(&["a", "b"]));
        batch.times = vec![1, 2];
        let output = process(&slot, batch).unwrap();
        assert!(matches!(output.outcome, wire::Outcome::Select(kept) if kept == [1]));
        let report = finish(&slot).unwrap();
        assert_eq!((report.data, report.ends), (b"1end".to_vec(), vec![1, 4]));
    }
}

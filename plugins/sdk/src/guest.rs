//! What the [`stage!`](crate::stage) macro expands into calls of: the place where an instance keeps its stage.
//!
//! An instance handles one call at a time, so a `RefCell` in a thread-local is enough; it is never borrowed twice, since
//! a stage has no way to call back into itself.

use std::cell::RefCell;

pub use crate::report::{finish, is_report, process};
use crate::{Batch, BatchStage, Fault, Output, config};

/// The one stage of an instance.
#[derive(Debug)]
pub struct Slot<S>(RefCell<Option<S>>);

impl<S> Slot<S> {
    /// An instance that is not configured yet.
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }
}

impl<S> Default for Slot<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: BatchStage> Slot<S> {
    /// Makes the stage from its config.
    pub fn configure(&self, json: &str) -> Result<(), String> {
        #[cfg(target_arch = "wasm32")]
        report_panics();
        let stage = S::configure(config::read(json)?)?;
        *self.0.borrow_mut() = Some(stage);
        Ok(())
    }

    /// Hands a batch to the stage.
    pub fn process(&self, batch: Batch) -> Result<Output, Fault> {
        self.with(|stage| stage.process(batch))
    }

    pub(crate) fn with<R>(
        &self,
        call: impl FnOnce(&mut S) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        match self.0.borrow_mut().as_mut() {
            Some(stage) => call(stage),
            None => Err(Fault::Fatal(
                "the stage was called before configure".to_owned(),
            )),
        }
    }
}

/// A panic ends the call as a trap, and a trap carries no message: the log gets it, in one line.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic
            .payload_as_str()
            .unwrap_or("with a value that is no text");
        match panic.location() {
            Some(place) => crate::log::error(format!("panicked at {place}: {message}")),
            None => crate::log::error(format!("panicked: {message}")),
        }
    }));
}

/// Checks natively what the export needs on Wasm.
pub fn is_stage<S: BatchStage>() {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Decision, Emit, NoConfig, Outcome, Record, RecordStage};

    struct Keep;

    impl RecordStage for Keep {
        type Config = NoConfig;
        fn configure(_config: NoConfig) -> Result<Self, String> {
            Ok(Self)
        }
        fn record(&mut self, _record: Record<'_>, _emit: &mut Emit) -> Decision {
            Decision::Keep
        }
    }

    #[test]
    fn a_slot_needs_configure_first() {
        let slot = Slot::<Keep>::new();
        assert!(matches!(
            slot.process(Batch::of(&["a"])),
            Err(Fault::Fatal(_))
        ));
        assert!(slot.configure(r#"{"no":1}"#).unwrap_err().contains("no"));
        slot.configure("{}").unwrap();
        assert!(matches!(
            slot.process(Batch::of(&["a"])).unwrap().outcome,
            Outcome::Keep
        ));
    }
}

//! Keeps every record. Written against the bare bindings, so that it imports nothing and shows what a call costs.

#[cfg(target_arch = "wasm32")]
mod component {
    use sluice_sdk::bindings::exports::sluice::pipeline::stage::Guest;
    use sluice_sdk::{Batch, Fault, Outcome, Output};

    struct Identity;

    impl Guest for Identity {
        fn configure(_config: String) -> Result<(), String> {
            Ok(())
        }

        fn process(_batch: Batch) -> Result<Output, Fault> {
            Ok(Output {
                outcome: Outcome::Keep,
                rejects: Vec::new(),
            })
        }
    }

    sluice_sdk::export_component!(Identity);
}

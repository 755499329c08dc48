//! Passes records through and does what std does through WASI: writes to stdout and stderr, reads clocks, the
//! environment, the arguments and a directory, draws random numbers. Built for wasm32-wasip2, it shows that a component
//! with the usual imports runs without a grant, and that there is nothing behind them.

#[cfg(target_arch = "wasm32")]
mod component {
    #![allow(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "where stdout and stderr go is what it shows"
    )]

    use std::collections::HashMap;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use sluice_sdk::bindings::exports::sluice::pipeline::stage::Guest;
    use sluice_sdk::{Batch, Fault, Outcome, Output};

    struct WasiUsual;

    impl Guest for WasiUsual {
        fn configure(_config: String) -> Result<(), String> {
            println!(
                "wasi-usual: {} arguments, {} variables, {} in the directory",
                std::env::args().count(),
                std::env::vars().count(),
                std::fs::read_dir(".").map_or_else(
                    |_| "nothing".to_owned(),
                    |entries| format!("{} files", entries.count())
                ),
            );
            let since_epoch = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_err(|error| error.to_string())?;
            if since_epoch.is_zero() {
                Err("the clock stands at the epoch".to_owned())
            } else {
                Ok(())
            }
        }

        fn process(batch: Batch) -> Result<Output, Fault> {
            let start = Instant::now();
            // Its hasher draws random keys.
            let mut lengths = HashMap::<usize, usize>::new();
            for record in batch.records() {
                *lengths.entry(record.len()).or_default() += 1;
            }
            println!(
                "wasi-usual: {} records of {} lengths",
                batch.len(),
                lengths.len()
            );
            eprintln!("wasi-usual: took {} ns", start.elapsed().as_nanos());
            Ok(Output {
                outcome: Outcome::Keep,
                rejects: Vec::new(),
            })
        }
    }

    sluice_sdk::export_component!(WasiUsual);
}

//! Connects to the address in its config and passes records through. Built for wasm32-wasip2, it imports
//! `wasi:sockets`: the tests see it refused where the pipeline was not granted that.

#[cfg(target_arch = "wasm32")]
mod component {
    use std::net::TcpStream;

    use sluice_sdk::{Batch, BatchStage, Fault, Outcome, Output, stage};

    struct WasiSockets;

    #[derive(sluice_sdk::serde::Deserialize)]
    #[serde(crate = "sluice_sdk::serde", deny_unknown_fields)]
    struct Config {
        /// `host:port`; without it nothing is connected.
        connect: Option<String>,
    }

    impl BatchStage for WasiSockets {
        type Config = Config;

        fn configure(config: Config) -> Result<Self, String> {
            if let Some(address) = config.connect {
                TcpStream::connect(&address)
                    .map_err(|error| format!("cannot connect to {address}: {error}"))?;
            }
            Ok(Self)
        }

        fn process(&mut self, _batch: Batch) -> Result<Output, Fault> {
            Ok(Output {
                outcome: Outcome::Keep,
                rejects: Vec::new(),
            })
        }
    }

    stage!(WasiSockets);
}

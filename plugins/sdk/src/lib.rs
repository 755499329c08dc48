//! The Rust SDK for Sluice stages.
//!
//! A stage is a plain function over a record, a [`RecordStage`] or a [`BatchStage`], and one line of [`stage!`]. This is a
//! whole filter:
//!
//! ```
//! use sluice_sdk::{Record, stage};
//!
//! fn keep(record: Record<'_>) -> bool {
//!     !record.starts_with(b"#")
//! }
//!
//! stage!(fn keep);
//! # fn main() { assert!(keep(Record::of(b"text"))); }
//! ```
//!
//! A stage with something to say once its input has ended is a [`Report`] too, and is exported by [`report!`].
//!
//! The SDK sits between the generated bindings of `wit/` and the author. It picks the cheapest outcome by itself, keeps
//! the stage between calls, turns the config's JSON into a type, and sends a panic's message to the execution's log.
//! Everything but the export itself compiles natively, so `cargo test` runs a stage; see [`testing`]. It imports nothing of
//! WASI and never reads a clock, a file or the network.

// The generated code names its runtime by an absolute path, inside this crate too.
extern crate self as sluice_sdk;

mod batch;
pub mod bindings;
mod config;
#[doc(hidden)]
pub mod guest;
pub mod json;
pub mod log;
mod needle;
mod report;
mod stage;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use batch::{Record, Records};
pub use bindings::export_component;
pub use bindings::exports::sluice::pipeline::stage::{
    Batch, Column, Fault, Outcome, Output, Reject, Replacement,
};
#[doc(hidden)]
pub use bindings::report::export_report_component;
pub use config::NoConfig;
pub use needle::Needle;
pub use report::Report;
pub use serde;
pub use stage::{BatchStage, Buffer, Decision, Emit, REASON_BYTES_MAX, RecordStage, RecordWriter};
#[doc(hidden)]
pub use wit_bindgen;

/// Exports a stage from the component. Once in a crate.
///
/// - `stage!(Type)`: a type that implements [`RecordStage`] or [`BatchStage`].
/// - `stage!(fn name)`: a `fn(Record<'_>) -> impl Into<Decision>`; `bool` will do.
/// - `stage!(fn name(Config))`: a `fn(&Config, Record<'_>) -> impl Into<Decision>`.
///
/// On any target but Wasm it only checks the types.
#[macro_export]
macro_rules! stage {
    (fn $function:ident) => {
        const _: () = {
            #[allow(dead_code)]
            struct Function;
            impl $crate::RecordStage for Function {
                type Config = $crate::NoConfig;
                fn configure(
                    _config: Self::Config,
                ) -> ::core::result::Result<Self, ::std::string::String> {
                    Ok(Self)
                }
                fn record(
                    &mut self,
                    record: $crate::Record<'_>,
                    _emit: &mut $crate::Emit,
                ) -> $crate::Decision {
                    $crate::Decision::from($function(record))
                }
            }
            $crate::stage!(Function);
        };
    };
    (fn $function:ident($config:ty)) => {
        const _: () = {
            #[allow(dead_code)]
            struct Function($config);
            impl $crate::RecordStage for Function {
                type Config = $config;
                fn configure(
                    config: Self::Config,
                ) -> ::core::result::Result<Self, ::std::string::String> {
                    Ok(Self(config))
                }
                fn record(
                    &mut self,
                    record: $crate::Record<'_>,
                    _emit: &mut $crate::Emit,
                ) -> $crate::Decision {
                    $crate::Decision::from($function(&self.0, record))
                }
            }
            $crate::stage!(Function);
        };
    };
    ($stage:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::guest::Slot<$stage> = const { $crate::guest::Slot::new() };
            }

            struct Component;

            impl $crate::bindings::exports::sluice::pipeline::stage::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    SLOT.with(|slot| slot.configure(&config))
                }

                fn process(
                    batch: $crate::Batch,
                ) -> ::core::result::Result<$crate::Output, $crate::Fault> {
                    SLOT.with(|slot| slot.process(batch))
                }
            }

    $crate::export_component!(Component with_types_in $crate::bindings);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = $crate::guest::is_stage::<$stage>;
    };
}

// The guide's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Guide;

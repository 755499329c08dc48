//! What `wit-bindgen` makes of the world `report` of `wit/`.
//!
//! A crate of its own, because the macros that export an interface are named after the interface alone, and the SDK's own
//! bindings have one for `stage` already. Authors use it through `sluice_sdk` only.
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated"
)]

// The generated code names its runtime by an absolute path, inside this crate too.
extern crate self as sluice_sdk_report;

#[doc(hidden)]
pub use wit_bindgen;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "report",
    runtime_path: "::sluice_sdk_report::wit_bindgen::rt",
    pub_export_macro: true,
    export_macro_name: "export_report_component",
    default_bindings_module: "::sluice_sdk_report",
    generate_all,
});

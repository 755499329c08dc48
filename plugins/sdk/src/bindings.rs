//! What `wit-bindgen` makes of `wit/`: types, the `log` import, the `Guest` trait and the export macro.
//!
//! Most plugins need none of it. Who wants to implement `Guest` by hand finds it here, and exports with
//! [`export_component!`](crate::export_component).
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "transform",
    runtime_path: "::sluice_sdk::wit_bindgen::rt",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "::sluice_sdk::bindings",
    generate_all,
});

/// The same for the world `report`, whose types are its own.
pub use sluice_sdk_report as report;

//! The host side of `wit/`, generated. Parameters borrow, so that a batch is copied once: into the guest's memory.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; private to this crate"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "transform",
    imports: { default: trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});

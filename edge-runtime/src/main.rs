//! The `sluice-edge` program.
fn main() {}

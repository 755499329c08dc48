//! Looks into a .wasm without running it: imports, exports, sizes. No IO.

//! Lines for the execution's log.
//!
//! The host cuts lines over 8 KiB and drops what exceeds 100 lines a second. Natively a line goes to stderr and is kept
//! for [`Harness::logs`](crate::testing::Harness::logs).

pub use crate::bindings::sluice::pipeline::log::Level;

/// Writes one line.
pub fn log(level: Level, message: impl AsRef<str>) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::sluice::pipeline::log::log(level, message.as_ref());
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::collect(level, message.as_ref());
}

/// Writes a line that matters to the plugin's author only.
pub fn debug(message: impl AsRef<str>) {
    log(Level::Debug, message);
}

/// Writes a line about what normally happens.
pub fn info(message: impl AsRef<str>) {
    log(Level::Info, message);
}

/// Writes a line about what somebody should look at.
pub fn warn(message: impl AsRef<str>) {
    log(Level::Warn, message);
}

/// Writes a line about what went wrong.
pub fn error(message: impl AsRef<str>) {
    log(Level::Error, message);
}

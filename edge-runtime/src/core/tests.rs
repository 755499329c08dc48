//! The edge's core with a real store in memory, driven by hand.

#![allow(clippy::unwrap_used)]

mod boot_loop;
mod faults;
mod ledger;
mod rig;
mod session;
mod work;

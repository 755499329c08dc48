#![allow(clippy::unwrap_used)]

mod faults;
mod ledger;
mod rig;
mod session;
mod work;

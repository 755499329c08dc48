//! What the tests share.

pub mod cases;
pub mod e2e;
pub mod sim;
pub mod tidy;

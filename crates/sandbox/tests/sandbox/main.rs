//! The sandbox against real guests: the components in `plugins/dist/`, and some in text.

#![allow(clippy::unwrap_used)]

mod chains;
mod endings;
mod guests;
mod isolation;
mod limits;
mod load;
mod pool;
mod wasi;

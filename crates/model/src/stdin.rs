//! What a launch brings for `[input.stdin]`.

/// Most bytes of one launch's stdin: a day's log of a busy service, a quarter of an hour on a link of 2 Mbit/s. What is
/// larger belongs in a file on the edge.
pub const STDIN_BYTES_MAX: u64 = 256 * 1024 * 1024;

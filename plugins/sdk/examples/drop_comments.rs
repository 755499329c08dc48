//! The shortest filter: a function over a record, without a config.

use sluice_sdk::{Record, stage};

fn keep(record: Record<'_>) -> bool {
    !record.starts_with(b"#")
}

stage!(fn keep);

//! What people are told when the store fails.

use sluice_api::{ErrorBody, ErrorCode};

use crate::store::StoreError;

/// An error with what caused it.
pub(super) fn describe(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

pub(super) fn store_error(error: &StoreError) -> ErrorBody {
    match error {
        StoreError::Full => ErrorBody::new(
            ErrorCode::DiskFull,
            "the orchestrator's disk is full; nothing was changed",
        )
        .with_help(
            "make room on the disk that holds the orchestrator's state directory, then try again",
        ),
        other => ErrorBody::new(ErrorCode::Internal, format!("{other}; nothing was changed"))
            .with_help("the orchestrator's log says more"),
    }
}

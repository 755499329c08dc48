//! What an input names, for answering it when it fails.

use super::{ConnId, Input, RequestId};

impl Input {
    /// The connection that it came from.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Opened { conn, .. } | Self::Frame { conn, .. } => Some(*conn),
            _ => None,
        }
    }

    /// The connection that it opens.
    pub(super) fn opened(&self) -> Option<ConnId> {
        match self {
            Self::Opened { conn, .. } => Some(*conn),
            _ => None,
        }
    }

    /// The question that it is.
    pub(super) fn request(&self) -> Option<RequestId> {
        match self {
            Self::Join { request, .. } | Self::Pull { request, .. } | Self::Api { request, .. } => {
                Some(*request)
            }
            Self::CertificateIssued(issued) => Some(issued.request),
            _ => None,
        }
    }
}

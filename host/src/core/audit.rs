//! On whose behalf something is asked: who may, and what is written of it in the audit log.
//!
//! What was done is recorded in the transaction that did it. What was refused changes nothing, so the API's shell has it
//! recorded afterwards.

use std::sync::Arc;

use sluice_api::{AuditEntry, AuditQuery, ErrorBody, ErrorCode};
use sluice_model::{Role, UnixMs};

use super::operator::{ApiCall, Called, Reply};
use super::{Core, Handled, RequestId, Step};
use crate::store::{Store, StoreError};

/// Who presents a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token: `operator.toml`, or its id.
    pub token: String,
    /// Who or what it is for.
    pub name: Option<String>,
    /// What it may do.
    pub role: Role,
}

/// A caller with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Who.
    pub caller: Caller,
    /// The operation, such as `job.deploy`.
    pub operation: &'static str,
    /// The path that was asked for.
    pub target: String,
}

impl Asker {
    pub(super) fn entry(&self, at: UnixMs, outcome: Result<(), &ErrorBody>) -> AuditEntry {
        let (outcome, message) = match outcome {
            Ok(()) => ("done", None),
            Err(error) => (error.code.as_str(), Some(error.message.clone())),
        };
        AuditEntry {
            id: 0,
            at,
            token: self.caller.token.clone(),
            name: self.caller.name.clone(),
            role: self.caller.role,
            operation: self.operation.to_owned(),
            target: self.target.clone(),
            outcome: outcome.to_owned(),
            message,
        }
    }
}

impl<S: Store> Core<S> {
    pub(super) fn handle_api(
        &mut self,
        request: RequestId,
        call: ApiCall,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let (asker, call): (Option<Arc<Asker>>, ApiCall) = match call {
            ApiCall::By(asker, call) => (Some(asker), *call),
            call => (None, call),
        };
        let recorded = asker.filter(|_| call.writes());
        let called = self.call(call, step)?;
        let handled = if called.is_ok() {
            if let Some(asker) = recorded {
                self.store
                    .insert_audit(&asker.entry(step.now.unix, Ok(())))?;
            }
            Handled::Keep
        } else {
            Handled::Undo
        };
        step.reply(request, called);
        Ok(handled)
    }

    /// Who presents the token with this hash.
    pub(super) fn authenticate(
        &mut self,
        hash: [u8; 32],
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let token = self.store.api_token(hash)?;
        let caller = token
            .filter(|token| token.expires_at > now)
            .map(|token| Caller {
                token: token.id.to_string(),
                name: token.name,
                role: token.role,
            });
        Ok(Ok(Reply::Caller(caller)))
    }

    pub(super) fn read_audit(&mut self, query: &AuditQuery) -> Result<Called, StoreError> {
        let limit = query.limit.unwrap_or(sluice_api::AUDIT_LIMIT_DEFAULT);
        if !(1..=sluice_api::AUDIT_LIMIT_MAX).contains(&limit) {
            let message = format!("`limit` is 1 to {}", sluice_api::AUDIT_LIMIT_MAX);
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message)));
        }
        Ok(Ok(Reply::Audit(self.store.audit(query.before, limit)?)))
    }
}

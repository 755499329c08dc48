//! On whose behalf something is asked: who may, and what is written of it in the audit log.
//!
//! What was done is recorded in the transaction that did it. What was refused changes nothing, so the API's shell has it
//! recorded afterwards.

use std::sync::Arc;

use sluice_api::{AuditEntry, ErrorBody, ErrorCode, NodeOrder, job_etag, node_etag};
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
    /// What must hold for a write to be done.
    pub only_if: Option<OnlyIf>,
}

/// What whoever asks for a write saw before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnlyIf {
    /// The job or node is still as one of these `ETag`s says; empty: it is there at all.
    Is(Vec<String>),
    /// There is no such job or node.
    Absent,
}

impl Caller {
    /// Who or what it is, in one word: the token's name, or the token.
    pub fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.token)
    }
}

impl Asker {
    /// `Ok` with what was done, where the path does not say it.
    pub(super) fn entry(
        &self,
        at: UnixMs,
        outcome: Result<Option<String>, &ErrorBody>,
    ) -> AuditEntry {
        let (outcome, message) = match outcome {
            Ok(done) => ("done", done),
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
        // A dry run says what a deploy would do, so it heeds the same conditions.
        let is_conditional = call.writes() || call.job().is_some();
        let only_if = asker.as_ref().filter(|_| is_conditional);
        let only_if = only_if.and_then(|asker| asker.only_if.clone());
        let recorded = asker.filter(|_| call.writes());
        let stale = match only_if {
            Some(only_if) => self.check(&only_if, &call)?.err(),
            None => None,
        };
        let asked = recorded.as_ref().and_then(|_| asked(&call));
        let called = match stale {
            Some(stale) => Err(stale),
            None => self.call(call, step)?,
        };
        let handled = if let Ok(reply) = &called {
            if let Some(asker) = recorded {
                let done = asked.or_else(|| made(reply));
                self.store
                    .insert_audit(&asker.entry(step.now.unix, Ok(done)))?;
            }
            Handled::Keep
        } else {
            Handled::Undo
        };
        step.reply(request, called);
        Ok(handled)
    }

    /// Whether the job or node that a call is about is as its asker saw it.
    fn check(
        &mut self,
        only_if: &OnlyIf,
        call: &ApiCall,
    ) -> Result<Result<(), ErrorBody>, StoreError> {
        let (what, etag, look) = if let Some(name) = call.job() {
            let job = self.store.job_by_name(&name)?;
            let etag = job.map(|job| job_etag(job.id, job.version, job.stopped));
            let look = format!("`sluice job history {name}`");
            (format!("job {name}"), etag, look)
        } else if let Some(name) = call.node() {
            let node = self.store.node_by_name(name)?;
            let etag = node.map(|node| node_etag(node.id, node.orders.count));
            let look = format!("`sluice node describe {name}`");
            (format!("node {name}"), etag, look)
        } else if matches!(call, ApiCall::Deploy(..)) {
            // Its text has problems, and the deploy says which.
            return Ok(Ok(()));
        } else {
            let message = "only orders about a job or a node take If-Match and If-None-Match";
            return Ok(Err(ErrorBody::new(ErrorCode::Invalid, message)));
        };
        let holds = match (only_if, &etag) {
            (OnlyIf::Is(seen), Some(etag)) => seen.is_empty() || seen.contains(etag),
            (OnlyIf::Absent, None) => true,
            (OnlyIf::Is(_), None) | (OnlyIf::Absent, Some(_)) => false,
        };
        if holds {
            return Ok(Ok(()));
        }
        let message = match etag {
            Some(etag) => format!("{what} is not as it was seen: it is {etag} now"),
            None => format!("{what} is not as it was seen: there is none now"),
        };
        Ok(Err(ErrorBody::new(ErrorCode::Stale, message).with_help(
            format!(
                "somebody changed it meanwhile: look at {look} and `sluice audit`, then try again"
            ),
        )))
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
}

/// What a call is about, where neither its path nor its reply says it.
fn asked(call: &ApiCall) -> Option<String> {
    Some(match call {
        ApiCall::CreateApiToken(token) => {
            format!(
                "token {}, {}, until {}",
                token.id, token.role, token.expires_at
            )
        }
        ApiCall::CreateToken(token) => {
            let whom = match (&token.node, token.rejoin) {
                (Some(node), _) => format!("for the node {node}"),
                (None, true) => "for any node that joins again".to_owned(),
                (None, false) => "for new nodes".to_owned(),
            };
            format!("token {}, {whom}, until {}", token.id, token.expires_at)
        }
        ApiCall::OrderNode(_, NodeOrder::Label(labels)) => {
            let set = labels
                .set
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            let removed = labels.remove.iter().map(|key| format!("{key}-"));
            set.chain(removed).collect::<Vec<_>>().join(" ")
        }
        _ => return None,
    })
}

/// What a call made, by its reply.
fn made(reply: &Reply) -> Option<String> {
    Some(match reply {
        Reply::Deploy(deploy) => format!("job {}, version {}", deploy.job, deploy.version),
        Reply::Run(run) => {
            let jobs: Vec<String> = run.jobs.iter().map(ToString::to_string).collect();
            format!("run {} of {}", run.id, jobs.join(", "))
        }
        Reply::LaunchedBefore(run) => format!(
            "nothing: its key names run {}, which was there already",
            run.id
        ),
        Reply::Schedule(schedule) => format!("schedule {} of {}", schedule.name, schedule.job),
        _ => return None,
    })
}

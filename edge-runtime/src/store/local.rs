//! Local facts as bytes: JSON, since they never travel and a person may have to read them.

use serde::{Deserialize, Serialize};
use sluice_agent::{Assignment, BringUp, EndedHow, FailedTries, Label, Local};
use sluice_model::{
    Attempt, Desired, Digest, ExecutionId, FailReason, JobId, JobName, Slot, Version,
};

#[derive(Serialize, Deserialize)]
struct Facts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Started>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    #[serde(default)]
    restarts: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bring_ups: Vec<KeptBringUp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tries: Option<KeptTries>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leftover_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Started {
    job: JobId,
    job_name: JobName,
    version: Version,
    attempt: Attempt,
    slot: Slot,
    spec: Digest,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    once: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptBringUp {
    version: Version,
    attempt: Attempt,
    in_progress: bool,
    deaths: u64,
}

#[derive(Serialize, Deserialize)]
struct KeptTries {
    version: Version,
    attempt: Attempt,
    failed: u64,
    took_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Ended {
    version: Version,
    attempt: Attempt,
    how: How,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailReason>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Completed,
    Failed,
    Quarantined,
}

pub(super) fn encode(local: &Local) -> Vec<u8> {
    let facts = Facts {
        started: local.started.as_ref().map(|started| Started {
            job: started.job,
            job_name: started.job_name.clone(),
            version: started.label.version,
            attempt: started.label.attempt,
            slot: started.slot,
            spec: started.spec,
            once: started.once,
        }),
        ended: local.ended.as_ref().map(|(label, how)| {
            let (how, reason, message) = match how {
                EndedHow::Completed => (How::Completed, None, String::new()),
                EndedHow::Failed { reason, message } => {
                    (How::Failed, Some(*reason), message.clone())
                }
                EndedHow::Quarantined { message } => (How::Quarantined, None, message.clone()),
            };
            Ended {
                version: label.version,
                attempt: label.attempt,
                how,
                reason,
                message,
            }
        }),
        restarts: local.restarts,
        bring_ups: local
            .bring_ups
            .iter()
            .map(|it| KeptBringUp {
                version: it.label.version,
                attempt: it.label.attempt,
                in_progress: it.in_progress,
                deaths: it.deaths,
            })
            .collect(),
        tries: local.tries.map(|it| KeptTries {
            version: it.label.version,
            attempt: it.label.attempt,
            failed: it.failed,
            took_ms: it.took_ms,
        }),
        leftover_ms: local.leftover_ms,
    };
    serde_json::to_vec(&facts).expect("plain data with text keys becomes JSON")
}

/// `None` when the bytes are not ours.
pub(super) fn decode(execution: &[u8], facts: &[u8]) -> Option<Local> {
    let execution = ExecutionId::from_slice(execution)?;
    let facts: Facts = serde_json::from_slice(facts).ok()?;
    Some(Local {
        execution,
        started: facts.started.map(|started| Assignment {
            execution,
            job: started.job,
            job_name: started.job_name,
            label: Label {
                version: started.version,
                attempt: started.attempt,
            },
            desired: Desired::Run,
            slot: started.slot,
            spec: started.spec,
            once: started.once,
        }),
        ended: facts.ended.map(|ended| {
            let label = Label {
                version: ended.version,
                attempt: ended.attempt,
            };
            let how = match ended.how {
                How::Completed => EndedHow::Completed,
                How::Failed => EndedHow::Failed {
                    reason: ended.reason.unwrap_or(FailReason::Fatal),
                    message: ended.message,
                },
                How::Quarantined => EndedHow::Quarantined {
                    message: ended.message,
                },
            };
            (label, how)
        }),
        restarts: facts.restarts,
        bring_ups: facts
            .bring_ups
            .iter()
            .map(|it| BringUp {
                label: Label {
                    version: it.version,
                    attempt: it.attempt,
                },
                in_progress: it.in_progress,
                deaths: it.deaths,
            })
            .collect(),
        tries: facts.tries.map(|it| FailedTries {
            label: Label {
                version: it.version,
                attempt: it.attempt,
            },
            failed: it.failed,
            took_ms: it.took_ms,
        }),
        leftover_ms: facts.leftover_ms,
    })
}

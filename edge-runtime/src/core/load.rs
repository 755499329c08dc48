//! What a process finds on its disk: checked, mended where that is possible, and handed to the agent.

use std::collections::{BTreeMap, BTreeSet};

use sluice_agent::{Agent, Artifact, ArtifactKind, Boot, Now, Observation, SpecFacts, SpecParts};
use sluice_ledger::{RowHash, RowSet};
use sluice_model::{BootNonce, Desired, Digest, ExecutionId};
use sluice_protocol::{AssignmentRow, ObservedRow, Spec};

use super::session::Session;
use super::{CoreOptions, Event, Output, State};
use crate::runner::Counters;
use crate::store::{Store, StoreError};

/// Loads everything as one transaction.
pub(super) fn load(
    store: &mut Store,
    options: CoreOptions,
    now: Now,
) -> Result<(State, Vec<Output>), StoreError> {
    store.begin()?;
    let meta_stored = store.meta()?;
    let mut trouble = Vec::new();

    let mut desired = RowSet::default();
    let mut boot = Boot::default();
    for row in store.desired()? {
        if RowHash::of(&row.body) != row.hash {
            trouble.push("a desired row is not what was written".to_owned());
            store.remove_desired(&row.key)?;
            continue;
        }
        desired.upsert(row.key.clone(), row.hash);
        match read_row(&row.key, &row.body) {
            Ok(assignment) => boot.rows.push(assignment),
            Err(Some((execution, why))) => boot.unreadable.push((execution, why)),
            Err(None) => {}
        }
    }
    if desired.digest() != meta_stored.desired_digest {
        trouble.push("the desired rows are not those that were written".to_owned());
    }
    boot.rows_were_lost = !trouble.is_empty();

    boot.locals = store.locals()?;
    let started = boot.locals.iter().filter_map(|it| it.started.as_ref());
    // A row that orders no run may have come without its pipeline.
    let to_run = boot.rows.iter().filter(|row| row.desired == Desired::Run);
    let named: BTreeSet<Digest> = to_run.chain(started).map(|row| row.spec).collect();
    for digest in named {
        match store.spec(digest)? {
            Some(bytes) if Digest::of(&bytes) == digest => {
                boot.specs.insert(digest, facts_of(&bytes));
            }
            Some(_) => {
                trouble.push("a pipeline's text is not what was written".to_owned());
                store.remove_spec(digest)?;
            }
            None => trouble.push("a pipeline's text is missing".to_owned()),
        }
    }

    let mut observed = RowSet::default();
    let mut counters = BTreeMap::new();
    for (key, body) in store.live()? {
        observed.upsert(key, RowHash::of(&body));
        if let Ok(row) = ObservedRow::decode(&body) {
            counters.insert(row.execution, counters_of(&row));
            boot.reported.push(observation_of(row));
        }
    }

    let mut meta = meta_stored.clone();
    meta.boot_counter = meta.boot_counter.next();
    match (&meta.node, &options.node) {
        // Its rows, revisions and orders are another node's: every session would be held for ever.
        (Some((known, name)), Some((id, _))) if known != id => {
            let node = format!("{name} ({known})");
            return Err(StoreError::OtherNode { node });
        }
        (None, Some(node)) => meta.node = Some(node.clone()),
        _ => {}
    }
    let (first, _) = options
        .seed
        .split_first_chunk::<8>()
        .expect("the seed has 32 bytes");
    let seed = u64::from_be_bytes(*first);
    let mut state = State {
        boot_nonce: BootNonce::from_random(options.boot_nonce),
        options,
        agent: Agent::new(boot, seed, meta.suspended.clone(), now),
        meta,
        meta_stored,
        desired,
        observed,
        counters,
        session: Session::None,
        wants_snapshot: !trouble.is_empty(),
        outputs: Vec::new(),
    };
    if state.meta.incarnation.is_none() {
        state.mint_incarnation();
    }
    for message in trouble {
        let message = format!("{message}: what was started runs on, and all rows are asked for");
        state.event(Event::StoreTrouble { message });
    }
    state.flush(store, now)?;
    store.commit()?;
    state.meta_stored = state.meta.clone();
    let outputs = std::mem::take(&mut state.outputs);
    Ok((state, outputs))
}

/// Reads a desired row; an error names the execution, unless not even the key is one.
pub(super) fn read_row(
    key: &[u8],
    body: &[u8],
) -> Result<sluice_agent::Assignment, Option<(ExecutionId, String)>> {
    let Some(execution) = ExecutionId::from_slice(key) else {
        return Err(None);
    };
    match AssignmentRow::decode(body) {
        Ok(row) if row.execution == execution => Ok(sluice_agent::Assignment {
            execution,
            job: row.job,
            job_name: row.job_name,
            label: sluice_agent::Label {
                version: row.version,
                attempt: row.attempt,
            },
            desired: row.desired,
            slot: row.slot,
            spec: row.spec,
            once: row.once,
        }),
        Ok(_) => Err(Some((
            execution,
            "it speaks of another execution".to_owned(),
        ))),
        Err(error) => Err(Some((execution, error.to_string()))),
    }
}

/// What the agent must know of a spec.
pub(super) fn facts_of(bytes: &[u8]) -> SpecFacts {
    let spec = Spec::decode(bytes).map_err(|error| error.to_string())?;
    let components = spec.components.iter().map(|it| Artifact {
        digest: it.digest,
        size: it.size,
        kind: ArtifactKind::Component,
    });
    let stdin = spec.stdin.iter().map(|it| Artifact {
        digest: it.digest,
        size: it.size,
        kind: ArtifactKind::Stdin,
    });
    Ok(SpecParts {
        content: spec.content(),
        artifacts: components.chain(stdin).collect(),
        is_batch: spec.is_batch(),
    })
}

fn counters_of(row: &ObservedRow) -> Counters {
    Counters {
        records_in: row.records_in,
        records_out: row.records_out,
        dead_letters: row.dead_letters,
        output: row.output,
        ..Counters::default()
    }
}

fn observation_of(row: ObservedRow) -> Observation {
    Observation {
        execution: row.execution,
        label: sluice_agent::Label {
            version: row.version,
            attempt: row.attempt,
        },
        phase: row.phase,
        fail: row.fail,
        reason: row.reason,
        next_action: row.next_action,
        next_at: row.next_at,
        restarts: row.restarts,
        running_version: row.running_version,
    }
}

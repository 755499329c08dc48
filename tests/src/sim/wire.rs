//! Frames as lines of the timeline.

use sluice_protocol::{
    EdgeMessage, OrchestratorMessage, Rows, decode, edge_message, orchestrator_message,
};

/// What an edge says; the simulator's own cores never send what cannot be read.
pub(super) fn read_edge(frame: &[u8]) -> Option<edge_message::Kind> {
    decode::<EdgeMessage>(frame).ok()?.kind
}

/// What an orchestrator says.
pub(super) fn read_orchestrator(frame: &[u8]) -> Option<orchestrator_message::Kind> {
    decode::<OrchestratorMessage>(frame).ok()?.kind
}

fn rows(rows: &Rows) -> String {
    let from = match rows.base {
        Some(base) => format!("{base}"),
        None => "all".to_owned(),
    };
    let more = if rows.last { "" } else { ", more follows" };
    format!(
        "Rows {from} -> {} ({} rows, {} gone, {} outcomes{more})",
        rows.to.rev,
        rows.upserts.len(),
        rows.removed.len(),
        rows.outcomes.len()
    )
}

/// One line for an edge's message.
pub(super) fn show_edge(kind: &edge_message::Kind) -> String {
    use edge_message::Kind;
    match kind {
        Kind::Hello(hello) => format!(
            "Hello boot {} epoch {} desired {} observed {}",
            hello.boot_counter, hello.epoch, hello.desired.rev, hello.observed.rev
        ),
        Kind::Begin(begin) => format!("Begin session {}", begin.session),
        Kind::Received(received) => format!("Received {}", received.rev),
        Kind::Resync(resync) => format!("Resync from {:?}", resync.from),
        Kind::Rows(it) => rows(it),
        Kind::Heartbeat(beat) => format!(
            "Heartbeat {} desired {} observed {}",
            beat.seq, beat.desired.rev, beat.observed.rev
        ),
        Kind::Renew(_) => "Renew".to_owned(),
    }
}

/// One line for an orchestrator's message.
pub(super) fn show_orchestrator(kind: &orchestrator_message::Kind) -> String {
    use orchestrator_message::Kind;
    match kind {
        Kind::Welcome(welcome) => format!(
            "Welcome session {} epoch {} observed {}{}{}{}",
            welcome.session,
            welcome.epoch,
            welcome.observed_acked,
            if welcome.held { " HELD" } else { "" },
            if welcome.new_incarnation {
                " NEW INCARNATION"
            } else {
                ""
            },
            if welcome.renew_only {
                " RENEW ONLY"
            } else {
                ""
            }
        ),
        Kind::Reject(reject) => format!("Reject {}: {}", reject.code, reject.message),
        Kind::Rows(it) => rows(it),
        Kind::Received(received) => format!("Received {}", received.rev),
        Kind::Resync(resync) => format!("Resync from {:?}", resync.from),
        Kind::HeartbeatAck(ack) => format!(
            "HeartbeatAck {} desired {} observed {}",
            ack.seq, ack.desired.rev, ack.observed.rev
        ),
        Kind::Renewed(_) => "Renewed".to_owned(),
    }
}

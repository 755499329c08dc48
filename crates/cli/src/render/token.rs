//! Tokens of both sorts, and what was done with those of the API.

use sluice_api::{AuditEntry, Token};

use sluice_model::TokenState;

use super::{Cell, Style, Tone, at, cell, clean, fields, maybe, table, toned};

/// The tokens as a table. The secret is shown once, when a token is made.
pub(crate) fn tokens(style: Style, tokens: &[Token]) -> String {
    let header = ["ID", "FOR", "STATE", "USES LEFT", "EXPIRES"];
    let rows = tokens
        .iter()
        .map(|token| {
            vec![
                cell(token.id),
                cell(lets_in(token)),
                state(token),
                cell(uses(token)),
                cell(at(token.expires_at)),
            ]
        })
        .collect();
    table(style, &header, rows)
}

fn state(token: &Token) -> Cell {
    let tone = match token.state {
        TokenState::Valid => Tone::Plain,
        TokenState::UsedUp | TokenState::Expired | TokenState::Revoked => Tone::Warn,
    };
    toned(token.state, tone)
}

fn uses(token: &Token) -> String {
    token
        .uses_left
        .map_or_else(|| "any".to_owned(), |uses| uses.to_string())
}

/// One token.
pub(crate) fn token_detail(token: &Token) -> String {
    let ended = token.ended_at.map(at);
    fields(&[
        ("id", cell(token.id)),
        ("for", cell(lets_in(token))),
        ("state", state(token)),
        ("uses left", cell(uses(token))),
        ("created", cell(at(token.created_at))),
        ("by", maybe(token.created_by.as_deref())),
        ("expires", cell(at(token.expires_at))),
        ("ended", maybe(ended)),
    ])
}

fn lets_in(token: &Token) -> String {
    if let Some(role) = token.role {
        return match &token.name {
            Some(name) => format!("the API as {role}: {}", clean(name)),
            None => format!("the API as {role}"),
        };
    }
    match (&token.node, token.rejoin) {
        (Some(node), _) => format!("node {node}"),
        (None, true) => "new nodes, and any that comes back".to_owned(),
        (None, false) => "new nodes".to_owned(),
    }
}

/// The audit log as a table.
pub(crate) fn audit(style: Style, entries: &[AuditEntry]) -> String {
    let header = ["AT", "BY", "ROLE", "OPERATION", "TARGET", "OUTCOME"];
    let rows = entries
        .iter()
        .map(|entry| {
            let by = entry.name.as_ref().unwrap_or(&entry.token);
            let outcome = match &entry.message {
                Some(message) => format!("{}: {message}", entry.outcome),
                None => entry.outcome.clone(),
            };
            vec![
                cell(at(entry.at)),
                cell(clean(by)),
                cell(entry.role),
                cell(&entry.operation),
                cell(clean(&entry.target)),
                cell(clean(&outcome)),
            ]
        })
        .collect();
    table(style, &header, rows)
}

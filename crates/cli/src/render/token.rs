//! Tokens of both sorts, and what was done with those of the API.

use sluice_api::{AuditEntry, Token};

use super::{Style, at, cell, clean, table};

/// The tokens as a table. The secret is shown once, when a token is made.
pub(crate) fn tokens(style: Style, tokens: &[Token]) -> String {
    let header = ["ID", "FOR", "USES LEFT", "EXPIRES"];
    let rows = tokens
        .iter()
        .map(|token| {
            vec![
                cell(token.id),
                cell(lets_in(token)),
                cell(
                    token
                        .uses_left
                        .map_or_else(|| "any".to_owned(), |uses| uses.to_string()),
                ),
                cell(at(token.expires_at)),
            ]
        })
        .collect();
    table(style, &header, rows)
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

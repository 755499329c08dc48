//! Join tokens.

use sluice_api::Token;

use super::{Style, at, cell, table};

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
    match (&token.node, token.rejoin) {
        (Some(node), _) => format!("node {node}"),
        (None, true) => "new nodes, and any that comes back".to_owned(),
        (None, false) => "new nodes".to_owned(),
    }
}

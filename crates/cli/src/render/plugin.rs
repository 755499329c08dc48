//! Components.

use serde::Serialize;
use sluice_api::{Plugin, PluginDetail};
use sluice_model::Digest;

use super::{Style, at, cell, clean, fields, maybe, size, table};

/// The orchestrator's components as a table.
pub(crate) fn plugins(style: Style, plugins: &[Plugin]) -> String {
    let header = ["DIGEST", "SIZE", "WORLD", "IMPORTS", "USED BY"];
    let rows = plugins
        .iter()
        .map(|plugin| {
            vec![
                cell(plugin.digest),
                cell(size(plugin.size)),
                cell(&plugin.world),
                cell(plugin.imports.len()),
                cell(plugin.used_by.join(", ")),
            ]
        })
        .collect();
    table(style, &header, rows)
}

/// One of the orchestrator's components.
pub(crate) fn plugin_detail(detail: &PluginDetail) -> String {
    let plugin = &detail.plugin;
    let in_use = match (plugin.used_by.is_empty(), plugin.in_use) {
        (false, _) => "by job versions",
        (true, true) => "by an assignment of a node that is behind",
        (true, false) => "no: it is forgotten within two hours",
    };
    let mut text = fields(&[
        ("digest", cell(plugin.digest)),
        ("size", cell(size(plugin.size))),
        ("world", cell(&plugin.world)),
        ("uploaded", maybe(detail.uploaded_at.map(at))),
        ("by", maybe(detail.uploaded_by.as_deref())),
        ("in use", cell(in_use)),
    ]);
    text.push_str(&names("imports", &plugin.imports));
    text.push_str(&names("exports", &detail.exports));
    text.push_str(&names("job versions", &plugin.used_by));
    text
}

fn names(what: &str, list: &[String]) -> String {
    if list.is_empty() {
        return format!("{what}: none\n");
    }
    let lines = list.iter().map(|name| format!("  {}\n", clean(name)));
    format!("{what}:\n{}", lines.collect::<String>())
}

/// What `plugin inspect` found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Inspected {
    /// The sha256 of its bytes.
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    /// The version of the stage contract that it exports, if any.
    pub(crate) stage: Option<String>,
    /// What it is made for, if it is a stage: `transform` or `report`.
    pub(crate) world: Option<String>,
    /// What it needs, in its own order.
    pub(crate) imports: Vec<String>,
    /// What it offers, in its own order.
    pub(crate) exports: Vec<String>,
    /// Linear memory that it starts with, in bytes.
    pub(crate) memory_bytes_min: u64,
    /// Functions with a body.
    pub(crate) functions: u64,
    /// Why a deploy would refuse it; empty when it would not.
    pub(crate) problems: Vec<String>,
}

/// One component.
pub(crate) fn inspected(found: &Inspected) -> String {
    let mut text = fields(&[
        ("digest", cell(found.digest)),
        ("size", cell(size(found.size))),
        ("stage contract", maybe(found.stage.as_deref())),
        ("world", maybe(found.world.as_deref())),
        ("memory at start", cell(size(found.memory_bytes_min))),
        ("functions", cell(found.functions)),
    ]);
    text.push_str(&names("imports", &found.imports));
    text.push_str(&names("exports", &found.exports));
    if found.problems.is_empty() {
        text.push_str("a deploy would take it\n");
    } else {
        text.push_str("a deploy would refuse it:\n");
        for problem in &found.problems {
            text.push_str(&format!("  {}\n", clean(problem)));
        }
    }
    text
}

//! What of a pipeline's text decides what runs, apart from where it runs and how it gets there.
//!
//! Two texts with the same content differ only in comments, layout, `kind` (`daemon` or `replicas`), `count`, `select`,
//! `on_lost` and `[rollout]`. An execution that runs the one runs the other, so nothing restarts between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml_edit::{Document, Item, Table, TableLike, Value};

/// Top-level keys that say where a job is wanted and how a new version gets there.
const PLACING: [&str; 5] = ["kind", "count", "select", "on_lost", "rollout"];

/// A text's content in one form: keys sorted, no comments. The same content gives the same text in every version of
/// this program, since checkpoints are compared by it. `None` for what is not TOML, and for a batch, whose tasks never
/// go over from one version to the next.
pub fn content_of(text: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let root = document.as_table();
    if root.get("kind").and_then(Item::as_str) == Some("batch") {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    write_table(&mut out, root, |key| !PLACING.contains(&key));
    Some(out)
}

/// Whether a text says that it is launched and runs to an end. `false` for what is not TOML.
pub fn is_batch(text: &str) -> bool {
    let document = Document::parse(text).ok();
    let kind = document
        .as_ref()
        .and_then(|document| document.as_table().get("kind"));
    kind.and_then(Item::as_str) == Some("batch")
}

fn write_table(out: &mut String, table: &dyn TableLike, keep: impl Fn(&str) -> bool) {
    let sorted: BTreeMap<&str, &Item> = table.iter().filter(|(key, _)| keep(key)).collect();
    out.push('{');
    for (key, item) in sorted {
        write_text(out, key);
        write_item(out, item);
    }
    out.push('}');
}

fn write_item(out: &mut String, item: &Item) {
    match item {
        Item::None => out.push('-'),
        Item::Value(value) => write_value(out, value),
        Item::Table(table) => write_table(out, table, |_| true),
        Item::ArrayOfTables(tables) => write_list(out, tables.iter(), |out, table: &Table| {
            write_table(out, table, |_| true);
        }),
    }
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text.value()),
        Value::Integer(number) => write_scalar(out, 'i', number.value()),
        Value::Float(number) => write_scalar(out, 'f', number.value().to_bits()),
        Value::Boolean(it) => write_scalar(out, 'b', it.value()),
        Value::Datetime(time) => write_scalar(out, 't', time.value()),
        Value::Array(list) => write_list(out, list.iter(), write_value),
        Value::InlineTable(table) => write_table(out, table, |_| true),
    }
}

fn write_list<T>(out: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    out.push('[');
    for item in items {
        write(out, item);
    }
    out.push(']');
}

/// With its length before it, so that no text can look like what follows it.
fn write_text(out: &mut String, text: &str) {
    let _ = write!(out, "s{}:{text}", text.len());
}

fn write_scalar(out: &mut String, kind: char, value: impl std::fmt::Display) {
    let _ = write!(out, "{kind}{value};");
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "name = \"a\"\n[input.generate]\ninterval = \"1s\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n\
                        config = { level = 1, words = [\"x\", \"y\"] }\n[output.stdout]\n";

    #[test]
    fn where_and_how_many_and_in_what_order_is_no_content() {
        let base = content_of(BASE).expect("TOML");
        let head = "kind = \"replicas\" # three of them\ncount = 3\non_lost = \"wait\"\n";
        let placed = format!(
            "{head}{BASE}[select]\nsite = \"plant-7\"\n[rollout]\ncanary = 1\nmax_parallel = \"20%\"\n"
        );
        assert_eq!(content_of(&placed), Some(base.clone()));
        let laid_out = "# the same\nname = 'a'\ninput = { generate = { interval = \"1s\" } }\n\
                        stage = [ { plugin = \"p.wasm\", name = \"s\", config = { words = [ \"x\",\n \"y\" ], level = 1 } } ]\n\
                        output.stdout = {}\n";
        assert_eq!(content_of(laid_out), Some(base));
    }

    #[test]
    fn whatever_the_work_is_made_of_is_content() {
        let base = content_of(BASE);
        for (from, to) in [
            ("name = \"a\"\n", "name = \"b\"\n"),
            ("interval = \"1s\"", "interval = \"2s\""),
            ("interval = \"1s\"", "interval = \"1s\"\ncount = 3"),
            ("p.wasm", "q.wasm"),
            ("level = 1", "level = 1.0"),
            ("level = 1", "level = \"1\""),
            ("\"x\", \"y\"", "\"y\", \"x\""),
            ("\"x\", \"y\"", "\"x\", \"y\", \"z\""),
            ("[output.stdout]", "[output.discard]"),
            ("config = {", "config = { count = 3,"),
        ] {
            let other = BASE.replace(from, to);
            assert_ne!(other, BASE, "{from} is there");
            assert_ne!(content_of(&other), base, "{to}");
        }
        assert_eq!(content_of("no toml"), None);
        let batch = format!("kind = \"batch\"\n{BASE}");
        assert_eq!(content_of(&batch), None);
        assert!(is_batch(&batch) && !is_batch(BASE) && !is_batch("no toml"));
    }
}

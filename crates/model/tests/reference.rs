//! `PIPELINES.md`, the reference for people, says what the schema says: its tables are made of the schema
//! (`SLUICE_BLESS=1` writes them; look at the difference before keeping it), and its examples are pipelines.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::{Map, Value};
use sluice_model::pipeline::{json_schema, parse};

/// What the schema asks of a name.
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// What ends each table.
const END: &str = "<!-- end -->";

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../PIPELINES.md")
}

fn text() -> String {
    std::fs::read_to_string(file()).unwrap()
}

/// A type of the schema; the document itself has no name.
fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(path) => &schema["$defs"][path.rsplit('/').next().unwrap()],
        None => node,
    }
}

fn said(node: &Value) -> &str {
    node.get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The fixed words that a value may be, if that is what it is.
fn words(node: &Value) -> Option<Vec<&Value>> {
    let choices = node.get("oneOf")?.as_array()?;
    let all = choices.iter().all(|choice| choice.get("const").is_some());
    all.then(|| choices.iter().collect())
}

/// `A, B or C`.
fn either(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What a value is, with its bounds.
fn kind(schema: &Value, node: &Value) -> String {
    let node = resolve(schema, node);
    if let Some(words) = words(node) {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", word["const"].as_str().unwrap()))
            .collect();
        return either(&words);
    }
    if let Some(choices) = node.get("anyOf").and_then(Value::as_array) {
        let kinds: Vec<String> = choices.iter().map(|it| kind(schema, it)).collect();
        return either(&kinds);
    }
    let number = |key: &str| node.get(key).and_then(Value::as_f64);
    match node["type"].as_str().unwrap() {
        word @ ("integer" | "number") => match (number("minimum"), number("maximum")) {
            (Some(min), Some(max)) => format!("{word}, {min} to {max}"),
            (Some(min), None) => format!("{word}, {min} or more"),
            _ => word.to_owned(),
        },
        "string" => match node.get("pattern").and_then(Value::as_str) {
            Some(NAME_PATTERN) => "name".to_owned(),
            Some(pattern) if pattern.ends_with("%$") => "part in %".to_owned(),
            Some(pattern) if pattern.contains("KiB") => "size".to_owned(),
            Some(other) => panic!("a pattern that the reference has no word for: {other}"),
            None => "string".to_owned(),
        },
        "array" => {
            let of = match kind(schema, &node["items"]).as_str() {
                "table" => "list of tables".to_owned(),
                other => format!("list of {other}s"),
            };
            match number("maxItems") {
                Some(max) => format!("{of}, at most {max}"),
                None => of,
            }
        }
        "object" => match number("maxProperties").filter(|_| node.get("properties").is_none()) {
            Some(max) => format!("table, at most {max}"),
            None => "table".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// A key's row.
fn row(schema: &Value, key: &str, node: &Value, required: bool) -> String {
    let (meaning, absent) = match said(node).split_once(" Absent: ") {
        Some((meaning, absent)) => (meaning, absent.trim_end_matches('.')),
        None => (said(node), ""),
    };
    let default = match (required, absent) {
        (true, _) => "**required**",
        (false, "") => "-",
        (false, absent) => absent,
    };
    let kind = kind(schema, node);
    format!("| `{key}` | {kind} | {default} | {meaning} |\n")
}

/// The table of a type's keys, the required ones first.
fn keys(schema: &Value, properties: &Map<String, Value>, required: &Value) -> String {
    let is_required = |key: &str| {
        let list = required.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().any(|it| it == key)
    };
    let mut table = "| key | value | absent | what it means |\n|---|---|---|---|\n".to_owned();
    for wanted in [true, false] {
        for (key, node) in properties {
            if is_required(key) == wanted {
                table.push_str(&row(schema, key, node, wanted));
            }
        }
    }
    table
}

fn values(words: &[&Value]) -> String {
    let mut table = "| value | what it means |\n|---|---|\n".to_owned();
    for word in words {
        let value = word["const"].as_str().unwrap();
        table.push_str(&format!("| `{value}` | {} |\n", said(word)));
    }
    table
}

/// Every table of the schema, by the name of its type.
fn tables() -> Vec<(String, String)> {
    let schema = json_schema();
    let defs = schema["$defs"].as_object().unwrap();
    let mut tables = vec![("Pipeline".to_owned(), &schema)];
    tables.extend(
        defs.iter()
            .map(|(name, def)| (name.trim_end_matches("Document").to_owned(), def)),
    );
    let table = |(name, def): (String, &Value)| {
        let table = match (def.get("properties"), words(def)) {
            (Some(properties), _) => {
                keys(&schema, properties.as_object().unwrap(), &def["required"])
            }
            // A single word is named where it stands.
            (None, Some(words)) if words.len() > 1 => values(&words),
            (None, _) => return None,
        };
        Some((name, table))
    };
    tables.into_iter().filter_map(table).collect()
}

#[test]
fn the_tables_say_what_the_schema_says() {
    let mut found = text();
    let mut wrong = Vec::new();
    for (name, table) in tables() {
        let mark = format!("<!-- {name} -->\n");
        assert_eq!(
            found.matches(&mark).count(),
            1,
            "PIPELINES.md needs `{mark}` once"
        );
        let start = found.find(&mark).unwrap() + mark.len();
        let length = found[start..].find(END).expect("an end of the table");
        if found[start..start + length] != table {
            wrong.push(name);
            found.replace_range(start..start + length, &table);
        }
    }
    if std::env::var_os("SLUICE_BLESS").is_some() {
        std::fs::write(file(), &found).unwrap();
    } else {
        assert_eq!(
            wrong, [""; 0],
            "run this with SLUICE_BLESS=1, and read the difference"
        );
    }
    let marks = found.matches("<!-- ").count() - found.matches(END).count();
    assert_eq!(marks, tables().len(), "a table of a type that there is not");
}

/// The examples, each as a whole pipeline: what a fragment leaves out is put around it.
fn examples(text: &str) -> Vec<String> {
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|block| {
            let mut example = block.split("```").next().unwrap().to_owned();
            if !example.contains("name = \"") || !example.trim_start().starts_with("name = ") {
                example.insert_str(0, "name = \"example\"\n");
            }
            if !example.contains("[input.") {
                example.push_str("[input.generate]\ntemplate = \"x\"\ncount = 1\n");
            }
            if !example.contains("[output.") && !example.contains("[[output]]") {
                example.push_str("[output.stdout]\n");
            }
            example
        })
        .collect()
}

#[test]
fn the_examples_are_pipelines() {
    let examples = examples(&text());
    assert!(examples.len() >= 8, "{}", examples.len());
    for example in examples {
        if let Err(problems) = parse(&example) {
            panic!(
                "{example}\n{}",
                problems.render("PIPELINES.md", &example, false)
            );
        }
    }
}

#[test]
fn the_variables_and_the_reserved_keys_are_those_of_the_check() {
    let text = text();
    let section = |title: &str| {
        let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap();
        rest.split("\n## ").next().unwrap().to_owned()
    };
    let quoted = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let rows: Vec<String> = section("Variables")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| quoted(line.split(" | ").next().unwrap()))
        .collect();
    assert!(rows.len() >= 9, "{rows:?}");
    for variable in rows {
        let pipeline = format!(
            "name = \"a\"\nkind = \"batch\"\nparams.top = {{ type = \"integer\" }}\n[input.generate]\ntemplate = '{variable}'\ncount = 1\n[output.stdout]\n"
        );
        assert!(parse(&pipeline).is_ok(), "{variable}");
    }
    let reserved = quoted(&section("Reserved"));
    assert!(reserved.len() >= 10, "{reserved:?}");
    for key in reserved {
        let pipeline = format!("name = \"a\"\n{key} = 1\n[input.stdin]\n[output.stdout]\n");
        let problems = parse(&pipeline).unwrap_err().to_string();
        assert!(
            problems.contains("is not in this version"),
            "{key}: {problems}"
        );
    }
}

//! The schema and the walk know the same keys.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;

use super::json_schema;
use crate::pipeline::parse;
use crate::pipeline::parse::keys;

/// The properties of a type, and whether it refuses others.
fn properties(schema: &Value, name: &str) -> BTreeSet<String> {
    let section = match name {
        "" => schema,
        name => &schema["$defs"][name],
    };
    assert_eq!(
        section["additionalProperties"], false,
        "{name} refuses unknown keys"
    );
    let empty = serde_json::Map::new();
    section["properties"]
        .as_object()
        .unwrap_or(&empty)
        .keys()
        .cloned()
        .collect()
}

/// Each section: its type in the schema, its keys in the walk, and a document with `KEY` where a key of it stands.
const SECTIONS: &[(&str, &[&str], &str)] = &[
    ("", keys::PIPELINE, "KEY = 1"),
    ("RolloutDocument", keys::ROLLOUT, "[rollout]\nKEY = 1"),
    (
        "ParamDocument",
        keys::PARAM,
        "kind = \"batch\"\n[params.p]\nKEY = 1",
    ),
    ("InputDocument", keys::INPUTS, "[input]\nKEY = 1"),
    (
        "GenerateDocument",
        keys::GENERATE,
        "[input.generate]\nKEY = 1",
    ),
    (
        "FileInputDocument",
        keys::FILE_INPUT,
        "[input.file]\nKEY = 1",
    ),
    ("ExecDocument", keys::EXEC, "[input.exec]\nKEY = 1"),
    ("StdinDocument", keys::STDIN, "[input.stdin]\nKEY = 1"),
    ("StageDocument", keys::STAGE, "[[stage]]\nKEY = 1"),
    (
        "LimitsDocument",
        keys::LIMITS,
        "[[stage]]\n[stage.limits]\nKEY = 1",
    ),
    ("OutputDocument", keys::OUTPUTS, "[output]\nKEY = 1"),
    (
        "NamedOutputDocument",
        keys::NAMED_OUTPUT,
        "[[output]]\nKEY = 1",
    ),
    ("StdoutDocument", keys::STDOUT, "[output.stdout]\nKEY = 1"),
    (
        "FileOutputDocument",
        keys::FILE_OUTPUT,
        "[output.file]\nKEY = 1",
    ),
    (
        "DiscardDocument",
        keys::DISCARD,
        "[output.discard]\nKEY = 1",
    ),
];

#[test]
fn schema_and_walk_have_the_same_keys() {
    let schema = json_schema();
    for (name, keys, _) in SECTIONS {
        let keys: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(properties(&schema, name), keys, "{name}");
    }
    let known: BTreeSet<&str> = SECTIONS.iter().map(|(name, ..)| *name).collect();
    for (name, section) in schema["$defs"].as_object().unwrap() {
        let compared = known.contains(name.as_str()) || section.get("properties").is_none();
        assert!(
            compared,
            "{name} has properties that no section of the walk is compared with"
        );
    }
}

#[test]
fn the_walk_reads_every_key_that_it_lists_and_no_other() {
    let is_known = |document: &str, key: &str| {
        let text = document.replace("KEY", key);
        let Err(problems) = parse(&text) else {
            return true;
        };
        let mut messages = problems.iter().map(|problem| problem.message.clone());
        !messages.any(|message| message.starts_with("unknown key"))
    };
    for (name, keys, document) in SECTIONS {
        for key in *keys {
            assert!(is_known(document, key), "{name}: {key}");
        }
        assert!(!is_known(document, "invented"), "{name}");
        for reserved in keys::RESERVED
            .iter()
            .filter(|reserved| !keys.contains(reserved))
        {
            let Err(problems) = parse(&document.replace("KEY", reserved)) else {
                panic!("{name}: {reserved}")
            };
            let refused = format!("{reserved}` is not in this version");
            assert!(
                problems
                    .iter()
                    .any(|problem| problem.message.ends_with(&refused)),
                "{name}: {reserved}"
            );
        }
    }
}

#[test]
fn required_keys_are_required_on_both_sides() {
    let schema = json_schema();
    let required = |name: &str| -> BTreeSet<String> {
        let section = if name.is_empty() {
            &schema
        } else {
            &schema["$defs"][name]
        };
        let list = section["required"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|key| key.as_str().unwrap().to_owned())
            .collect()
    };
    for (name, _, document) in SECTIONS {
        let text = document.replace("KEY = 1", "");
        let problems = parse(&text).unwrap_err();
        for key in required(name) {
            let missing = format!("needs `{key}`");
            assert!(
                problems
                    .iter()
                    .any(|problem| problem.message.ends_with(&missing)),
                "{name}: {key}"
            );
        }
    }
    assert_eq!(required("StageDocument").len(), 2);
    assert_eq!(required("").len(), 3);
}

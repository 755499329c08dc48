//! Pipelines and what the check says of each: `cases/NAME.toml` beside `NAME.err`, the problems as a person sees
//! them, or `NAME.ok`, the checked pipeline. `SLUICE_BLESS=1` writes what is found; look at the difference before
//! keeping it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_model::pipeline::{PIPELINE_BYTES_MAX, json_schema, parse};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let names: BTreeSet<PathBuf> = files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    names.into_iter().collect()
}

#[test]
fn every_case_says_what_it_said() {
    let bless = std::env::var_os("SLUICE_BLESS").is_some();
    let (mut bad_count, mut good_count) = (0, 0);
    let mut differing = Vec::new();
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let (shown, extension, other) = match parse(&text) {
            Ok(pipeline) => {
                good_count += 1;
                (format!("{pipeline:#?}\n"), "ok", "err")
            }
            Err(problems) => {
                bad_count += 1;
                let file_name = path.file_name().unwrap().to_str().unwrap();
                (problems.render(file_name, &text, false), "err", "ok")
            }
        };
        let expected = path.with_extension(extension);
        let stale = path.with_extension(other);
        if bless {
            fs::write(&expected, &shown).unwrap();
            if stale.exists() {
                fs::remove_file(&stale).unwrap();
            }
        }
        let found = fs::read_to_string(&expected).unwrap_or_default();
        if found != shown || stale.exists() {
            differing.push(format!("{}\n{shown}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(
        bad_count >= 40 && good_count >= 5,
        "{bad_count} bad and {good_count} good cases were found"
    );
}

#[test]
fn the_schema_is_what_it_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipeline.schema.json");
    let shown = format!("{:#}\n", json_schema());
    if std::env::var_os("SLUICE_BLESS").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap_or_default(),
        shown,
        "SLUICE_BLESS=1 writes it anew"
    );
    assert!(!shown.contains("null"), "a TOML document has no null");
}

#[test]
fn problems_have_places_for_programs() {
    let text = "name = \"a\"\n[input.stdin]\n[output.file]\npath = \"größe/${x}\"\n";
    let reports = parse(text).unwrap_err().reports(text);
    let json = serde_json::to_value(&reports).unwrap();
    assert_eq!(json[0]["line"], 4);
    assert_eq!(json[0]["column"], 15);
    assert_eq!(json[0]["message"], "unknown variable `${x}`");
    assert!(json[0]["help"].as_str().unwrap().contains("${node.name}"));
    assert_eq!(reports.len(), 1);
}

#[test]
fn problems_come_in_the_order_of_the_text() {
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let Err(problems) = parse(&text) else {
            continue;
        };
        let starts: Vec<usize> = problems.iter().map(|problem| problem.span.start).collect();
        assert!(starts.is_sorted(), "{}", path.display());
        assert!(
            starts.iter().all(|start| *start <= text.len()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn colours_are_only_there_when_asked_for() {
    let problems = parse("nam = 1").unwrap_err();
    assert!(
        problems
            .render("p.toml", "nam = 1", true)
            .contains("\u{1b}[")
    );
    assert!(
        !problems
            .render("p.toml", "nam = 1", false)
            .contains('\u{1b}')
    );
}

#[test]
fn a_file_over_the_bound_is_refused_before_it_is_read() {
    let good = "name = \"a\"\n[input.stdin]\n[output.discard]\n";
    let filled = |bytes: usize| format!("{good}#{}", "x".repeat(bytes - good.len() - 1));
    assert!(parse(&filled(PIPELINE_BYTES_MAX)).is_ok());
    let large = filled(PIPELINE_BYTES_MAX + 1);
    let problems = parse(&large).unwrap_err();
    assert!(problems.to_string().contains("262145 bytes"), "{problems}");
    assert!(problems.render("p.toml", &large, false).contains("p.toml"));
}

#[test]
fn a_hundred_problems_are_shown_and_the_rest_counted() {
    let mut text = String::from("name = \"a\"\n[input.stdin]\n[output.discard]\n");
    for number in 0..250 {
        text.push_str(&format!("key{number} = 1\n"));
    }
    let problems = parse(&text).unwrap_err();
    assert_eq!((problems.count(), problems.iter().count()), (250, 100));
    assert!(
        problems
            .render("p.toml", &text, false)
            .ends_with("... and 150 more\n")
    );
    assert!(problems.to_string().starts_with("250 problems"));
}

#[test]
fn damaged_documents_never_panic() {
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let render = |text: &str| match parse(text) {
            Ok(_) => 0,
            Err(problems) => {
                problems.render("p.toml", text, true).len() + problems.reports(text).len()
            }
        };
        for length in (0..text.len()).filter(|length| text.is_char_boundary(*length)) {
            render(&text[..length]);
        }
        for index in 0..text.len() {
            for byte in [0, b'"', b'[', b'=', b'$', b'\n', b'}', b'7', 0xc3] {
                let mut bytes = text.clone().into_bytes();
                bytes[index] = byte;
                if let Ok(damaged) = String::from_utf8(bytes) {
                    render(&damaged);
                }
            }
        }
    }
}

#[test]
fn deep_and_wide_documents_are_refused_or_read_quickly() {
    let deep = format!(
        "name = \"a\"\nx = {}{}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let dotted = format!("{}a = 1", "a.".repeat(10_000));
    let stages = "[[stage]]\n".repeat(20_000);
    let variables = format!("name = \"{}\"", "${".repeat(100_000));
    for text in [deep, dotted, stages, variables] {
        let problems = parse(&text).unwrap_err();
        assert!(problems.render("p.toml", &text, false).len() < 1 << 20);
    }
}

#[test]
fn every_example_is_a_pipeline_named_like_its_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(folder.join("pipeline.toml")).unwrap();
        let pipeline = match parse(&text) {
            Ok(pipeline) => pipeline,
            Err(problems) => panic!(
                "{}",
                problems.render(folder.to_str().unwrap(), &text, false)
            ),
        };
        assert_eq!(
            Some(pipeline.name.as_str()),
            folder.file_name().unwrap().to_str()
        );
        for (stage, plugin) in pipeline.plugins() {
            let known = plugin.to_string().starts_with("../../plugins/dist/");
            assert!(known, "{}: {stage}: {plugin}", pipeline.name);
        }
    }
    assert!(count >= 4, "{count} examples were found");
}

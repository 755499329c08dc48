//! The filter against what `grep` would say, and every wrong config.
#![allow(clippy::unwrap_used)]

use super::*;
use sluice_sdk::testing::Harness;

const LINES: [&str; 4] = ["Failed password for root", "Accepted password", "", "a.b"];

fn passed(config: &str) -> Vec<String> {
    Harness::<FilterContains>::new(config)
        .unwrap()
        .process(&LINES)
        .unwrap()
        .text()
}

#[test]
fn contains_passes_what_has_the_text() {
    assert_eq!(passed(r#"{"contains":"Failed password"}"#), [LINES[0]]);
    assert_eq!(passed(r#"{"contains":"a.b"}"#), [LINES[3]]);
    assert_eq!(passed(r#"{"contains":""}"#), LINES);
    assert!(passed(r#"{"contains":"nowhere"}"#).is_empty());
}

#[test]
fn matches_passes_what_matches_somewhere() {
    assert_eq!(
        passed(r#"{"matches":"^(Failed|Accepted)"}"#),
        [LINES[0], LINES[1]]
    );
    assert_eq!(passed(r#"{"matches":"(?i)failed"}"#), [LINES[0]]);
    assert_eq!(passed(r#"{"matches":"\\w\\.\\w"}"#), [LINES[3]]);
}

#[test]
fn invert_passes_the_others() {
    assert_eq!(
        passed(r#"{"contains":"password","invert":true}"#),
        [LINES[2], LINES[3]]
    );
    assert_eq!(passed(r#"{"matches":".","invert":true}"#), [LINES[2]]);
}

#[test]
fn what_lies_across_two_records_is_in_neither() {
    let passed = |config: &str| {
        Harness::<FilterContains>::new(config)
            .unwrap()
            .process(&["Failed pass", "word", "", "Failed password", "pass"])
            .unwrap()
            .origin
    };
    assert_eq!(passed(r#"{"contains":"password"}"#), [3]);
    assert_eq!(passed(r#"{"matches":"password"}"#), [3]);
    assert_eq!(
        passed(r#"{"contains":"password","invert":true}"#),
        [0, 1, 2, 4]
    );
    assert_eq!(passed(r#"{"contains":""}"#), [0, 1, 2, 3, 4]);
    assert!(passed(r#"{"contains":"","invert":true}"#).is_empty());
}

#[test]
fn records_need_not_be_text() {
    let mut harness = Harness::<FilterContains>::new(r#"{"contains":"é"}"#).unwrap();
    let records: [&[u8]; 2] = [b"\xff\xc3\xa9\xfe", b"\xff\xfe"];
    assert_eq!(harness.process(&records).unwrap().records, [records[0]]);
}

#[test]
fn all_passing_is_told_without_a_list() {
    let mut harness = Harness::<FilterContains>::new(r#"{"contains":""}"#).unwrap();
    let processed = harness.process(&LINES).unwrap();
    assert!(matches!(
        processed.output.outcome,
        sluice_sdk::Outcome::Keep
    ));
}

#[test]
fn a_wrong_config_is_refused_with_what_would_be_right() {
    let cases = [
        (
            "{}",
            "config: give `contains = \"text\"` or `matches = \"regular expression\"`",
        ),
        (
            r#"{"contains":"a","matches":"b"}"#,
            "config: `contains` and `matches` exclude each other: give one",
        ),
        (
            r#"{"contain":"a"}"#,
            "config: unknown field `contain`, expected one of `contains`, `matches`, `invert`",
        ),
        (
            r#"{"contains":7}"#,
            "config: invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"contains":"a","invert":"yes"}"#,
            "config: invalid type: string \"yes\", expected a boolean",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(
            Harness::<FilterContains>::new(config).unwrap_err(),
            expected
        );
    }
    let error = Harness::<FilterContains>::new(r#"{"matches":"a("}"#).unwrap_err();
    assert!(
        error.starts_with("config: `matches` is no regular expression: "),
        "{error}"
    );
    assert!(error.contains("unclosed group"), "{error}");
}

//! Against serde_json: what it refuses is refused, what it reads is read the same, an edited text reads as an edited tree.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value as Tree};

use super::*;

fn tree(record: &[u8]) -> Option<Map<String, Tree>> {
    serde_json::from_slice(record).ok()
}

/// Same verdict and same fields as serde_json.
fn agree(record: &[u8]) {
    let mut scanner = Scanner::new();
    let scanned = scanner.object(record);
    match tree(record) {
        None => assert!(
            scanned.is_err(),
            "accepted: {:?}",
            String::from_utf8_lossy(record)
        ),
        Some(tree) => {
            let object = scanned
                .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(record)));
            for (key, value) in &tree {
                let found = object.get(key).unwrap();
                assert_eq!(&serde_json::from_str::<Tree>(found.raw()).unwrap(), value);
                assert_eq!(found.text().as_deref(), value.as_str());
                assert_eq!(found.boolean(), value.as_bool());
                // Minus zero is a float to serde_json.
                assert_eq!(
                    found.integer(),
                    if found.raw() == "-0" {
                        Some(0)
                    } else {
                        value.as_i64()
                    }
                );
                assert_eq!(found.kind() == Kind::Null, value.is_null());
                if let Some(text) = value.as_str() {
                    assert!(found.is_text(text));
                    assert!(!found.is_text(&format!("{text}x")));
                }
            }
            assert!(
                object
                    .fields()
                    .all(|(key, _)| tree.contains_key(key.as_ref()))
            );
            assert!(object.len() >= tree.len());
        }
    }
}

#[test]
fn valid_and_invalid_texts_are_told_apart() {
    let values = [
        "0",
        "-0",
        "-1.5e+10",
        "12345678901234567890",
        "1E5",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "+1",
        "NaN",
        "0x1",
        "true",
        "tru",
        "truex",
        "null",
        "nul",
        "false",
        "\"\"",
        "\"a",
        "\"\\\"",
        "\"\\u00e9\"",
        "\"\\u00E9 \\n\\/\\b\\f\\r\\t\\\\\"",
        "\"\\u12\"",
        "\"\\x\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ud83dx\"",
        "\"\t\"",
        "\"\u{7f}é😀\"",
        "[]",
        "[1]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[[],[[]],{}]",
        "[}",
        "{]",
        "{}",
        "{\"b\":{\"c\":[{}]}}",
        "{\"b\"}",
        "{\"b\":}",
        "{b:1}",
        "{\"b\":1,}",
        "{'b':1}",
        "[\"a\",\"b\"",
        "{\"a\":1",
        "",
        "1 1",
        "\"12345678\\u000012345678\"",
        "\"1234567\u{1}\"",
        "\"12345678901234\"",
    ];
    for value in values {
        for (before, after) in [
            ("{\"a\":", "}"),
            (" { \"a\" : ", " } "),
            ("{\"a\":", ",\"z\":1}"),
            ("{\"a\":", ""),
            ("{\"a\":[", "]}"),
        ] {
            agree(format!("{before}{value}{after}").as_bytes());
        }
        agree(value.as_bytes());
    }
    for text in [
        "{}{}",
        "{},",
        "{",
        "}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,,\"b\":2}",
        "{\u{a0}}",
        "\u{feff}{}",
    ] {
        agree(text.as_bytes());
    }
    agree(b"{\"a\":\"\xff\"}");
    agree(b"{\"\xc3\":1}");
}

#[test]
fn a_long_text_is_read_to_where_it_ends() {
    let special: [&[u8]; 7] = [b"", b"\"", b"\\n", b"\\x", b"\x1f", "é".as_bytes(), b"\xff"];
    for place in 0..60 {
        for special in special {
            let (before, after) = (b"x".repeat(place), b"y".repeat(60 - place));
            agree(&[b"{\"a\":\"", before.as_slice(), special, &after, b"\"}"].concat());
        }
    }
}

#[test]
fn nesting_goes_as_deep_as_serde_json_goes() {
    for depth in [
        100,
        DEPTH_MAX - 2,
        DEPTH_MAX - 1,
        DEPTH_MAX,
        DEPTH_MAX + 1,
        100_000,
    ] {
        agree(format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
        agree(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).as_bytes());
    }
    let deepest = format!("{}1{}", "{\"a\":".repeat(DEPTH_MAX), "}".repeat(DEPTH_MAX));
    assert!(Scanner::new().object(deepest.as_bytes()).is_ok());
}

#[test]
fn numbers_may_be_larger_than_a_float() {
    let mut scanner = Scanner::new();
    let object = scanner.object(b"{\"a\":1e999}").unwrap();
    assert_eq!(object.get("a").unwrap().number(), Some(f64::INFINITY));
    assert_eq!(object.get("a").unwrap().integer(), None);
}

#[test]
fn an_error_names_the_place() {
    let cases: [(&[u8], &str); 5] = [
        (b"", "not a JSON object: expected `{` at byte 0"),
        (b"[1]", "not a JSON object: expected `{` at byte 0"),
        (
            b"{\"a\":1} x",
            "not a JSON object: more text after the object at byte 8",
        ),
        (
            b"{\"a\":\"\xff\"}",
            "not a JSON object: invalid UTF-8 at byte 6",
        ),
        (
            b"{\"a\":[1,2}",
            "not a JSON object: expected `,` or `]` at byte 9",
        ),
    ];
    for (record, expected) in cases {
        assert_eq!(
            Scanner::new().object(record).unwrap_err().to_string(),
            expected
        );
    }
}

#[test]
fn repeated_keys_are_found_last_and_edited_everywhere() {
    let mut scanner = Scanner::new();
    let object = scanner.object(br#"{"a":1,"\u0061":2,"b":3}"#).unwrap();
    assert_eq!(object.get("a").unwrap().integer(), Some(2));
    let mut out = Vec::new();
    object.write_with(&[Edit::Set("a", "9")], &mut out);
    assert_eq!(out, br#"{"a":9,"\u0061":9,"b":3}"#);
    out.clear();
    object.write_with(&[Edit::Remove("a")], &mut out);
    assert_eq!(out, br#"{"b":3}"#);
}

#[test]
fn edits_leave_the_rest_as_it_was() {
    let cases = [
        ("{}", vec![Edit::Set("a", "1")], r#"{"a":1}"#),
        (
            " { } ",
            vec![Edit::Set("a", "1"), Edit::Set("b", "2")],
            r#" {"a":1,"b":2 } "#,
        ),
        (
            r#"{ "a" : 1 }"#,
            vec![Edit::Set("b", "[]")],
            r#"{ "a" : 1,"b":[] }"#,
        ),
        (
            r#"{ "a" : 1 , "b":2}"#,
            vec![Edit::Set("a", "\"x\"")],
            r#"{ "a" : "x" , "b":2}"#,
        ),
        (
            r#"{"a":1,"b":2,"c":3}"#,
            vec![Edit::Remove("b"), Edit::Set("c", "4"), Edit::Set("d", "5")],
            r#"{"a":1,"c":4,"d":5}"#,
        ),
        (r#"{"a":1}"#, vec![Edit::Remove("a")], "{}"),
        (r#"{"a":1}"#, vec![Edit::Remove("b")], r#"{"a":1}"#),
        (r#"{"a":1}"#, vec![], r#"{"a":1}"#),
        (
            r#"{"a":1}"#,
            vec![Edit::Set("q\"", "1"), Edit::Set("q\"", "2")],
            r#"{"a":1,"q\"":1}"#,
        ),
        (
            r#"{"a":1}"#,
            vec![Edit::Remove("b"), Edit::Set("b", "2")],
            r#"{"a":1}"#,
        ),
    ];
    for (record, edits, expected) in cases {
        let mut out = Vec::new();
        Scanner::new()
            .object(record.as_bytes())
            .unwrap()
            .write_with(&edits, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{record} {edits:?}"
        );
    }
}

#[test]
fn integers_and_objects_are_written() {
    for value in [0, 7, 10, 4_294_967_296, u64::MAX] {
        let mut out = Vec::new();
        write_integer(value, &mut out);
        assert_eq!(out, value.to_string().as_bytes());
    }
    let mut out = Vec::new();
    let mut object = ObjectWriter::new(&mut out);
    object.text("text", "a\"b");
    object.text("none", None);
    object.integer("count", 3);
    object.integer("nothing", None);
    object.boolean("yes", true);
    object.raw("list", "[1]");
    object.finish();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"text":"a\"b","none":null,"count":3,"nothing":null,"yes":true,"list":[1]}"#
    );
}

/// Any tree, floats left out: how they are printed is not what is compared.
fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::from),
        any::<i64>().prop_map(Tree::from),
        any_text().prop_map(Tree::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::from),
            prop::collection::btree_map(any_text(), inner, 0..5)
                .prop_map(|map| Tree::from(Map::from_iter(map))),
        ]
    })
}

/// Short texts over the characters that matter, so that keys collide.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        Just('a'),
        Just('"'),
        Just('\\'),
        Just('\n'),
        Just('é'),
        Just('😀'),
        Just('\u{1}'),
        any::<char>()
    ];
    prop::collection::vec(character, 0..12).prop_map(String::from_iter)
}

fn any_object() -> impl Strategy<Value = Map<String, Tree>> {
    prop::collection::btree_map(
        prop_oneof![Just("a".to_owned()), any_text()],
        any_tree(),
        0..6,
    )
    .prop_map(Map::from_iter)
}

/// A text of the object: compact, pretty, or with every character of strings escaped.
fn written(object: &Map<String, Tree>, style: u8) -> String {
    let compact = serde_json::to_string(object).unwrap();
    match style % 3 {
        0 => compact,
        1 => serde_json::to_string_pretty(object).unwrap(),
        _ => {
            // Outside ASCII everything lies in strings, and there an escape means the same.
            let mut out = String::new();
            for character in compact.chars() {
                let mut units = [0; 2];
                match character.is_ascii() {
                    true => out.push(character),
                    false => character
                        .encode_utf16(&mut units)
                        .iter()
                        .for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
                }
            }
            out
        }
    }
}

proptest! {
    #[test]
    fn every_object_is_read_as_serde_json_reads_it(object in any_object(), style in 0u8..3) {
        agree(written(&object, style).as_bytes());
    }

    #[test]
    fn a_damaged_text_gets_the_verdict_of_serde_json(
        object in any_object(), style in 0u8..3, place in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'}'), Just(b',')], cut in any::<bool>(),
    ) {
        let mut record = written(&object, style).into_bytes();
        let place = place.index(record.len());
        if cut { record.truncate(place) } else { record[place] = byte }
        // A digit turned into an exponent makes a number beyond any float: that is an error to serde_json and none to us.
        prop_assume!(!byte.eq_ignore_ascii_case(&b'e'));
        agree(&record);
    }

    #[test]
    fn an_edited_text_reads_as_the_edited_tree(
        object in any_object(), style in 0u8..3, name in any_text(), value in any_tree(), gone in prop_oneof![Just("a".to_owned()), any_text()], pick in any::<prop::sample::Index>(),
    ) {
        let record = written(&object, style);
        // Half of the time a key that exists.
        let name = match object.keys().nth(pick.index(object.len() * 2 + 1)) {
            Some(key) => key.clone(),
            None => name,
        };
        let json = value.to_string();
        let mut out = Vec::new();
        let mut scanner = Scanner::new();
        scanner.object(record.as_bytes()).unwrap().write_with(&[Edit::Set(&name, &json), Edit::Remove(&gone)], &mut out);
        let mut expected = object.clone();
        if gone != name {
            expected.remove(&gone);
        }
        expected.insert(name, value);
        prop_assert_eq!(tree(&out), Some(expected));
    }

    #[test]
    fn every_text_is_written_so_that_it_reads_back(text in any_text()) {
        let mut out = Vec::new();
        write_text(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}

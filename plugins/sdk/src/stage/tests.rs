//! Decisions about records against the outcome for the batch.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::Harness;
use crate::{Column, NoConfig};

/// Does what a record's first letter says: k, d, r, e (twice, then itself), x = reject, n = emits and keeps anyway.
struct Obedient;

impl RecordStage for Obedient {
    type Config = NoConfig;

    fn configure(_config: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }

    fn record(&mut self, record: Record<'_>, emit: &mut Emit) -> Decision {
        match record[0] {
            b'k' => Decision::Keep,
            b'd' => Decision::Drop,
            b'r' => Decision::Replace([b"R", record.bytes()].concat()),
            b'e' => {
                emit.push(b"E1");
                let mut second = emit.start();
                second.put(b"E");
                second.put(b"2");
                second.finish();
                emit.start().put(b"never finished");
                Decision::Emitted
            }
            b'0' => Decision::Emitted,
            b'n' => {
                emit.push(b"noise");
                Decision::Keep
            }
            b'x' => {
                emit.push(b"noise");
                Decision::reject("because")
            }
            b'l' => Decision::reject("é".repeat(1000)),
            _ => Decision::Fail(Fault::Retry("later".to_owned())),
        }
    }
}

fn shape(output: &Output) -> &'static str {
    match output.outcome {
        Outcome::Keep => "keep",
        Outcome::Select(_) => "select",
        Outcome::Replace(_) => "replace",
    }
}

#[test]
fn the_outcome_is_the_cheapest_one_that_says_it() {
    // Records in, the outcome, records out with their origin, and the rejected ones.
    type Case = (
        &'static [&'static str],
        &'static str,
        &'static [&'static str],
        &'static [u32],
        &'static [u32],
    );
    let cases: &[Case] = &[
        (&[], "keep", &[], &[], &[]),
        (
            &["k1", "k2", "n3"],
            "keep",
            &["k1", "k2", "n3"],
            &[0, 1, 2],
            &[],
        ),
        (&["k1", "x2", "k3"], "keep", &["k1", "k3"], &[0, 2], &[1]),
        (
            &["k1", "d2", "k3", "n4"],
            "select",
            &["k1", "k3", "n4"],
            &[0, 2, 3],
            &[],
        ),
        (
            &["x1", "k2", "d3", "x4", "k5"],
            "select",
            &["k2", "k5"],
            &[1, 4],
            &[0, 3],
        ),
        (&["d1", "d2"], "select", &[], &[], &[]),
        (&["r1", "r2"], "replace", &["Rr1", "Rr2"], &[0, 1], &[]),
        (
            &["k1", "r2", "k3"],
            "replace",
            &["k1", "Rr2", "k3"],
            &[0, 1, 2],
            &[],
        ),
        (
            &["k1", "x2", "d3", "k4", "e5", "n6"],
            "replace",
            &["k1", "k4", "E1", "E2", "n6"],
            &[0, 3, 4, 4, 5],
            &[1],
        ),
        (
            &["x1", "k2", "r3", "x4", "d5"],
            "replace",
            &["k2", "Rr3"],
            &[1, 2],
            &[0, 3],
        ),
        (&["k1", "01", "k2"], "select", &["k1", "k2"], &[0, 2], &[]),
        (&["01"], "select", &[], &[], &[]),
    ];
    for (input, expected, records, origin, rejects) in cases {
        let processed = Harness::<Obedient>::new("")
            .unwrap()
            .process(input)
            .unwrap();
        assert_eq!(shape(&processed.output), *expected, "{input:?}");
        assert_eq!(processed.text(), *records, "{input:?}");
        assert_eq!(processed.origin, *origin, "{input:?}");
        assert_eq!(
            processed
                .rejects
                .iter()
                .map(|(index, _)| *index)
                .collect::<Vec<_>>(),
            *rejects,
            "{input:?}"
        );
    }
}

#[test]
fn every_mixture_of_decisions_says_the_same_as_a_plain_list() {
    let letters = ["k", "d", "r", "e", "x", "n", "0"];
    for mixture in 0..letters.len().pow(5) {
        let mut left = mixture;
        let input: Vec<String> = (0..5)
            .map(|_| {
                let letter = letters[left % letters.len()];
                left /= letters.len();
                letter.to_owned()
            })
            .collect();
        let mut expected = Vec::new();
        for (index, record) in input.iter().enumerate() {
            match record.as_str() {
                "k" | "n" => expected.push((record.clone(), index as u32)),
                "r" => expected.push(("Rr".to_owned(), index as u32)),
                "e" => expected.extend([
                    ("E1".to_owned(), index as u32),
                    ("E2".to_owned(), index as u32),
                ]),
                _ => {}
            }
        }
        let processed = Harness::<Obedient>::new("")
            .unwrap()
            .process(&input)
            .unwrap();
        let got: Vec<_> = processed
            .text()
            .into_iter()
            .zip(processed.origin.iter().copied())
            .collect();
        assert_eq!(got, expected, "{input:?}");
        assert_eq!(
            processed.rejects.len(),
            input.iter().filter(|record| *record == "x").count()
        );
    }
}

fn replacement(input: &[&str]) -> Replacement {
    match Harness::<Obedient>::new("")
        .unwrap()
        .process(input)
        .unwrap()
        .output
        .outcome
    {
        Outcome::Replace(new) => new,
        other => panic!("not replaced: {other:?}"),
    }
}

#[test]
fn origin_is_left_out_when_it_is_one_to_one() {
    assert!(replacement(&["k", "r"]).origin.is_empty());
    assert!(replacement(&["x", "r", "x", "k"]).origin.is_empty());
    // As many records, yet not one for each.
    assert_eq!(replacement(&["d", "e"]).origin, [1, 1]);
    assert_eq!(replacement(&["d", "r"]).origin, [1]);
}

#[test]
fn times_and_attributes_are_left_to_be_inherited() {
    let mut batch = Batch::of(&["k1", "r2"]);
    batch.times = vec![10, 20];
    batch.attributes = vec![Column {
        name: "path".to_owned(),
        data: b"/a/b".to_vec(),
        ends: vec![2, 4],
    }];
    let processed = Harness::<Obedient>::new("")
        .unwrap()
        .process_batch(batch)
        .unwrap();
    let Outcome::Replace(new) = processed.output.outcome else {
        panic!("replaced")
    };
    assert!(new.batch.times.is_empty() && new.batch.attributes.is_empty());
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let processed = Harness::<Obedient>::new("")
        .unwrap()
        .process(&["l"])
        .unwrap();
    assert_eq!(processed.rejects[0].1, "é".repeat(512));
}

#[test]
fn a_failure_is_the_whole_batch() {
    let fault = Harness::<Obedient>::new("")
        .unwrap()
        .process(&["k", "?"])
        .unwrap_err();
    assert!(matches!(fault, Fault::Retry(reason) if reason == "later"));
}

#[test]
fn plain_values_become_decisions() {
    assert!(matches!(Decision::from(true), Decision::Keep));
    assert!(matches!(Decision::from(false), Decision::Drop));
    assert!(matches!(Decision::from("a".to_owned()), Decision::Replace(bytes) if bytes == b"a"));
    assert!(matches!(
        Decision::from(Cow::Borrowed(&b"a"[..])),
        Decision::Keep
    ));
    assert!(matches!(
        Decision::from(Ok::<bool, String>(false)),
        Decision::Drop
    ));
    assert!(
        matches!(Decision::from(Err::<bool, _>("no")), Decision::Reject(reason) if reason == "no")
    );
}

#[test]
fn an_output_says_the_cheapest_that_is_true_of_what_passes() {
    let batch = Batch::of(&["a", "b", "c"]);
    let kept = |output: Output| match output.outcome {
        Outcome::Keep => None,
        Outcome::Select(kept) => Some(kept),
        Outcome::Replace(_) => panic!("nothing is replaced"),
    };
    let pass = |indices: &[u32]| kept(Output::pass(&batch, indices.iter().copied()));
    let pass_others = |indices: &[u32]| kept(Output::pass_others(&batch, indices.iter().copied()));
    assert_eq!(pass(&[0, 1, 2]), None);
    assert_eq!(pass(&[0, 2]), Some(vec![0, 2]));
    assert_eq!(pass(&[]), Some(vec![]));
    assert_eq!(pass_others(&[]), None);
    assert_eq!(pass_others(&[0, 2]), Some(vec![1]));
    assert_eq!(pass_others(&[0, 1, 2]), Some(vec![]));
}

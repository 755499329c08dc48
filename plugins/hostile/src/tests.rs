//! The well-behaved acts natively; the others would end the test or break the harness's checks, as they should.
#![allow(clippy::unwrap_used)]

use super::*;
use sluice_sdk::testing::{Harness, Processed};

fn run(config: &str, records: &[&str]) -> Processed {
    Harness::<Hostile>::new(config)
        .unwrap()
        .process(records)
        .unwrap()
}

#[test]
fn the_lawful_acts_are_lawful() {
    let records = ["one", "two", "three"];
    assert_eq!(run(r#"{"do":"keep"}"#, &records).text(), records);
    assert!(run(r#"{"do":"drop-all"}"#, &records).records.is_empty());
    assert_eq!(
        run(r#"{"do":"uppercase"}"#, &records).text(),
        ["ONE", "TWO", "THREE"]
    );
    let twice = run(r#"{"do":"duplicate"}"#, &records);
    assert_eq!(twice.text(), ["one", "one", "two", "two", "three", "three"]);
    assert_eq!(twice.origin, [0, 0, 1, 1, 2, 2]);
    let halved = run(r#"{"do":"reject-every-other"}"#, &records);
    assert_eq!(
        (halved.text(), halved.rejects.len()),
        (vec!["one".to_owned(), "three".to_owned()], 1)
    );
    assert_eq!(run(r#"{"do":"reject-all"}"#, &records).rejects.len(), 3);
    assert_eq!(
        run(r#"{"do":"huge-output","bytes":5}"#, &records).text(),
        ["xxxxx"]
    );
    assert_eq!(
        run(r#"{"do":"record-flood","count":4}"#, &records)
            .records
            .len(),
        4
    );
    assert_eq!(
        run(r#"{"do":"long-reason","bytes":9}"#, &records).rejects[0]
            .1
            .len(),
        9
    );
}

#[test]
fn an_instance_counts_and_a_fresh_one_starts_over() {
    let mut harness = Harness::<Hostile>::new(r#"{"do":"stateful-counter"}"#).unwrap();
    assert_eq!(harness.process(&["a", "b"]).unwrap().text(), ["1", "2"]);
    assert_eq!(harness.process(&["c"]).unwrap().text(), ["3"]);
    assert_eq!(run(r#"{"do":"stateful-counter"}"#, &["d"]).text(), ["1"]);
}

#[test]
fn faults_come_as_often_as_asked() {
    let mut harness = Harness::<Hostile>::new(r#"{"do":"retry","count":2}"#).unwrap();
    assert!(matches!(harness.process(&["a"]), Err(Fault::Retry(_))));
    assert!(matches!(harness.process(&["a"]), Err(Fault::Retry(_))));
    assert_eq!(harness.process(&["a"]).unwrap().text(), ["a"]);
    let mut harness = Harness::<Hostile>::new(r#"{"do":"fatal","when":"poison"}"#).unwrap();
    assert_eq!(harness.process(&["a"]).unwrap().text(), ["a"]);
    assert!(matches!(
        harness.process(&["a", "some poison"]),
        Err(Fault::Fatal(_))
    ));
    assert!(Harness::<Hostile>::new(r#"{"do":"configure-error"}"#).is_err());
}

#[test]
fn logs_are_as_many_and_as_long_as_asked() {
    let mut harness = Harness::<Hostile>::new(r#"{"do":"log-flood","count":3}"#).unwrap();
    harness.process(&["a"]).unwrap();
    assert_eq!(harness.logs().len(), 3);
    let mut harness = Harness::<Hostile>::new(r#"{"do":"long-log-line","bytes":100}"#).unwrap();
    harness.process(&["a"]).unwrap();
    assert_eq!(harness.logs()[0].1.len(), 100);
}

#[test]
#[should_panic(expected = "trapped, as asked")]
fn poison_panics() {
    run(r#"{"do":"trap-on"}"#, &["fine", "poison"]);
}

#[test]
fn each_unlawful_output_is_noticed() {
    let acts = [
        "descending-ends",
        "bad-offsets",
        "ends-outside",
        "trailing-bytes",
        "select-out-of-range",
        "select-descending",
        "select-repeated",
        "select-rejected",
        "reject-out-of-range",
        "reject-descending",
        "reject-repeated",
        "origin-out-of-range",
        "origin-descending",
        "origin-length",
        "origin-missing",
        "times-length",
        "attributes-length",
        "long-reason",
    ];
    for act in acts {
        let config = format!(r#"{{"do":"{act}"}}"#);
        let noticed = std::panic::catch_unwind(|| run(&config, &["one", "two"]));
        assert!(noticed.is_err(), "{act} passed the harness's checks");
    }
}

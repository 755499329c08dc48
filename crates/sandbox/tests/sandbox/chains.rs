//! Several stages in a row: selections, replacements, rejects and where each record came from.

use sluice_record::Batch;

use crate::guests::{Rig, batch, hostile, limits, spec};

fn contains(text: &str) -> sluice_sandbox::StageSpec {
    spec(
        "filter_contains",
        &format!(r#"{{"contains":"{text}"}}"#),
        limits(),
    )
}

#[test]
fn no_stage_at_all_keeps_everything() {
    let mut rig = Rig::new(vec![]);
    let input = batch(["a", "b"]);
    assert_eq!(rig.run(&input).unwrap(), ["a", "b"]);
    assert!(rig.output.view(&input).whole().is_some());
}

#[test]
fn what_passes_unchanged_is_read_from_the_input() {
    let mut rig = Rig::new(vec![spec("identity", "{}", limits())]);
    let input = batch(["a", "b"]);
    rig.run(&input).unwrap();
    assert!(std::ptr::eq(
        rig.output.view(&input).whole().unwrap(),
        &input
    ));

    let mut rig = Rig::new(vec![contains("x")]);
    let input = batch(["ax", "b", "xc"]);
    assert_eq!(rig.run(&input).unwrap(), ["ax", "xc"]);
    let first = rig.output.view(&input).records().next().unwrap();
    assert!(
        std::ptr::eq(first.as_ptr(), input.data.as_ptr()),
        "not copied"
    );
    assert_eq!(rig.origins(&input), [0, 2]);
}

#[test]
fn selections_and_replacements_compose() {
    let mut input = Batch::new();
    for (record, time) in [("axy", 1), ("bx", 2), ("cy", 3), ("dxy", 4), ("xye", 5)] {
        input.push_at(record.as_bytes(), time);
        input.set_last_attribute("name", record.as_bytes());
    }
    let stages = || {
        vec![
            contains("x"),
            hostile("duplicate"),
            contains("y"),
            hostile("uppercase"),
            contains("Y"),
        ]
    };
    for count in 0..=stages().len() {
        let mut rig = Rig::new(stages().into_iter().take(count).collect());
        let records = rig.run(&input).unwrap();
        let expected: (&[&str], &[u32]) = match count {
            0 => (&["axy", "bx", "cy", "dxy", "xye"], &[0, 1, 2, 3, 4]),
            1 => (&["axy", "bx", "dxy", "xye"], &[0, 1, 3, 4]),
            2 => (
                &["axy", "axy", "bx", "bx", "dxy", "dxy", "xye", "xye"],
                &[0, 0, 1, 1, 3, 3, 4, 4],
            ),
            3 => (
                &["axy", "axy", "dxy", "dxy", "xye", "xye"],
                &[0, 0, 3, 3, 4, 4],
            ),
            _ => (
                &["AXY", "AXY", "DXY", "DXY", "XYE", "XYE"],
                &[0, 0, 3, 3, 4, 4],
            ),
        };
        assert_eq!(records, expected.0, "{count} stages");
        assert_eq!(rig.origins(&input), expected.1, "{count} stages");
        for passed in rig.output.view(&input).iter() {
            assert_eq!(
                passed.time,
                u64::from(passed.origin) + 1,
                "a record keeps its time"
            );
        }
        let mut copied = Batch::new();
        rig.output.view(&input).append_to(&mut copied);
        copied.check().unwrap();
        let names = copied.column("name").unwrap();
        for (index, &origin) in expected.1.iter().enumerate() {
            assert_eq!(
                names.value(index),
                input.record(origin as usize),
                "a record keeps its attributes"
            );
        }
    }
}

#[test]
fn rejects_of_each_stage_name_the_chains_input() {
    let mut rig = Rig::new(vec![
        hostile("reject-every-other"),
        hostile("reject-every-other"),
    ]);
    let input = batch(["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(rig.run(&input).unwrap(), ["0", "4"]);
    assert_eq!(
        rig.dead_brief(),
        [
            (1, 0, "reject"),
            (3, 0, "reject"),
            (5, 0, "reject"),
            (2, 1, "reject"),
            (6, 1, "reject")
        ]
    );
    assert!(rig.dead().iter().all(|letter| letter.attempts == 1));
}

#[test]
fn a_chain_that_drops_everything_stops_early() {
    let mut rig = Rig::new(vec![hostile("drop-all"), hostile("fatal")]);
    assert!(rig.run(&batch(["a"])).unwrap().is_empty());
    let mut rig = Rig::new(vec![hostile("reject-all"), hostile("fatal")]);
    assert!(rig.run(&batch(["a", "b"])).unwrap().is_empty());
    assert_eq!(rig.dead().len(), 2);
    assert!(
        rig.run(&Batch::new()).unwrap().is_empty(),
        "an empty batch calls nobody"
    );
}

#[test]
fn an_output_is_reused_without_a_trace_of_the_batch_before() {
    let mut rig = Rig::new(vec![
        hostile("reject-every-other"),
        hostile("duplicate"),
        contains("x"),
    ]);
    for input in [
        batch(["ax", "b", "cx", "d"]),
        batch(["x"]),
        batch(["no"]),
        batch(["x", "x", "x"]),
    ] {
        let mut fresh = Rig::new(vec![
            hostile("reject-every-other"),
            hostile("duplicate"),
            contains("x"),
        ]);
        assert_eq!(rig.run(&input).unwrap(), fresh.run(&input).unwrap());
        assert_eq!(rig.origins(&input), fresh.origins(&input));
        assert_eq!(rig.dead(), fresh.dead());
    }
}

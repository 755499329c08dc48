//! Cutting and collecting: nothing lost, everything bounded, and what does not follow is said once.

use super::*;
use crate::message::WirePosition;

fn template() -> Rows {
    Rows {
        epoch: 3,
        base: Some(7),
        to: WirePosition {
            rev: 9,
            digest: vec![1; 16],
        },
        authoritative: true,
        ..Rows::default()
    }
}

fn row(n: usize, bytes: usize) -> Row {
    Row {
        key: n.to_be_bytes().to_vec(),
        body: vec![7; bytes],
    }
}

/// A change of everything, larger than a few parts.
fn split() -> (Vec<Rows>, usize) {
    let mut splitter = Splitter::new(template());
    let each = ROWS_FIRST_PART_BYTES_MAX / 10;
    for n in 0..35 {
        splitter.upsert(row(n, each));
        splitter.outcome(row(n, each));
        splitter.remove(n.to_be_bytes().to_vec());
    }
    splitter.spec(vec![5; each]);
    splitter.finish()
}

#[test]
fn what_was_cut_is_put_together_again() {
    let (parts, bytes) = split();
    assert!(parts.len() >= 7, "{}", parts.len());
    let whole = parts.iter().map(Rows::payload_bytes).sum::<usize>();
    assert!(bytes >= whole, "{bytes} < {whole}");
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(part.part as usize, index);
        assert_eq!(part.last, index + 1 == parts.len());
        assert!(crate::encode(part).len() <= ROWS_FIRST_PART_BYTES_MAX + 128);
    }
    let mut collector = Collector::new(usize::MAX);
    let mut collected = None;
    for (index, part) in parts.iter().enumerate() {
        assert!(collected.is_none());
        collected = collector.push(part.clone()).expect("in order");
        assert_eq!(collector.is_collecting(), index + 1 < parts.len());
    }
    let change = collected.expect("the last part completes it");
    assert_eq!(
        (change.epoch, change.base, change.part, change.last),
        (3, Some(7), 0, true)
    );
    let keys: Vec<_> = (0..35_usize).map(|n| n.to_be_bytes().to_vec()).collect();
    assert!(change.upserts.iter().map(|row| &row.key).eq(&keys));
    assert!(change.outcomes.iter().map(|row| &row.key).eq(&keys));
    assert_eq!(change.removed, keys);
    assert_eq!(change.specs.len(), 1);
}

/// A spec of so many bytes, between others.
fn with_spec(bytes: usize, cut: bool) -> (Vec<Rows>, Vec<Vec<u8>>) {
    let splitter = Splitter::new(template());
    let mut splitter = match cut {
        true => splitter.cutting_specs(),
        false => splitter,
    };
    let content = |n: usize| (n % 251).to_be_bytes()[7];
    let specs = [300, bytes, 0, 5000].map(|bytes| (0..bytes).map(content).collect::<Vec<u8>>());
    for (n, spec) in specs.iter().enumerate() {
        splitter.spec(spec.clone());
        splitter.upsert(row(n, 300));
    }
    (splitter.finish().0, specs.into())
}

#[test]
fn a_long_spec_is_cut_for_who_puts_it_together() {
    for bytes in [7000, 8000, 8144, 8192, 16_384, 262_144] {
        let (parts, specs) = with_spec(bytes, true);
        for part in &parts {
            assert!(crate::encode(part).len() <= ROWS_FIRST_PART_BYTES_MAX + 128);
        }
        let mut collector = Collector::new(1 << 20);
        let pushed = parts.iter().map(|part| collector.push(part.clone()));
        let change = pushed
            .last()
            .expect("parts")
            .expect("in order")
            .expect("whole");
        let collected: Vec<_> = change.specs.iter().map(|spec| spec.bytes.clone()).collect();
        assert_eq!(collected, specs, "{bytes}");
        assert_eq!(change.upserts.len(), 4);

        // Others get it whole, as ever.
        let (parts, _) = with_spec(bytes, false);
        let all = parts.iter().flat_map(|part| &part.specs);
        assert_eq!(all.clone().count(), 4);
        assert!(all.clone().all(|spec| !spec.continues));
    }
}

#[test]
fn a_spec_that_does_not_go_on_is_a_part_missing() {
    let (mut parts, _) = with_spec(20_000, true);
    let cut = parts
        .iter()
        .position(|part| part.specs.iter().any(|spec| spec.continues));
    let cut = cut.expect("it is longer than a part");
    let mut collector = Collector::new(1 << 20);
    for part in &parts[..=cut] {
        assert_eq!(collector.push(part.clone()), Ok(None));
    }
    let without = Rows {
        specs: Vec::new(),
        ..parts[cut + 1].clone()
    };
    assert_eq!(collector.push(without), Err(CollectError::Missing));
    parts.truncate(cut + 1);
    parts[cut].last = true;
    let pushed: Vec<_> = parts.into_iter().map(|part| collector.push(part)).collect();
    assert_eq!(pushed.last(), Some(&Err(CollectError::Missing)));
}

#[test]
fn a_change_of_nothing_is_one_part() {
    let (parts, bytes) = Splitter::new(template()).finish();
    assert_eq!((parts.len(), bytes), (1, 0));
    let change = Collector::new(0).push(parts[0].clone());
    assert!(matches!(change, Ok(Some(change)) if change.last));
}

#[test]
fn a_part_that_does_not_follow_is_missing_one() {
    let (parts, _) = split();
    let another = Rows {
        to: WirePosition {
            rev: 10,
            ..parts[1].to.clone()
        },
        ..parts[1].clone()
    };
    for (sequence, what) in [
        (vec![parts[1].clone()], "without its first"),
        (vec![parts[0].clone(), parts[2].clone()], "one left out"),
        (
            vec![parts[0].clone(), parts[1].clone(), parts[1].clone()],
            "one twice",
        ),
        (vec![parts[0].clone(), another], "of another change"),
    ] {
        let mut collector = Collector::new(usize::MAX);
        let mut results: Vec<_> = sequence.into_iter().map(|it| collector.push(it)).collect();
        assert_eq!(results.pop(), Some(Err(CollectError::Missing)), "{what}");
        assert!(results.iter().all(|it| *it == Ok(None)), "{what}");
        assert!(!collector.is_collecting(), "{what}");
        let rest = collector.push(parts[3].clone());
        assert_eq!(rest, Ok(None), "{what}: said once");
        assert_eq!(collector.push(parts[0].clone()), Ok(None), "{what}");
        assert!(
            collector.is_collecting(),
            "{what}: the next change is taken"
        );
    }
}

#[test]
fn a_first_part_begins_anew() {
    let (parts, _) = split();
    let mut collector = Collector::new(usize::MAX);
    for part in [&parts[0], &parts[1], &parts[0], &parts[1], &parts[2]] {
        assert_eq!(collector.push(part.clone()), Ok(None));
    }
}

#[test]
fn what_is_collected_is_bounded_even_where_it_has_no_content() {
    let endless = |part: u32, entry: Row| Rows {
        part,
        upserts: vec![entry; 100],
        ..template()
    };
    for entry in [row(1, 1000), Row::default()] {
        let mut collector = Collector::new(1_000_000);
        let error = (0..)
            .find_map(|part| collector.push(endless(part, entry.clone())).err())
            .expect("it ends");
        let bytes_max = 1_000_000;
        assert_eq!(error, CollectError::TooLarge { bytes_max });
        assert!(!collector.is_collecting());
    }
    let mut collector = Collector::new(usize::MAX);
    let parts = (0..).map(|part| Rows { part, ..template() });
    let taken = parts
        .map(|part| collector.push(part))
        .take_while(Result::is_ok);
    assert_eq!(taken.count(), ROWS_PARTS_MAX as usize);
}

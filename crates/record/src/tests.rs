//! `Batch` against the plainest possible model: a list of records.

#![allow(clippy::unwrap_used)]

use crate::{Batch, BatchError, Column};
use proptest::prelude::*;

/// One record as the model sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    data: Vec<u8>,
    time: u64,
    /// Value of attribute `a`, then of `b`; empty = none.
    attributes: [Vec<u8>; 2],
}

const NAMES: [&str; 2] = ["a", "b"];

fn batch_of(records: &[Record]) -> Batch {
    let mut batch = Batch::new();
    for record in records {
        batch.push_at(&record.data, record.time);
        for (name, value) in NAMES.iter().zip(&record.attributes) {
            if !value.is_empty() {
                batch.set_last_attribute(name, value);
            }
        }
    }
    batch
}

fn records_of(batch: &Batch) -> Vec<Record> {
    batch.check().unwrap();
    (0..batch.len())
        .map(|index| Record {
            data: batch.record(index).to_vec(),
            time: batch.time(index),
            attributes: NAMES.map(|name| {
                batch
                    .column(name)
                    .map_or_else(Vec::new, |column| column.value(index).to_vec())
            }),
        })
        .collect()
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (
        bytes(9),
        prop_oneof![Just(0), any::<u64>()],
        bytes(4),
        bytes(3),
    );
    let record = record.prop_map(|(data, time, a, b)| Record {
        data,
        time,
        attributes: [a, b],
    });
    // Plain records often, so that batches without times and columns meet batches with them.
    let plain = bytes(9).prop_map(|data| Record {
        data,
        ..Record::default()
    });
    prop_oneof![
        prop::collection::vec(record, 0..20),
        prop::collection::vec(plain, 0..20)
    ]
}

proptest! {
    #[test]
    fn pushing_gives_back_what_was_pushed(records in records()) {
        prop_assert_eq!(records_of(&batch_of(&records)), records);
    }

    #[test]
    fn selecting_in_place_and_into_another_agree_with_the_model(records in records(), mask in any::<u32>()) {
        let indices: Vec<u32> = (0..records.len() as u32).filter(|index| mask & (1 << index) != 0).collect();
        let expected: Vec<Record> = indices.iter().map(|&index| records[index as usize].clone()).collect();
        let batch = batch_of(&records);
        let mut copied = Batch::new();
        copied.append_selected(&batch, &indices);
        prop_assert_eq!(records_of(&copied), expected.clone());
        let mut selected = batch;
        selected.select(&indices);
        prop_assert_eq!(records_of(&selected), expected);
    }

    #[test]
    fn appending_selected_records_takes_any_order_and_repeats(
        mut left in records(), right in records(), picks in prop::collection::vec(any::<u8>(), 0..20)
    ) {
        let picks = if right.is_empty() { Vec::new() } else { picks };
        let indices: Vec<u32> = picks.iter().map(|&pick| u32::from(pick) % right.len() as u32).collect();
        let mut batch = batch_of(&left);
        batch.append_selected(&batch_of(&right), &indices);
        left.extend(indices.iter().map(|&index| right[index as usize].clone()));
        prop_assert_eq!(records_of(&batch), left);
    }

    #[test]
    fn appending_a_range_keeps_both_sides_columns(mut left in records(), right in records(), cut in any::<(u8, u8)>()) {
        let (from, to) = (usize::from(cut.0) % (right.len() + 1), usize::from(cut.1) % (right.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let mut batch = batch_of(&left);
        batch.append_range(&batch_of(&right), from, to);
        left.extend_from_slice(&right[from..to]);
        prop_assert_eq!(records_of(&batch), left);
    }

    #[test]
    fn splitting_and_appending_again_changes_nothing(records in records(), cut in any::<u8>()) {
        let at = usize::from(cut) % (records.len() + 1);
        let mut head = batch_of(&records);
        let tail = head.split_off(at);
        prop_assert_eq!(records_of(&head), records[..at].to_vec());
        prop_assert_eq!(records_of(&tail), records[at..].to_vec());
        head.append(&tail);
        prop_assert_eq!(records_of(&head), records);
    }

    #[test]
    fn a_cleared_batch_is_like_new(first in records(), second in records()) {
        let mut batch = batch_of(&first);
        batch.clear();
        batch.append(&batch_of(&second));
        prop_assert_eq!(records_of(&batch), second);
    }

    #[test]
    fn check_accepts_exactly_what_can_be_read(data in bytes(12), ends in prop::collection::vec(0u32..14, 0..6)) {
        let sound = ends.is_sorted() && ends.last().copied().unwrap_or(0) as usize == data.len();
        let batch = Batch { data, ends, ..Batch::new() };
        prop_assert_eq!(batch.check().is_ok(), sound);
        if sound {
            let total: usize = batch.iter().map(<[u8]>::len).sum();
            prop_assert_eq!(total, batch.data.len());
            prop_assert_eq!(batch.longest_record_bytes(), batch.iter().map(<[u8]>::len).max().unwrap_or(0));
        }
    }
}

#[test]
fn check_names_what_is_wrong() {
    let sound: Batch = ["ab", "c"].into_iter().collect();
    sound.check().unwrap();

    let mut batch = sound.clone();
    batch.ends = vec![3, 2];
    assert_eq!(batch.check(), Err(BatchError::Descending { index: 1 }));

    let mut batch = sound.clone();
    batch.ends = vec![2, 4];
    assert_eq!(
        batch.check(),
        Err(BatchError::Outside { last: 4, bytes: 3 })
    );

    let mut batch = sound.clone();
    batch.ends.clear();
    assert_eq!(
        batch.check(),
        Err(BatchError::Outside { last: 0, bytes: 3 })
    );

    let mut batch = sound.clone();
    batch.times = vec![1];
    assert!(
        matches!(batch.check(), Err(BatchError::ColumnLength { name, values: 1, records: 2 }) if name == "times")
    );

    let mut batch = sound.clone();
    batch.attributes = vec![Column {
        name: "host".into(),
        data: b"x".to_vec(),
        ends: vec![1],
    }];
    assert!(matches!(batch.check(), Err(BatchError::ColumnLength { name, .. }) if name == "host"));

    let mut batch = sound.clone();
    batch.attributes = vec![Column {
        name: "host".into(),
        data: b"x".to_vec(),
        ends: vec![1, 0],
    }];
    assert!(matches!(batch.check(), Err(BatchError::Column { name, .. }) if name == "host"));

    let mut batch = sound;
    let column = Column {
        name: "host".into(),
        data: b"x".to_vec(),
        ends: vec![0, 1],
    };
    batch.attributes = vec![column.clone(), column];
    assert_eq!(
        batch.check(),
        Err(BatchError::ColumnTwice {
            name: "host".into()
        })
    );
}

#[test]
fn an_attribute_set_twice_keeps_its_first_value() {
    let mut batch: Batch = ["x"].into_iter().collect();
    batch.set_last_attribute("host", b"");
    batch.set_last_attribute("host", b"one");
    batch.set_last_attribute("host", b"two");
    batch.push(b"y");
    let column = batch.column("host").unwrap();
    assert_eq!((column.value(0), column.value(1)), (&b"one"[..], &b""[..]));
}

#[test]
fn room_follows_the_bounds_but_one_large_record_travels_alone() {
    let mut batch = Batch::new();
    assert!(batch.has_room(crate::RECORD_BYTES_MAX));
    batch.push(b"x");
    assert!(!batch.has_room(crate::BATCH_BYTES_MAX));
    assert!(batch.has_room(crate::BATCH_BYTES_MAX - 1));
    while batch.len() < crate::BATCH_RECORDS_MAX {
        assert!(batch.has_room(1));
        batch.push(b"x");
    }
    assert!(!batch.has_room(0));
}

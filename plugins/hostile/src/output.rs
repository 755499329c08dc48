//! The outputs of a hostile stage, right and wrong. Each wrong one breaks exactly one rule of the contract.

use sluice_sdk::{Batch, Column, Outcome, Output, Reject, Replacement};

use crate::Act;

/// Everything passes.
pub(crate) fn keep() -> Output {
    Output {
        outcome: Outcome::Keep,
        rejects: Vec::new(),
    }
}

/// The batch becomes this record.
pub(crate) fn one_record(record: Vec<u8>) -> Output {
    replace(
        Batch {
            ends: vec![record.len() as u32],
            data: record,
            times: Vec::new(),
            attributes: Vec::new(),
        },
        vec![0],
    )
}

/// The batch becomes this many records without a byte.
pub(crate) fn empty_records(count: u32) -> Output {
    let records = vec![0; count as usize];
    replace(
        Batch {
            data: Vec::new(),
            ends: records.clone(),
            times: Vec::new(),
            attributes: Vec::new(),
        },
        records,
    )
}

/// The first record is rejected.
pub(crate) fn reject_first(reason: String) -> Output {
    Output {
        outcome: Outcome::Keep,
        rejects: vec![Reject { index: 0, reason }],
    }
}

/// One new record for each.
pub(crate) fn replace_each(batch: &Batch, new: impl FnMut(&[u8]) -> Vec<u8>) -> Output {
    let records: Vec<_> = batch
        .records()
        .map(|record| record.bytes())
        .map(new)
        .collect();
    replace(Batch::of(&records), Vec::new())
}

/// What the remaining acts answer.
pub(crate) fn of(act: Act, batch: &Batch) -> Output {
    let len = batch.len() as u32;
    let same = || Batch {
        times: Vec::new(),
        attributes: Vec::new(),
        ..batch.clone()
    };
    match act {
        Act::DropAll => select(Vec::new()),
        Act::Uppercase => replace_each(batch, <[u8]>::to_ascii_uppercase),
        Act::Duplicate => {
            let twice: Vec<_> = batch
                .records()
                .flat_map(|record| [record, record])
                .collect();
            replace(
                Batch::of(&twice),
                (0..len).flat_map(|index| [index, index]).collect(),
            )
        }
        Act::RejectEveryOther => rejects((0..len).filter(|index| index % 2 == 1)),
        Act::RejectAll => rejects(0..len),
        Act::DescendingEnds => {
            let ends = vec![2, 1, 2];
            replace(
                Batch {
                    data: b"ab".to_vec(),
                    ends,
                    times: Vec::new(),
                    attributes: Vec::new(),
                },
                vec![0, 0, 0],
            )
        }
        Act::EndsOutside => {
            let mut batch = same();
            batch.data.pop();
            replace(batch, Vec::new())
        }
        Act::TrailingBytes => {
            let mut batch = same();
            batch.data.push(b'x');
            replace(batch, Vec::new())
        }
        Act::SelectOutOfRange => select(vec![len]),
        Act::SelectDescending => select(vec![1, 0]),
        Act::SelectRepeated => select(vec![0, 0]),
        Act::SelectRejected => Output {
            outcome: Outcome::Select(vec![0]),
            ..rejects(0..1)
        },
        Act::RejectOutOfRange => rejects([len]),
        Act::RejectDescending => rejects([1, 0]),
        Act::RejectRepeated => rejects([0, 0]),
        Act::OriginOutOfRange => replace(Batch::of(&["a"]), vec![len]),
        Act::OriginDescending => replace(Batch::of(&["a", "b"]), vec![1, 0]),
        Act::OriginLength => replace(Batch::of(&["a", "b"]), vec![0]),
        Act::OriginMissing => replace(Batch::of(&vec!["a"; batch.len() + 1]), Vec::new()),
        Act::TimesLength => replace(
            Batch {
                times: vec![1; batch.len() + 1],
                ..same()
            },
            Vec::new(),
        ),
        Act::AttributesLength => {
            let column = Column {
                name: "none".to_owned(),
                data: Vec::new(),
                ends: Vec::new(),
            };
            replace(
                Batch {
                    attributes: vec![column],
                    ..same()
                },
                Vec::new(),
            )
        }
        _ => keep(),
    }
}

fn replace(batch: Batch, origin: Vec<u32>) -> Output {
    Output {
        outcome: Outcome::Replace(Replacement { batch, origin }),
        rejects: Vec::new(),
    }
}

fn select(kept: Vec<u32>) -> Output {
    Output {
        outcome: Outcome::Select(kept),
        rejects: Vec::new(),
    }
}

fn rejects(indices: impl IntoIterator<Item = u32>) -> Output {
    let rejects = indices
        .into_iter()
        .map(|index| Reject {
            index,
            reason: "rejected, as asked".to_owned(),
        })
        .collect();
    Output {
        outcome: Outcome::Keep,
        rejects,
    }
}

//! Reads what `process` returned and believes none of it until it is checked.
//!
//! The rules are those of `wit/`: indices ascend, are unique and in range; no record is both rejected and passed on;
//! offsets lie inside their buffers; `origin` has one ascending entry for each new record, or none at all, which says
//! that every record that was not rejected became one new record. What the guest leaves out (times, attributes) a new
//! record inherits from the record that it came from.

use sluice_record::{Batch, Column, RECORD_BYTES_MAX};

use crate::bindings::exports::sluice::pipeline::stage::{
    BatchResult, Outcome, Output, Reject, Replacement,
};
use crate::error::{CallError, cut};
use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, REASON_BYTES_MAX, StageLimits};

/// What a stage made of a batch, sound.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) kept: Kept,
    /// Ascending and unique by index, which is one of the stage's input.
    pub(crate) rejects: Vec<Rejected>,
}

/// A record that the stage rejected.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) index: u32,
    /// At most [`REASON_BYTES_MAX`].
    pub(crate) reason: String,
}

/// The records that go on.
#[derive(Debug, Default)]
pub(crate) enum Kept {
    /// All of the input.
    #[default]
    All,
    /// These of the input, ascending and unique.
    Selected(Vec<u32>),
    /// New ones.
    Replaced {
        batch: Batch,
        /// The input index of each, ascending.
        origin: Vec<u32>,
    },
}

/// Checks what came back for `input`.
pub(crate) fn check(
    output: Output,
    input: &Batch,
    limits: &StageLimits,
) -> Result<Checked, CallError> {
    let Output { outcome, rejects } = output;
    let records = input.len() as u32;
    let rejects = check_rejects(rejects, records)?;
    let kept = match outcome {
        Outcome::Keep if rejects.is_empty() => Kept::All,
        Outcome::Keep => Kept::Selected(all_but(&rejects, records)),
        Outcome::Select(indices) => {
            check_selected(&indices, &rejects, records)?;
            if indices.len() == input.len() {
                Kept::All
            } else {
                Kept::Selected(indices)
            }
        }
        Outcome::Replace(replacement) => check_replacement(replacement, &rejects, input, limits)?,
    };
    Ok(Checked { kept, rejects })
}

fn invalid<T>(problem: String) -> Result<T, CallError> {
    Err(CallError::InvalidOutput(problem))
}

fn check_rejects(rejects: Vec<Reject>, records: u32) -> Result<Vec<Rejected>, CallError> {
    let mut above = 0u32;
    let mut checked = Vec::with_capacity(rejects.len().min(records as usize));
    for Reject { index, mut reason } in rejects {
        if index >= records {
            return invalid(format!(
                "record {index} is rejected, the batch has {records}"
            ));
        }
        if index < above {
            return invalid(format!("rejects do not ascend at record {index}"));
        }
        above = index + 1;
        cut(&mut reason, REASON_BYTES_MAX);
        checked.push(Rejected { index, reason });
    }
    Ok(checked)
}

fn check_selected(indices: &[u32], rejects: &[Rejected], records: u32) -> Result<(), CallError> {
    // Without a branch for each index, since this is done for every batch that is filtered.
    let pairs = indices.iter().zip(indices.get(1..).unwrap_or_default());
    let ascends = pairs.fold(true, |ascends, (one, next)| ascends & (one < next));
    if !ascends || indices.last().is_some_and(|&last| last >= records) {
        return Err(selection_problem(indices, records));
    }
    check_disjoint(indices, rejects, "selected")
}

/// What is wrong with a selection that is not sound: its first index that is out of range or out of order.
#[cold]
fn selection_problem(indices: &[u32], records: u32) -> CallError {
    let mut above = 0u32;
    for &index in indices {
        if index >= records {
            let problem = format!("record {index} is selected, the batch has {records}");
            return CallError::InvalidOutput(problem);
        }
        if index < above {
            let problem = format!("selected indices do not ascend at record {index}");
            return CallError::InvalidOutput(problem);
        }
        above = index + 1;
    }
    CallError::InvalidOutput("the selected indices are not sound".to_owned())
}

/// Both ascend; `indices` may repeat.
fn check_disjoint(indices: &[u32], rejects: &[Rejected], what: &str) -> Result<(), CallError> {
    let mut rest = indices;
    for reject in rejects {
        rest = &rest[rest.partition_point(|&index| index < reject.index)..];
        if rest.first() == Some(&reject.index) {
            return invalid(format!(
                "record {} is both {what} and rejected",
                reject.index
            ));
        }
    }
    Ok(())
}

/// Ascending indices of all records but the rejected ones.
fn all_but(rejects: &[Rejected], records: u32) -> Vec<u32> {
    let mut left = Vec::with_capacity(records as usize - rejects.len());
    let mut from = 0;
    for reject in rejects {
        left.extend(from..reject.index);
        from = reject.index + 1;
    }
    left.extend(from..records);
    left
}

fn check_replacement(
    replacement: Replacement,
    rejects: &[Rejected],
    input: &Batch,
    limits: &StageLimits,
) -> Result<Kept, CallError> {
    let Replacement { batch, origin } = replacement;
    let mut batch = sound(batch, &origin, limits)?;
    let origin = check_origin(origin, rejects, batch.len(), input.len() as u32)?;
    inherit(&mut batch, &origin, input);
    Ok(Kept::Replaced { batch, origin })
}

/// Checks what a stage said at the end of its input.
pub(crate) fn check_report(report: BatchResult, limits: &StageLimits) -> Result<Batch, CallError> {
    sound(report, &[], limits)
}

/// A guest's batch, once it is known to be one within the limits.
fn sound(batch: BatchResult, origin: &[u32], limits: &StageLimits) -> Result<Batch, CallError> {
    let attributes = batch.attributes.into_iter();
    let attributes = attributes.map(|column| Column {
        name: column.name,
        data: column.data,
        ends: column.ends,
    });
    let attributes = attributes.collect();
    let batch = Batch {
        data: batch.data,
        ends: batch.ends,
        times: batch.times,
        attributes,
    };

    check_sizes(&batch, origin, limits)?;
    if let Err(error) = batch.check() {
        return invalid(error.to_string());
    }
    let longest = batch.longest_record_bytes();
    if longest > RECORD_BYTES_MAX {
        return invalid(format!(
            "a record has {longest} bytes, more than {RECORD_BYTES_MAX}"
        ));
    }
    Ok(batch)
}

fn check_sizes(batch: &Batch, origin: &[u32], limits: &StageLimits) -> Result<(), CallError> {
    if batch.len() > limits.output_records_max {
        return Err(CallError::OutputExceeded {
            limit: limits.output_records_max,
            what: "records",
        });
    }
    if batch.attributes.len() > ATTRIBUTES_MAX {
        return invalid(format!(
            "{} attributes, more than {ATTRIBUTES_MAX}",
            batch.attributes.len()
        ));
    }
    if batch
        .attributes
        .iter()
        .any(|column| column.name.len() > ATTRIBUTE_NAME_BYTES_MAX)
    {
        return invalid(format!(
            "an attribute's name is longer than {ATTRIBUTE_NAME_BYTES_MAX} bytes"
        ));
    }
    let offsets = batch.ends.len()
        + origin.len()
        + batch
            .attributes
            .iter()
            .map(|column| column.ends.len())
            .sum::<usize>();
    let bytes = batch.bytes() + 4 * offsets + 8 * batch.times.len();
    if bytes > limits.output_bytes_max {
        return Err(CallError::OutputExceeded {
            limit: limits.output_bytes_max,
            what: "bytes",
        });
    }
    Ok(())
}

fn check_origin(
    origin: Vec<u32>,
    rejects: &[Rejected],
    new: usize,
    records: u32,
) -> Result<Vec<u32>, CallError> {
    if origin.is_empty() {
        let left = records as usize - rejects.len();
        if new != left {
            return invalid(format!(
                "{new} new records for {left} that were not rejected, and no origin"
            ));
        }
        return Ok(all_but(rejects, records));
    }
    if origin.len() != new {
        return invalid(format!(
            "origin has {} entries for {new} new records",
            origin.len()
        ));
    }
    if let Some(index) = origin.windows(2).position(|pair| pair[1] < pair[0]) {
        return invalid(format!(
            "origin does not ascend at new record {}",
            index + 1
        ));
    }
    if let Some(&last) = origin.last()
        && last >= records
    {
        return invalid(format!(
            "origin names record {last}, the batch has {records}"
        ));
    }
    check_disjoint(&origin, rejects, "an origin")?;
    Ok(origin)
}

/// Gives new records the times and attributes of the ones that they came from, where the guest gave none.
fn inherit(batch: &mut Batch, origin: &[u32], input: &Batch) {
    if batch.times.is_empty() && !input.times.is_empty() {
        batch
            .times
            .extend(origin.iter().map(|&index| input.times[index as usize]));
    }
    if batch.attributes.is_empty() {
        batch
            .attributes
            .extend(input.attributes.iter().map(|column| {
                let mut inherited = Column::new(column.name.as_str());
                for &index in origin {
                    inherited.push(column.value(index as usize));
                }
                inherited
            }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::bindings::exports::sluice::pipeline::stage::{BatchResult, ColumnResult};

    fn input() -> Batch {
        let mut batch = Batch::new();
        for (record, time) in [("a", 10), ("bb", 20), ("ccc", 30)] {
            batch.push_at(record.as_bytes(), time);
        }
        batch.set_last_attribute("host", b"h3");
        batch
    }

    fn reject(index: u32) -> Reject {
        Reject {
            index,
            reason: format!("no {index}"),
        }
    }

    fn replace(records: &[&str], origin: &[u32]) -> Replacement {
        let batch: Batch = records.iter().collect();
        let batch = BatchResult {
            data: batch.data,
            ends: batch.ends,
            times: Vec::new(),
            attributes: Vec::new(),
        };
        Replacement {
            batch,
            origin: origin.to_vec(),
        }
    }

    fn run(outcome: Outcome, rejects: Vec<Reject>) -> Result<Checked, String> {
        check(
            Output { outcome, rejects },
            &input(),
            &StageLimits::default(),
        )
        .map_err(|error| error.to_string())
    }

    fn problem(outcome: Outcome, rejects: Vec<Reject>) -> String {
        let error = run(outcome, rejects).unwrap_err();
        error
            .strip_prefix("invalid output: ")
            .unwrap_or(&error)
            .to_owned()
    }

    #[test]
    fn rejects_are_taken_out_of_what_is_kept() {
        let checked = run(Outcome::Keep, vec![reject(0), reject(2)]).unwrap();
        assert!(matches!(checked.kept, Kept::Selected(indices) if indices == [1]));
        let checked = run(Outcome::Keep, vec![]).unwrap();
        assert!(matches!(checked.kept, Kept::All));
        let checked = run(Outcome::Select(vec![0, 1, 2]), vec![]).unwrap();
        assert!(matches!(checked.kept, Kept::All));
        let checked = run(Outcome::Select(vec![2]), vec![reject(1)]).unwrap();
        assert!(matches!(checked.kept, Kept::Selected(indices) if indices == [2]));
    }

    #[test]
    fn new_records_inherit_times_and_attributes_by_origin() {
        let checked = run(
            Outcome::Replace(replace(&["x", "y", "z"], &[0, 2, 2])),
            vec![reject(1)],
        )
        .unwrap();
        let Kept::Replaced { batch, origin } = checked.kept else {
            panic!("replaced")
        };
        assert_eq!(origin, [0, 2, 2]);
        assert_eq!(batch.times, [10, 30, 30]);
        let hosts: Vec<&[u8]> = (0..3)
            .map(|index| batch.column("host").unwrap().value(index))
            .collect();
        assert_eq!(hosts, [&b""[..], b"h3", b"h3"]);
        batch.check().unwrap();

        let checked = run(Outcome::Replace(replace(&["x", "y"], &[])), vec![reject(1)]).unwrap();
        assert!(matches!(checked.kept, Kept::Replaced { origin, .. } if origin == [0, 2]));

        let mut own = replace(&["x"], &[1]);
        own.batch.times = vec![7];
        own.batch.attributes = vec![ColumnResult {
            name: "k".into(),
            data: b"v".to_vec(),
            ends: vec![1],
        }];
        let Kept::Replaced { batch, .. } = run(Outcome::Replace(own), vec![]).unwrap().kept else {
            panic!("replaced")
        };
        assert_eq!((batch.times, batch.attributes.len()), (vec![7], 1));
    }

    #[test]
    fn nothing_may_be_replaced_by_nothing() {
        let rejects = vec![reject(0), reject(1), reject(2)];
        let checked = run(Outcome::Replace(replace(&[], &[])), rejects).unwrap();
        assert!(matches!(checked.kept, Kept::Replaced { batch, .. } if batch.is_empty()));
    }

    #[test]
    fn reasons_are_cut() {
        let long = Reject {
            index: 0,
            reason: "ä".repeat(REASON_BYTES_MAX),
        };
        assert_eq!(
            run(Outcome::Keep, vec![long]).unwrap().rejects[0]
                .reason
                .len(),
            REASON_BYTES_MAX
        );
    }

    #[test]
    fn every_broken_rule_is_named() {
        let mut column = replace(&["x"], &[0]);
        column.batch.attributes = vec![ColumnResult {
            name: "k".into(),
            data: vec![],
            ends: vec![],
        }];
        let mut name = replace(&["x"], &[0]);
        name.batch.attributes = vec![ColumnResult {
            name: "k".repeat(300),
            data: vec![],
            ends: vec![0],
        }];
        let mut columns = replace(&["x"], &[0]);
        columns.batch.attributes = (0..65)
            .map(|index| ColumnResult {
                name: index.to_string(),
                data: vec![],
                ends: vec![0],
            })
            .collect();
        let mut times = replace(&["x"], &[0]);
        times.batch.times = vec![1, 2];
        let mut trailing = replace(&["x"], &[0]);
        trailing.batch.data.push(b'y');
        let cases = [
            (
                Outcome::Select(vec![3]),
                vec![],
                "record 3 is selected, the batch has 3",
            ),
            (
                Outcome::Select(vec![3, 0]),
                vec![],
                "record 3 is selected, the batch has 3",
            ),
            (
                Outcome::Select(vec![1, 0]),
                vec![],
                "selected indices do not ascend at record 0",
            ),
            (
                Outcome::Select(vec![1, 1]),
                vec![],
                "selected indices do not ascend at record 1",
            ),
            (
                Outcome::Select(vec![0, 1]),
                vec![reject(1)],
                "record 1 is both selected and rejected",
            ),
            (
                Outcome::Keep,
                vec![reject(3)],
                "record 3 is rejected, the batch has 3",
            ),
            (
                Outcome::Keep,
                vec![reject(1), reject(0)],
                "rejects do not ascend at record 0",
            ),
            (
                Outcome::Keep,
                vec![reject(1), reject(1)],
                "rejects do not ascend at record 1",
            ),
            (
                Outcome::Replace(replace(&["x"], &[])),
                vec![],
                "1 new records for 3 that were not rejected, and no origin",
            ),
            (
                Outcome::Replace(replace(&["x"], &[0, 1])),
                vec![],
                "origin has 2 entries for 1 new records",
            ),
            (
                Outcome::Replace(replace(&["x", "y"], &[1, 0])),
                vec![],
                "origin does not ascend at new record 1",
            ),
            (
                Outcome::Replace(replace(&["x"], &[3])),
                vec![],
                "origin names record 3, the batch has 3",
            ),
            (
                Outcome::Replace(replace(&["x"], &[1])),
                vec![reject(1)],
                "record 1 is both an origin and rejected",
            ),
            (
                Outcome::Replace(column),
                vec![],
                "column \"k\" has 0 values for 1 records",
            ),
            (
                Outcome::Replace(name),
                vec![],
                "an attribute's name is longer than 256 bytes",
            ),
            (
                Outcome::Replace(columns),
                vec![],
                "65 attributes, more than 64",
            ),
            (
                Outcome::Replace(times),
                vec![],
                "column \"times\" has 2 values for 1 records",
            ),
            (
                Outcome::Replace(trailing),
                vec![],
                "the last end offset is 1, the buffer has 2 bytes",
            ),
        ];
        for (outcome, rejects, expected) in cases {
            assert_eq!(problem(outcome, rejects), expected);
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let limits = StageLimits {
            output_bytes_max: 100,
            output_records_max: 4,
            ..StageLimits::default()
        };
        let size = |replacement| {
            check(
                Output {
                    outcome: Outcome::Replace(replacement),
                    rejects: vec![],
                },
                &input(),
                &limits,
            )
            .unwrap_err()
        };
        assert_eq!(
            size(replace(&["x"; 5], &[0; 5])),
            CallError::OutputExceeded {
                limit: 4,
                what: "records"
            }
        );
        assert_eq!(
            size(replace(&[&"x".repeat(93)], &[0])),
            CallError::OutputExceeded {
                limit: 100,
                what: "bytes"
            }
        );
    }
}

//! A change of a set in parts: cut by its sender, put together by its receiver, by one rule for both directions.
//!
//! ```text
//!   Splitter: rows, specs, outcomes --> part 0 | part 1 | ... | last
//!   Collector:                          part 0 | part 1 | ... | last --> the whole change, or what is wrong
//! ```

use crate::message::{Row, Rows, SpecBytes};
use crate::{ROWS_FIRST_PART_BYTES_MAX, ROWS_FIRST_PARTS, ROWS_PART_BYTES_MAX, ROWS_PARTS_MAX};

/// What an entry costs besides its bytes, at either end: tags and lengths on the wire, two pointers in memory. Counted,
/// so that entries without content are bounded too.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// A piece of a spec has at least so many bytes, so that what each costs besides does not matter.
const PIECE_BYTES_MIN: usize = 1024;

/// Cuts a change into parts of at most [`ROWS_FIRST_PART_BYTES_MAX`], later ones of at most [`ROWS_PART_BYTES_MAX`], in the
/// order in which things are added.
#[derive(Debug)]
pub struct Splitter {
    template: Rows,
    done: Vec<Rows>,
    part_bytes: usize,
    bytes: usize,
    cuts_specs: bool,
}

impl Splitter {
    /// Starts a change; every part says of itself what `template` does.
    pub fn new(template: Rows) -> Self {
        let mut splitter = Self {
            template,
            done: Vec::new(),
            part_bytes: 0,
            bytes: 0,
            cuts_specs: false,
        };
        splitter.next_part();
        splitter
    }

    /// A spec that does not fit into a part is cut, too: its receiver said that it puts the pieces together.
    pub fn cutting_specs(self) -> Self {
        Self {
            cuts_specs: true,
            ..self
        }
    }

    /// A new or changed row.
    pub fn upsert(&mut self, row: Row) {
        self.room(row.key.len() + row.body.len()).upserts.push(row);
    }

    /// The key of a row that is gone.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.room(key.len()).removed.push(key);
    }

    /// How an attempt ended.
    pub fn outcome(&mut self, row: Row) {
        self.room(row.key.len() + row.body.len()).outcomes.push(row);
    }

    /// A spec, which travels before the first row that names it.
    pub fn spec(&mut self, bytes: Vec<u8>) {
        let mut rest = bytes.as_slice();
        while self.cuts_specs {
            let taken = self.part_bytes + ENTRY_OVERHEAD_BYTES;
            let room = self.part_bytes_max().saturating_sub(taken);
            if rest.len() <= room {
                break;
            }
            if room < PIECE_BYTES_MIN {
                self.next_part();
                continue;
            }
            let (piece, later) = rest.split_at(room);
            self.room(room).specs.push(SpecBytes {
                bytes: piece.to_vec(),
                continues: true,
            });
            self.next_part();
            rest = later;
        }
        self.room(rest.len()).specs.push(SpecBytes {
            bytes: rest.to_vec(),
            continues: false,
        });
    }

    /// The parts, one at least, and how many bytes they have together.
    pub fn finish(mut self) -> (Vec<Rows>, usize) {
        if let Some(last) = self.done.last_mut() {
            last.last = true;
        }
        (self.done, self.bytes)
    }

    /// The part that has room for an entry of `bytes`.
    fn room(&mut self, bytes: usize) -> &mut Rows {
        let bytes = bytes + ENTRY_OVERHEAD_BYTES;
        if self.part_bytes > 0 && self.part_bytes + bytes > self.part_bytes_max() {
            self.next_part();
        }
        self.part_bytes += bytes;
        self.bytes += bytes;
        self.done.last_mut().expect("there is one from the start")
    }

    fn part_bytes_max(&self) -> usize {
        if self.done.len() <= ROWS_FIRST_PARTS {
            ROWS_FIRST_PART_BYTES_MAX
        } else {
            ROWS_PART_BYTES_MAX
        }
    }

    fn next_part(&mut self) {
        let part = u32::try_from(self.done.len()).expect("a change has fewer parts than rows");
        self.done.push(Rows {
            part,
            ..self.template.clone()
        });
        self.part_bytes = 0;
    }
}

/// Why parts do not make a change. What was collected is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// A part without the one before it, or of another change.
    #[error("a part of a change is missing")]
    Missing,
    /// More than its receiver holds.
    #[error("a change of more than {bytes_max} bytes or {ROWS_PARTS_MAX} parts")]
    TooLarge {
        /// What it holds at most.
        bytes_max: usize,
    },
}

/// Puts the parts of one change after the other together. Holds at most what it was made for, and one frame.
#[derive(Clone, Debug)]
pub struct Collector {
    bytes_max: usize,
    bytes: usize,
    change: Option<Rows>,
    /// A part was refused: those that follow it are of no use.
    refused: bool,
}

impl Collector {
    /// A collector of changes with at most `bytes_max` bytes of keys, rows, specs and what each entry costs besides.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            change: None,
            refused: false,
        }
    }

    /// Whether the first part of a change is here, and its last is not.
    pub fn is_collecting(&self) -> bool {
        self.change.is_some()
    }

    /// Takes the next part; gives the whole change, as one part, with its last. A first part begins anew, whatever was
    /// here. What is wrong is said once for a change: its other parts are passed over.
    pub fn push(&mut self, part: Rows) -> Result<Option<Rows>, CollectError> {
        if self.refused && part.part > 0 {
            return Ok(None);
        }
        let taken = self.take(part);
        self.refused = taken.is_err();
        taken
    }

    fn take(&mut self, part: Rows) -> Result<Option<Rows>, CollectError> {
        let (number, last) = (part.part, part.last);
        let bytes = part.payload_bytes() + part.entries() * ENTRY_OVERHEAD_BYTES;
        let before = self.change.take();
        let mut change = match before {
            _ if number == 0 => {
                self.bytes = 0;
                part
            }
            Some(change) if continues(&change, &part) => {
                joined(change, part).ok_or(CollectError::Missing)?
            }
            _ => return Err(CollectError::Missing),
        };
        self.bytes += bytes;
        if self.bytes > self.bytes_max || number >= ROWS_PARTS_MAX {
            return Err(CollectError::TooLarge {
                bytes_max: self.bytes_max,
            });
        }
        if !last {
            self.change = Some(change);
            return Ok(None);
        }
        if change.specs.iter().any(|spec| spec.continues) {
            return Err(CollectError::Missing);
        }
        change.part = 0;
        Ok(Some(change))
    }
}

/// Whether a part follows what was collected: its number is the next one, and it speaks of the same change.
fn continues(change: &Rows, part: &Rows) -> bool {
    part.part == change.part + 1
        && part.epoch == change.epoch
        && part.base == change.base
        && part.to == change.to
        && part.authoritative == change.authoritative
}

/// `None` when a spec should go on and does not.
fn joined(mut change: Rows, part: Rows) -> Option<Rows> {
    let mut specs = part.specs.into_iter();
    if let Some(begun) = change.specs.last_mut().filter(|spec| spec.continues) {
        let piece = specs.next()?;
        begun.bytes.extend_from_slice(&piece.bytes);
        begun.continues = piece.continues;
    }
    change.part = part.part;
    change.last = part.last;
    change.upserts.extend(part.upserts);
    change.removed.extend(part.removed);
    change.specs.extend(specs);
    change.outcomes.extend(part.outcomes);
    Some(change)
}

#[cfg(test)]
mod tests;

//! A column: one value for each record of a batch, in the same shape as the records themselves.

use crate::batch::BatchError;

/// One attribute of every record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The attribute's name.
    pub name: String,
    /// The values' bytes, back to back.
    pub data: Vec<u8>,
    /// Where each value ends in `data`, ascending.
    pub ends: Vec<u32>,
}

impl Column {
    /// A column with no values yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            data: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Value `index`, which must exist; empty means none.
    pub fn value(&self, index: usize) -> &[u8] {
        &self.data[start_of(&self.ends, index)..self.ends[index] as usize]
    }

    /// Adds a value; empty means none.
    pub fn push(&mut self, value: &[u8]) {
        push_value(&mut self.data, &mut self.ends, value);
    }

    /// Adds empty values until there are `len`.
    pub(crate) fn pad_to(&mut self, len: usize) {
        let end = self.ends.last().copied().unwrap_or(0);
        self.ends.resize(len.max(self.ends.len()), end);
    }
}

/// Where value `index` starts.
#[inline]
pub(crate) fn start_of(ends: &[u32], index: usize) -> usize {
    if index == 0 {
        0
    } else {
        ends[index - 1] as usize
    }
}

/// Adds one value to a buffer and its list of ends.
#[inline]
pub(crate) fn push_value(data: &mut Vec<u8>, ends: &mut Vec<u32>, value: &[u8]) {
    data.extend_from_slice(value);
    ends.push(end_of(data.len()));
}

/// Appends values `from..to` of one buffer to another: one copy of the bytes, one pass over the ends.
pub(crate) fn append_values(
    data: &mut Vec<u8>,
    ends: &mut Vec<u32>,
    from_data: &[u8],
    from_ends: &[u32],
    from: usize,
    to: usize,
) {
    let start = start_of(from_ends, from);
    let stop = start_of(from_ends, to);
    // Both buffers stay below 4 GiB, so the moved ends do too; checked once here rather than for each value.
    let base = end_of(data.len());
    data.extend_from_slice(&from_data[start..stop]);
    end_of(data.len());
    let start = start as u32;
    ends.extend(from_ends[from..to].iter().map(|end| end - start + base));
}

/// Appends the values at `indices`, in that order, of one buffer to another. Runs of neighbours are copied at once.
pub(crate) fn append_selected_values(
    data: &mut Vec<u8>,
    ends: &mut Vec<u32>,
    from_data: &[u8],
    from_ends: &[u32],
    indices: &[u32],
) {
    ends.reserve(indices.len());
    let mut rest = indices;
    while let Some(&first) = rest.first() {
        let run = run_length(rest);
        let start = start_of(from_ends, first as usize);
        let run_ends = &from_ends[first as usize..first as usize + run];
        let stop = run_ends[run - 1] as usize;
        // Wraps only where the check below fails.
        let moved = (data.len() as u32).wrapping_sub(start as u32);
        data.extend_from_slice(&from_data[start..stop]);
        ends.extend(run_ends.iter().map(|end| end.wrapping_add(moved)));
        rest = &rest[run..];
    }
    end_of(data.len());
}

/// How many indices from the first on follow each other without a gap.
fn run_length(indices: &[u32]) -> usize {
    let mut run = 1;
    while run < indices.len() && indices[run] == indices[run - 1].wrapping_add(1) {
        run += 1;
    }
    run
}

/// Keeps the values at `indices` (ascending and unique), moving bytes down inside the buffer.
pub(crate) fn select_values(data: &mut Vec<u8>, ends: &mut Vec<u32>, indices: &[u32]) {
    let mut written = 0usize;
    // Ends already written lie below the index that is read, so the start of the next value is remembered, not read.
    let mut previous: Option<(usize, usize)> = None;
    for (slot, &index) in indices.iter().enumerate() {
        let index = index as usize;
        let start = match previous {
            Some((before, stop)) if before + 1 == index => stop,
            _ => start_of(ends, index),
        };
        let stop = ends[index] as usize;
        data.copy_within(start..stop, written);
        written += stop - start;
        previous = Some((index, stop));
        ends[slot] = written as u32;
    }
    data.truncate(written);
    ends.truncate(indices.len());
}

/// Checks ends that came from outside against their buffer.
pub(crate) fn check_ends(data: &[u8], ends: &[u32]) -> Result<(), BatchError> {
    let mut before = 0u32;
    let mut descending = false;
    for &end in ends {
        descending |= end < before;
        before = end;
    }
    if descending {
        let index = ends
            .windows(2)
            .position(|pair| pair[1] < pair[0])
            .map_or(0, |index| index + 1);
        return Err(BatchError::Descending { index });
    }
    if before as usize != data.len() {
        return Err(BatchError::Outside {
            last: u64::from(before),
            bytes: data.len() as u64,
        });
    }
    Ok(())
}

/// An offset as it is stored.
#[inline]
fn end_of(len: usize) -> u32 {
    u32::try_from(len).expect("a batch stays below 4 GiB")
}

//! A text looked for in a whole batch at once.
//!
//! ```text
//! data  . . n e e d l e . | . . n e e | d l e . |        one search over the buffer, not one a record
//!           ^ found            ^ runs over the record's end: nothing, and nothing can follow in that record
//! ```

use memchr::memmem::Finder;

use crate::Batch;

/// A text to look for, prepared once: make it in `configure`.
#[derive(Clone, Debug)]
pub struct Needle {
    // Boxed: with its tables it is large, and a stage holds it among other things.
    finder: Box<Finder<'static>>,
}

impl Needle {
    /// Prepares a search. The text may be any bytes; every record contains the empty one.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        Self {
            finder: Box::new(Finder::new(text.as_ref()).into_owned()),
        }
    }

    /// Whether these bytes contain it.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.finder.find(bytes).is_some()
    }

    /// The indices of the records that contain it, ascending. Several times as fast as asking record by record when few
    /// of them do, and never slower.
    pub fn find_in<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = u32> + use<'a> {
        Found {
            needle: self,
            batch,
            index: 0,
        }
    }
}

struct Found<'a> {
    needle: &'a Needle,
    batch: &'a Batch,
    /// The next record to look at.
    index: usize,
}

impl Iterator for Found<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let Batch { data, ends, .. } = self.batch;
        let finder = &self.needle.finder;
        loop {
            let start = match self.index {
                0 => 0,
                index => ends[index - 1] as usize,
            };
            if finder.needle().is_empty() && self.index < ends.len() {
                // Found in empty records too, which have no bytes to find it at.
                self.index += 1;
                return Some(self.index as u32 - 1);
            }
            let hit = start + finder.find(data.get(start..)?)?;
            while *ends.get(self.index)? as usize <= hit {
                self.index += 1;
            }
            let index = self.index;
            self.index += 1;
            if hit + finder.needle().len() <= ends[index] as usize {
                return Some(index as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn naive(needle: &[u8], records: &[Vec<u8>]) -> Vec<u32> {
        let contains = |record: &&[u8]| {
            needle.is_empty() || record.windows(needle.len()).any(|window| window == needle)
        };
        let found = records.iter().enumerate();
        found
            .filter(|(_, record)| contains(&record.as_slice()))
            .map(|(index, _)| index as u32)
            .collect()
    }

    /// Few letters, so that needles are found often, overlap each other and lie across the ends of records.
    fn text(bytes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        vec(prop::sample::select(b"ab".as_slice()), bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_batch_gives_what_its_records_give(
            needle in text(0..5),
            short in vec(text(0..9), 0..40),
            long in vec(text(0..200), 0..4),
            padding in 0..3usize,
        ) {
            let mut records = [short, long].concat();
            // Long stretches without a hit take another way through the search.
            records.extend(std::iter::repeat_n(vec![b'-'; 100], padding));
            records.push(needle.clone());
            let (batch, needle) = (Batch::of(&records), Needle::new(&needle));
            let found: Vec<u32> = needle.find_in(&batch).collect();
            prop_assert_eq!(&found, &naive(needle.finder.needle(), &records));
            let one_by_one = batch.records().filter(|record| needle.is_in(record));
            prop_assert_eq!(found, one_by_one.map(|record| record.index() as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_text_across_an_end_is_in_neither_record() {
        let batch = Batch::of(&[
            "a nee",
            "dle",
            "",
            "needle needle",
            "needl",
            "",
            "e",
            "needle",
        ]);
        let found: Vec<u32> = Needle::new("needle").find_in(&batch).collect();
        assert_eq!(found, [3, 7]);
        assert_eq!(Needle::new("").find_in(&batch).count(), batch.len());
        let nothing = Batch::of::<&str>(&[]);
        assert_eq!(Needle::new("").find_in(&nothing).count(), 0);
        assert_eq!(Needle::new("x").find_in(&nothing).count(), 0);
    }
}

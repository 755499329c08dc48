//! `[output.stdout]` of a run's task on a remote edge: its output, kept in a file of the execution.
//!
//! The file is written and synced as `[output.file]` does it, and acked then. It belongs to this execution alone, so on
//! opening it is cut back to what the checkpoint knows of it: records that come again after a kill are in it once. It is
//! bounded; what does not fit, and all that comes after that, is dropped and counted, and the work goes on.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::file::FileOutput;
use super::{LineSink, OutputError, OutputPosition};

pub struct KeptOutput {
    file: FileOutput,
    log: Arc<dyn LineSink>,
    bytes_max: u64,
    /// Bytes that were taken, written or not.
    bytes: u64,
    /// Records that were dropped.
    dropped: u64,
    /// Batches that were accepted.
    accepted: u64,
    safe: OutputPosition,
}

impl KeptOutput {
    /// Opens or makes the file, and cuts it back to `position`; without one it starts anew. Blocking.
    pub(super) fn open(
        path: &Path,
        bytes_max: u64,
        log: Arc<dyn LineSink>,
        position: Option<OutputPosition>,
    ) -> Result<Self, OutputError> {
        let name = path.display().to_string();
        let (bytes, dropped) = match position {
            Some(OutputPosition::Kept { bytes, dropped }) => (bytes, dropped),
            Some(OutputPosition::File { .. }) | None => (0, 0),
        };
        let file =
            cut_back(path, bytes).map_err(|source| OutputError::write("open", &name, source))?;
        Ok(Self {
            file: FileOutput::over(file, name, None)?,
            log,
            bytes_max,
            bytes,
            dropped,
            accepted: 0,
            safe: OutputPosition::Kept { bytes, dropped },
        })
    }

    pub(super) async fn write<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), OutputError> {
        let records: Vec<&[u8]> = records.collect();
        if !records.is_empty() {
            self.log.records(&mut records.iter().copied());
        }
        let mut kept = 0;
        for record in &records {
            let after = self.bytes + record.len() as u64 + 1;
            // A hole would be worse than an end.
            if self.dropped > 0 || after > self.bytes_max {
                self.dropped += 1;
            } else {
                self.bytes = after;
                kept += 1;
            }
        }
        self.accepted += 1;
        self.file.write(records[..kept].iter().copied()).await?;
        self.note_safe();
        Ok(())
    }

    pub(super) async fn sync(&mut self) -> Result<(), OutputError> {
        self.file.sync().await?;
        self.note_safe();
        Ok(())
    }

    /// When everything accepted is acked, everything counted is safe.
    fn note_safe(&mut self) {
        if self.file.acked() == self.accepted {
            self.safe = OutputPosition::Kept {
                bytes: self.bytes,
                dropped: self.dropped,
            };
        }
    }

    pub(super) fn sync_at(&self) -> Option<Instant> {
        self.file.sync_at()
    }

    pub(super) fn acked(&self) -> u64 {
        self.file.acked()
    }

    pub(super) fn position(&self) -> OutputPosition {
        self.safe
    }
}

fn cut_back(path: &Path, bytes: u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let found = file.metadata()?.len();
    if found < bytes {
        let message = format!("it has {found} bytes, and {bytes} were safe: its end was lost");
        return Err(io::Error::other(message));
    }
    if found > bytes {
        file.set_len(bytes)?;
    }
    Ok(file)
}

impl fmt::Debug for KeptOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptOutput")
            .field("file", &self.file)
            .field("bytes", &self.bytes)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Silent;

    impl LineSink for Silent {
        fn records(&self, records: &mut dyn Iterator<Item = &[u8]>) {
            records.for_each(drop);
        }
    }

    fn open(path: &Path, bytes_max: u64, position: Option<OutputPosition>) -> KeptOutput {
        KeptOutput::open(path, bytes_max, Arc::new(Silent), position).unwrap()
    }

    async fn write(output: &mut KeptOutput, records: &[&str]) {
        output
            .write(records.iter().map(|record| record.as_bytes()))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_comes_again_after_a_kill_is_in_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        let mut output = open(&path, 1000, None);
        write(&mut output, &["one", "two"]).await;
        output.sync().await.unwrap();
        let checkpoint = output.position();
        assert_eq!(
            checkpoint,
            OutputPosition::Kept {
                bytes: 8,
                dropped: 0
            }
        );
        write(&mut output, &["three", "four"]).await;
        output.sync().await.unwrap();
        drop(output);
        // The checkpoint did not get to the disk: both records come again.
        let mut output = open(&path, 1000, Some(checkpoint));
        write(&mut output, &["three", "four"]).await;
        output.sync().await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "one\ntwo\nthree\nfour\n");
        // Without a position the input starts over as well.
        let output = open(&path, 1000, None);
        assert_eq!(
            output.position(),
            OutputPosition::Kept {
                bytes: 0,
                dropped: 0
            }
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn beyond_the_bound_records_are_counted_and_there_is_no_hole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        let mut output = open(&path, 10, None);
        write(&mut output, &["one", "longer than that", "x"]).await;
        output.sync().await.unwrap();
        let position = output.position();
        assert_eq!(
            position,
            OutputPosition::Kept {
                bytes: 4,
                dropped: 2
            }
        );
        let mut output = open(&path, 10, Some(position));
        write(&mut output, &["y"]).await;
        output.sync().await.unwrap();
        assert_eq!(
            output.position(),
            OutputPosition::Kept {
                bytes: 4,
                dropped: 3
            }
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[test]
    fn a_file_that_lost_what_was_safe_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        std::fs::write(&path, "one\n").unwrap();
        let position = Some(OutputPosition::Kept {
            bytes: 8,
            dropped: 0,
        });
        let error = KeptOutput::open(&path, 10, Arc::new(Silent), position).unwrap_err();
        assert!(error.to_string().contains("its end was lost"), "{error}");
    }
}

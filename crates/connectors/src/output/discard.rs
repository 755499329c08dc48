//! `[output.discard]`: counts batches and forgets them.

#[derive(Debug, Default)]
pub struct DiscardOutput {
    acked: u64,
}

impl DiscardOutput {
    pub(super) fn write<'a>(&mut self, _records: impl Iterator<Item = &'a [u8]>) {
        self.acked += 1;
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }
}

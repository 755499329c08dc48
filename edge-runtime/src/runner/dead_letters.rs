//! Records that could not be processed, kept on the edge with everything that is known of their death.
//!
//! `STATE_DIR/executions/ID/dead-letters`, two files of 32 MiB, one JSON object a line ([`DeadLetterLine`]); the oldest
//! make room and are counted. A dead letter is on disk before the checkpoint passes its record.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_connectors::RejectedRecord;
use sluice_model::{Digest, StageName, UnixMs};
use sluice_record::Batch;
use sluice_sandbox::DeadLetter;

use super::halves::{Halves, newest_first};
use super::log::now;

const DIRECTORY: &str = "dead-letters";
/// One of the two files: together 64 MiB, and the largest record still fits one as base64.
const HALF_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest record that is kept as text: a text of control characters takes six times its length in JSON, base64 never
/// more than 4/3.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// One line of the dead-letter file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterLine {
    /// When it died.
    pub at: UnixMs,
    /// What sort of death: `reject`, `retry`, `trap`, `deadline`, `memory`, ..., or `too-large` for one that never got in.
    pub kind: String,
    /// In words.
    pub reason: String,
    /// The stage it died in; `None` = the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// The stage's component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How many calls failed with it.
    pub attempts: u32,
    /// The record's time in nanoseconds since the Unix epoch, 0 = unknown.
    pub time: u64,
    /// The record's attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The record's whole length; more than what is kept only for `too-large`.
    pub bytes: u64,
    /// The record, when it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The record, when it is not text or very long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Appends what is to be known of a record of `input` that died in a chain of `stages`.
pub(super) fn encode_death(
    out: &mut Vec<u8>,
    letter: &DeadLetter,
    input: &Batch,
    stages: &[(StageName, Digest)],
) {
    let index = letter.index as usize;
    let stage = stages.get(letter.stage as usize);
    let attributes = input
        .attributes
        .iter()
        .filter(|column| !column.value(index).is_empty());
    let line = DeadLetterLine {
        at: now(),
        kind: letter.kind.as_str().to_owned(),
        reason: letter.reason.clone(),
        stage: stage.map(|(name, _)| name.clone()),
        digest: stage.map(|(_, digest)| *digest),
        attempts: letter.attempts,
        time: input.time(index),
        attributes: attributes
            .map(|column| {
                (
                    column.name.clone(),
                    String::from_utf8_lossy(column.value(index)).into_owned(),
                )
            })
            .collect(),
        bytes: input.record(index).len() as u64,
        text: None,
        base64: None,
    };
    encode(out, line, input.record(index));
}

/// Appends what is to be known of a record that the input refused.
pub(super) fn encode_reject(out: &mut Vec<u8>, rejected: &RejectedRecord) {
    let line = DeadLetterLine {
        at: now(),
        kind: "too-large".to_owned(),
        reason: rejected.reason.clone(),
        stage: None,
        digest: None,
        attempts: 0,
        time: 0,
        attributes: BTreeMap::new(),
        bytes: rejected.bytes,
        text: None,
        base64: None,
    };
    encode(out, line, &rejected.prefix);
}

fn encode(out: &mut Vec<u8>, mut line: DeadLetterLine, record: &[u8]) {
    match std::str::from_utf8(record) {
        Ok(text) if record.len() <= TEXT_BYTES_MAX => line.text = Some(text.to_owned()),
        _ => line.base64 = Some(base64(record)),
    }
    serde_json::to_writer(&mut *out, &line)
        .expect("a dead letter has nothing that JSON cannot say");
    out.push(b'\n');
}

/// The newest `lines_max` dead letters in an execution's state directory, oldest first. Blocking.
pub fn dead_letters_tail(state_dir: &Path, lines_max: usize) -> io::Result<Vec<DeadLetterLine>> {
    let mut lines = Vec::new();
    newest_first(&state_dir.join(DIRECTORY), |line| {
        if lines.len() < lines_max {
            lines.extend(serde_json::from_str::<DeadLetterLine>(line));
        }
        lines.len() < lines_max
    })?;
    lines.reverse();
    Ok(lines)
}

/// The dead-letter file, opened with the first letter. Everything here blocks.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    halves: Option<Halves>,
    unsynced: bool,
}

impl DeadLetters {
    /// Appends encoded lines; returns how many old ones made room.
    pub(super) fn append(&mut self, state_dir: &Path, lines: &[u8]) -> io::Result<u64> {
        let halves = match &mut self.halves {
            Some(halves) => halves,
            None => self
                .halves
                .insert(Halves::open(state_dir.join(DIRECTORY), HALF_BYTES_MAX)?),
        };
        self.unsynced = true;
        halves.append(lines)
    }

    /// Makes everything appended survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(halves) = &self.halves
            && self.unsynced
        {
            halves.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..4 {
            if place <= group.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_sandbox::DeadLetterKind;

    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn a_death_keeps_what_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let mut batch = Batch::new();
        batch.push(b"fine");
        batch.push_at(b"\xff\x00", 7);
        batch.set_last_attribute("file", b"a.log");
        let stages = [
            ("first".parse().unwrap(), Digest::of(b"first")),
            ("second".parse().unwrap(), Digest::of(b"2")),
        ];
        let letter = DeadLetter {
            index: 1,
            stage: 1,
            attempts: 2,
            kind: DeadLetterKind::Failed("trap"),
            reason: "trapped: unreachable".to_owned(),
        };
        let mut lines = Vec::new();
        encode_death(&mut lines, &letter, &batch, &stages);
        let rejected = RejectedRecord {
            reason: "big".to_owned(),
            prefix: b"abc".to_vec(),
            bytes: 20_000_000,
        };
        encode_reject(&mut lines, &rejected);
        let mut letters = DeadLetters::default();
        assert_eq!(letters.append(directory.path(), &lines).unwrap(), 0);
        letters.sync().unwrap();

        let kept = dead_letters_tail(directory.path(), 10).unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!(
            (
                kept[0].kind.as_str(),
                kept[0].attempts,
                kept[0].time,
                kept[0].bytes
            ),
            ("trap", 2, 7, 2)
        );
        assert_eq!(kept[0].stage, Some(stages[1].0.clone()));
        assert_eq!(kept[0].digest, Some(stages[1].1));
        assert_eq!(kept[0].attributes["file"], "a.log");
        assert_eq!(
            (kept[0].text.as_deref(), kept[0].base64.as_deref()),
            (None, Some("/wA="))
        );
        assert_eq!(
            (kept[1].text.as_deref(), kept[1].bytes, &kept[1].stage),
            (Some("abc"), 20_000_000, &None)
        );
        assert_eq!(dead_letters_tail(directory.path(), 1).unwrap(), kept[1..]);
    }
}

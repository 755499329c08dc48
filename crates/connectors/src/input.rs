//! Inputs: where records come from.
//!
//! [`Input`] is a closed set with one variant for each connector. A batch leaves when it is full or when nothing more is
//! ready, and carries the position behind its last record, so that a position is stored only together with the ack of
//! everything before it.

use std::io;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_model::CommandName;
use sluice_model::pipeline::{Template, TemplateContext, TemplateError};
use sluice_record::Batch;

use crate::{AllowedCommands, AllowedPaths, CommandError, PathError};

#[cfg(feature = "input-exec")]
mod exec;
#[cfg(any(feature = "input-file", feature = "input-stdin"))]
mod file;
#[cfg(feature = "input-generate")]
mod generate;
#[cfg(any(
    feature = "input-exec",
    feature = "input-file",
    feature = "input-stdin"
))]
mod lines;
#[cfg(any(feature = "input-exec", feature = "input-stdin"))]
mod stream;

/// How much of a record that is too large goes with its rejection: enough to recognise it, no more.
pub const REJECT_PREFIX_BYTES_MAX: usize = 4096;
/// Most rejected records in one batch, so that a file of nothing but monsters still moves its position.
#[cfg(any(
    feature = "input-exec",
    feature = "input-generate",
    feature = "input-file",
    feature = "input-stdin"
))]
const BATCH_REJECTS_MAX: usize = 16;

/// Records, what was refused among them, and the position behind both. Reused: an input clears it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputBatch {
    /// The records.
    pub batch: Batch,
    /// Records that could not become part of a batch.
    pub rejects: Vec<RejectedRecord>,
    /// Where to open the input to continue behind this batch; `None` when it cannot be continued.
    pub position: Option<Position>,
}

/// A record that is over the limit; the reader went on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// What is wrong with it.
    pub reason: String,
    /// Its first bytes, at most [`REJECT_PREFIX_BYTES_MAX`].
    pub prefix: Vec<u8>,
    /// Its whole length.
    pub bytes: u64,
}

impl InputBatch {
    /// Empties it and keeps its buffers.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.rejects.clear();
        self.position = None;
    }

    /// Whether neither a record nor a reject is in it.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.rejects.is_empty()
    }

    /// Whether a record of `bytes` still fits; one alone always does.
    #[cfg(any(
        feature = "input-exec",
        feature = "input-generate",
        feature = "input-file",
        feature = "input-stdin"
    ))]
    fn has_room(&self, bytes: usize) -> bool {
        self.rejects.len() < BATCH_REJECTS_MAX && self.batch.has_room(bytes)
    }
}

/// A place in an input from which it can be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Position {
    /// In a file.
    File(FilePosition),
    /// In bytes that never change.
    Stdin {
        /// Where the next record starts.
        offset: u64,
    },
    /// In generated records.
    Generate {
        /// The next record's number.
        seq: u64,
    },
}

/// A place in a file, with what makes it this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The device it is on.
    pub device: u64,
    /// Its inode there; numbers are used again, so it proves nothing alone.
    pub inode: u64,
    /// Hash of its first bytes.
    pub fingerprint: sluice_model::Digest,
    /// How many first bytes, at most 1 KiB.
    pub fingerprint_bytes: u16,
    /// Counts how often the file turned out to be another one.
    pub epoch: u64,
    /// Where the next record starts.
    pub offset: u64,
}

/// What [`Input::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The batch was filled.
    Batch,
    /// There is nothing more, now and later.
    End,
}

/// Why an input cannot open or go on. Worth trying again later.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path was not opened.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Reading failed.
    #[error("cannot read {from}: {source}")]
    Read {
        /// The path, or `standard input`.
        from: String,
        /// What the system said.
        source: io::Error,
    },
    /// `[input.stdin]` where there is no standard input.
    #[error(
        "`[input.stdin]` reads what a launch brings, and there is none: `sluice run launch JOB --stdin FILE`; without a \
         cluster, `sluice pipeline run` reads its own standard input"
    )]
    NoStdin,
    /// A command did not do what it should.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// This program was built without the connector.
    #[error("this program was built without the input `{name}`")]
    NotBuilt {
        /// The connector's name.
        name: &'static str,
    },
}

/// Opens what `[input.stdin]` reads.
pub type StdinSource = Arc<dyn Fn() -> Box<dyn Read + Send> + Send + Sync>;

/// An input's settings with every `${...}` filled in.
#[derive(Clone, Debug)]
pub enum InputSettings {
    /// `[input.generate]`
    Generate {
        /// Time between records; `None` goes as fast as it can.
        interval: Option<Duration>,
        /// How many records; `None` never ends.
        count: Option<u64>,
        /// One record's text; only `seq` and `now` are open.
        template: Template,
    },
    /// `[input.file]`
    File {
        /// The path, as the pipeline wrote it.
        path: String,
    },
    /// `[input.stdin]` from the process's own standard input.
    Stdin,
    /// `[input.stdin]` from a file that holds what the launch brought; it is the edge's own and never changes.
    KeptStdin {
        /// Where it is.
        path: PathBuf,
    },
    /// `[input.exec]`
    Exec {
        /// Which of the edge's commands.
        command: CommandName,
        /// How long it may run.
        deadline: Duration,
    },
}

impl InputSettings {
    /// Fills in `input`'s templates.
    pub fn resolve(
        input: &sluice_model::pipeline::Input,
        context: &TemplateContext<'_>,
    ) -> Result<Self, TemplateError> {
        use sluice_model::pipeline::Input as Spec;
        Ok(match input {
            Spec::Generate(generate) => Self::Generate {
                interval: generate.interval,
                count: generate.count,
                template: generate.template.resolve(context)?,
            },
            Spec::File(file) => Self::File {
                path: file.path.render(context)?,
            },
            Spec::Stdin => Self::Stdin,
            Spec::Exec(exec) => Self::Exec {
                command: exec.command.clone(),
                deadline: exec.deadline,
            },
        })
    }

    /// Whether it goes on where it was when it is opened again at a position.
    pub fn resumes(&self) -> bool {
        match self {
            Self::Generate { .. } | Self::File { .. } | Self::KeptStdin { .. } => true,
            Self::Stdin | Self::Exec { .. } => false,
        }
    }

    /// Whether the input comes to an end by itself: then a new version starts over.
    pub fn ends(&self) -> bool {
        match self {
            Self::Generate { count, .. } => count.is_some(),
            Self::File { .. } | Self::Stdin | Self::KeptStdin { .. } | Self::Exec { .. } => true,
        }
    }
}

/// An open input.
#[derive(Debug)]
pub enum Input {
    /// `[input.generate]`
    #[cfg(feature = "input-generate")]
    Generate(generate::GenerateInput),
    /// `[input.file]`
    /// Also `[input.stdin]` of a launch.
    #[cfg(any(feature = "input-file", feature = "input-stdin"))]
    File(Box<file::FileInput>),
    /// `[input.stdin]`
    #[cfg(feature = "input-stdin")]
    Stdin(stream::StreamInput),
    /// `[input.exec]`
    #[cfg(feature = "input-exec")]
    Exec(exec::ExecInput),
}

impl Input {
    /// Opens an input, at `position` if it still means something there, else at the start.
    pub async fn open(
        settings: InputSettings,
        position: Option<Position>,
        allowed: &AllowedPaths,
        commands: &AllowedCommands,
        stdin: Option<&StdinSource>,
    ) -> Result<Self, InputError> {
        match settings {
            #[cfg(feature = "input-generate")]
            InputSettings::Generate {
                interval,
                count,
                template,
            } => Ok(Self::Generate(generate::GenerateInput::new(
                interval, count, template, position,
            ))),
            #[cfg(feature = "input-file")]
            InputSettings::File { path } => {
                let allowed = allowed.clone();
                let opened = crate::output::blocking(move || {
                    file::FileInput::open(&allowed, path, position)
                })
                .await;
                Ok(Self::File(Box::new(opened?)))
            }
            #[cfg(feature = "input-stdin")]
            InputSettings::KeptStdin { path } => {
                let opened =
                    crate::output::blocking(move || file::FileInput::open_kept(&path, position));
                Ok(Self::File(Box::new(opened.await?)))
            }
            #[cfg(feature = "input-stdin")]
            InputSettings::Stdin => {
                let source = stdin.ok_or(InputError::NoStdin)?;
                let stream = stream::StreamInput::new(source(), "standard input".to_owned());
                Ok(Self::Stdin(stream?))
            }
            #[cfg(feature = "input-exec")]
            InputSettings::Exec { command, deadline } => {
                let line = commands.find(&command)?.clone();
                let started = crate::output::blocking(move || {
                    exec::ExecInput::start(command, &line, deadline)
                });
                Ok(Self::Exec(started.await?))
            }
            #[cfg(not(all(
                feature = "input-exec",
                feature = "input-generate",
                feature = "input-file",
                feature = "input-stdin"
            )))]
            other => {
                let _ = (position, allowed, commands, stdin);
                Err(InputError::NotBuilt {
                    name: match other {
                        InputSettings::Generate { .. } => "generate",
                        InputSettings::File { .. } => "file",
                        InputSettings::Stdin | InputSettings::KeptStdin { .. } => "stdin",
                        InputSettings::Exec { .. } => "exec",
                    },
                })
            }
        }
    }

    /// Clears `into` and fills it with at least one record or reject, waiting for it if need be. After an error or
    /// `End` it is not called again. Dropping the future may lose records that were read and not handed out: then drop
    /// the input too.
    pub async fn next(&mut self, into: &mut InputBatch) -> Result<Next, InputError> {
        into.clear();
        match self {
            #[cfg(feature = "input-generate")]
            Self::Generate(input) => Ok(input.next(into).await),
            #[cfg(any(feature = "input-file", feature = "input-stdin"))]
            Self::File(input) => input.next(into).await,
            #[cfg(feature = "input-stdin")]
            Self::Stdin(input) => input.next(into).await,
            #[cfg(feature = "input-exec")]
            Self::Exec(input) => input.next(into).await,
            #[cfg(not(any(
                feature = "input-exec",
                feature = "input-generate",
                feature = "input-file",
                feature = "input-stdin"
            )))]
            _ => match *self {},
        }
    }
}

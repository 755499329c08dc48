//! What the rows order, in the agent's own types: the wire's types stay with the protocol.

use std::fmt;

use sluice_model::{Attempt, Desired, Digest, ExecutionId, JobId, JobName, Slot, Version};

/// Which try of which version; only the orchestrator makes new ones, and they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The job version.
    pub version: Version,
    /// The try at that version.
    pub attempt: Attempt,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.attempt)
    }
}

/// One desired row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The execution.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// The job's name.
    pub job_name: JobName,
    /// The version and attempt to follow.
    pub label: Label,
    /// What to do.
    pub desired: Desired,
    /// Which slot on the node.
    pub slot: Slot,
    /// The sha256 of the spec.
    pub spec: Digest,
    /// It must not run a second time when nobody can tell whether it has ended.
    pub once: bool,
}

/// Something that a spec names, and that must be here before an execution is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// Its sha256.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: ArtifactKind,
}

/// What the agent must know of a spec that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecParts {
    /// The digest of what it runs: what runs another spec with the same content needs no restart for this one.
    pub content: Digest,
    /// What must be here before it is prepared.
    pub artifacts: Vec<Artifact>,
    /// It is launched and runs to an end, so it does not wait for ever for what it needs.
    pub is_batch: bool,
}

/// What the agent must know of a spec, or why it cannot be read.
pub type SpecFacts = Result<SpecParts, String>;

/// What an artifact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// A stage's component.
    Component,
    /// What a launch brought for `[input.stdin]`.
    Stdin,
}

impl ArtifactKind {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Stdin => "stdin",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

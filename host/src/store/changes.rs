//! What a transaction changes, by the names that people know it by: for telling watchers, once it is committed.

use sluice_model::{ExecutionId, JobName, NodeName, RunId, ScheduleName};

/// Things that one transaction names; beyond that it says only that much changed. More hints than this save a watcher
/// nothing against reading the lists.
pub const CHANGES_MAX: usize = 256;

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A node.
    Node(NodeName),
    /// A job.
    Job(JobName),
    /// An execution.
    Execution {
        /// It.
        id: ExecutionId,
        /// Its job.
        job: JobName,
        /// Its node.
        node: NodeName,
    },
    /// A run.
    Run {
        /// It.
        id: RunId,
        /// Its jobs.
        jobs: Vec<JobName>,
    },
    /// A schedule.
    Schedule {
        /// It.
        name: ScheduleName,
        /// What it launches.
        job: JobName,
    },
}

/// What changed, in order, each thing once. At most [`CHANGES_MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    things: Vec<Changed>,
    all: bool,
}

/// How far changes went, for going back there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    things: usize,
    all: bool,
}

impl Changes {
    /// More than can be named.
    pub fn everything() -> Self {
        Self {
            things: Vec::new(),
            all: true,
        }
    }

    /// These, at most [`CHANGES_MAX`] of them by name.
    pub fn of(things: impl IntoIterator<Item = Changed>) -> Self {
        let mut changes = Self::default();
        for thing in things {
            changes.add(thing);
        }
        changes
    }

    /// The things that are named; none when [`Self::is_everything`].
    pub fn things(&self) -> &[Changed] {
        if self.all { &[] } else { &self.things }
    }

    /// More changed than is named.
    pub fn is_everything(&self) -> bool {
        self.all
    }

    /// Nothing changed that people see.
    pub fn is_empty(&self) -> bool {
        !self.all && self.things.is_empty()
    }

    pub(super) fn add(&mut self, thing: Changed) {
        if self.all || self.things.contains(&thing) {
            return;
        }
        if self.things.len() == CHANGES_MAX {
            self.all = true;
        } else {
            self.things.push(thing);
        }
    }

    pub(super) fn has_run(&self, run: RunId) -> bool {
        let is_it = |thing: &Changed| matches!(thing, Changed::Run { id, .. } if *id == run);
        self.things.iter().any(is_it)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            things: self.things.len(),
            all: self.all,
        }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.things.truncate(mark.things);
        self.all = mark.all;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_thing_is_named_once_too_many_are_everything_and_a_step_is_taken_back() {
        let node = |n: usize| Changed::Node(format!("n{n}").parse().unwrap());
        let mut changes = Changes::default();
        changes.add(node(0));
        changes.add(node(0));
        assert_eq!(changes.things(), [node(0)]);
        let mark = changes.mark();
        for n in 0..=CHANGES_MAX {
            changes.add(node(n));
        }
        assert!(changes.is_everything() && changes.things().is_empty());
        changes.back_to(mark);
        assert_eq!(changes.things(), [node(0)]);
        assert!(!changes.is_empty() && Changes::default().is_empty());
    }
}

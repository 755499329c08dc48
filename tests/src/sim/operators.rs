//! What operators order, and what they may rely on: every acknowledged order holds, whatever dies afterwards.
//!
//! An order whose answer got lost is given again until it is answered, as a person or a script would do; so after the
//! answer the world must be as the last order of a job says.

use std::collections::{BTreeMap, BTreeSet};

use sluice_api::{NodeOrder, RolloutOrder};
use sluice_host::core::{ComponentFacts, RequestId};
use sluice_model::{Digest, JobId, NodeId, OnLost, RunId, Version, World};

use super::schedules::ScheduleOrder;

/// How a pipeline behaves when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Runs on; the number makes versions differ.
    Steady(u8),
    /// Runs on, and every record becomes a dead letter.
    Spoils(u8),
    /// Completes after a while.
    Ends(u8),
    /// Fails for good after a while.
    Fails(u8),
    /// Crashes soon after each start.
    Crashes(u8),
    /// Its stage refuses its configuration: never starts.
    Misconfigured(u8),
    /// Compiling it kills the process.
    Deadly(u8),
    /// Its input is not there until it was tried so many times; then it completes after a while.
    Missing(u8),
}

impl Content {
    fn marker(self) -> String {
        match self {
            Self::Steady(n) => format!("steady-{n}"),
            Self::Spoils(n) => format!("spoils-{n}"),
            Self::Ends(n) => format!("ends-{n}"),
            Self::Fails(n) => format!("fails-{n}"),
            Self::Crashes(n) => format!("crashes-{n}"),
            Self::Misconfigured(n) => format!("misconfigured-{n}"),
            Self::Deadly(n) => format!("deadly-{n}"),
            Self::Missing(n) => format!("missing-{n}"),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Steady(n)
            | Self::Spoils(n)
            | Self::Ends(n)
            | Self::Fails(n)
            | Self::Crashes(n)
            | Self::Misconfigured(n)
            | Self::Deadly(n)
            | Self::Missing(n) => n,
        }
    }

    /// Reads it back from a pipeline's text.
    pub fn of(pipeline: &str) -> Option<Self> {
        let (_, rest) = pipeline.split_once("template = \"")?;
        let (marker, _) = rest.split_once('"')?;
        let (word, n) = marker.rsplit_once('-')?;
        let n = n.parse().ok()?;
        Some(match word {
            "steady" => Self::Steady(n),
            "spoils" => Self::Spoils(n),
            "ends" => Self::Ends(n),
            "fails" => Self::Fails(n),
            "crashes" => Self::Crashes(n),
            "misconfigured" => Self::Misconfigured(n),
            "deadly" => Self::Deadly(n),
            "missing" => Self::Missing(n),
            _ => return None,
        })
    }

    /// The component that its stage runs; contents share them.
    pub fn component(self) -> Digest {
        component(self.number() % COMPONENTS)
    }
}

/// Different components in the world.
pub(super) const COMPONENTS: u8 = 3;

/// A component's digest.
pub fn component(n: u8) -> Digest {
    Digest::of(format!("component {n}").as_bytes())
}

/// Every component with its size, as the artifact store would say.
pub fn components() -> BTreeMap<Digest, ComponentFacts> {
    (0..COMPONENTS)
        .map(|n| {
            let size = 1000 + u64::from(n);
            let world = World::Transform;
            (component(n), ComponentFacts { size, world })
        })
        .collect()
}

/// How many nodes a pipeline wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// Every one.
    Daemon,
    /// So many, and what becomes of those on lost nodes.
    Replicas(u32, OnLost),
    /// None by itself: it is launched.
    Batch(Batch),
}

/// What a batch job says of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tasks of a launch.
    pub count: u32,
    /// Tasks at once.
    pub concurrency: u32,
    /// It may run again when nobody can tell whether it has ended.
    pub idempotent: bool,
    /// Tries after the first one that failed.
    pub retries: u32,
    /// What becomes of a task when its node is lost.
    pub on_lost: OnLost,
    /// Seconds that a try may take.
    pub timeout_s: u64,
    /// Each task takes a place of the pool that all such jobs share.
    pub pooled: bool,
}

impl Batch {
    /// What is executed once, or fails, on so many nodes.
    pub const fn once(count: u32) -> Self {
        Self {
            count,
            concurrency: 2,
            idempotent: false,
            retries: 0,
            on_lost: OnLost::Fail,
            timeout_s: 3600,
            pooled: false,
        }
    }
}

/// A pipeline's text. `select` is the table's line, or empty for every node.
pub fn pipeline(name: &str, content: Content, select: &str, placing: Placing) -> String {
    let marker = content.marker();
    let component = content.component();
    let select = if select.is_empty() {
        String::new()
    } else {
        format!("[select]\n{select}\n")
    };
    let kind = match placing {
        Placing::Daemon => String::new(),
        Placing::Replicas(count, on_lost) => {
            format!("kind = \"replicas\"\ncount = {count}\non_lost = \"{on_lost}\"\n")
        }
        Placing::Batch(it) => format!(
            "kind = \"batch\"\ncount = {}\nconcurrency = {}\nidempotent = {}\nretries = {}\non_lost = \"{}\"\n\
             timeout = \"{}s\"\n{}",
            it.count,
            it.concurrency,
            it.idempotent,
            it.retries,
            it.on_lost,
            it.timeout_s,
            if it.pooled { "pool = \"gpu\"\n" } else { "" }
        ),
    };
    let ends = match placing {
        Placing::Batch(_) => "count = 1\n",
        Placing::Daemon | Placing::Replicas(..) => "",
    };
    let output = match placing {
        Placing::Batch(_) => "stdout",
        Placing::Daemon | Placing::Replicas(..) => "discard",
    };
    format!(
        "name = \"{name}\"\n{kind}{select}[input.generate]\n{ends}interval = \"1s\"\ntemplate = \"{marker}\"\n\
         [[stage]]\nname = \"s\"\nplugin = \"{component}\"\n[output.{output}]\n"
    )
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Deploy this.
    Deploy {
        /// What it does.
        content: Content,
        /// Where.
        select: String,
        /// On how many.
        placing: Placing,
    },
    /// Stop the job.
    Stop,
    /// Start it.
    Start,
    /// Delete it.
    Delete,
    /// The next attempt of all its executions.
    Restart,
    /// Take the content of the last good version again.
    Rollback,
    /// Order this of the job's rollout.
    Rollout(RolloutOrder),
    /// Not about a job: shut a node out. Its machine joins again later. Its key is [`node_key`].
    Revoke {
        /// Which machine.
        edge: usize,
    },
    /// Not about a job: delete a node. Its machine joins again later, as another one. Its key is [`node_key`].
    Forget {
        /// Which machine.
        edge: usize,
    },
    /// Not about a job: launch it. The order's key is the launch's.
    Launch {
        /// The job.
        job: String,
        /// On these machines; none: wherever there is room.
        nodes: Vec<usize>,
    },
    /// Not about a job: call a run off.
    CallOff {
        /// Which.
        run: RunId,
    },
    /// Not about a job: order this of a schedule.
    Schedule {
        /// Its name.
        name: String,
        /// What.
        order: ScheduleOrder,
    },
    /// Not about a job: order this of a node. Its key in [`Operators::open`] is [`node_key`].
    Node {
        /// Which machine.
        edge: usize,
        /// What.
        order: NodeOrder,
    },
}

/// What stands for a node among the jobs' names; no job has a name with a space.
pub fn node_key(edge: usize) -> String {
    format!("node {edge}")
}

/// A job as the operators know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownJob {
    /// Its id.
    pub id: JobId,
    /// Its version.
    pub version: Version,
    /// Its content.
    pub content: Content,
    /// Its selector.
    pub select: String,
    /// On how many nodes.
    pub placing: Placing,
    /// Stopped.
    pub stopped: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operators {
    /// The jobs that should exist.
    pub jobs: BTreeMap<String, KnownJob>,
    /// What was ordered of nodes, as last answered: cordoned, draining.
    pub nodes: BTreeMap<usize, (bool, bool)>,
    /// Orders that are not answered yet, one for a job.
    pub open: BTreeMap<String, Order>,
    /// Questions under way, by request.
    pub asked: BTreeMap<RequestId, String>,
    /// Every id that a job ever had; none may come back.
    pub ids: BTreeSet<JobId>,
    /// Orders answered.
    pub answered: u64,
    /// What each version was deployed with.
    pub versions: BTreeMap<(JobId, Version), (Content, String, Placing)>,
    /// From now on, whatever is paused is promoted.
    pub promotes: bool,
    /// Nodes that were revoked, with the key that may speak no more, or deleted, as answered.
    pub shut_out: BTreeMap<NodeId, Option<[u8; 32]>>,
    /// Machines whose nodes somebody wants deleted, answered or not.
    pub forgetting: BTreeSet<usize>,
}

impl Operators {
    /// Notes the answer to a deploy; the error says what is wrong with it.
    pub fn handle_deployed(
        &mut self,
        name: &str,
        id: JobId,
        version: Version,
        content: Content,
        select: &str,
        placing: Placing,
    ) -> Result<(), String> {
        match self.jobs.get(name) {
            Some(known) if known.id != id => {
                return Err(format!(
                    "{name} is job {}, and a deploy answered with {id}",
                    known.id
                ));
            }
            Some(known) if version < known.version => {
                return Err(format!(
                    "{name} goes back from version {} to {version}",
                    known.version
                ));
            }
            Some(known)
                if version == known.version
                    && (known.content, known.select.as_str(), known.placing)
                        != (content, select, placing) =>
            {
                return Err(format!("{name}@{version} changed its content"));
            }
            _ => {}
        }
        let deployed = (content, select.to_owned(), placing);
        self.versions.insert((id, version), deployed);
        self.jobs.insert(
            name.to_owned(),
            KnownJob {
                id,
                version,
                content,
                select: select.to_owned(),
                placing,
                stopped: false,
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_are_pipelines_and_say_what_they_do() {
        for content in [
            Content::Steady(3),
            Content::Ends(0),
            Content::Misconfigured(7),
            Content::Missing(200),
        ] {
            for select in ["", "site = \"a\""] {
                for placing in [
                    Placing::Daemon,
                    Placing::Replicas(2, OnLost::Wait),
                    Placing::Batch(Batch::once(2)),
                    Placing::Batch(Batch {
                        pooled: true,
                        ..Batch::once(1)
                    }),
                ] {
                    let text = pipeline("j1", content, select, placing);
                    sluice_model::pipeline::parse(&text).unwrap();
                    assert_eq!(Content::of(&text), Some(content));
                }
            }
        }
    }
}

//! `[rollout]`: how a new version reaches the nodes, and what proves that it is good.

use std::fmt;
use std::time::Duration;

/// A job without `[rollout]` that matches at least so many nodes is rolled out by default: fewer are within one
/// person's sight, and a wait between them would only be in the way.
pub const ROLLOUT_NODES_MIN: usize = 11;

/// Settings of `[rollout]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rollout {
    /// Nodes that may be on their way to the new version at once.
    pub max_parallel: MaxParallel,
    /// Nodes that must prove the new version before any other gets it; 0 = none.
    pub canary: u32,
    /// How long the new version must run on a node without trouble to be proven there.
    pub min_healthy: Duration,
    /// Dead letters for each record taken in, at most; `None` does not look at them.
    pub error_rate_max: Option<f64>,
    /// How long a node may take to prove it.
    pub deadline: Duration,
}

/// A part of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxParallel {
    /// So many.
    Nodes(u32),
    /// So many of a hundred of the nodes that match, rounded up.
    Percent(u32),
}

impl Default for Rollout {
    /// 10 % at a time; proven after 10 s, which is longer than a crash at the start takes to show, and short against
    /// the start of a large component; within 5 min, the longest pause between two tries of an edge.
    fn default() -> Self {
        Self {
            max_parallel: MaxParallel::Percent(10),
            canary: 0,
            min_healthy: Duration::from_secs(10),
            error_rate_max: None,
            deadline: Duration::from_secs(300),
        }
    }
}

impl Rollout {
    /// The rollout of a job that says nothing about it and matches so many nodes; `None` = all at once.
    pub fn for_nodes(nodes: usize) -> Option<Self> {
        (nodes >= ROLLOUT_NODES_MIN).then(Self::default)
    }
}

impl MaxParallel {
    /// How many of so many nodes; one at least.
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Self::Nodes(count) => usize::try_from(count).unwrap_or(usize::MAX).max(1),
            Self::Percent(percent) => {
                let percent = usize::try_from(percent).unwrap_or(100);
                nodes.saturating_mul(percent).div_ceil(100).max(1)
            }
        }
    }
}

impl fmt::Display for MaxParallel {
    /// As in the pipeline: `3` or `10%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_nodes_is_rounded_up_and_never_nothing() {
        for (part, nodes, expected) in [
            (MaxParallel::Percent(10), 50, 5),
            (MaxParallel::Percent(10), 11, 2),
            (MaxParallel::Percent(1), 3, 1),
            (MaxParallel::Percent(100), 7, 7),
            (MaxParallel::Percent(10), 0, 1),
            (MaxParallel::Nodes(3), 50, 3),
        ] {
            assert_eq!(part.of(nodes), expected, "{part} of {nodes}");
        }
    }

    #[test]
    fn more_than_ten_nodes_are_not_reached_at_once() {
        assert_eq!(Rollout::for_nodes(10), None);
        assert_eq!(Rollout::for_nodes(11), Some(Rollout::default()));
    }
}

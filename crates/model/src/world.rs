//! What a component can be for a pipeline: the worlds of `wit/`.

use serde::{Deserialize, Serialize};

/// A world of the contract that a stage's component is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Turns batches into batches.
    Transform,
    /// Gathers, and has something to say when its input has ended.
    Report,
}

impl World {
    /// Its name in `wit/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Report => "report",
        }
    }

    /// What an edge that runs it says in its Hello.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Transform => "world:transform@0.1",
            Self::Report => "world:report@0.1",
        }
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Looks into a `.wasm` file without running it: what it imports, what it exports, how large it is.
//!
//! [`inspect`] reads the bytes, [`check_stage`] says whether they are a stage, [`check_imports`] whether everything
//! they ask for is there. The CLI and the orchestrator call all three before they accept a plugin, and so refuse what
//! an edge could never instantiate. Nothing here compiles or runs a component, or reads a file.

mod imports;
mod inspect;
mod interface;

pub use imports::{GrantSet, ImportProblem, check_imports};
pub use inspect::{
    COMPONENT_BYTES_MAX, CoreFacts, Export, ExternKind, Import, InspectError, Inspection, inspect,
};
pub use interface::InterfaceName;
use sluice_model::World;

/// The interface that a stage exports, without its version.
pub const STAGE_INTERFACE: &str = "sluice:pipeline/stage";

/// The interface that a stage of the world `report` exports as well, without its version.
pub const ENDING_INTERFACE: &str = "sluice:pipeline/ending";

/// Why a component is not a stage that this version runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageProblem {
    /// It exports no stage at all.
    #[error(
        "it does not export `sluice:pipeline/stage@0.1.0`, so it is not a stage{}; export one with the SDK's macro",
        exports_instead(exports)
    )]
    NotAStage {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It exports a stage, or an ending, of another contract.
    #[error(
        "it exports `{name}`, and this version runs {path}@0.1.x; rebuild it against the 0.1 SDK"
    )]
    Version {
        /// The export's full name.
        name: String,
        /// The name without its version.
        path: &'static str,
    },
}

/// Says whether a component exports the stage contract of any 0.1.x, and no ending of another one.
pub fn check_stage(inspection: &Inspection) -> Result<World, StageProblem> {
    let other = |path: &'static str| {
        let other = inspection.exports.iter().find(|export| {
            InterfaceName::parse(&export.name).is_some_and(|name| name.path() == path)
        });
        other.map(|export| StageProblem::Version {
            name: export.name.clone(),
            path,
        })
    };
    if let Some(world) = inspection.world() {
        // Never called, its report would be missed only when it is too late.
        return match other(ENDING_INTERFACE) {
            Some(problem) if world == World::Transform => Err(problem),
            _ => Ok(world),
        };
    }
    Err(match other(STAGE_INTERFACE) {
        Some(problem) => problem,
        None => StageProblem::NotAStage {
            exports: inspection
                .exports
                .iter()
                .map(|export| export.name.clone())
                .collect(),
        },
    })
}

fn exports_instead(exports: &[String]) -> String {
    match exports {
        [] => " (it exports nothing)".to_owned(),
        [only] => format!(" (it exports `{only}`)"),
        [first, rest @ ..] => format!(" (it exports `{first}` and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests;

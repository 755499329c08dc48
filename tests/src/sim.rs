//! The simulator: the real cores of orchestrator and edge over in-memory SQLite, through the real codec, in virtual
//! time; everything around them is played, from one seed.
//!
//! ```text
//!   operators ──orders──> Core<SqliteStore> ══frames══ network ══frames══ EdgeCore (3x) ──> runner
//!   tokens, joins ──────>   │ faults at every store call          faults at every store call │  prepare, run,
//!   "look at everything" <──┘ crashes, stalls      cuts, dead ways, delays     crashes, wipes └─ crash, complete
//! ```
//!
//! [`run_seed`] lives through one seed: chaos, then peace, then everything must be as the last orders say. Scripted
//! scenarios drive a calm [`World`] by hand. Nothing here reads a clock, sleeps, or draws chance from elsewhere: the same
//! seed is the same run, to the byte.

mod chaos;
mod check;
mod edge;
mod edging;
mod faults;
mod hosting;
mod links;
mod network;
mod operators;
mod orchestrator;
mod outputs;
mod planted;
mod random;
mod run;
mod runner;
mod runs;
mod schedules;
mod script;
mod settle;
mod timeline;
mod wire;
mod world;

pub use check::{Checks, FaultCounts};
pub use edge::{Disk, Edge, Process, Stage, Work};
pub use faults::{Fault, Faults};
pub use network::{Connection, End, Lane, Network, Way};
pub use operators::{
    Batch, Content, KnownJob, Operators, Order, Placing, component, components, node_key, pipeline,
};
pub use orchestrator::{Asker, Orchestrator, RowSeen, RowsSeen, Token, UNIX_START_MS};
pub use outputs::OutputsSeen;
pub use planted::Planted;
pub use random::Random;
pub use run::{Report, SEED_VARIABLE, SEEDS_VARIABLE, run_seed, story, words_of, world_of};
pub use runner::{MISSING, Step};
pub use runs::RunsSeen;
pub use schedules::{ScheduleOrder, SchedulesSeen};
pub use script::{play, play_with};
pub use settle::SETTLES_WITHIN_MS;
pub use timeline::Timeline;
pub use world::{Mood, World, WorldConfig};

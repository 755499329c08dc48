//! One seed, one run: chaos, then peace, then everything must be right. And what is said when it is not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::FaultCounts;
use super::random::Random;
use super::world::{Mood, World, WorldConfig};

/// Lines of the timeline that a failure shows.
const SHOWN_LINES: usize = 120;

/// The variable that names a seed to replay.
pub const SEED_VARIABLE: &str = "SLUICE_SIM_SEED";

/// The variable that says how many seeds to run.
pub const SEEDS_VARIABLE: &str = "SLUICE_SIM_SEEDS";

/// What a good run was like.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The timeline's hash.
    pub hash: u64,
    /// The timeline's length.
    pub lines: u64,
    /// Virtual time.
    pub virtual_ms: u64,
    /// Orders that were answered.
    pub orders: u64,
    /// Times that both sides' digests were compared and equal.
    pub agreements: u64,
    /// Times that somebody looked at everything.
    pub looks: u64,
    /// Outcomes seen on both disks.
    pub outcomes: u64,
    /// Faults that happened.
    pub faults: FaultCounts,
}

/// How one seed's world is set up.
pub fn world_of(seed: u64) -> (World, u64) {
    let mut random = Random::new(seed ^ 0x0073_6c75_6963_6500);
    let config = WorldConfig {
        heartbeat_ms: *random.pick(&[1_000, 2_000, 5_000]),
        // Short enough that nodes are lost and come back, or as long as it is by default.
        lost_after_ms: *random.pick(&[8_000, 20_000, 600_000]),
        mangled: random.one_in(4),
        mood: Mood::Calm,
    };
    let chaos_ms = random.between(30_000, 240_000);
    let mut world = World::new(seed, config);
    for (name, site) in [("e1", "a"), ("e2", "b"), ("e3", "a")] {
        let edge = world.add_edge(name, &[("site", site)]);
        // Every third clock is wrong by years (case 51).
        if random.one_in(3) {
            let years = 10 * 365 * 24 * 3600 * 1000;
            world.edges[edge].clock_skew_ms = *random.pick(&[-years, years, -90_000, 90_000]);
        }
    }
    (world, chaos_ms)
}

fn live_through(world: &mut World, chaos_ms: u64) {
    world.begin_chaos(chaos_ms);
    world.run_for(chaos_ms);
    world.end_chaos();
    world.settle();
    world.check_quiet();
}

/// Runs a seed. An error is the whole story for a person: what broke, how to replay it, what happened before.
pub fn run_seed(seed: u64) -> Result<Report, String> {
    let (mut world, chaos_ms) = world_of(seed);
    let lived = catch_unwind(AssertUnwindSafe(|| live_through(&mut world, chaos_ms)));
    match lived {
        Ok(()) => Ok(Report {
            hash: world.timeline.hash(),
            lines: world.timeline.count(),
            virtual_ms: world.now_ms(),
            orders: world.operators.answered,
            agreements: world.checks.agreements,
            looks: world.checks.looks,
            outcomes: u64::try_from(world.checks.outcomes.len()).unwrap_or(u64::MAX),
            faults: world.checks.faults,
        }),
        Err(panic) => Err(story(
            &world,
            &format!("seed {seed}"),
            &words_of(&*panic),
            Some(seed),
        )),
    }
}

/// A failure as people read it.
pub fn story(world: &World, what: &str, problem: &str, seed: Option<u64>) -> String {
    let replay = seed.map_or_else(String::new, |seed| {
        format!(
            "replay:  {SEED_VARIABLE}={seed} cargo test -p sluice-tests --test simulation -- --nocapture replay\n\n"
        )
    });
    format!(
        "\n{}\n\n=== {what}, at {} ms of virtual time ===\n{problem}\n{replay}",
        world.timeline.tail(SHOWN_LINES),
        world.now_ms()
    )
}

/// What a panic said.
pub fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

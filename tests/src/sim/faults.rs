//! Faults of a disk: at the n-th call of a store, the process dies, or the call fails in one of three ways.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies at this call.
    Crash,
    /// The disk is full for so many calls.
    Full {
        /// How many.
        calls: u64,
    },
    /// From this call on, no commit that changes something finds room; everything else works, as on a real disk.
    NoRoom,
    /// This one call fails, and the next ones work.
    Error,
    /// The call fails as a broken disk does: the program must end.
    Broken,
}

/// What a store call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Dead,
    Full,
    Error,
    Broken,
}

#[derive(Debug, Default)]
struct State {
    /// The simulator itself reads: nothing counts, nothing fails.
    inspecting: bool,
    armed: Option<(u64, Fault)>,
    armed_at: Option<(&'static str, Fault)>,
    full_left: u64,
    no_room: bool,
    dead_at: Option<&'static str>,
    calls: u64,
    hit: Option<(&'static str, Fault)>,
    hits: u64,
    points: BTreeSet<&'static str>,
}

/// The faults of one disk. Shared with the hook inside the store, which is why there is a lock; nobody ever waits for it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `after`-th call from now (0: the next one) fails.
    pub fn arm(&self, after: u64, fault: Fault) {
        self.state().armed = Some((after, fault));
    }

    /// The next call of this name fails.
    pub fn arm_at(&self, point: &'static str, fault: Fault) {
        self.state().armed_at = Some((point, fault));
    }

    /// Nothing is armed, and there is room on the disk.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.armed = None;
        state.armed_at = None;
        state.full_left = 0;
        state.no_room = false;
    }

    /// Whether there is no room on the disk now.
    pub fn is_full(&self) -> bool {
        let state = self.state();
        state.no_room || state.full_left > 0
    }

    /// Lets the simulator read without being counted or failed.
    pub fn inspect(&self, inspecting: bool) {
        self.state().inspecting = inspecting;
    }

    /// Where the process died, if it did; a new process has not.
    pub fn dead_at(&self) -> Option<&'static str> {
        self.state().dead_at
    }

    /// A new process starts on this disk.
    pub fn revive(&self) {
        self.state().dead_at = None;
    }

    /// The fault that happened since this was asked last.
    pub fn take_hit(&self) -> Option<(&'static str, Fault)> {
        self.state().hit.take()
    }

    /// Faults that happened.
    pub fn hits(&self) -> u64 {
        self.state().hits
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The names of all calls so far.
    pub fn points(&self) -> BTreeSet<&'static str> {
        self.state().points.clone()
    }

    fn ask(&self, point: &'static str) -> Option<Told> {
        let mut state = self.state();
        if state.inspecting {
            return None;
        }
        if state.dead_at.is_some() {
            return Some(Told::Dead);
        }
        state.calls += 1;
        state.points.insert(point);
        if state.full_left > 0 {
            state.full_left -= 1;
            return Some(Told::Full);
        }
        if state.no_room && point == "commit" {
            return Some(Told::Full);
        }
        let fault = match (state.armed_at, state.armed) {
            (Some((at, fault)), _) if at == point => {
                state.armed_at = None;
                fault
            }
            (_, Some((0, fault))) => {
                state.armed = None;
                fault
            }
            (_, Some((after, fault))) => {
                state.armed = Some((after - 1, fault));
                return None;
            }
            (_, None) => return None,
        };
        state.hit = Some((point, fault));
        state.hits += 1;
        Some(match fault {
            Fault::NoRoom => {
                state.no_room = true;
                return (point == "commit").then_some(Told::Full);
            }
            Fault::Crash => {
                state.dead_at = Some(point);
                Told::Dead
            }
            Fault::Full { calls } => {
                state.full_left = calls.saturating_sub(1);
                Told::Full
            }
            Fault::Error => Told::Error,
            Fault::Broken => Told::Broken,
        })
    }

    /// A hook for the orchestrator's store.
    pub fn host_hook(&self) -> sluice_host::store::FaultHook {
        use sluice_host::store::StoreError;
        let faults = self.clone();
        Box::new(move |point| match faults.ask(point) {
            None => Ok(()),
            Some(Told::Full) => Err(StoreError::Full),
            Some(Told::Dead | Told::Error) => Err(StoreError::Injected { point }),
            Some(Told::Broken) => Err(StoreError::Disk {
                action: point,
                source: "injected".into(),
            }),
        })
    }

    /// A hook for an edge's store.
    pub fn edge_hook(&self) -> sluice_edge_runtime::store::FaultPoint {
        use sluice_edge_runtime::store::StoreError;
        let faults = self.clone();
        Box::new(move |at| match faults.ask(at) {
            None => Ok(()),
            Some(Told::Full) => Err(StoreError::Full),
            Some(Told::Dead | Told::Error | Told::Broken) => Err(StoreError::Injected { at }),
        })
    }
}

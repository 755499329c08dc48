//! Defects of the world, planted on purpose. Each must be caught by a named invariant: so the simulator is known to be
//! able to fail. Nothing of the product is changed for them: it is disks, network and runner that lie.

use sluice_api::Rollout;
use sluice_host::core::{ApiCall, ConnId, Input, Reply};
use sluice_protocol::{edge_message, orchestrator_message};

use super::network::Way;
use super::orchestrator::Asker;
use super::wire;
use super::world::World;

/// What lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The runner says that an instance has stopped, and it lives on.
    DeafInstances,
    /// Rows for edges never arrive, on a link that looks well.
    LostRows,
    /// Who looks is not told why something waits.
    MutedReasons,
    /// What pulls outputs does nothing.
    NoPulls,
    /// What pulls outputs takes whatever comes.
    BlindPulls,
    /// Somebody restarts this job whenever somebody else looks, and nobody knows.
    SecretOrders,
}

impl World {
    /// From now on, nothing that the orchestrator commits is on its disk, whatever the disk says.
    pub fn plant_lying_host_disk(&mut self) {
        let real = self.orchestrator.look(|store| store.fork());
        self.orchestrator.really = Some(real.expect("readable"));
    }

    /// What the orchestrator commits from now on is lost when its process dies.
    pub fn plant_forgetful_host_disk(&mut self) {
        let real = self.orchestrator.look(|store| store.fork());
        self.orchestrator.forgets = Some(real.expect("readable"));
    }

    /// The edge's process is started again on a disk that will have lost by the process's end what it commits.
    pub fn plant_forgetful_edge_disk(&mut self, edge: usize) {
        self.crash_edge(edge, "its disk is exchanged", None);
        self.edges[edge].will_forget();
        self.power_on(edge, 100);
    }

    /// Plays the Begin of an edge's session again, within the session.
    pub fn replay_begin(&mut self, edge: usize) {
        let frame = self.checks.begins[&edge].clone();
        let conn = ConnId(self.connection(edge).expect("it is connected"));
        self.feed_host(Input::Frame { conn, frame });
    }

    /// Whether the network loses this frame.
    pub(super) fn loses(&self, way: Way, frame: &[u8]) -> bool {
        use orchestrator_message::Kind;
        self.planted == Some(Planted::LostRows)
            && way == Way::Down
            && matches!(wire::read_orchestrator(frame), Some(Kind::Rows(_)))
    }

    /// What arrives of an answer.
    pub(super) fn mute(&self, mut reply: Reply) -> Reply {
        if self.planted == Some(Planted::MutedReasons)
            && let Reply::Executions(page) = &mut reply
        {
            page.items.iter_mut().for_each(|it| it.reason = None);
        }
        reply
    }

    /// What arrives of what is told of a rollout.
    pub(super) fn mute_rollout(&self, mut rollout: Rollout) -> Rollout {
        if self.planted == Some(Planted::MutedReasons) {
            rollout.reason = None;
        }
        rollout
    }

    pub(super) fn order_in_secret(&mut self) {
        let (Some(Planted::SecretOrders), Some(name)) =
            (self.planted, self.operators.jobs.keys().next())
        else {
            return;
        };
        let name = name.parse().expect("the simulator's job names are names");
        let request = self.orchestrator.ask(Asker::Script);
        let call = Box::new(ApiCall::RestartJob(name));
        self.feed_host(Input::Api { request, call });
    }
}

/// Whether an edge begins a session with it.
pub(super) fn is_begin(kind: &edge_message::Kind) -> bool {
    matches!(kind, edge_message::Kind::Begin(_))
}

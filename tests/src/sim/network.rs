//! The network: connections as QUIC gives them, seen from below.
//!
//! ```text
//!   edge --way Up: ordered, reliable, late--> orchestrator      cut: what is in flight is lost; each side hears of it
//!        <--way Down---------------------                            later, the orchestrator perhaps after a new opening
//!                                                               dead way: nothing arrives until it is healed
//! ```
//!
//! This module holds connections; `world.rs` moves frames over them.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_host::core::Peer;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Edge to orchestrator.
    Up,
    /// Orchestrator to edge.
    Down,
}

/// What one end of a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing yet.
    Dialling,
    /// It is open.
    Open,
    /// It is closed.
    Closed,
}

/// One direction's state.
#[derive(Debug, Default)]
pub struct Lane {
    /// When the last frame on its way arrives: the next one arrives no earlier.
    pub last_ms: u64,
    /// Nothing gets through.
    pub dead: bool,
    /// What waits for the way to be healed.
    pub held: Vec<Bytes>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Which edge dialled.
    pub edge: usize,
    /// Who its certificate names.
    pub peer: Peer,
    /// Which process of it.
    pub edge_boot: u64,
    /// Which process of the orchestrator.
    pub host_boot: u64,
    /// What the edge knows.
    pub edge_end: End,
    /// What the orchestrator knows.
    pub host_end: End,
    /// Lost: nothing that is in flight arrives.
    pub cut: bool,
    /// One way's usual delay.
    pub latency_ms: u64,
    /// The orchestrator has seen its Begin.
    pub begun: bool,
    /// What the edge says first: it was written when it dialled.
    pub hello: Bytes,
    /// Nobody is behind it: a recorded Hello is played again.
    pub replayed: bool,
    /// Up.
    pub up: Lane,
    /// Down.
    pub down: Lane,
}

impl Connection {
    /// One direction.
    pub fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Both ends open, nothing wrong.
    pub fn is_well(&self) -> bool {
        !self.cut
            && !self.up.dead
            && !self.down.dead
            && self.edge_end == End::Open
            && self.host_end == End::Open
    }
}

/// Every connection that somebody may still hear of, by its number; later ones are greater.
#[derive(Debug, Default)]
pub struct Network {
    /// The connections.
    pub connections: BTreeMap<u64, Connection>,
    last: u64,
}

impl Network {
    /// Adds a connection and names it.
    pub fn add(&mut self, connection: Connection) -> u64 {
        self.last += 1;
        self.connections.insert(self.last, connection);
        self.last
    }

    /// A connection.
    pub fn get(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// Those of one edge that are not cut, oldest first.
    pub fn of_edge(&self, edge: usize) -> Vec<u64> {
        self.connections
            .iter()
            .filter(|(_, it)| it.edge == edge && !it.cut)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Forgets what both ends know to be closed.
    pub fn sweep(&mut self) {
        self.connections
            .retain(|_, it| it.edge_end != End::Closed || it.host_end != End::Closed);
    }
}

//! Who may speak as a node, and where its session starts: the rules for a Hello, without store, clock or socket.
//!
//! The certificate says which node; its standing (revoked, deleted, expired) is checked before. Here it is decided
//! whether this process is the one that counts, and whether the edge knows something that we have lost.

use sluice_ledger::Position;
use sluice_model::{BootCounter, BootNonce, Epoch, Incarnation, LifeNonce, Revision};

/// A Hello's facts, checked for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its store.
    pub incarnation: Incarnation,
    /// Its process start, counted.
    pub boot_counter: BootCounter,
    /// Its process start, named.
    pub boot_nonce: BootNonce,
    /// The orchestrator life it last agreed with; `None` before the first.
    pub life: Option<(Epoch, LifeNonce)>,
    /// Its desired set.
    pub desired: Position,
}

/// What our store says of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The process we last spoke to, once there was one.
    pub boot: Option<(Incarnation, BootCounter, BootNonce)>,
    /// Whether a session of it lives now.
    pub connected: bool,
    /// The desired set we hold for it.
    pub desired: Position,
    /// This orchestrator life.
    pub life: (Epoch, LifeNonce),
    /// What we know of the caller's life.
    pub callers_life: LifeKnowledge,
    /// Held before, and not yet decided by a person.
    pub held: bool,
}

/// What we know of an orchestrator life that an edge names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeKnowledge {
    /// The edge named none.
    None,
    /// It is this one.
    Current,
    /// It was ours; when the next one started, the node's desired set stood at this revision.
    Past {
        /// The node's floor.
        floor: Revision,
    },
    /// We have no record of it.
    Unknown,
}

/// Why a node is held: each proves that we lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldReason {
    /// It was held before.
    Before,
    /// It knows an orchestrator life that we don't.
    UnknownLife,
    /// It knows an older life above the revision at which that life ended.
    AboveFloor,
    /// It is ahead of us in our own life.
    AheadOfUs,
}

impl HeldReason {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Before => "it was held before and nobody has decided yet",
            Self::UnknownLife => {
                "it has assignments from an orchestrator life that this store has no record of"
            }
            Self::AboveFloor => {
                "it has newer assignments than this store had when that orchestrator life ended"
            }
            Self::AheadOfUs => "it has newer assignments than this store",
        }
    }
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectCode {
    /// Another process with the same identity is connected.
    DuplicateIdentity,
    /// The certificate was revoked.
    Revoked,
    /// The node was deleted.
    Deleted,
    /// The certificate has expired.
    Expired,
    /// No dialect in common.
    Version,
    /// The first message was no Hello, or not a well-formed one.
    Malformed,
    /// Too much at once; come back.
    Busy,
    /// The token is unknown, spent, expired, or for another node.
    Token,
    /// The name is registered; a token made for it is needed.
    NameInUse,
    /// The orchestrator cannot write.
    Unavailable,
    /// The orchestrator's store is older than the certificate. What runs on the edge runs on.
    StoreOutdated,
}

impl RejectCode {
    /// The stable word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateIdentity => "duplicate-identity",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::Token => "token",
            Self::NameInUse => "name-in-use",
            Self::Unavailable => "unavailable",
            Self::StoreOutdated => "store-outdated",
        }
    }
}

/// How a session starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A session; the desired set continues from the caller's position.
    Continue,
    /// A session with a new incarnation: the caller is an older copy, or our copy of its boot is ahead of it. It
    /// mints one, and gets a snapshot.
    NewIncarnation,
    /// A session of heartbeats only.
    Hold(HeldReason),
    /// No session.
    Reject(RejectCode),
}

/// Decides a Hello.
pub fn admit(caller: &Caller, known: &Known) -> Admission {
    let identity = match &known.boot {
        None => Identity::Same,
        Some((incarnation, counter, nonce)) => {
            if *incarnation != caller.incarnation {
                // A store of its own, made after a wipe: nothing to compare counters with.
                Identity::OtherStore
            } else if caller.boot_nonce == *nonce || caller.boot_counter > *counter {
                Identity::Same
            } else {
                Identity::Copy
            }
        }
    };
    match identity {
        Identity::Copy | Identity::OtherStore if known.connected => {
            return Admission::Reject(RejectCode::DuplicateIdentity);
        }
        Identity::Same | Identity::OtherStore | Identity::Copy => {}
    }
    if let Some(reason) = lost_something(caller, known) {
        return Admission::Hold(reason);
    }
    match identity {
        Identity::Copy => Admission::NewIncarnation,
        Identity::Same | Identity::OtherStore => Admission::Continue,
    }
}

enum Identity {
    Same,
    OtherStore,
    Copy,
}

fn lost_something(caller: &Caller, known: &Known) -> Option<HeldReason> {
    if known.held {
        return Some(HeldReason::Before);
    }
    match known.callers_life {
        LifeKnowledge::None => {
            (caller.desired.rev > known.desired.rev).then_some(HeldReason::AheadOfUs)
        }
        LifeKnowledge::Unknown => Some(HeldReason::UnknownLife),
        LifeKnowledge::Current => {
            (caller.desired.rev > known.desired.rev).then_some(HeldReason::AheadOfUs)
        }
        LifeKnowledge::Past { floor } => {
            (caller.desired.rev > floor).then_some(HeldReason::AboveFloor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            boot: Some((
                Incarnation::from_random([1; 16]),
                BootCounter(5),
                BootNonce::from_random([5; 16]),
            )),
            connected: false,
            desired: Position {
                rev: Revision(10),
                ..Position::default()
            },
            life: (Epoch(3), LifeNonce::from_random([3; 16])),
            callers_life: LifeKnowledge::Current,
            held: false,
        }
    }

    fn caller() -> Caller {
        Caller {
            incarnation: Incarnation::from_random([1; 16]),
            boot_counter: BootCounter(5),
            boot_nonce: BootNonce::from_random([5; 16]),
            life: Some((Epoch(3), LifeNonce::from_random([3; 16]))),
            desired: Position {
                rev: Revision(10),
                ..Position::default()
            },
        }
    }

    #[test]
    fn newest_process_of_one_store_wins() {
        for connected in [false, true] {
            let known = Known {
                connected,
                ..known()
            };
            assert_eq!(admit(&caller(), &known), Admission::Continue, "a reconnect");
            let restarted = Caller {
                boot_counter: BootCounter(6),
                boot_nonce: BootNonce::from_random([6; 16]),
                ..caller()
            };
            assert_eq!(
                admit(&restarted, &known),
                Admission::Continue,
                "a restart takes over at once"
            );
        }
        for counter in [4, 5] {
            let copy = Caller {
                boot_counter: BootCounter(counter),
                boot_nonce: BootNonce::from_random([9; 16]),
                ..caller()
            };
            assert_eq!(
                admit(
                    &copy,
                    &Known {
                        connected: true,
                        ..known()
                    }
                ),
                Admission::Reject(RejectCode::DuplicateIdentity)
            );
            assert_eq!(admit(&copy, &known()), Admission::NewIncarnation);
        }
        let wiped = Caller {
            incarnation: Incarnation::from_random([2; 16]),
            boot_counter: BootCounter(1),
            boot_nonce: BootNonce::from_random([9; 16]),
            ..caller()
        };
        assert_eq!(admit(&wiped, &known()), Admission::Continue);
        let connected = Known {
            connected: true,
            ..known()
        };
        assert_eq!(
            admit(&wiped, &connected),
            Admission::Reject(RejectCode::DuplicateIdentity),
            "two stores with one key never take over from each other in turn"
        );
    }

    #[test]
    fn an_edge_that_knows_more_is_held() {
        let at = |rev| Caller {
            desired: Position {
                rev: Revision(rev),
                ..Position::default()
            },
            ..caller()
        };
        let with = |callers_life| Known {
            callers_life,
            ..known()
        };
        for (caller, known, expected) in [
            (at(10), with(LifeKnowledge::Current), Admission::Continue),
            (
                at(11),
                with(LifeKnowledge::Current),
                Admission::Hold(HeldReason::AheadOfUs),
            ),
            (
                at(7),
                with(LifeKnowledge::Past { floor: Revision(7) }),
                Admission::Continue,
            ),
            (
                at(8),
                with(LifeKnowledge::Past { floor: Revision(7) }),
                Admission::Hold(HeldReason::AboveFloor),
            ),
            (
                at(1),
                with(LifeKnowledge::Unknown),
                Admission::Hold(HeldReason::UnknownLife),
            ),
            (at(0), with(LifeKnowledge::None), Admission::Continue),
            (
                at(1),
                Known {
                    held: true,
                    ..known()
                },
                Admission::Hold(HeldReason::Before),
            ),
        ] {
            assert_eq!(admit(&caller, &known), expected, "{caller:?}");
        }
    }
}

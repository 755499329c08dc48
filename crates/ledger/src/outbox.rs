//! The sending side, for one session: what the peer holds, what is on its way, what to send next.
//!
//! ```text
//!           head > acked or snapshot wanted               received(to)
//!   idle ------------------------------------> in flight -------------> idle
//!     ^                                            |
//!     |              ask(from | snapshot)          | overdue: the shell closes the session; the peer redials,
//!     +--------------------------------------------+          and the positions in its Hello start a new Outbox
//! ```
//!
//! One change is in flight at a time; the next one carries everything newer. On a live session nothing is sent twice
//! unasked: the transport is reliable, so silence means that the session is broken.

use std::time::Duration;

use sluice_model::{MonotonicMs, Revision};

use crate::Position;

/// What the peer asks for when it cannot apply what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Everything after this revision.
    From(Revision),
    /// The whole set.
    Snapshot,
}

/// What to send now. The shell loads the rows, sends them, and reports their position with [`Outbox::handle_sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// All rows changed after `base`.
    Delta {
        /// The revision that the peer holds.
        base: Revision,
    },
    /// All rows.
    Snapshot,
}

/// The peer said something that cannot be true; the session must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It acknowledged more than was ever sent.
    #[error("the peer acknowledged revision {acked}, the newest is {head}")]
    AckedBeyondHead {
        /// What it acknowledged.
        acked: Revision,
        /// The newest there is.
        head: Revision,
    },
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    to: Revision,
    snapshot: bool,
    sent_at: MonotonicMs,
}

/// The sender's state in one session.
#[derive(Clone, Debug)]
pub struct Outbox {
    head: Position,
    acked: Revision,
    snapshot_wanted: bool,
    in_flight: Option<InFlight>,
}

impl Outbox {
    /// A session's start: our newest position, and what the peer said it holds. The peer must not be ahead (the
    /// session rules hold such a peer instead). Equal revisions with different digests start with a snapshot.
    pub fn new(head: Position, peer: Position) -> Self {
        assert!(
            peer.rev <= head.rev,
            "a peer that is ahead is never given an outbox"
        );
        let differs = peer.rev == head.rev && peer.digest != head.digest;
        Self {
            head,
            acked: peer.rev,
            snapshot_wanted: differs,
            in_flight: None,
        }
    }

    /// Since when the peer's answer to what was sent is awaited.
    pub fn in_flight_since(&self) -> Option<MonotonicMs> {
        self.in_flight.map(|sent| sent.sent_at)
    }

    /// Makes the next thing sent a snapshot.
    pub fn want_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }

    /// The newest revision that the peer has on disk.
    pub fn acked(&self) -> Revision {
        self.acked
    }

    /// Our newest position.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Whether the peer holds everything, as far as was heard.
    pub fn in_sync(&self) -> bool {
        self.acked == self.head.rev && !self.snapshot_wanted && self.in_flight.is_none()
    }

    /// The set changed.
    pub fn handle_changed(&mut self, head: Position) {
        assert!(
            head.rev >= self.head.rev,
            "a set never goes back in revision"
        );
        self.head = head;
    }

    /// What should go out now, if anything.
    pub fn poll_send(&self) -> Option<Sending> {
        if self.in_flight.is_some() {
            None
        } else if self.snapshot_wanted {
            Some(Sending::Snapshot)
        } else if self.acked < self.head.rev {
            Some(Sending::Delta { base: self.acked })
        } else {
            None
        }
    }

    /// Rows up to `to` were handed to the transport.
    pub fn handle_sent(&mut self, to: Revision, now: MonotonicMs) {
        assert!(
            self.in_flight.is_none(),
            "one change is in flight at a time"
        );
        self.in_flight = Some(InFlight {
            to,
            snapshot: std::mem::take(&mut self.snapshot_wanted),
            sent_at: now,
        });
    }

    /// Our disk has undone what was done last: the newest position is `head` again, and of what the peer has on its
    /// disk only `acked` is known. What is in flight may never have left: it is sent again, which is nothing new there.
    pub fn handle_undone(&mut self, head: Position, acked: Revision) {
        self.head = head;
        self.acked = acked.min(head.rev);
        self.snapshot_wanted |= self.in_flight.take().is_some_and(|sent| sent.snapshot);
    }

    /// The peer gave a sign that an ack is not due yet: patience begins anew.
    pub fn handle_waiting(&mut self, now: MonotonicMs) {
        if let Some(sent) = &mut self.in_flight {
            sent.sent_at = now;
        }
    }

    /// The peer has everything up to `rev` on disk (cumulative; late and repeated acks change nothing).
    pub fn handle_received(&mut self, rev: Revision) -> Result<(), Violation> {
        if rev > self.head.rev {
            return Err(Violation::AckedBeyondHead {
                acked: rev,
                head: self.head.rev,
            });
        }
        self.acked = self.acked.max(rev);
        if self.in_flight.is_some_and(|sent| sent.to <= rev) {
            self.in_flight = None;
        }
        Ok(())
    }

    /// The peer could not apply what came.
    pub fn handle_ask(&mut self, ask: Ask) -> Result<(), Violation> {
        match ask {
            Ask::From(rev) if rev > self.head.rev => {
                return Err(Violation::AckedBeyondHead {
                    acked: rev,
                    head: self.head.rev,
                });
            }
            Ask::From(rev) => self.acked = rev,
            Ask::Snapshot => self.snapshot_wanted = true,
        }
        self.in_flight = None;
        Ok(())
    }

    /// The peer's position from a heartbeat. Digests are compared at equal revisions with nothing on its way; a
    /// difference starts a snapshot and is reported as `true`.
    pub fn handle_peer_position(&mut self, peer: Position) -> bool {
        let differs = self.in_flight.is_none()
            && !self.snapshot_wanted
            && peer.rev == self.head.rev
            && peer.digest != self.head.digest;
        if differs {
            self.snapshot_wanted = true;
        }
        differs
    }

    /// Moves the deadline by a time that this process was not running in.
    pub fn forgive(&mut self, gap: Duration) {
        if let Some(sent) = &mut self.in_flight {
            sent.sent_at = sent.sent_at.plus(gap);
        }
    }

    /// When the session counts as broken if no ack comes until then.
    pub fn deadline(&self, patience: Duration) -> Option<MonotonicMs> {
        self.in_flight.map(|sent| sent.sent_at.plus(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SetDigest;

    fn at(rev: u64) -> Position {
        let digest = SetDigest::from_slice(&u128::from(rev).to_be_bytes()).expect("16 bytes");
        Position {
            rev: Revision(rev),
            digest,
        }
    }

    #[test]
    fn one_change_is_in_flight_and_the_next_carries_the_rest() {
        let mut outbox = Outbox::new(at(5), at(3));
        assert_eq!(
            outbox.poll_send(),
            Some(Sending::Delta { base: Revision(3) })
        );
        outbox.handle_sent(Revision(5), MonotonicMs(10));
        outbox.handle_changed(at(6));
        outbox.handle_changed(at(9));
        assert_eq!(outbox.poll_send(), None);
        assert_eq!(
            outbox.deadline(Duration::from_millis(5)),
            Some(MonotonicMs(15))
        );
        outbox.handle_received(Revision(5)).expect("sent");
        assert_eq!(
            outbox.poll_send(),
            Some(Sending::Delta { base: Revision(5) })
        );
        outbox.handle_sent(Revision(9), MonotonicMs(20));
        outbox
            .handle_received(Revision(5))
            .expect("an old ack changes nothing");
        assert!(!outbox.in_sync());
        outbox.handle_received(Revision(9)).expect("sent");
        assert!(outbox.in_sync());
        assert_eq!(outbox.deadline(Duration::ZERO), None);
    }

    #[test]
    fn a_peer_may_ask_again_and_never_ahead() {
        let mut outbox = Outbox::new(at(5), at(5));
        assert!(outbox.in_sync());
        outbox.handle_ask(Ask::From(Revision(2))).expect("behind");
        assert_eq!(
            outbox.poll_send(),
            Some(Sending::Delta { base: Revision(2) })
        );
        outbox.handle_ask(Ask::Snapshot).expect("always");
        assert_eq!(outbox.poll_send(), Some(Sending::Snapshot));
        assert!(outbox.handle_ask(Ask::From(Revision(6))).is_err());
        assert!(outbox.handle_received(Revision(6)).is_err());
    }

    #[test]
    fn what_was_undone_is_sent_again() {
        let mut outbox = Outbox::new(at(5), at(3));
        outbox.handle_sent(Revision(5), MonotonicMs(10));
        outbox.handle_waiting(MonotonicMs(30));
        let patience = Duration::from_millis(5);
        assert_eq!(outbox.deadline(patience), Some(MonotonicMs(35)));
        outbox.handle_received(Revision(5)).expect("sent");
        outbox.handle_changed(at(6));
        outbox.handle_undone(at(5), Revision(3));
        assert_eq!((outbox.head(), outbox.acked()), (at(5), Revision(3)));
        assert_eq!(
            outbox.poll_send(),
            Some(Sending::Delta { base: Revision(3) })
        );
        outbox.want_snapshot();
        outbox.handle_sent(Revision(5), MonotonicMs(40));
        outbox.handle_undone(at(5), Revision(3));
        assert_eq!(outbox.poll_send(), Some(Sending::Snapshot));
    }

    #[test]
    fn different_rows_at_the_same_revision_are_mended_by_a_snapshot() {
        let other = Position {
            rev: Revision(5),
            digest: SetDigest::EMPTY,
        };
        assert_eq!(
            Outbox::new(at(5), other).poll_send(),
            Some(Sending::Snapshot)
        );
        let mut outbox = Outbox::new(at(5), at(5));
        assert!(!outbox.handle_peer_position(at(5)));
        assert!(outbox.handle_peer_position(other));
        assert_eq!(outbox.poll_send(), Some(Sending::Snapshot));
    }
}

//! The ack/retry ledger's rules, the same in both directions.
//!
//! A *set* of rows lives at a revision on the sender's disk. The sender's [`Outbox`] decides what to send next on one
//! session; the receiver's [`Inbox`] decides whether what arrived applies. What travels is state at a revision, never
//! news of a change, so any message may be lost, doubled or late: the next comparison of positions mends it.
//!
//! ```text
//!   sender disk: rows, rev 9, digest d9                 receiver disk: rows, rev 7, digest d7
//!     Outbox: acked 7, head 9   -- rows {base 7, to 9, d9} -->  Inbox: base <= 7 < to: apply, compare digest, fsync
//!     Outbox: acked 9           <----------- received 9 ------
//! ```
//!
//! Nothing here does IO or reads a clock; `now` is an argument.

mod inbox;
mod outbox;
mod set;

pub use inbox::{Inbox, Offer, Verdict};
pub use outbox::{Ask, Outbox, Sending, Violation};
pub use set::{Position, RowHash, RowSet, SetDigest};

//! Outbox, Inbox, set digests: revisions, acks, resync. No IO.

//! Every bound of the transport, in one place, each with the reason for its number.

use std::time::Duration;

/// Most bytes in a join request or its reply: a token's proof, a signing request and some labels are a few KiB.
pub const JOIN_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Most bytes in the one frame that opens a request stream: an id, a digest, an offset.
pub const REQUEST_FRAME_BYTES_MAX: usize = 16 * 1024;

/// Streams that either side may have open towards the other, the control stream included. Each costs memory for an
/// idle connection (about 31 KiB an endpoint at 16); an edge pulls one component at a time and serves a few logs.
/// QUIC announces room only after more than an eighth of them ended, so 12 requests at once always pass.
pub const STREAMS_MAX: u32 = 16;

/// What a peer may send on one stream before we read it. 5 MB/s at 100 ms round trip; a 1 MiB frame takes two turns.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// What may wait on all streams together, in each direction: more than every stream of both sides filled up, so that
/// stalled artifact readers can never take the control stream's room.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (2 * STREAMS_MAX + 1);

/// How much is read from QUIC at once: large enough to be cheap, small enough to bound what a frame buffer overshoots.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// The first guess at a round trip. quinn's 333 ms makes a lost first packet cost a second; a guess that is too low
/// only costs one repeated packet.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Silence after which a session counts as dead, unless the program says otherwise.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Keep-alives go out this often at the latest: home routers forget a UDP flow after 30 s.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(10);

/// A handshake that takes longer (100 times a slow link's round trip) is a dead peer or an attack.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes that run at once; each costs about 2 ms of CPU and some KiB. More wait in QUIC's own queue.
pub(crate) const HANDSHAKES_MAX: usize = 256;

/// From this many handshakes on, a new peer must first prove that its address is not forged.
pub(crate) const HANDSHAKES_UNVALIDATED_MAX: usize = 64;

/// Connection attempts that may wait for `accept`; further ones are dropped and repeated by their peers.
pub(crate) const INCOMING_MAX: usize = 1024;

/// Early bytes kept for one waiting connection attempt: a first flight, no more.
pub(crate) const INCOMING_BYTES_MAX: u64 = 64 * 1024;

/// Early bytes kept for all waiting connection attempts.
pub(crate) const INCOMING_BYTES_TOTAL_MAX: u64 = 8 * 1024 * 1024;

/// The next address is tried this long after the one before, without waiting for that one to fail.
pub(crate) const ATTEMPT_STAGGER: Duration = Duration::from_millis(500);

/// A second attempt beside the first starts after two round trips, but not before this: an answer from a busy
/// orchestrator on a short way takes tens of milliseconds, and QUIC's own first repeat 300.
pub(crate) const HEDGE_AFTER_MIN: Duration = Duration::from_millis(100);

/// Nor later than this, whatever the last round trip was: QUIC repeats its first packets by itself, then.
pub(crate) const HEDGE_AFTER_MAX: Duration = Duration::from_secs(2);

/// Socket addresses tried in one `connect`: a name may resolve to any number.
pub(crate) const ATTEMPTS_MAX: usize = 16;

/// Name resolution is given up after this long.
pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a closing side waits for its last bytes to be taken.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an accepted request stream may take to send its one frame.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTPS handshakes that run at once; more wait in the kernel's backlog.
pub(crate) const HTTPS_HANDSHAKES_MAX: usize = 64;

/// How long `accept` rests when the system cannot give it another socket (out of file descriptors).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest reason that travels in a close.
pub(crate) const CLOSE_REASON_BYTES_MAX: usize = 512;

/// Most bytes of an identity file; ours have about 2 KiB.
pub(crate) const IDENTITY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes of a certificate signing request; ours have about 300.
pub(crate) const CSR_BYTES_MAX: usize = 8 * 1024;

/// Certificates start this long before they are made: machines' clocks lag.
pub(crate) const BACKDATE: Duration = Duration::from_secs(24 * 60 * 60);

/// A short-lived certificate starts only this part of its life early, or else it would look old when it is new.
pub(crate) const BACKDATE_SHARE: u32 = 10;

/// Life of the cluster's own certificate; it ends with the cluster, not with a date.
pub(crate) const AUTHORITY_LIFE: Duration = Duration::from_secs(50 * 365 * 24 * 60 * 60);

/// Life of a server certificate. It is made anew at each start and its key never leaves the process, so a short life
/// would protect nothing and lock out edges whose clock runs years ahead.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

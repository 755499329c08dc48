//! The link: dials the orchestrator for ever, and moves frames between a session and the control thread.
//!
//! It decides two things: when to dial again, and when to try another way. What a frame means, and when a session is over,
//! the core decides. Another way: a session that is silent for too long goes on from a new socket, which is a new flow for
//! every router on the way, while a new connection is dialled beside it; the first of the two that brings something wins.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sluice_model::UnixMs;
use sluice_protocol::{StreamRequest, stream_request};
use sluice_transport::identity::NodeIdentity;
use sluice_transport::{
    Address, Client, CloseCode, ConnectError, ControlReceiver, ControlSender, Established,
    RequestAcceptor, Session, Timing,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::control::{Control, Outgoing};
use crate::core::{ConnectionId, Input, Redial};
use crate::error::EdgeError;
use crate::join::IDENTITY_FILE;
use crate::logs::Answers;
use crate::renewal;

/// The first delay before dialling again.
const REDIAL_MIN: Duration = Duration::from_millis(250);

/// The longest delay: what a node is away for after an outage, at most, besides the dialling itself.
const REDIAL_MAX: Duration = Duration::from_secs(30);

/// How often a node that may not speak any more asks again, at first: a person has to act before that changes, and
/// whoever starts the edge again with a new token need not wait.
const REDIAL_SELDOM: Duration = Duration::from_secs(60);

/// The longest of these delays: a forgotten machine must not fill the orchestrator's log.
const REDIAL_SELDOM_MAX: Duration = Duration::from_secs(900);

/// The longest that an orchestrator can send us away for.
const REDIAL_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Silence after which another way is tried, in heartbeats: two answers are missing, and the next heartbeat is not due yet.
const SILENT_HEARTBEATS: (u32, u32) = (5, 2);

/// How long the last frames of a session may take to leave.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// Frames waiting for one connection: a change in all its parts, and some acks. More means that the link is stuck.
pub(crate) const OUTGOING_MAX: usize = 2048;

/// A clock that is further off than this is worth a line in the log: records carry its times.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(300);

/// How dialling goes on.
pub(crate) struct Link {
    pub(crate) control: Control,
    pub(crate) identity: NodeIdentity,
    pub(crate) addresses: Vec<Address>,
    pub(crate) time_floor: UnixMs,
    pub(crate) state_dir: PathBuf,
    pub(crate) stop: CancellationToken,
}

/// What ended a session, as far as dialling again is concerned.
struct Ended {
    /// It was of use: the next try is a first one.
    succeeded: bool,
    redial: Redial,
    /// The connection that took its place.
    next: Option<Established>,
}

/// The orchestrator's clock, as it was told at the start of a session.
#[derive(Clone, Copy)]
struct ServerClock {
    told: UnixMs,
    at: Instant,
}

impl ServerClock {
    fn start(told: UnixMs) -> Self {
        let at = Instant::now();
        Self { told, at }
    }

    fn now(self) -> UnixMs {
        self.told.plus(self.at.elapsed())
    }
}
/// A connection that is dialled beside a silent session.
type Race = Pin<Box<dyn Future<Output = Option<Established>> + Send>>;

impl Link {
    /// Dials until told to stop.
    pub(crate) async fn run(mut self) -> Result<(), EdgeError> {
        let client = Client::new(&self.identity, Timing::default(), self.time_floor)?;
        let mut client = Arc::new(client);
        let mut raced = None;
        let mut failures: u32 = 0;
        let mut last_error = String::new();
        let mut connection = ConnectionId(0);
        loop {
            let dialling = async {
                match raced.take() {
                    Some(established) => Some(Ok(established)),
                    None => self.dial(&client).await,
                }
            };
            let dialled = tokio::select! {
                dialled = dialling => dialled,
                () = self.stop.cancelled() => return Ok(()),
            };
            let Some(dialled) = dialled else {
                return Ok(());
            };
            let mut delay = match dialled {
                Ok(established) => {
                    last_error.clear();
                    connection = ConnectionId(connection.0 + 1);
                    let ended = self.serve(connection, established, &mut client).await?;
                    if ended.succeeded {
                        failures = 0;
                    }
                    if ended.next.is_some() {
                        raced = ended.next;
                        continue;
                    }
                    redial_delay(ended.redial, failures)?
                }
                Err(error) => {
                    let error = error.to_string();
                    // The same failure again is no news: an outage of days is one line.
                    if error == last_error {
                        tracing::debug!(event = "session.unreachable", error);
                    } else {
                        tracing::warn!(event = "session.unreachable", error);
                        last_error = error;
                    }
                    redial_delay(Redial::Soon, failures)?
                }
            };
            failures = failures.saturating_add(1);
            if delay >= REDIAL_SELDOM {
                let after_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(event = "session.redial", after_ms);
            }
            if self.control.is_gone() {
                delay = Duration::ZERO;
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            if self.control.is_gone() {
                return Ok(());
            }
        }
    }

    /// One try to connect and to say Hello; `None` when the edge is stopping.
    fn dial(
        &self,
        client: &Arc<Client>,
    ) -> impl Future<Output = Option<Result<Established, ConnectError>>> + Send + use<> {
        let (control, addresses) = (self.control.clone(), self.addresses.clone());
        let client = Arc::clone(client);
        async move {
            let hello = control.hello().await?;
            let begun = Instant::now();
            let dialled = client.connect(&addresses, hello).await;
            if let Ok(established) = &dialled {
                let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(event = "session.dialled", took_ms, early = ?established.early);
            }
            Some(dialled)
        }
    }

    /// Moves frames until the session is over.
    async fn serve(
        &mut self,
        connection: ConnectionId,
        established: Established,
        client: &mut Arc<Client>,
    ) -> Result<Ended, EdgeError> {
        let Established {
            session,
            sender,
            mut receiver,
            mut requests,
            ..
        } = established;
        let (frames, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (notes, mut noted) = mpsc::channel(8);
        let mut ended = Ended {
            succeeded: false,
            redial: Redial::Soon,
            next: None,
        };
        if !self
            .control
            .connected(connection, frames, session.clone())
            .await
        {
            session.close(CloseCode::SHUTDOWN, "the edge is stopping");
            return Ok(ended);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(write(sender, outgoing, session.clone(), notes));
        let mut answers = Answers::new(self.state_dir.join("executions").into());
        let mut clock = None;
        let mut renewal_at = None;
        let mut race: Option<Race> = None;
        let (mut patience, mut heard_at, mut suspected) = (Duration::MAX, Instant::now(), false);
        let why = loop {
            let silent_at = heard_at.checked_add(patience);
            tokio::select! {
                received = receive(&mut receiver) => match received {
                    Ok(frame) => {
                        (heard_at, suspected, race) = (Instant::now(), false, None);
                        let input = Input::Frame { connection, frame };
                        if !self.control.input(input).await {
                            break "the edge is stopping".to_owned();
                        }
                    }
                    Err(why) => break why,
                },
                request = next_request(&mut requests) => match request {
                    Ok((Some(stream_request::Kind::Logs(request)), responder)) => {
                        answers.begin(request, responder);
                    }
                    Ok((Some(stream_request::Kind::Output(request)), responder)) => {
                        answers.begin_output(request, responder);
                    }
                    Ok((Some(stream_request::Kind::Pull(_)) | None, responder)) => {
                        responder.abort(CloseCode::PROTOCOL);
                    }
                    Err(why) => break why,
                },
                () = answers.ended() => {}
                Some(note) = noted.recv() => match note {
                    Note::Begun { server_time, heartbeat } => {
                        ended.succeeded = true;
                        let (times, parts) = SILENT_HEARTBEATS;
                        patience = heartbeat * times / parts;
                        self.learn_time(server_time, client);
                        clock = Some(ServerClock::start(server_time));
                        renewal_at = Some(Instant::now());
                    }
                    Note::Renew { server_time } => {
                        self.learn_time(server_time, client);
                        let csr = self.identity.key().csr()?;
                        self.control.input(Input::Renew { csr }).await;
                    }
                    Note::Certificate(der) => {
                        // One that could not be kept is asked for again in a while, not at once.
                        if self.renewed(der, client)? {
                            ended.succeeded = true;
                            renewal_at = renewal_at.map(|_| Instant::now());
                        }
                    }
                    Note::Closed(redial) => {
                        ended.redial = redial;
                        break String::new();
                    }
                },
                () = at(silent_at), if !suspected => {
                    suspected = true;
                    tracing::info!(event = "session.silent", "another way is tried");
                    if let Err(error) = session.rebind() {
                        tracing::debug!(event = "session.unmoved", %error);
                    }
                    let dialling = self.dial(client);
                    race = Some(Box::pin(async { dialling.await?.ok() }));
                }
                next = finished(&mut race) => {
                    race = None;
                    if next.is_some() {
                        ended.next = next;
                        break String::new();
                    }
                }
                () = self.stop.cancelled() => {
                    // What was said last should still arrive; a writer that is stuck does not keep us.
                    let _ = timeout(LAST_WORDS_WITHIN, tasks.join_next()).await;
                    break String::new();
                }
                () = sleep_until(renewal_at.unwrap_or_else(Instant::now)), if renewal_at.is_some() => {
                    let now = clock.map_or_else(unix_now, ServerClock::now);
                    let facts = self.identity.facts();
                    let due_in = renewal::due_in(facts, now);
                    renewal_at = Some(Instant::now() + renewal::look_again(facts, due_in));
                    if due_in.is_zero() {
                        let csr = self.identity.key().csr()?;
                        self.control.input(Input::Renew { csr }).await;
                    }
                }
            }
        };
        if ended.next.is_some() {
            // Nobody may be there to be told; the core hears with the new connection.
            session.close(CloseCode::SUPERSEDED, "a newer connection is up");
            return Ok(ended);
        }
        if !why.is_empty() {
            self.control
                .input(Input::Disconnected { connection, why })
                .await;
            // What came just before the end may have been a refusal, which says when to dial again, or a certificate.
            let mut certificate = None;
            let _ = timeout(LAST_WORDS_WITHIN, async {
                while let Some(note) = noted.recv().await {
                    match note {
                        Note::Closed(redial) => ended.redial = redial,
                        Note::Begun { .. } => ended.succeeded = true,
                        Note::Certificate(der) => certificate = Some(der),
                        Note::Renew { .. } => {}
                    }
                }
            })
            .await;
            if let Some(der) = certificate {
                ended.succeeded |= self.renewed(der, client)?;
            }
        }
        session.close(CloseCode::DONE, "");
        session.flushed().await;
        Ok(ended)
    }

    /// What the orchestrator's clock says is the least that certificates are checked at from now on.
    fn learn_time(&mut self, server_time: UnixMs, client: &Client) {
        let off = unix_now().0.abs_diff(server_time.0);
        if u128::from(off) > CLOCK_OFF_MAX.as_millis() {
            tracing::warn!(
                event = "clock.off",
                here = %unix_now(),
                orchestrator = %server_time,
                reason = "this machine's clock is wrong; nothing depends on it but the times in records and logs"
            );
        }
        client.raise_time_floor(server_time);
        self.time_floor = self.time_floor.max(server_time);
    }

    /// Takes a new certificate; whether it is in use now.
    fn renewed(&mut self, der: Vec<u8>, client: &mut Arc<Client>) -> Result<bool, EdgeError> {
        let renewed = match self.identity.renewed(der) {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::warn!(event = "identity.renewal_failed", %error);
                return Ok(false);
            }
        };
        if let Err(error) = renewed.save(&self.state_dir.join(IDENTITY_FILE)) {
            // The old one is still good for a third of its life; it is asked for again.
            tracing::warn!(event = "identity.renewal_failed", %error);
            return Ok(false);
        }
        self.identity = renewed;
        *client = Arc::new(Client::new(
            &self.identity,
            Timing::default(),
            self.time_floor,
        )?);
        tracing::info!(event = "identity.renewed", until = %self.identity.facts().not_after);
        Ok(true)
    }
}

/// What the writer hears from the control thread besides frames.
enum Note {
    Begun {
        server_time: UnixMs,
        heartbeat: Duration,
    },
    Renew {
        server_time: UnixMs,
    },
    Certificate(Vec<u8>),
    Closed(Redial),
}

/// Sends what the control thread gives out, until it gives out no more.
async fn write(
    mut sender: ControlSender,
    mut outgoing: mpsc::Receiver<Outgoing>,
    session: Session,
    notes: mpsc::Sender<Note>,
) {
    while let Some(next) = outgoing.recv().await {
        let note = match next {
            Outgoing::Frame(frame) => {
                if sender.send(frame).await.is_err() {
                    // The reader hears of it, too, and says why.
                    return;
                }
                continue;
            }
            Outgoing::Begun {
                server_time,
                heartbeat,
            } => Note::Begun {
                server_time,
                heartbeat,
            },
            Outgoing::Renew { server_time } => Note::Renew { server_time },
            Outgoing::Certificate(der) => Note::Certificate(der),
            Outgoing::Close { code, why } => {
                // Nothing that was said before may be lost by the goodbye.
                let _ = sender.finish();
                let _ = timeout(LAST_WORDS_WITHIN / 2, sender.taken()).await;
                session.close(code, &why.message);
                Note::Closed(why.redial)
            }
        };
        if notes.send(note).await.is_err() {
            return;
        }
    }
}

async fn receive(receiver: &mut ControlReceiver) -> Result<Bytes, String> {
    match receiver.recv().await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err("the orchestrator ended the session".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What came of the race, when there is one.
async fn finished(race: &mut Option<Race>) -> Option<Established> {
    match race {
        Some(race) => race.await,
        None => std::future::pending().await,
    }
}

async fn next_request(
    requests: &mut RequestAcceptor,
) -> Result<(Option<stream_request::Kind>, sluice_transport::Responder), String> {
    let (frame, responder) = requests.next().await.map_err(|error| error.to_string())?;
    let request = sluice_protocol::decode::<StreamRequest>(&frame).ok();
    Ok((request.and_then(|request| request.kind), responder))
}

/// When to dial again: doubling from [`REDIAL_MIN`] to [`REDIAL_MAX`], and then anything below that by chance, so that
/// a fleet that was cut off together does not come back together. After a session that had begun, at once.
fn redial_delay(redial: Redial, failures: u32) -> Result<Duration, EdgeError> {
    let jittered = |most: Duration| -> Result<Duration, EdgeError> {
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Ok(Duration::from_millis(random_u64()? % (most_ms + 1)))
    };
    let growing = REDIAL_MIN
        .saturating_mul(1 << failures.min(16))
        .min(REDIAL_MAX);
    match redial {
        Redial::Soon => jittered(growing),
        Redial::AfterMs(ms) => {
            let least = Duration::from_millis(ms).min(REDIAL_AFTER_MAX);
            Ok(least + jittered(growing)?)
        }
        Redial::Seldom => {
            let least = REDIAL_SELDOM
                .saturating_mul(1 << failures.min(16))
                .min(REDIAL_SELDOM_MAX);
            Ok(least + jittered(least / 4)?)
        }
    }
}

fn random_u64() -> Result<u64, EdgeError> {
    getrandom::u64().map_err(|error| EdgeError::Machine {
        what: "draw random numbers",
        source: std::io::Error::other(error),
    })
}

/// The wall clock.
pub(crate) fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn delays_double_from_a_quarter_second_to_half_a_minute() {
        for (failures, most) in [
            (0, 250),
            (1, 500),
            (4, 4000),
            (7, 30_000),
            (u32::MAX, 30_000),
        ] {
            let delays: Vec<_> = (0..200)
                .map(|_| redial_delay(Redial::Soon, failures).unwrap().as_millis())
                .collect();
            let longest = *delays.iter().max().unwrap();
            assert!(
                longest <= most && longest > most / 2,
                "{failures}: {longest}"
            );
        }
        let sent_away = redial_delay(Redial::AfterMs(5000), 0).unwrap();
        assert!(sent_away >= Duration::from_secs(5) && sent_away < Duration::from_secs(6));
        let for_ever = redial_delay(Redial::AfterMs(u64::MAX), 0).unwrap();
        assert!(for_ever <= REDIAL_AFTER_MAX + REDIAL_MIN);
        for (failures, least_s) in [(0, 60), (1, 120), (4, 900), (u32::MAX, 900)] {
            let delay = redial_delay(Redial::Seldom, failures).unwrap().as_secs();
            assert!(delay >= least_s && delay <= least_s * 5 / 4, "{delay}");
        }
    }
}

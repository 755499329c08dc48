//! Who watches is told what changed.
//!
//! ```text
//!   control thread --after each commit--> [bounded queue] --> owner: ring of the newest hints, each with an id
//!                                                               ^ |
//!                                      "what came after 17?" ---+ +--> one reader for each watcher, at its own pace
//! ```
//!
//! A hint says that something changed, not how it is: whoever is told asks. So hints may be lost, as long as that is said:
//! a reader whose place the ring has left behind, or that resumes from another life of the orchestrator, gets `missed`.
//! The control thread never waits: where the queue has no room, the next hint says that everything may have changed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use sluice_api::{ErrorBody, ErrorCode, Event, EventFilter, EventKind};
use sluice_model::{LifeNonce, UnixMs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::{Clock, ControlError};
use crate::store::{Changed, Changes};

/// Hints that are kept for those who come back or are slow: some seconds of a busy orchestrator, under a MiB.
const KEPT_MAX: usize = 4 * 1024;

/// Watchers at once: each is a connection, and wakes with every commit.
const WATCHERS_MAX: usize = 64;

/// Commits and questions that wait for the owner, which does nothing slow: far more than there ever are.
const QUEUED_MAX: usize = 1024;

/// Hints that a reader takes at once.
const TAKEN_MAX: usize = 256;

/// A watcher hears this often that the connection lives, and where it stands.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a watcher is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A hint, and what to send as `Last-Event-ID` for what comes after it.
    Event {
        /// Its place.
        id: String,
        /// It.
        event: Event,
    },
    /// Nothing that was asked for happened up to this place.
    At {
        /// The place.
        id: String,
    },
}

/// The newest hints. Pure.
struct Ring {
    life: LifeNonce,
    /// The place of the newest; they count from 1.
    newest: u64,
    kept: VecDeque<Event>,
    kept_max: usize,
}

impl Ring {
    fn new(life: LifeNonce, kept_max: usize) -> Self {
        Self {
            life,
            newest: 0,
            kept: VecDeque::new(),
            kept_max,
        }
    }

    fn push(&mut self, event: Event) {
        if self.kept.len() == self.kept_max {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
        self.newest += 1;
    }

    fn push_changes(&mut self, changes: &Changes, at: UnixMs) {
        if changes.is_everything() {
            self.push(Event::bare(EventKind::All, at));
        }
        for thing in changes.things() {
            self.push(event_of(thing, at));
        }
    }

    /// What came after a place, at most `count`; `None` when some of it is not kept, or the place is none of ours.
    fn after(&self, place: u64, count: usize) -> Option<Vec<Event>> {
        let behind = usize::try_from(self.newest.checked_sub(place)?).ok()?;
        let skipped = self.kept.len().checked_sub(behind)?;
        Some(
            self.kept
                .iter()
                .skip(skipped)
                .take(count)
                .cloned()
                .collect(),
        )
    }

    fn place(&self, since: &Since) -> Option<u64> {
        match since {
            Since::Now => Some(self.newest),
            Since::Place(place) => Some(*place),
            Since::Id(id) => {
                let (life, place) = id.split_once('.')?;
                (life == self.life.to_string()).then_some(())?;
                place.parse().ok()
            }
        }
    }

    fn read(&self, since: &Since) -> Read {
        let found = self
            .place(since)
            .and_then(|place| Some((place, self.after(place, TAKEN_MAX)?)));
        match found {
            Some((place, events)) => Read {
                place,
                events,
                missed: false,
            },
            None => Read {
                place: self.newest,
                events: Vec::new(),
                missed: true,
            },
        }
    }
}

fn event_of(thing: &Changed, at: UnixMs) -> Event {
    match thing {
        Changed::Node(name) => Event::node(name, at),
        Changed::Job(name) => Event::job(name.clone(), at),
        Changed::Execution { id, job, node } => {
            Event::execution(*id, job.clone(), node.clone(), at)
        }
        Changed::Run { id, jobs } => Event::run(*id, jobs.clone(), at),
        Changed::Schedule { name, job } => Event::schedule(name, job.clone(), at),
    }
}

fn id_of(life: LifeNonce, place: u64) -> String {
    format!("{life}.{place}")
}

/// From where on.
#[derive(Debug)]
enum Since {
    /// What comes from now on.
    Now,
    /// What came after this, as a watcher says.
    Id(String),
    /// What came after this.
    Place(u64),
}

/// What the ring has behind a place.
#[derive(Debug)]
struct Read {
    /// Where the events begin.
    place: u64,
    events: Vec<Event>,
    /// Some are not kept: they begin at the newest.
    missed: bool,
}

#[derive(Debug)]
enum Input {
    Changed(Changes, UnixMs),
    Read(Since, oneshot::Sender<Read>),
}

/// The control thread's end. Never waits.
#[derive(Debug)]
pub(crate) struct Teller {
    to: mpsc::Sender<Input>,
    /// Since then something could not be passed on.
    owed: Option<UnixMs>,
}

impl Teller {
    /// What a commit changed.
    pub(crate) fn tell(&mut self, changes: Changes, at: UnixMs) {
        let changes = match self.owed {
            Some(_) => Changes::everything(),
            None => changes,
        };
        self.owed = match self.to.try_send(Input::Changed(changes, at)) {
            Err(mpsc::error::TrySendError::Full(_)) => Some(at),
            // Without an owner nobody watches any more: the orchestrator stops.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        };
    }

    /// Passes on that something could not be, once there is room.
    pub(crate) fn settle(&mut self) {
        if let Some(at) = self.owed {
            self.tell(Changes::everything(), at);
        }
    }
}

/// A handle for watching. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    to: mpsc::Sender<Input>,
    newest: watch::Receiver<u64>,
    life: LifeNonce,
    clock: Clock,
    stop: CancellationToken,
    permits: Arc<Semaphore>,
}

/// The control thread's end, the handle, and the owner's work, which ends with `stop`.
pub(crate) fn open(
    life: LifeNonce,
    clock: Clock,
    stop: CancellationToken,
) -> (Teller, Events, impl Future<Output = ()> + Send) {
    let (to, inbox) = mpsc::channel(QUEUED_MAX);
    let (newest, seen) = watch::channel(0);
    let ring = Ring::new(life, KEPT_MAX);
    let work = own(ring, inbox, newest, stop.clone());
    let teller = Teller {
        to: to.clone(),
        owed: None,
    };
    let events = Events {
        to,
        newest: seen,
        life,
        clock,
        stop,
        permits: Arc::new(Semaphore::new(WATCHERS_MAX)),
    };
    (teller, events, work)
}

async fn own(
    mut ring: Ring,
    mut inbox: mpsc::Receiver<Input>,
    newest: watch::Sender<u64>,
    stop: CancellationToken,
) {
    while let Some(Some(input)) = stop.run_until_cancelled(inbox.recv()).await {
        match input {
            Input::Changed(changes, at) => {
                ring.push_changes(&changes, at);
                newest.send_replace(ring.newest);
            }
            // A watcher that went away meanwhile needs no answer.
            Input::Read(since, reply) => {
                let _ = reply.send(ring.read(&since));
            }
        }
    }
}

impl Events {
    /// What happens from now on, or what came after the id `after`; until the reader is dropped or the orchestrator stops.
    pub(crate) async fn watch(
        &self,
        filter: EventFilter,
        after: Option<String>,
    ) -> Result<BoxStream<'static, Told>, ErrorBody> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("{WATCHERS_MAX} watchers are told of events already");
            ErrorBody::new(ErrorCode::RateLimited, message).with_help("end one of them first")
        })?;
        let mut watcher = Watcher {
            events: self.clone(),
            filter,
            place: 0,
            ready: VecDeque::new(),
            quiet_until: Instant::now() + SILENCE_MAX,
            _permit: permit,
        };
        let since = after.map_or(Since::Now, Since::Id);
        let read = watcher.events.read(since).await.ok_or(ControlError)?;
        watcher.take(read);
        if watcher.ready.is_empty() {
            // Whoever is cut off before the first event knows where to go on.
            let id = id_of(self.life, watcher.place);
            watcher.ready.push_back(Told::At { id });
        }
        let told = stream::unfold(watcher, |mut watcher| async move {
            let told = watcher.next().await?;
            Some((told, watcher))
        });
        Ok(told.boxed())
    }

    async fn read(&self, since: Since) -> Option<Read> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Input::Read(since, reply)).await.ok()?;
        answer.await.ok()
    }
}

/// One that watches; does nothing but when it is asked for the next.
struct Watcher {
    events: Events,
    filter: EventFilter,
    /// Everything up to there was looked at.
    place: u64,
    ready: VecDeque<Told>,
    quiet_until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next to send; `None` when the orchestrator stops.
    async fn next(&mut self) -> Option<Told> {
        let stop = self.events.stop.clone();
        let told = stop.run_until_cancelled(self.told()).await.flatten();
        self.quiet_until = Instant::now() + SILENCE_MAX;
        told
    }

    async fn told(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            // Marked as seen before the question, so that what comes while it is answered wakes.
            let newest = *self.events.newest.borrow_and_update();
            if newest != self.place {
                let read = self.events.read(Since::Place(self.place)).await?;
                self.take(read);
                continue;
            }
            let changed = self.events.newest.changed();
            match tokio::time::timeout_at(self.quiet_until, changed).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    let id = id_of(self.events.life, self.place);
                    return Some(Told::At { id });
                }
            }
        }
    }

    fn take(&mut self, read: Read) {
        let life = self.events.life;
        self.place = read.place;
        if read.missed {
            let at = self.events.clock.now().unix;
            let event = Event::bare(EventKind::Missed, at);
            let id = id_of(life, self.place);
            self.ready.push_back(Told::Event { id, event });
        }
        for event in read.events {
            self.place += 1;
            if self.filter.fits(&event) {
                let id = id_of(life, self.place);
                self.ready.push_back(Told::Event { id, event });
            }
        }
    }
}

#[cfg(test)]
mod tests;

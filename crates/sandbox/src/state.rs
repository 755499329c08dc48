//! What the host keeps for each instance of a stage: its limits, its clock, its handles, its way to the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::error::CallError;
use crate::limits::StageLimits;
use crate::log::{Level, LineBuffer, LogGate};

/// The data of a stage's store.
pub(crate) struct StageState {
    pub(crate) meter: Meter,
    pub(crate) clock: CallClock,
    pub(crate) voice: Voice,
    pub(crate) handles: ResourceTable,
    /// Made when the guest first asks for something of WASI, which most never do.
    wasi: Option<WasiCtx>,
}

impl StageState {
    pub(crate) fn new(stage: &str, limits: StageLimits, log: LogGate) -> Self {
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(limits.handles_max);
        Self {
            meter: Meter {
                limits,
                memory_bytes: 0,
                table_elements: 0,
                asked: Asked::Nothing,
                exceeded: None,
            },
            clock: CallClock::new(limits.deadline),
            voice: Voice::new(stage, log, limits.log_line_bytes_max),
            handles,
            wasi: None,
        }
    }

    /// Called every tick while the guest runs.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.clock.is_over() {
            return Err(self.exceed_deadline());
        }
        Ok(UpdateDeadline::Continue(1))
    }

    /// Ends the call for its deadline.
    pub(crate) fn exceed_deadline(&mut self) -> wasmtime::Error {
        let deadline = self.clock.deadline;
        self.exceed(CallError::DeadlineExceeded { deadline })
    }

    /// Remembers which limit ended the call, and gives the error that stops the guest.
    pub(crate) fn exceed(&mut self, error: CallError) -> wasmtime::Error {
        self.meter.exceed(error)
    }

    /// Checks the size of what a host call carries.
    pub(crate) fn check_host_call(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let limit_bytes = self.meter.limits.host_call_bytes_max;
        if bytes > limit_bytes {
            return Err(self.exceed(CallError::HostCallExceeded { limit_bytes }));
        }
        Ok(())
    }
}

/// Counts what the guest has of memory and tables. Nothing of it is ever given back within an instance.
pub(crate) struct Meter {
    pub(crate) limits: StageLimits,
    memory_bytes: u64,
    table_elements: u64,
    /// The last growth that was allowed, in case it fails after all.
    asked: Asked,
    /// The limit that ended the call.
    exceeded: Option<CallError>,
}

enum Asked {
    Nothing,
    Memory(u64),
    Table(u64),
}

impl Meter {
    /// The limit that ended the call, if one did.
    pub(crate) fn take_exceeded(&mut self) -> Option<CallError> {
        self.exceeded.take()
    }

    /// What the guest has now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn exceed(&mut self, error: CallError) -> wasmtime::Error {
        let text = error.to_string();
        self.exceeded.get_or_insert(error);
        wasmtime::Error::msg(text)
    }

    fn take_back(&mut self) {
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => {}
            Asked::Memory(bytes) => self.memory_bytes -= bytes,
            Asked::Table(elements) => self.table_elements -= elements,
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.asked = Asked::Nothing;
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own bound: it gets the -1 that it asked for.
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        let limit_bytes = self.limits.memory_bytes_max;
        if self.memory_bytes.saturating_add(more) > limit_bytes {
            return Err(self.exceed(CallError::MemoryExceeded { limit_bytes }));
        }
        self.memory_bytes += more;
        self.asked = Asked::Memory(more);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.asked = Asked::Nothing;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        let limit = self.limits.table_elements_max;
        if self.table_elements.saturating_add(more) > limit {
            return Err(self.exceed(CallError::TableExceeded { limit }));
        }
        self.table_elements += more;
        self.asked = Asked::Table(more);
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.instances_max
    }

    fn tables(&self) -> usize {
        self.limits.instances_max
    }

    fn memories(&self) -> usize {
        self.limits.instances_max
    }
}

/// How long the current call has run.
pub(crate) struct CallClock {
    pub(crate) deadline: Duration,
    /// Read at the call's first tick: reading clocks at the start of each call would cost more than a filter does, so a
    /// call gets up to one tick for nothing.
    first_tick: Option<FirstTick>,
    /// Time spent waiting in the host.
    waited: Duration,
}

#[derive(Clone, Copy)]
struct FirstTick {
    /// The thread's CPU time then.
    cpu: Duration,
    at: Instant,
}

impl CallClock {
    fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            first_tick: None,
            waited: Duration::ZERO,
        }
    }

    /// Begins a call that may take this long.
    pub(crate) fn start(&mut self, deadline: Duration) {
        *self = Self::new(deadline);
    }

    /// Counts time spent waiting in the host: it held a guest thread, so it counts like CPU time.
    pub(crate) fn add_waited(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// How much longer the guest may wait.
    pub(crate) fn left(&self) -> Duration {
        let used = self.first_tick.map_or(Duration::ZERO, |first| {
            thread_cpu().saturating_sub(first.cpu)
        });
        self.deadline.saturating_sub(used + self.waited)
    }

    fn is_over(&mut self) -> bool {
        let cpu = thread_cpu();
        let first = *self.first_tick.get_or_insert_with(|| FirstTick {
            cpu,
            at: Instant::now(),
        });
        cpu.saturating_sub(first.cpu) + self.waited >= self.deadline
            || first.at.elapsed()
                >= self
                    .deadline
                    .saturating_mul(crate::limits::WALL_DEADLINE_FACTOR)
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the guest says. Clones share their unfinished lines.
#[derive(Clone)]
pub(crate) struct Voice {
    inner: Arc<VoiceInner>,
}

struct VoiceInner {
    stage: String,
    log: LogGate,
    line_bytes_max: usize,
    /// Handles to a stream may be many, and all of them write one line. Never waited for: one guest, one thread.
    buffers: Mutex<[LineBuffer; 2]>,
}

/// The two streams of a guest that end in the log.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Voice {
    fn new(stage: &str, log: LogGate, line_bytes_max: usize) -> Self {
        let inner = VoiceInner {
            stage: stage.to_owned(),
            log,
            line_bytes_max,
            buffers: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A line through `sluice:pipeline/log`.
    pub(crate) fn line(&self, level: Level, message: &str) {
        let VoiceInner {
            stage,
            log,
            line_bytes_max,
            ..
        } = &*self.inner;
        log.line(stage, level, message, *line_bytes_max);
    }

    /// Bytes through stdout or stderr.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        let buffer = &mut self.buffers()[stream as usize];
        buffer.write(bytes, self.inner.line_bytes_max, |line| {
            self.line(level_of(stream), line)
        });
    }

    /// Passes on what has no newline yet: the instance is about to go.
    pub(crate) fn flush(&self) {
        let mut buffers = self.buffers();
        for stream in STREAMS {
            buffers[stream as usize].flush(&mut |line: &str| self.line(level_of(stream), line));
        }
    }

    fn buffers(&self) -> MutexGuard<'_, [LineBuffer; 2]> {
        self.inner
            .buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn level_of(stream: Stream) -> Level {
    match stream {
        Stream::Stdout => Level::Info,
        Stream::Stderr => Level::Warn,
    }
}

impl WasiView for StageState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // No arguments, no variables, no directory, no network; stdout and stderr are ours, see `wasi`.
        let random_bytes_max = self.meter.limits.host_call_bytes_max as u64;
        let ctx = self.wasi.get_or_insert_with(|| {
            WasiCtxBuilder::new()
                .max_random_size(random_bytes_max)
                .build()
        });
        WasiCtxView {
            ctx,
            table: &mut self.handles,
        }
    }
}

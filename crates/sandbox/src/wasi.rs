//! What every stage may import: `sluice:pipeline/log`, and of WASI 0.2 what toolchains import unasked.
//!
//! ```text
//! wasmtime-wasi's own   io/error, io/streams, clocks/wall-clock, random, cli (no arguments, no variables, closed stdin,
//!                       no terminal, exit), filesystem (without a single directory)
//! ours                  io/poll and clocks/monotonic-clock (waiting counts against the deadline and ends with it),
//!                       cli/stdout and cli/stderr (into the log)
//! never                 sockets, http, and whatever else has no line here
//! ```
//!
//! Each interface is linked by itself, so that a new one in wasmtime-wasi is not handed out by an update.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sync};
use wasmtime_wasi::p2::{DynOutputStream, DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};

use crate::bindings::sluice::pipeline::log;
use crate::log::Level;
use crate::state::{StageState, Stream};

/// Bytes that a guest may write to stdout or stderr at once.
const STDIO_WRITE_BYTES_MAX: usize = 64 * 1024;

/// Links everything that every stage may import.
pub(crate) fn link(linker: &mut Linker<StageState>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<StageState>>(linker, |state| state)?;

    sync::io::poll::add_to_linker::<_, HasSelf<StageState>>(linker, |state| state)?;
    sync::io::streams::add_to_linker::<_, HasHandles>(linker, |state| &mut state.handles)?;
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<_, HasHandles>(linker, |state| {
        &mut state.handles
    })?;

    clocks::monotonic_clock::add_to_linker::<_, HasSelf<StageState>>(linker, |state| state)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(linker, |state| state.clocks())?;

    random::random::add_to_linker::<_, WasiRandom>(linker, |state| state.random())?;
    random::insecure::add_to_linker::<_, WasiRandom>(linker, |state| state.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, |state| state.random())?;

    cli::environment::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::stdout::add_to_linker::<_, HasSelf<StageState>>(linker, |state| state)?;
    cli::stderr::add_to_linker::<_, HasSelf<StageState>>(linker, |state| state)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, |state| state.cli())?;

    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, |state| state.filesystem())?;
    sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, |state| state.filesystem())
}

struct HasHandles;

impl HasData for HasHandles {
    type Data<'a> = &'a mut ResourceTable;
}

impl log::Host for StageState {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.check_host_call(message.len())?;
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.voice.line(level, &message);
        Ok(())
    }
}

impl StageState {
    /// Runs a host call that may wait, and counts the wait. One that used up the deadline ends the call right here.
    fn waiting<R>(
        &mut self,
        wait: impl FnOnce(&mut ResourceTable) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        let started = Instant::now();
        let result = wait(&mut self.handles);
        self.clock.add_waited(started.elapsed());
        if self.clock.left().is_zero() {
            return Err(self.exceed_deadline());
        }
        result
    }
}

impl sync::io::poll::Host for StageState {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.waiting(|handles| sync::io::poll::Host::poll(handles, pollables))
    }
}

impl sync::io::poll::HostPollable for StageState {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        sync::io::poll::HostPollable::ready(&mut self.handles, pollable)
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.waiting(|handles| sync::io::poll::HostPollable::block(handles, pollable))
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        sync::io::poll::HostPollable::drop(&mut self.handles, pollable)
    }
}

/// The only thing in reach that a guest can wait for. A wait ends with the call's deadline, whatever was asked for: an
/// epoch stops guests, not the host.
impl clocks::monotonic_clock::Host for StageState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        clocks::monotonic_clock::Host::now(&mut self.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        clocks::monotonic_clock::Host::resolution(&mut self.clocks())
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = when.saturating_sub(clocks::monotonic_clock::Host::now(&mut self.clocks())?);
        clocks::monotonic_clock::Host::subscribe_duration(self, wait)
    }

    fn subscribe_duration(&mut self, wait: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = Duration::from_nanos(wait).min(self.clock.left());
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        clocks::monotonic_clock::Host::subscribe_duration(&mut self.clocks(), wait)
    }
}

impl cli::stdout::Host for StageState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open(Stream::Stdout)
    }
}

impl cli::stderr::Host for StageState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open(Stream::Stderr)
    }
}

impl StageState {
    fn open(&mut self, stream: Stream) -> wasmtime::Result<Resource<DynOutputStream>> {
        let voice = self.voice.clone();
        let stream: DynOutputStream = Box::new(LogStream { stream, voice });
        Ok(self.handles.push(stream)?)
    }
}

/// A guest's end of stdout or stderr. Always ready, never blocks.
struct LogStream {
    stream: Stream,
    voice: crate::state::Voice,
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.voice.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STDIO_WRITE_BYTES_MAX)
    }
}

impl Pollable for LogStream {
    // What `async fn ready` becomes; the macro that writes it is not worth a dependency.
    fn ready<'life0, 'async_trait>(
        &'life0 mut self,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(std::future::ready(()))
    }
}

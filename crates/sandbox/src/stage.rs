//! One stage: an instance that is reused between batches and replaced after anything went wrong in it.
//!
//! A stage that reports at the end of its input is the exception: what it gathered is in its instance, so anything that
//! goes wrong in it is fatal.

use std::time::Duration;

use sluice_record::Batch;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::bindings::Transform;
use crate::bindings::exports::sluice::pipeline::stage::{
    BatchParam, BatchResult, ColumnParam, Fault, Output,
};
use crate::engine::{Compiled, Engine, Finish};
use crate::error::{CallError, ConfigureCause, ConfigureError, cut};
use crate::limits::{REASON_BYTES_MAX, StageLimits};
use crate::log::LogGate;
use crate::outcome::{Checked, check, check_report};
use crate::state::StageState;
use crate::ticker::TickerHandle;

/// What makes up one stage of a chain.
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// The stage's name, for logs and errors.
    pub name: String,
    /// What `configure` gets, as JSON.
    pub config_json: String,
    /// What it may use.
    pub limits: StageLimits,
    /// The component.
    pub compiled: Compiled,
}

/// A stage of a running chain.
pub(crate) struct Stage {
    spec: StageSpec,
    /// Held so that its ticker runs for as long as this stage may.
    engine: Engine,
    ticker: TickerHandle,
    log: LogGate,
    /// Missing after something went wrong in it, until the next call.
    instance: Option<Instance>,
}

struct Instance {
    store: Store<StageState>,
    transform: Transform,
    finish: Option<Finish>,
}

/// Why a batch did not pass a stage.
pub(crate) enum CallFailure {
    /// The guest asks for the batch again, later. Its instance is sound.
    Retry(String),
    /// The guest, or its `configure`, ends the execution.
    Fatal(String),
    /// Something went wrong in the guest. Its instance is gone. Never from a stage that reports.
    Error(CallError),
}

impl Stage {
    /// Instantiates and configures a stage. Runs guest code.
    pub(crate) fn start(
        engine: &Engine,
        spec: StageSpec,
        log: LogGate,
    ) -> Result<Self, ConfigureError> {
        let mut stage = Self {
            engine: engine.clone(),
            ticker: engine.ticker(),
            spec,
            log,
            instance: None,
        };
        let instance = stage.instantiate().map_err(|cause| ConfigureError {
            stage: stage.spec.name.clone(),
            cause,
        })?;
        stage.instance = Some(instance);
        Ok(stage)
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn limits(&self) -> &StageLimits {
        &self.spec.limits
    }

    /// Bytes of memory that its instance has; none when it is about to be replaced.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let instance = self.instance.as_ref();
        instance.map_or(0, |instance| instance.store.data().meter.memory_bytes())
    }

    /// Whether it has something to say at the end of its input.
    pub(crate) fn reports(&self) -> bool {
        self.spec.compiled.reports()
    }

    /// What an error means for whoever asked: more than its instance is lost with a stage that gathers.
    pub(crate) fn failure(&self, error: CallError) -> CallFailure {
        match error {
            error @ CallError::Host(_) => CallFailure::Error(error),
            error if self.reports() => CallFailure::Fatal(short(format!(
                "what it had gathered of its input is lost: {error}"
            ))),
            error => CallFailure::Error(error),
        }
    }

    /// Asks for what it has to say at the end of its input. Takes up to [`StageLimits::finish_deadline`].
    pub(crate) fn finish(&mut self) -> Result<Batch, CallFailure> {
        let deadline = self.spec.limits.finish_deadline();
        let instance = self.instance.as_mut();
        let Some((instance, finish)) = instance.and_then(|it| it.finish.map(|finish| (it, finish)))
        else {
            let reason = "there is no instance that gathered anything".to_owned();
            return Err(CallFailure::Fatal(reason));
        };
        let result = {
            let _running = self.ticker.running();
            instance.finish(finish, deadline)
        };
        let checked = match result {
            Ok(Ok(batch)) => check_report(batch, &self.spec.limits),
            Ok(Err(Fault::Retry(reason))) => return Err(CallFailure::Retry(short(reason))),
            Ok(Err(Fault::Fatal(reason))) => return Err(CallFailure::Fatal(short(reason))),
            Err(error) => Err(error_of(error, instance.store.data_mut())),
        };
        checked.map_err(|error| {
            self.discard();
            self.failure(error)
        })
    }

    /// Runs one batch, not empty, through the stage, within `deadline`.
    pub(crate) fn call(
        &mut self,
        batch: &Batch,
        deadline: Duration,
    ) -> Result<Checked, CallFailure> {
        if self.instance.is_none() {
            self.instance = Some(self.instantiate().map_err(|cause| match cause {
                ConfigureCause::Refused(reason) => CallFailure::Fatal(format!(
                    "a fresh instance refused the config that it took before: {reason}"
                )),
                ConfigureCause::Call(error) => CallFailure::Error(error),
            })?);
        }
        let instance = self.instance.as_mut().expect("made above");
        let result = {
            let _running = self.ticker.running();
            instance.process(batch, deadline)
        };
        let checked = match result {
            Ok(Ok(output)) => check(output, batch, &self.spec.limits),
            Ok(Err(Fault::Retry(reason))) => return Err(CallFailure::Retry(short(reason))),
            Ok(Err(Fault::Fatal(reason))) => return Err(CallFailure::Fatal(short(reason))),
            Err(error) => Err(error_of(error, instance.store.data_mut())),
        };
        checked.map_err(|error| {
            self.discard();
            self.failure(error)
        })
    }

    /// Throws the instance away; the next call makes a fresh one.
    fn discard(&mut self) {
        if let Some(instance) = self.instance.take() {
            instance.store.data().voice.flush();
        }
    }

    fn instantiate(&self) -> Result<Instance, ConfigureCause> {
        let Self { spec, engine, .. } = self;
        let state = StageState::new(&spec.name, spec.limits, self.log.clone());
        let mut store = Store::new(engine.wasmtime(), state);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(hostcall_fuel(&spec.limits));
        store.set_max_component_handles(spec.limits.handles_max);
        store.epoch_deadline_callback(|mut store| store.data_mut().tick());

        let _running = self.ticker.running();
        store.set_epoch_deadline(1);
        store.data_mut().clock.start(spec.limits.deadline);
        let instantiated = spec.compiled.stage.instantiate(&mut store);
        let (transform, instance) =
            instantiated.map_err(|error| match error_of(error, store.data_mut()) {
                // Nothing has been returned yet: what fits no other name is memory or address space that the host lacks.
                CallError::InvalidOutput(text) => ConfigureCause::Call(CallError::Host(text)),
                error => ConfigureCause::Call(error),
            })?;
        let finish = spec.compiled.stage.finish_of(&mut store, &instance);
        let finish = finish.map_err(|error| {
            let problem = format!("`finish` is not as the contract has it: {error:#}");
            ConfigureCause::Call(CallError::InvalidOutput(short(problem)))
        })?;
        let stage = transform.sluice_pipeline_stage();
        match stage.call_configure(&mut store, &spec.config_json) {
            Ok(Ok(())) => Ok(Instance {
                store,
                transform,
                finish,
            }),
            Ok(Err(reason)) => Err(ConfigureCause::Refused(short(reason))),
            Err(error) => {
                let cause = error_of(error, store.data_mut());
                store.data().voice.flush();
                Err(ConfigureCause::Call(cause))
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Instance {
    fn process(
        &mut self,
        batch: &Batch,
        deadline: Duration,
    ) -> wasmtime::Result<Result<Output, Fault>> {
        let columns: Vec<ColumnParam<'_>> = batch
            .attributes
            .iter()
            .map(|column| ColumnParam {
                name: &column.name,
                data: &column.data,
                ends: &column.ends,
            })
            .collect();
        let param = BatchParam {
            data: &batch.data,
            ends: &batch.ends,
            times: &batch.times,
            attributes: &columns,
        };
        self.store.set_epoch_deadline(1);
        self.store.data_mut().clock.start(deadline);
        self.transform
            .sluice_pipeline_stage()
            .call_process(&mut self.store, param)
    }

    fn finish(
        &mut self,
        finish: Finish,
        deadline: Duration,
    ) -> wasmtime::Result<Result<BatchResult, Fault>> {
        self.store.set_epoch_deadline(1);
        self.store.data_mut().clock.start(deadline);
        let (result,) = finish.call(&mut self.store, ())?;
        Ok(result)
    }
}

/// What one call may carry from the guest to the host, in whatever form: wasmtime ends it there, before it allocates.
/// Output is what may be largest; what else a guest hands over is checked again where it arrives.
fn hostcall_fuel(limits: &StageLimits) -> usize {
    limits
        .output_bytes_max
        .max(limits.host_call_bytes_max)
        .saturating_add(4096)
}

/// Gives an error of wasmtime the name that it has here.
fn error_of(error: wasmtime::Error, state: &mut StageState) -> CallError {
    if let Some(exceeded) = state.meter.take_exceeded() {
        return exceeded;
    }
    let limits = &state.meter.limits;
    let in_guest = error.downcast_ref::<WasmBacktrace>().is_some();
    let full = |error: &(dyn std::error::Error + 'static)| {
        matches!(
            error.downcast_ref::<ResourceTableError>(),
            Some(ResourceTableError::Full)
        )
    };
    if error.chain().any(full) {
        return CallError::HandlesExceeded {
            limit: limits.handles_max,
        };
    }
    // These three have no type of their own in wasmtime; tests hold their texts.
    let root = error.root_cause().to_string();
    if root.contains("store handle limit exceeded") {
        return CallError::HandlesExceeded {
            limit: limits.handles_max,
        };
    }
    if root.contains("fuel allocated for hostcalls has been exhausted") {
        return if in_guest {
            CallError::HostCallExceeded {
                limit_bytes: limits.host_call_bytes_max,
            }
        } else {
            CallError::OutputExceeded {
                limit: limits.output_bytes_max,
                what: "bytes",
            }
        };
    }
    if root.starts_with("resource limit exceeded") {
        return CallError::InstancesExceeded {
            limit: limits.instances_max,
        };
    }
    if in_guest || error.downcast_ref::<Trap>().is_some() {
        return CallError::Trapped {
            reason: trap_reason(&error, &root),
        };
    }
    CallError::InvalidOutput(short(root))
}

/// What happened and in which functions, innermost first, in one line.
fn trap_reason(error: &wasmtime::Error, root: &str) -> String {
    /// From where it happened to where the stage was called, in most plugins.
    const FRAMES_MAX: usize = 8;
    let mut reason = root.strip_prefix("wasm trap: ").unwrap_or(root).to_owned();
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        // Only the whole backtrace's text has demangled names: one line a frame, `MODULE!NAME` at its end.
        let text = backtrace.to_string();
        let names = text
            .lines()
            .filter_map(|line| Some(line.split_once('!')?.1));
        // Stripped components have numbers only, which tell nobody anything.
        let names = names.filter(|name| !name.starts_with("<wasm function"));
        let names = names.map(without_hashes);
        let names = names.skip_while(|name| is_of_panic(name));
        let names: Vec<String> = names.take(FRAMES_MAX).collect();
        if !names.is_empty() {
            reason.push_str(" in ");
            reason.push_str(&names.join(" < "));
        }
    }
    short(reason)
}

/// A function's name without hashes: Rust writes that of a crate as `std[a543996e6e7dbf1e]`, and one at the end of an
/// older sort of names as `::h550ca5d2de423c6d`.
fn without_hashes(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((before, hash)) if is_hash(hash) => before,
        _ => name,
    };
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        match after.split_once(']') {
            Some((hash, after)) if is_hash(hash) => rest = after,
            _ => {
                plain.push('[');
                rest = after;
            }
        }
    }
    plain + rest
}

fn is_hash(text: &str) -> bool {
    /// Shorter ones are numbers, such as an array's length.
    const DIGITS_MIN: usize = 8;
    text.len() >= DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a function is of the machinery that ends a Rust program, and says nothing of where it happened.
fn is_of_panic(name: &str) -> bool {
    let starts = [
        "__rustc::",
        "core::panicking::",
        "std::panicking::",
        "std::sys::backtrace::",
        "std::process::abort",
    ];
    starts.iter().any(|start| name.starts_with(start))
}

fn short(mut reason: String) -> String {
    cut(&mut reason, REASON_BYTES_MAX);
    reason
}

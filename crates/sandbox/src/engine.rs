//! The one wasmtime engine of a process: how guests are compiled, cached and bounded in time.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sha2::{Digest as _, Sha256};
use sluice_component::{GrantSet, ImportProblem, InspectError, StageProblem};
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, Instance, InstancePre, Linker, TypedFunc,
};

use crate::bindings::exports::sluice::pipeline::stage::{BatchResult, Fault};
use crate::bindings::{Transform, TransformIndices};
use crate::cache::{CodeCache, Found, hex};
use crate::state::StageState;
use crate::ticker::{Ticker, TickerHandle};

/// How to make an [`Engine`].
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Where compiled code is kept between starts: a directory of its own, private to this user. `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
}

/// Why an [`Engine`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused this machine or configuration.
    #[error("cannot set up wasmtime: {0}")]
    Wasmtime(String),
    /// The cache directory cannot be used.
    #[error("cannot use {dir:?} for compiled components")]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No thread for the ticker.
    #[error("cannot start the ticker thread")]
    Ticker(#[source] io::Error),
}

/// Why a component cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes could not be had.
    #[error("cannot read the component")]
    Read(#[source] io::Error),
    /// The bytes are not what the digest names.
    #[error("the component's bytes have the digest {actual}, not {expected}; fetch it again")]
    Digest {
        /// What was asked for.
        expected: String,
        /// What came.
        actual: String,
    },
    /// The bytes are not a component that this version can read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It is a component, but no stage.
    #[error(transparent)]
    NotAStage(#[from] StageProblem),
    /// It imports what is neither linked nor granted.
    #[error("{}", imports_text(.0))]
    Imports(Vec<ImportProblem>),
    /// It does not compile, or fits the contract in name only.
    #[error("the component cannot be used: {0}")]
    Compile(String),
}

/// Compiles and loads components, and makes time pass for guests. One in a process; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    linker: Linker<StageState>,
    cache: Option<CodeCache>,
    /// What is loaded now, so that executions of one component share its code.
    loaded: Mutex<BTreeMap<[u8; 32], Weak<Linked>>>,
    /// Held while compiling: it takes all the CPU and much memory, so one at a time.
    compiling: Mutex<()>,
    ticker: Ticker,
}

/// A component, compiled and checked, ready to be instantiated often. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    digest: [u8; 32],
    pub(crate) stage: Arc<Linked>,
}

/// What a component says at the end of its input.
pub(crate) type Finish = TypedFunc<(), (Result<BatchResult, Fault>,)>;

/// A component whose imports are answered and whose exports were found.
pub(crate) struct Linked {
    pre: InstancePre<StageState>,
    transform: TransformIndices,
    /// `finish`, of a component that reports.
    finish: Option<ComponentExportIndex>,
}

impl Linked {
    fn new(pre: InstancePre<StageState>) -> wasmtime::Result<Self> {
        /// wasmtime finds the export of any 0.1.x by this.
        const ENDING: &str = "sluice:pipeline/ending@0.1.0";
        let transform = TransformIndices::new(&pre)?;
        let component = pre.component();
        let finish = match component.get_export_index(None, ENDING) {
            None => None,
            Some(ending) => Some(
                component
                    .get_export_index(Some(&ending), "finish")
                    .ok_or_else(|| wasmtime::Error::msg(format!("`{ENDING}` has no `finish`")))?,
            ),
        };
        Ok(Self {
            pre,
            transform,
            finish,
        })
    }

    /// Makes an instance.
    pub(crate) fn instantiate(
        &self,
        store: &mut Store<StageState>,
    ) -> wasmtime::Result<(Transform, Instance)> {
        let instance = self.pre.instantiate(&mut *store)?;
        let transform = self.transform.load(&mut *store, &instance)?;
        Ok((transform, instance))
    }

    /// An instance's `finish`; the error says that it has another type than the contract's.
    pub(crate) fn finish_of(
        &self,
        store: &mut Store<StageState>,
        instance: &Instance,
    ) -> wasmtime::Result<Option<Finish>> {
        let finish = self.finish.as_ref();
        finish
            .map(|finish| instance.get_typed_func(&mut *store, finish))
            .transpose()
    }
}

impl Engine {
    /// Starts the engine and its ticker thread, which ends with the last clone.
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let wasmtime = wasmtime::Engine::new(&wasmtime_config())
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let mut linker = Linker::new(&wasmtime);
        crate::wasi::link(&mut linker)
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let cache = config
            .cache_dir
            .map(|dir| {
                CodeCache::open(&dir, compatibility(&wasmtime))
                    .map_err(|source| EngineError::Cache { dir, source })
            })
            .transpose()?;
        let ticked = wasmtime.weak();
        let ticker = Ticker::start(move || {
            if let Some(wasmtime) = ticked.upgrade() {
                wasmtime.increment_epoch();
            }
        })
        .map_err(EngineError::Ticker)?;
        let inner = Inner {
            wasmtime,
            linker,
            cache,
            loaded: Mutex::default(),
            compiling: Mutex::default(),
            ticker,
        };
        Ok(Engine {
            inner: Arc::new(inner),
        })
    }

    /// Gives the component with this sha256: from memory, from the cache, or compiled from the bytes that `wasm` yields,
    /// which is called in the last case only. Blocks, for many seconds if it is large and new; one compiles at a time.
    pub fn load<B: AsRef<[u8]>>(
        &self,
        digest: &[u8; 32],
        wasm: impl FnOnce() -> io::Result<B>,
    ) -> Result<Compiled, LoadError> {
        // What is compiled already never waits for a compiler that is busy with something else.
        if let Some(compiled) = self.ready(digest) {
            return Ok(compiled);
        }
        let _one_at_a_time = lock(&self.inner.compiling);
        if let Some(compiled) = self.ready(digest) {
            return Ok(compiled);
        }
        let wasm = wasm().map_err(LoadError::Read)?;
        let component = self.compile(digest, wasm.as_ref())?;
        let stage = self.link(&component)?;
        self.store_cached(digest, &component);
        Ok(self.share(digest, stage))
    }

    /// Removes a component's compiled code from the disk. What is loaded stays loaded.
    pub fn forget(&self, digest: &[u8; 32]) {
        if let Some(cache) = &self.inner.cache {
            cache.remove(digest);
        }
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(crate) fn ticker(&self) -> TickerHandle {
        self.inner.ticker.handle()
    }

    /// What is loaded or in the cache.
    fn ready(&self, digest: &[u8; 32]) -> Option<Compiled> {
        let loaded = lock(&self.inner.loaded).get(digest).and_then(Weak::upgrade);
        match loaded {
            Some(stage) => Some(Compiled {
                digest: *digest,
                stage,
            }),
            None => Some(self.share(digest, self.load_cached(digest)?)),
        }
    }

    /// Keeps a stage in mind, or gives the one that somebody else loaded meanwhile.
    fn share(&self, digest: &[u8; 32], stage: Linked) -> Compiled {
        let mut loaded = lock(&self.inner.loaded);
        loaded.retain(|_, stage| stage.strong_count() > 0);
        let stage = loaded
            .get(digest)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| Arc::new(stage));
        loaded.insert(*digest, Arc::downgrade(&stage));
        Compiled {
            digest: *digest,
            stage,
        }
    }

    /// Checks the bytes and compiles them.
    fn compile(&self, digest: &[u8; 32], wasm: &[u8]) -> Result<Component, LoadError> {
        let actual: [u8; 32] = Sha256::digest(wasm).into();
        if actual != *digest {
            let (expected, actual) = (hex(digest), hex(&actual));
            return Err(LoadError::Digest { expected, actual });
        }
        let inspection = sluice_component::inspect(wasm)?;
        sluice_component::check_stage(&inspection)?;
        sluice_component::check_imports(&inspection, &GrantSet::none())
            .map_err(LoadError::Imports)?;
        // A compiler is large, and its input is a stranger's: a bug in it must not take the edge down.
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            Component::from_binary(&self.inner.wasmtime, wasm)
        }));
        match compiled {
            Ok(compiled) => compiled.map_err(|error| LoadError::Compile(format!("{error:#}"))),
            Err(_) => Err(LoadError::Compile("the compiler panicked".to_owned())),
        }
    }

    fn link(&self, component: &Component) -> Result<Linked, LoadError> {
        self.inner
            .linker
            .instantiate_pre(component)
            .and_then(Linked::new)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    fn load_cached(&self, digest: &[u8; 32]) -> Option<Linked> {
        let cache = self.inner.cache.as_ref()?;
        let Found::Code(code) = cache.find(digest) else {
            return None;
        };
        let stage = deserialize(&self.inner.wasmtime, &code)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))
            .and_then(|component| self.link(&component));
        match stage {
            Ok(stage) => Some(stage),
            Err(error) => {
                tracing::warn!(digest = %hex(digest), %error, "compiled code does not fit; compiling again");
                cache.remove(digest);
                None
            }
        }
    }

    fn store_cached(&self, digest: &[u8; 32], component: &Component) {
        let Some(cache) = &self.inner.cache else {
            return;
        };
        match component.serialize() {
            Ok(code) => cache.store(digest, &code),
            Err(error) => {
                tracing::warn!(digest = %hex(digest), %error, "cannot serialise compiled code")
            }
        }
    }
}

impl Compiled {
    /// The component's sha256.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it has something to say at the end of its input.
    pub fn reports(&self) -> bool {
        self.stage.finish.is_some()
    }
}

/// Everything that guests and their code depend on. A change here makes every edge compile again.
fn wasmtime_config() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        // Calls block; the machinery for concurrent ones would double the cost of each call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        // Backtraces need names only, and the map from code to offsets would double the files.
        .generate_address_map(false)
        // Fits the guest threads' stacks, see `pool`.
        .max_wasm_stack(512 * 1024);
    config
}

/// What compiled code depends on, as a name for files. wasmtime checks the same again when it loads a file.
fn compatibility(wasmtime: &wasmtime::Engine) -> String {
    let mut hasher = DefaultHasher::new();
    wasmtime.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[expect(
    unsafe_code,
    reason = "machine code from our own private cache, whose hash has just been checked"
)]
fn deserialize(wasmtime: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` asks for bytes that `Component::serialize` made and nobody changed. They come
    // from a directory that only this user can write, and their sha256 matched; no byte of it ever came over a network.
    unsafe { Component::deserialize(wasmtime, code) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn imports_text(problems: &[ImportProblem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &hex(&self.digest))
            .finish()
    }
}

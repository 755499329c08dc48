//! Guests and the things to run them with.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sluice_record::Batch;
use sluice_sandbox::{
    Chain, ChainFault, ChainOutput, Compiled, ConfigureError, DeadLetter, Engine, EngineConfig,
    InProcessChain, Level, LogSink, OnRetry, StageLimits, StageSpec, Turn,
};

/// One engine for all tests of a process, with a cache for all of them.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sandbox-code");
        Engine::new(EngineConfig {
            cache_dir: Some(cache_dir),
        })
        .unwrap()
    })
}

/// The bytes of a component in `plugins/dist/`.
pub(crate) fn plugin(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/dist")
        .join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run scripts/build-plugins first",
            path.display()
        )
    })
}

pub(crate) fn digest(wasm: &[u8]) -> [u8; 32] {
    Sha256::digest(wasm).into()
}

pub(crate) fn compiled(wasm: &[u8]) -> Compiled {
    engine().load(&digest(wasm), || Ok(wasm)).unwrap()
}

/// Limits with which a test does not wait long.
pub(crate) fn limits() -> StageLimits {
    StageLimits {
        deadline: Duration::from_millis(100),
        ..StageLimits::default()
    }
}

pub(crate) fn spec(plugin_name: &str, config: &str, limits: StageLimits) -> StageSpec {
    StageSpec {
        name: plugin_name.to_owned(),
        config_json: config.to_owned(),
        limits,
        compiled: compiled(&plugin(plugin_name)),
    }
}

/// The hostile plugin that does this.
pub(crate) fn hostile(act: &str) -> StageSpec {
    spec("hostile", &format!(r#"{{"do":"{act}"}}"#), limits())
}

/// The hostile plugin with a whole config.
pub(crate) fn hostile_with(config: &str) -> StageSpec {
    spec("hostile", config, limits())
}

/// What a chain logged.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<(String, Level, String)>>);

impl Lines {
    pub(crate) fn all(&self) -> Vec<(String, Level, String)> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.all().into_iter().map(|line| line.2).collect()
    }
}

impl LogSink for Lines {
    fn log(&self, stage: &str, level: Level, message: &str) {
        self.0
            .lock()
            .unwrap()
            .push((stage.to_owned(), level, message.to_owned()));
    }
}

/// A chain with its log and its output.
pub(crate) struct Rig {
    pub(crate) chain: InProcessChain,
    pub(crate) lines: Arc<Lines>,
    pub(crate) output: ChainOutput,
    /// Turns that the last batch took.
    pub(crate) turns: usize,
}

impl Rig {
    pub(crate) fn try_new(stages: Vec<StageSpec>) -> Result<Self, ConfigureError> {
        let lines = Arc::new(Lines::default());
        let chain = InProcessChain::new(engine(), stages, lines.clone())?;
        Ok(Self {
            chain,
            lines,
            output: ChainOutput::new(),
            turns: 0,
        })
    }

    pub(crate) fn new(stages: Vec<StageSpec>) -> Self {
        Self::try_new(stages).unwrap()
    }

    /// Runs a batch to its end; gives the records that passed.
    pub(crate) fn run_with(
        &mut self,
        input: &Batch,
        on_retry: OnRetry,
    ) -> Result<Vec<String>, ChainFault> {
        self.turns = 1;
        while self.chain.process(input, &mut self.output, on_retry)? == Turn::Again {
            self.turns += 1;
        }
        let view = self.output.view(input);
        let records: Vec<String> = view
            .records()
            .map(|record| String::from_utf8_lossy(record).into_owned())
            .collect();
        assert_eq!(view.len(), records.len());
        let mut copied = Batch::new();
        view.append_to(&mut copied);
        assert!(copied.iter().eq(view.iter().map(|passed| passed.data)));
        Ok(records)
    }

    pub(crate) fn run(&mut self, input: &Batch) -> Result<Vec<String>, ChainFault> {
        self.run_with(input, OnRetry::Report)
    }

    pub(crate) fn origins(&self, input: &Batch) -> Vec<u32> {
        self.output
            .view(input)
            .iter()
            .map(|passed| passed.origin)
            .collect()
    }

    pub(crate) fn dead(&self) -> &[DeadLetter] {
        &self.output.dead_letters
    }

    /// The index, stage and kind of each dead letter.
    pub(crate) fn dead_brief(&self) -> Vec<(u32, u32, &'static str)> {
        self.dead()
            .iter()
            .map(|letter| (letter.index, letter.stage, letter.kind.as_str()))
            .collect()
    }
}

pub(crate) fn batch<R: AsRef<[u8]>>(records: impl IntoIterator<Item = R>) -> Batch {
    records.into_iter().collect()
}

/// `count` records, `poison` at these places and `r0`, `r1`, ... elsewhere.
pub(crate) fn poisoned(count: usize, places: &[usize]) -> Batch {
    batch((0..count).map(|index| {
        if places.contains(&index) {
            "poison".to_owned()
        } else {
            format!("r{index}")
        }
    }))
}

/// A stage in text: `core` is the rest of a core module that has a memory, an allocator and `configure`. It must export
/// `process` with eight i32 parameters and a pointer to 56 bytes as result; 16 points to zeros, which mean "keep all".
pub(crate) fn text_stage(core: &str) -> Vec<u8> {
    text_stage_with(core, "", "", "")
}

/// The same, with imports of the core module, what goes before it, and what they are instantiated with.
pub(crate) fn text_stage_with(core: &str, imports: &str, before: &str, arguments: &str) -> Vec<u8> {
    let names = [
        "column",
        "batch",
        "replacement",
        "outcome",
        "reject",
        "output",
        "fault",
    ];
    // Every type, where types of these names end in `suffix`.
    let bodies = |suffix: &str| {
        [
            r#"(record (field "name" string) (field "data" (list u8)) (field "ends" (list u32)))"#
                .to_owned(),
            format!(
                r#"(record (field "data" (list u8)) (field "ends" (list u32)) (field "times" (list u64))
                    (field "attributes" (list $column{suffix})))"#
            ),
            format!(r#"(record (field "batch" $batch{suffix}) (field "origin" (list u32)))"#),
            format!(
                r#"(variant (case "keep") (case "select" (list u32)) (case "replace" $replacement{suffix}))"#
            ),
            r#"(record (field "index" u32) (field "reason" string))"#.to_owned(),
            format!(
                r#"(record (field "outcome" $outcome{suffix}) (field "rejects" (list $reject{suffix})))"#
            ),
            r#"(variant (case "retry" string) (case "fatal" string))"#.to_owned(),
        ]
    };
    let each = |suffix: &str, line: &dyn Fn(&str, &str) -> String| -> String {
        let lines = names
            .iter()
            .zip(bodies(suffix))
            .map(|(name, body)| line(name, &body));
        lines.collect::<Vec<_>>().join("\n")
    };
    let outer = each("", &|name, body| format!("(type ${name} {body})"));
    let imported = each("", &|name, body| {
        format!("(type ${name}-is {body}) (import \"type-{name}\" (type ${name} (eq ${name}-is)))")
    });
    let exported = each("-out", &|name, body| {
        format!("(type ${name}-new {body}) (export ${name}-out \"{name}\" (type ${name}-new))")
    });
    let with = each("", &|name, _| {
        format!("(with \"type-{name}\" (type ${name}))")
    });
    let process = |suffix: &str| {
        format!(
            r#"(param "batch" $batch{suffix}) (result (result $output{suffix} (error $fault{suffix})))"#
        )
    };
    let (process, process_out) = (process(""), process("-out"));
    let configure = r#"(param "config" string) (result (result (error string)))"#;
    let options = r#"(memory (core memory $i "memory")) (realloc (core func $i "realloc"))"#;
    let text = format!(
        r#"(component
            {before}
            (core module $m
              {imports}
              (memory (export "memory") 2)
              (global $free (mut i32) (i32.const 1024))
              (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.set $free (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
              (func (export "configure") (param i32 i32) (result i32) (i32.const 16))
              {core})
            (core instance $i (instantiate $m {arguments}))
            {outer}
            (func $process {process} (canon lift (core func $i "process") {options}))
            (func $configure {configure} (canon lift (core func $i "configure") {options}))
            (component $wrap
              {imported}
              (import "func-process" (func $process {process}))
              (import "func-configure" (func $configure {configure}))
              {exported}
              (export "process" (func $process) (func {process_out}))
              (export "configure" (func $configure)))
            (instance $stage (instantiate $wrap {with}
              (with "func-process" (func $process)) (with "func-configure" (func $configure))))
            (export "sluice:pipeline/stage@0.1.0" (instance $stage)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(crate) fn text_spec(wasm: &[u8], limits: StageLimits) -> StageSpec {
    StageSpec {
        name: "text".to_owned(),
        config_json: "{}".to_owned(),
        limits,
        compiled: compiled(wasm),
    }
}

//! The JSON Schema of a pipeline, for editors.
//!
//! The types here mirror the document as it is written, before any check; the walk in `parse` accepts the same keys,
//! and a test compares the two. Nothing is ever read into these types: the walk reports every problem with its place.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

/// The JSON Schema of a pipeline document. TOML editors take it as it is.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(PipelineDocument);
    schema.insert("title".to_owned(), "Sluice pipeline".into());
    let mut value = schema.to_value();
    drop_null(&mut value);
    value
}

/// Takes `null` out of every choice: an optional key of a TOML document is absent, never null.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(drop_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_mut_slice() {
                    let only = only.take();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = choices.as_mut_slice() {
                    let only = std::mem::take(only);
                    map.remove("anyOf");
                    map.extend(only);
                }
            }
            map.values_mut().for_each(drop_null);
        }
        _ => {}
    }
}

/// A Sluice pipeline: one input, stages, one output.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct PipelineDocument {
    /// The job's name: 1 to 63 of a-z, 0-9 and `-`, not at an end.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: String,
    /// How the job is placed. Absent: `daemon`.
    #[schemars(default)]
    kind: KindDocument,
    /// How many nodes. Absent: 1 with `kind = "batch"`; `kind = "replicas"` needs it.
    #[schemars(range(min = 1, max = 1000))]
    count: Option<u32>,
    /// What becomes of an execution whose node is lost. Absent: `wait` for a daemon, `replace` for replicas and what is `idempotent`, `fail` for another batch.
    on_lost: Option<OnLostDocument>,
    /// Which nodes, by label; `node` stands for the node's name. Absent: every node.
    #[schemars(default)]
    select: BTreeMap<String, OneOrMore>,
    /// How a new version reaches the nodes. Absent: all at once up to 10 nodes, else 10 % at a time.
    rollout: Option<RolloutDocument>,
    /// Whether a task of a batch may run again when nobody can tell whether it has ended. Absent: `false`.
    idempotent: Option<bool>,
    /// How long one try of a task may take from its placing, from `1s` to `30d`; then it is stopped, and the task has timed out. Absent: as long as it takes.
    timeout: Option<String>,
    /// Tries after a task's first one that failed. What it cannot open (a file, a command) is looked for again and again within one try, which fails after 10 times or 5 minutes. Absent: 0.
    #[schemars(range(max = 100))]
    retries: Option<u32>,
    /// Tasks of a higher priority are placed first. Absent: 0.
    #[schemars(range(min = -1000, max = 1000))]
    priority: Option<i32>,
    /// Tasks of this batch that run at once. Absent: as many as the orchestrator allows.
    #[schemars(range(min = 1, max = 1000000))]
    concurrency: Option<u32>,
    /// The pool that its tasks take a place of; `sluice orchestrator --pool NAME=SIZE` makes one. Absent: none.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pool: Option<String>,
    /// What a launch of a batch may say, by name: `${param.NAME}` stands for it. Absent: nothing.
    #[schemars(default, extend("maxProperties" = 64))]
    params: BTreeMap<String, ParamDocument>,
    /// Where records come from: exactly one kind.
    input: InputDocument,
    /// What happens to the records, in order. Absent: nothing.
    #[schemars(default, length(max = 64))]
    stage: Vec<StageDocument>,
    /// Where the records go: exactly one.
    output: OutputsDocument,
}

/// How a job is placed.
#[derive(Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum KindDocument {
    /// One execution on every matching node.
    #[default]
    Daemon,
    /// One execution on each of `count` matching nodes.
    Replicas,
    /// Runs to an end each time it is launched, on `count` matching nodes.
    Batch,
}

/// A parameter of a batch.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ParamDocument {
    /// What its values are.
    r#type: ParamKindDocument,
    /// What it is when a launch does not say. Absent: a launch must say.
    default: Option<ParamDefaultDocument>,
}

/// What a parameter's values are.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum ParamKindDocument {
    /// Any text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A value of the parameter's type.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum ParamDefaultDocument {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
}

/// What becomes of an execution whose node is lost.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum OnLostDocument {
    /// It waits for its node.
    Wait,
    /// Another node takes its place: replicas, and a batch that is `idempotent`.
    Replace,
    /// It counts as failed until its node is back.
    Fail,
}

/// How a new version reaches the nodes, and what proves that it is good.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct RolloutDocument {
    /// Nodes that may be on their way to the new version at once: a number, or a part such as `10%`. Absent: `10%`.
    max_parallel: Option<MaxParallelDocument>,
    /// Nodes that must prove the new version before any other gets it. Absent: 0.
    #[schemars(default, range(max = 1000000))]
    canary: u32,
    /// How long the new version must run on a node without trouble, from `1s` to `1d`. Absent: `10s`.
    min_healthy: Option<String>,
    /// Dead letters for each record taken in, at most. Absent: they do not matter.
    #[schemars(range(min = 0.0, max = 1.0))]
    error_rate_max: Option<f64>,
    /// How long a node may take to prove it, from `10s` to `7d`. Absent: `5m`.
    deadline: Option<String>,
}

/// A number of nodes, or a part of those that match.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum MaxParallelDocument {
    Nodes(#[schemars(range(min = 1, max = 1000000))] u32),
    Percent(#[schemars(regex(pattern = "^(100|[1-9][0-9]?)%$"))] String),
}

/// A value, or a list of values of which one must match.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OneOrMore {
    One(String),
    More(#[schemars(length(min = 1))] Vec<String>),
}

/// Where records come from: exactly one kind.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1, "maxProperties" = 1))]
#[expect(dead_code, reason = "only its schema is used")]
struct InputDocument {
    /// Makes records from a template.
    generate: Option<GenerateDocument>,
    /// Reads a file's lines from its start to its end.
    file: Option<FileInputDocument>,
    /// Reads lines from standard input, and of a batch pipeline what its launch brought (`sluice run launch --stdin`).
    stdin: Option<StdinDocument>,
    /// Runs a command that the edge's owner listed, and reads the lines that it prints.
    exec: Option<ExecDocument>,
}

/// Makes records from a template.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct GenerateDocument {
    /// Time between records, such as `1s` or `250ms`; empty goes as fast as it can. Absent: `1s`.
    #[schemars(default = "interval_default")]
    interval: String,
    /// How many records; 0 never ends. Absent: 0.
    #[schemars(default)]
    count: u64,
    /// One record's text. Besides the variables of every setting it has `${seq}`, `${now}` and `${hostname}`.
    template: String,
}

fn interval_default() -> String {
    "1s".to_owned()
}

/// Reads a file's lines from its start to its end.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct FileInputDocument {
    /// A path on the edge, inside a directory that its owner allowed.
    #[schemars(length(min = 1))]
    path: String,
}

/// Runs a command that the edge's owner listed.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ExecDocument {
    /// The command's name in the edge's policy (`sluice edge --allow-command`).
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    command: String,
    /// How long it may run, from `1s` to `1d`; then it is killed. Absent: `10m`.
    deadline: Option<String>,
}

/// Reads lines from standard input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StdinDocument {}

/// One stage: a plugin with its settings.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct StageDocument {
    /// Unique within the pipeline.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: String,
    /// The component it runs: a file relative to the pipeline file, or `sha256:` and the 64 hex digits of its content.
    plugin: String,
    /// The plugin's settings, handed to it as JSON; their strings may have variables. Absent: `{}`.
    #[schemars(default)]
    config: BTreeMap<String, Value>,
    /// What one call may use. Absent: as below.
    #[schemars(default)]
    limits: LimitsDocument,
}

/// What one call of a stage may use.
#[derive(Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct LimitsDocument {
    /// Memory from `1MiB` to `4GiB`, or a number of bytes. Absent: `64MiB`.
    memory: Option<SizeDocument>,
    /// CPU time of one call from `1ms` to `60s`. Absent: `1s`.
    deadline: Option<String>,
}

/// A size such as `64MiB`, or a number of bytes.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum SizeDocument {
    Text(#[schemars(regex(pattern = "^[0-9]+(B|KiB|MiB|GiB)$"))] String),
    Bytes(u64),
}

/// `[output.KIND]`, or `[[output]]` with names.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OutputsDocument {
    One(OutputDocument),
    Named(#[schemars(length(min = 1, max = 1))] Vec<NamedOutputDocument>),
}

/// Where the records go: exactly one kind.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1, "maxProperties" = 1))]
#[expect(dead_code, reason = "only its schema is used")]
struct OutputDocument {
    /// Standard output in `sluice dev` and `sluice pipeline run`, else the execution's log.
    stdout: Option<StdoutDocument>,
    /// Appends to a file.
    file: Option<FileOutputDocument>,
    /// Counts and forgets.
    discard: Option<DiscardDocument>,
}

/// One output with a name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 2, "maxProperties" = 2))]
#[expect(dead_code, reason = "only its schema is used")]
struct NamedOutputDocument {
    /// The output's name.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: String,
    /// Standard output in `sluice dev` and `sluice pipeline run`, else the execution's log.
    stdout: Option<StdoutDocument>,
    /// Appends to a file.
    file: Option<FileOutputDocument>,
    /// Counts and forgets.
    discard: Option<DiscardDocument>,
}

/// Standard output, or the execution's log.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct StdoutDocument {
    /// How records are written. Absent: `lines`.
    #[schemars(default)]
    codec: CodecDocument,
}

/// Appends to a file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct FileOutputDocument {
    /// A path on the edge, inside a directory that its owner allowed.
    #[schemars(length(min = 1))]
    path: String,
    /// How records are written. Absent: `lines`.
    #[schemars(default)]
    codec: CodecDocument,
}

/// Counts and forgets.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DiscardDocument {}

/// How records become bytes.
#[derive(Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum CodecDocument {
    /// Each record and a newline.
    #[default]
    Lines,
}

#[cfg(test)]
mod tests;

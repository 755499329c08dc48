//! Every key that a pipeline may have, by section. The walk, its advice and the editor's schema agree on these.

/// The document itself.
pub(in crate::pipeline) const PIPELINE: &[&str] = &[
    "name",
    "kind",
    "count",
    "on_lost",
    "select",
    "rollout",
    "idempotent",
    "timeout",
    "retries",
    "priority",
    "concurrency",
    "pool",
    "params",
    "input",
    "stage",
    "output",
];
/// Those of the document that belong to `kind = "batch"`: from `idempotent` to `params`.
pub(in crate::pipeline) const BATCH: &[&str] = PIPELINE.split_at(6).1.split_at(7).0;
/// `[params.NAME]`
pub(in crate::pipeline) const PARAM: &[&str] = &["type", "default"];
/// `[rollout]`
pub(in crate::pipeline) const ROLLOUT: &[&str] = &[
    "max_parallel",
    "canary",
    "min_healthy",
    "error_rate_max",
    "deadline",
];
/// `[input]`: the inputs of this version.
pub(in crate::pipeline) const INPUTS: &[&str] = &["exec", "file", "generate", "stdin"];
/// `[input.generate]`
pub(in crate::pipeline) const GENERATE: &[&str] = &["interval", "count", "template"];
/// `[input.file]`
pub(in crate::pipeline) const FILE_INPUT: &[&str] = &["path"];
/// `[input.exec]`
pub(in crate::pipeline) const EXEC: &[&str] = &["command", "deadline"];
/// `[input.stdin]`
pub(in crate::pipeline) const STDIN: &[&str] = &[];
/// `[[stage]]`
pub(in crate::pipeline) const STAGE: &[&str] = &["name", "plugin", "config", "limits"];
/// `[stage.limits]`
pub(in crate::pipeline) const LIMITS: &[&str] = &["memory", "deadline"];
/// `[[output]]`: a name beside one of [`OUTPUTS`].
pub(in crate::pipeline) const NAMED_OUTPUT: &[&str] = &["name", "discard", "file", "stdout"];
/// `[output]`: the outputs of this version.
pub(in crate::pipeline) const OUTPUTS: &[&str] = NAMED_OUTPUT.split_at(1).1;
/// `[output.stdout]`
pub(in crate::pipeline) const STDOUT: &[&str] = &["codec"];
/// `[output.file]`
pub(in crate::pipeline) const FILE_OUTPUT: &[&str] = &["path", "codec"];
/// `[output.discard]`
pub(in crate::pipeline) const DISCARD: &[&str] = &[];

/// Keys that later versions give a meaning to: refused now wherever they stand, so that no document changes its
/// meaning under a newer program.
pub(in crate::pipeline) const RESERVED: &[&str] = &[
    "batch",
    "buffer",
    "grants",
    "isolation",
    "on_error",
    "parallelism",
    "remap",
    "retry",
    "secret",
    "when",
];

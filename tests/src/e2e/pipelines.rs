//! Pipeline texts and components that tests deploy.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A component that scripts/build-plugins built, for example `identity`.
///
/// # Panics
///
/// When it has not been built.
pub fn plugin(name: &str) -> PathBuf {
    let path = repository().join(format!("plugins/dist/{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is not built: run scripts/build-plugins before the end-to-end tests, or scripts/test, which does",
        path.display()
    );
    path
}

/// The repository's root.
///
/// # Panics
///
/// Never: this package lies in it.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the tests lie in the repository")
        .to_owned()
}

/// A pipeline's text, piece by piece.
#[derive(Clone, Debug)]
pub struct PipelineText {
    head: String,
    input: String,
    stages: String,
    output: String,
}

impl PipelineText {
    /// Ten records a second, `JOB seq N`, for ever, without a stage, into the edge's file `JOB.out`.
    pub fn steady(job: &str) -> Self {
        Self {
            head: format!("name = \"{job}\"\n"),
            input: generate("100ms", 0, "${job.name} seq ${seq}"),
            stages: String::new(),
            output: format!("[output.file]\npath = \"{job}.out\"\n"),
        }
    }

    /// Records `JOB seq N` at an interval, `count` of them.
    #[must_use]
    pub fn generate(mut self, interval: &str, count: u64) -> Self {
        self.input = generate(interval, count, "${job.name} seq ${seq}");
        self
    }

    /// Records from a template.
    #[must_use]
    pub fn template(mut self, interval: &str, count: u64, template: &str) -> Self {
        self.input = generate(interval, count, template);
        self
    }

    /// The lines of an edge's file.
    #[must_use]
    pub fn file(mut self, path: &str) -> Self {
        self.input = format!("[input.file]\npath = \"{path}\"\n");
        self
    }

    /// Only on nodes with this label, or, for the key `node`, this name.
    #[must_use]
    pub fn select(mut self, key: &str, value: &str) -> Self {
        writeln!(self.head, "select.{key} = \"{value}\"").expect("a String takes every text");
        self
    }

    /// By a rollout with these rules, as in an inline table: `canary = 1`.
    #[must_use]
    pub fn rollout(mut self, rules: &str) -> Self {
        writeln!(self.head, "rollout = {{ {rules} }}").expect("a String takes every text");
        self
    }

    /// Adds a stage; `config` is an inline table, `{}` for none.
    #[must_use]
    pub fn stage(mut self, name: &str, plugin: &Path, config: &str) -> Self {
        write!(
            self.stages,
            "[[stage]]\nname = \"{name}\"\nplugin = \"{}\"\nconfig = {config}\n",
            plugin.display()
        )
        .expect("a String takes every text");
        self
    }

    /// Into another of the edge's files.
    #[must_use]
    pub fn output(mut self, path: &str) -> Self {
        self.output = format!("[output.file]\npath = \"{path}\"\n");
        self
    }

    /// Into the execution's log.
    #[must_use]
    pub fn stdout(mut self) -> Self {
        "[output.stdout]\n".clone_into(&mut self.output);
        self
    }

    /// The whole text.
    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}",
            self.head, self.input, self.stages, self.output
        )
    }
}

fn generate(interval: &str, count: u64, template: &str) -> String {
    format!(
        "[input.generate]\ninterval = \"{interval}\"\ncount = {count}\ntemplate = '{template}'\n"
    )
}

/// The numbers N of records `JOB seq N`.
///
/// # Panics
///
/// When a record is another one.
pub fn seqs(job: &str, lines: &[String]) -> Vec<u64> {
    let start = format!("{job} seq ");
    let number = |line: &String| {
        let number = line.strip_prefix(&start).and_then(|rest| rest.parse().ok());
        number.unwrap_or_else(|| panic!("{line:?} is not a record of {job}"))
    };
    lines.iter().map(number).collect()
}

/// A component like another, `padding` bytes larger and with another digest for each `mark`: a custom section is added,
/// which every reader skips.
///
/// # Panics
///
/// When the padding needs more than 32 bits.
pub fn padded_component(component: &[u8], mark: u64, padding: usize) -> Vec<u8> {
    let name = b"padding";
    let mut payload = vec![u8::try_from(name.len()).expect("it is short")];
    payload.extend_from_slice(name);
    payload.extend_from_slice(&mark.to_le_bytes());
    // Noise, so that nothing on the way could make it small.
    let mut state = mark | 1;
    payload.extend((0..padding).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    }));
    let mut out = component.to_vec();
    out.push(0);
    let mut length = u32::try_from(payload.len()).expect("a section is small");
    loop {
        let byte = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        if length == 0 {
            out.push(byte);
            break;
        }
        out.push(byte | 0x80);
    }
    out.extend_from_slice(&payload);
    out
}

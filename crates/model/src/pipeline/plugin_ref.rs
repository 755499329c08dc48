//! How a pipeline names a component: a file, or the content itself. A registered plugin's name is reserved.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Longest text that names a plugin, in bytes: a path's bound on Linux.
const PLUGIN_BYTES_MAX: usize = 4096;

/// How a pipeline names a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginRef {
    /// A file, relative to the pipeline file.
    Path(String),
    /// `name@version`: reserved for a registry of plugins, which this version does not have. It is read so that whoever
    /// writes it is told.
    Named {
        /// The plugin's name.
        name: String,
        /// The plugin's version.
        version: String,
    },
    /// The content itself.
    Digest(Digest),
}

/// Why a text names no plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginRefError {
    /// None of the forms.
    #[error(
        "`{text}` names no plugin: write a path with `/` or `.wasm`, or `sha256:` and 64 hex digits"
    )]
    Form {
        /// The text.
        text: String,
    },
    /// A digest with a slip.
    #[error("`{text}` is not a digest: write `sha256:` and 64 hex digits, a-f small")]
    Digest {
        /// The text.
        text: String,
    },
    /// A path that no file can have.
    #[error("a plugin's path has at most {PLUGIN_BYTES_MAX} bytes and no control characters")]
    Path,
    /// Variables are filled in on the edge, which is too late to choose a component.
    #[error(
        "a plugin cannot be named by a variable: it is chosen at deploy, and `${{...}}` is filled in on the edge"
    )]
    Variable,
}

impl FromStr for PluginRef {
    type Err = PluginRefError;

    fn from_str(text: &str) -> Result<Self, PluginRefError> {
        if text.len() > PLUGIN_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(PluginRefError::Path);
        }
        if text.contains("${") {
            return Err(PluginRefError::Variable);
        }
        if text.starts_with("sha256:") {
            let digest = text.parse().map_err(|_| PluginRefError::Digest {
                text: text.to_owned(),
            })?;
            return Ok(Self::Digest(digest));
        }
        if text.contains('/') || text.ends_with(".wasm") {
            return Ok(Self::Path(text.to_owned()));
        }
        match text.split_once('@') {
            Some((name, version)) if is_word(name) && is_word(version) => Ok(Self::Named {
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err(PluginRefError::Form {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for PluginRef {
    /// As it is written in a pipeline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Named { name, version } => write!(f, "{name}@{version}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

fn is_word(text: &str) -> bool {
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    !text.is_empty() && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_three_forms_are_told_apart() {
        let digest = Digest::of(b"x");
        let named = |name: &str, version: &str| PluginRef::Named {
            name: name.into(),
            version: version.into(),
        };
        for (text, expected) in [
            ("filter.wasm", PluginRef::Path("filter.wasm".into())),
            ("../a/b@c", PluginRef::Path("../a/b@c".into())),
            ("/opt/x", PluginRef::Path("/opt/x".into())),
            ("a b.wasm", PluginRef::Path("a b.wasm".into())),
            ("filter@1.2.0", named("filter", "1.2.0")),
            ("filter@1.2.0+a-b_c", named("filter", "1.2.0+a-b_c")),
            (&digest.to_string(), PluginRef::Digest(digest)),
        ] {
            assert_eq!(text.parse::<PluginRef>().unwrap(), expected);
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_a_problem() {
        for wrong in [
            "",
            "filter",
            "filter@",
            "@1",
            "a@b@c",
            "filter 1@2",
            "sha256:abc",
            "sha256:/x.wasm",
            "a\0.wasm",
            "${job.name}.wasm",
        ] {
            assert!(wrong.parse::<PluginRef>().is_err(), "{wrong:?}");
        }
        assert!("a/".repeat(3000).parse::<PluginRef>().is_err());
    }
}

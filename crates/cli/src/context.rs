//! Finds and reads the context: how to reach an orchestrator.

use std::path::{Path, PathBuf};

use sluice_api::OperatorContext;
use toml_edit::Document;

use crate::failure::Failure;

/// Largest context file that is read; ours have about 1 KiB.
const CONTEXT_BYTES_MAX: u64 = 64 * 1024;

const WAY_OUT: &str = "the orchestrator writes operator.toml into its state directory: name it with --context FILE \
                       or SLUICE_CONTEXT, or copy it to ~/.config/sluice/context.toml";

/// Reads the file that `--context` or `SLUICE_CONTEXT` names, else the one in `home`.
pub(crate) fn find(
    named: Option<&Path>,
    home: Option<&Path>,
) -> Result<(PathBuf, OperatorContext), Failure> {
    let path = match (named, home) {
        (Some(path), _) => path.to_owned(),
        (None, Some(home)) => home.join(".config/sluice/context.toml"),
        (None, None) => {
            return Err(Failure::invalid(
                "there is no context, and no home directory to look for one in",
            )
            .with_help(WAY_OUT));
        }
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Err(Failure::invalid(format!(
                "no context: it is not known which orchestrator is meant ({} is not there)",
                path.display()
            ))
            .with_help(WAY_OUT));
        }
        Err(error) => {
            return Err(Failure::invalid(format!(
                "cannot read the context file {}: {error}",
                path.display()
            ))
            .with_help(WAY_OUT));
        }
    };
    let context = parse(&text).map_err(|problem| {
        Failure::invalid(format!("the context file {} {problem}", path.display()))
            .with_help(WAY_OUT)
    })?;
    Ok((path, context))
}

fn read(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > CONTEXT_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "it has {bytes} bytes, and a context has a few hundred"
        )));
    }
    std::fs::read_to_string(path)
}

fn parse(text: &str) -> Result<OperatorContext, String> {
    let document = Document::parse(text)
        .map_err(|error| format!("is not TOML: {}", error.message().replace('\n', " ")))?;
    let key = |name: &str| {
        document
            .as_table()
            .get(name)
            .and_then(|item| item.as_str())
            .filter(|value| !value.trim().is_empty())
            .map(str::to_owned)
            .ok_or_else(|| format!("has no `{name} = \"...\"`"))
    };
    Ok(OperatorContext {
        endpoint: key("endpoint")?,
        ca: key("ca")?,
        token: key("token")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::failure::Exit;

    fn context() -> OperatorContext {
        OperatorContext {
            endpoint: "https://127.0.0.1:7480".to_owned(),
            ca: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned(),
            token: "sluice-admin-\"\\\n".to_owned(),
        }
    }

    #[test]
    fn what_the_orchestrator_writes_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.toml");
        std::fs::write(&path, context().to_toml()).unwrap();
        let found = find(Some(&path), None).unwrap();
        assert_eq!(found, (path.clone(), context()));
        let home = dir.path().join(".config/sluice/context.toml");
        std::fs::create_dir_all(home.parent().unwrap()).unwrap();
        std::fs::rename(&path, &home).unwrap();
        assert_eq!(find(None, Some(dir.path())).unwrap().0, home);
    }

    #[test]
    fn a_missing_or_broken_context_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join("context.toml");
            std::fs::write(&path, text).unwrap();
            path
        };
        let gone = dir.path().join("gone.toml");
        let large = "#".repeat(70_000);
        let table: [(Result<_, Failure>, &str); 8] = [
            (find(None, None), "no home directory"),
            (
                find(None, Some(dir.path())),
                ".config/sluice/context.toml is not there",
            ),
            (find(Some(&gone), None), "gone.toml"),
            (find(Some(dir.path()), None), "cannot read the context file"),
            (find(Some(&file("a = ")), None), "is not TOML"),
            (
                find(Some(&file("ca = \"x\"\ntoken = \"y\"")), None),
                "has no `endpoint",
            ),
            (find(Some(&file("endpoint = 1")), None), "has no `endpoint"),
            (find(Some(&file(&large)), None), "70000 bytes"),
        ];
        for (result, says) in table {
            let failure = result.unwrap_err();
            assert_eq!(failure.exit, Exit::Invalid);
            assert!(failure.message.contains(says), "{}", failure.message);
            assert!(failure.help.unwrap().contains("--context FILE"));
        }
    }
}

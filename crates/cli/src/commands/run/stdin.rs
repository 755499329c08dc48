//! `--stdin`: brings bytes to the orchestrator before the launch that names them.
//!
//! Their digest is needed before the first of them is sent. So what cannot be read twice, a pipe, goes into a file without
//! a name first; a regular file is read where it is.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use sluice_model::{Digest, STDIN_BYTES_MAX};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;

/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// Uploads what `from` holds (`-` is this process's standard input), and says what a launch names it by.
pub(super) async fn bring(client: &Client, out: &Out, from: &Path) -> Result<Digest, Failure> {
    let from = from.to_owned();
    let name = name_of(&from);
    // Reading a pipe takes as long as whoever writes into it.
    let read = tokio::task::spawn_blocking(move || gather(&from)).await;
    let Gathered {
        file,
        digest,
        bytes,
    } = read.unwrap_or_else(|error| {
        Err(Failure::new(
            Exit::Failed,
            format!("reading the stdin ended early: {error}"),
        ))
    })?;
    let bar = out.bytes_bar(&format!("uploading {name}"), bytes);
    let sent = client.upload_stdin(digest, file, bytes, bar.clone()).await;
    bar.finish_and_clear();
    sent.map_err(|mut failure| {
        failure.message = format!("uploading {name}: {}", failure.message);
        failure
    })?;
    out.say(&format!("uploaded {name} ({})", render::size(bytes)));
    Ok(digest)
}

/// Bytes that can be read again, from the start.
struct Gathered {
    file: File,
    digest: Digest,
    bytes: u64,
}

fn name_of(from: &Path) -> String {
    if from == Path::new("-") {
        "the standard input".to_owned()
    } else {
        from.display().to_string()
    }
}

/// Whether there is anything to read, before anybody is asked about the launch. Opens nothing that would be read by it.
pub(super) fn readable(from: &Path) -> Result<(), Failure> {
    if from == Path::new("-") {
        return Ok(());
    }
    let facts = std::fs::metadata(from).map_err(|error| unreadable(from, &error))?;
    if facts.is_dir() {
        return Err(unreadable(from, &io::ErrorKind::IsADirectory.into()));
    }
    Ok(())
}

fn unreadable(from: &Path, error: &io::Error) -> Failure {
    Failure::invalid(format!("cannot read {}: {error}", name_of(from)))
        .with_help("`--stdin` takes a file, or `-` for what is piped in")
}

fn gather(from: &Path) -> Result<Gathered, Failure> {
    let cannot = |error: io::Error| unreadable(from, &error);
    if from == Path::new("-") {
        return keep(&mut io::stdin().lock(), from);
    }
    let mut file = File::open(from).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return keep(&mut file, from);
    }
    let (digest, bytes) = copy(&mut file, &mut io::sink(), from)?;
    file.seek(SeekFrom::Start(0)).map_err(cannot)?;
    Ok(Gathered {
        file,
        digest,
        bytes,
    })
}

/// Writes what can be read once into a file without a name.
fn keep(source: &mut impl Read, from: &Path) -> Result<Gathered, Failure> {
    let cannot = |error: io::Error| {
        let dir = std::env::temp_dir();
        Failure::new(
            Exit::Failed,
            format!("cannot keep what is read in {}: {error}", dir.display()),
        )
        .with_help("name a directory with room in TMPDIR")
    };
    let mut file = tempfile::tempfile().map_err(cannot)?;
    let (digest, bytes) = copy(source, &mut file, from)?;
    file.seek(SeekFrom::Start(0)).map_err(cannot)?;
    Ok(Gathered {
        file,
        digest,
        bytes,
    })
}

fn copy(
    source: &mut impl Read,
    into: &mut impl Write,
    from: &Path,
) -> Result<(Digest, u64), Failure> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(from, &error)),
        };
        bytes += read as u64;
        if bytes > STDIN_BYTES_MAX {
            return Err(Failure::invalid(format!(
                "{} has more than {STDIN_BYTES_MAX} bytes (256 MiB), which is the most that a launch brings",
                name_of(from)
            ))
            .with_help(
                "put it into a file on the edge and read it with `[input.file]`, or launch it in parts",
            ));
        }
        hasher.update(&buffer[..read]);
        into.write_all(&buffer[..read]).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot keep what is read in a temporary file: {error}"),
            )
            .with_help("name a directory with room in TMPDIR")
        })?;
    }
    let digest = Digest::from_slice(&hasher.finalize()).expect("a sha256 has 32 bytes");
    Ok((digest, bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_and_a_pipe_give_the_same_bytes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        let text = "a line\n".repeat(40_000);
        std::fs::write(&path, &text).unwrap();
        let read = gather(&path).unwrap();
        let piped = keep(&mut text.as_bytes(), Path::new("-")).unwrap();
        for mut gathered in [read, piped] {
            let mut again = String::new();
            gathered.file.read_to_string(&mut again).unwrap();
            assert_eq!(gathered.digest, Digest::of(text.as_bytes()));
            assert_eq!((gathered.bytes, again == text), (text.len() as u64, true));
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_too_large_is_said_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for (path, says) in [
            (dir.path().join("nowhere"), "nowhere: No such file"),
            (dir.path().to_owned(), "directory"),
        ] {
            for failure in [gather(&path).err().unwrap(), readable(&path).unwrap_err()] {
                assert_eq!(failure.exit, Exit::Invalid);
                assert!(failure.message.contains(says), "{}", failure.message);
            }
        }
        assert_eq!(readable(Path::new("-")), Ok(()));
        let large = dir.path().join("large");
        let file = File::create(&large).unwrap();
        file.set_len(STDIN_BYTES_MAX + 1).unwrap();
        let failure = gather(&large).err().unwrap();
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(failure.message.contains("256 MiB"), "{}", failure.message);
    }
}

//! Every way out, tried on real directories.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    _directory: tempfile::TempDir,
    top: PathBuf,
    allowed: AllowedPaths,
}

/// `in/` and `also/` are allowed, `out/` is not.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().to_path_buf();
    for name in ["in/sub", "also", "out"] {
        std::fs::create_dir_all(top.join(name)).unwrap();
    }
    for name in ["in/a.log", "in/sub/b.log", "also/c.log", "out/secret"] {
        std::fs::write(top.join(name), name).unwrap();
    }
    symlink("../out/secret", top.join("in/escape")).unwrap();
    symlink(top.join("out"), top.join("in/escape-dir")).unwrap();
    symlink("a.log", top.join("in/inside")).unwrap();
    symlink("../a.log", top.join("in/sub/up-inside")).unwrap();
    let allowed = AllowedPaths::new([top.join("in"), top.join("also")]).unwrap();
    Fixture {
        _directory: directory,
        top,
        allowed,
    }
}

fn read(fixture: &Fixture, path: &str) -> Result<String, PathError> {
    let mut text = String::new();
    fixture
        .allowed
        .open_input(path)?
        .read_to_string(&mut text)
        .unwrap();
    Ok(text)
}

#[test]
fn paths_inside_open() {
    let fixture = fixture();
    let absolute = |path: &str| fixture.top.join(path).to_str().unwrap().to_owned();
    for (path, text) in [
        ("a.log".to_owned(), "in/a.log"),
        ("./sub/b.log".to_owned(), "in/sub/b.log"),
        ("sub/../a.log".to_owned(), "in/a.log"),
        ("inside".to_owned(), "in/a.log"),
        ("sub/up-inside".to_owned(), "in/a.log"),
        (absolute("in/sub/b.log"), "in/sub/b.log"),
        (absolute("also/c.log"), "also/c.log"),
    ] {
        assert_eq!(read(&fixture, &path).unwrap(), text, "{path}");
    }
}

#[test]
fn nothing_leads_out() {
    let fixture = fixture();
    let absolute = |path: &str| fixture.top.join(path).to_str().unwrap().to_owned();
    for path in [
        "../out/secret".to_owned(),
        "sub/../../out/secret".to_owned(),
        "escape".to_owned(),
        "escape-dir/secret".to_owned(),
        absolute("out/secret"),
        absolute("in/../out/secret"),
        absolute("in-not/secret"),
        "/etc/passwd".to_owned(),
        "/proc/self/root/etc/passwd".to_owned(),
        String::new(),
        "a\0b".to_owned(),
    ] {
        let input = read(&fixture, &path).unwrap_err();
        let output = fixture.allowed.open_output(&path).unwrap_err();
        for error in [input, output] {
            let refused = matches!(error, PathError::Outside { .. } | PathError::Escapes { .. });
            assert!(refused, "{path:?}: {error:?}");
            assert!(error.to_string().contains("--allow-path"), "{error}");
            assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
        }
    }
    for path in ["escape-dir/new", "escape-dir/new/deeper"] {
        assert!(
            matches!(
                fixture.allowed.open_output(path),
                Err(PathError::Escapes { .. })
            ),
            "{path}"
        );
    }
    assert_eq!(
        std::fs::read_dir(fixture.top.join("out")).unwrap().count(),
        1,
        "nothing was made outside"
    );
    assert_eq!(
        std::fs::read_to_string(fixture.top.join("out/secret")).unwrap(),
        "out/secret"
    );
}

#[test]
fn outputs_make_their_directories_and_append() {
    let fixture = fixture();
    for _ in 0..2 {
        fixture
            .allowed
            .open_output("new/deep/er/x.log")
            .unwrap()
            .write_all(b"line\n")
            .unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(fixture.top.join("in/new/deep/er/x.log")).unwrap(),
        "line\nline\n"
    );
    let missing = AllowedPaths::new([fixture.top.join("later/files")]).unwrap();
    missing.open_output("x.log").unwrap();
    assert!(
        fixture.top.join("later/files/x.log").exists(),
        "the allowed directory itself is made too"
    );
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let fixture = fixture();
    let pipe = fixture.top.join("in/pipe");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    for (path, found) in [
        ("sub", "a directory"),
        (".", "a directory"),
        ("pipe", "a pipe"),
    ] {
        let error = read(&fixture, path).unwrap_err();
        assert!(
            matches!(&error, PathError::NotAFile { found: f, .. } if *f == found),
            "{path}: {error:?}"
        );
        assert!(
            matches!(
                fixture.allowed.open_output(path),
                Err(PathError::NotAFile { .. })
            ),
            "{path}"
        );
    }
    let error = read(&fixture, "none.log").unwrap_err();
    assert!(
        matches!(&error, PathError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    );
    let nothing = AllowedPaths::new([]).unwrap();
    assert!(
        nothing
            .check("a.log")
            .unwrap_err()
            .to_string()
            .contains("allows (nothing)")
    );
}

//! Uploads that end well, badly, or not at all.

#![allow(clippy::unwrap_used)]

use tokio::io::AsyncReadExt as _;

use super::*;

/// A component that counts as a stage, made different by `salt`.
pub(crate) fn stage(salt: &str) -> Vec<u8> {
    let text = format!(
        r#"(component (import "sluice:pipeline/log@0.1.0" (instance)) (instance $s)
           (export "sluice:pipeline/stage@0.1.0" (instance $s)) (@custom "salt" "{salt}"))"#
    );
    wat::parse_str(text).unwrap()
}

async fn upload(
    store: &Artifacts,
    named: Digest,
    bytes: &[u8],
) -> Result<ArtifactInfo, ArtifactError> {
    let mut upload = store.begin_upload(named, Some("ci")).await?;
    for chunk in bytes.chunks(7) {
        upload.write(chunk).await?;
    }
    upload.finish().await
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_upload_is_kept_and_read_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let store = Artifacts::open(dir.path()).unwrap();
    let bytes = stage("a");
    let digest = Digest::of(&bytes);
    let other = Digest::of(b"other");
    assert_eq!(
        store.missing(&[digest, other, digest]).await.unwrap(),
        [digest, other]
    );
    let info = upload(&store, digest, &bytes).await.unwrap();
    let noted = store.noted(digest).await.unwrap();
    assert_eq!(noted.exports, ["sluice:pipeline/stage@0.1.0"]);
    assert_eq!(noted.uploaded_by.as_deref(), Some("ci"));
    assert!(noted.uploaded_at.is_some());
    // Once more, by somebody else: who was first stays.
    let mut again = store.begin_upload(digest, Some("other")).await.unwrap();
    again.write(&bytes).await.unwrap();
    again.finish().await.unwrap();
    assert_eq!(store.noted(digest).await.unwrap(), noted);
    assert_eq!(info.imports, ["sluice:pipeline/log@0.1.0"]);
    assert_eq!(info.size, bytes.len() as u64);
    assert_eq!(store.missing(&[digest, other]).await.unwrap(), [other]);

    let store = Artifacts::open(dir.path()).unwrap();
    let (mut file, size) = store.open_at(digest, 5).await.unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).await.unwrap();
    assert_eq!((rest.as_slice(), size), (&bytes[5..], info.size));
    let beyond = store.open_at(digest, size + 1).await;
    assert!(matches!(beyond, Err(ArtifactError::BadOffset { .. })));
    let missing = store.open_at(other, 0).await;
    assert!(matches!(missing, Err(ArtifactError::Gone { .. })));

    std::fs::write(store.shared.sidecar(digest), b"{").unwrap();
    assert_eq!(store.digests().await.unwrap(), [digest]);
    assert_eq!(store.info(digest).await.unwrap(), info);
}

#[tokio::test]
async fn what_is_no_stage_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Artifacts::open(dir.path()).unwrap();
    let no_stage = wat::parse_str("(component)").unwrap();
    let sockets = wat::parse_str(
        r#"(component (import "wasi:sockets/tcp@0.2.3" (instance)) (instance $s)
           (export "sluice:pipeline/stage@0.1.0" (instance $s)))"#,
    )
    .unwrap();
    let core = wat::parse_str("(module)").unwrap();
    for (bytes, says) in [
        (b"hello".as_slice(), "not a Wasm file"),
        (b"", "empty"),
        (&core, "core module"),
        (&no_stage, "does not export `sluice:pipeline/stage"),
        (&sockets, "wasi:sockets/tcp@0.2.3"),
    ] {
        let error = upload(&store, Digest::of(bytes), bytes).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(ErrorBody::from(error).code, ErrorCode::Invalid);
    }
    let lied = upload(&store, Digest::of(b"else"), &stage("a")).await;
    assert!(matches!(lied, Err(ArtifactError::Mismatch { .. })));
    assert_eq!(files(dir.path()), [""; 0]);
}

#[tokio::test]
async fn uploads_have_a_size_and_a_number_and_interrupted_ones_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Artifacts::open(dir.path()).unwrap();
    let digest = Digest::of(b"x");
    let mut upload = store.begin_upload(digest, None).await.unwrap();
    let mib = vec![0; 1 << 20];
    for _ in 0..64 {
        upload.write(&mib).await.unwrap();
    }
    let over = upload.write(b"!").await.unwrap_err();
    assert_eq!(ErrorBody::from(over).code, ErrorCode::TooLarge);
    drop(upload);
    assert_eq!(files(dir.path()), [""; 0]);

    let mut running = Vec::new();
    for _ in 0..UPLOADS_MAX {
        running.push(store.begin_upload(digest, None).await.unwrap());
    }
    assert_eq!(store.shared.uploads.available_permits(), 0);
    assert_eq!(files(dir.path()).len(), UPLOADS_MAX);
    // As after a kill: nobody is left to remove them.
    Artifacts::open(dir.path()).unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
    drop(running);
    store.begin_upload(digest, None).await.unwrap();
}

#[tokio::test]
async fn a_sweep_keeps_what_is_named_and_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = Artifacts::open(dir.path()).unwrap();
    let (a, b) = (stage("a"), stage("b"));
    upload(&store, Digest::of(&a), &a).await.unwrap();
    upload(&store, Digest::of(&b), &b).await.unwrap();
    let keep = BTreeSet::from([Digest::of(&a)]);
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep(keep.clone(), hour).await.unwrap(), 0);
    assert_eq!(store.sweep(keep, Duration::ZERO).await.unwrap(), 1);
    assert!(store.has(Digest::of(&a)).await.unwrap());
    assert!(!store.has(Digest::of(&b)).await.unwrap());
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn a_full_disk_has_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Artifacts::open(dir.path()).unwrap();
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let body = ErrorBody::from(store.shared.io("write", dir.path(), full));
    assert_eq!(body.code, ErrorCode::DiskFull);
    assert_eq!(body.code.http_status(), 507);
    assert!(body.message.contains("free some space"), "{}", body.message);
}

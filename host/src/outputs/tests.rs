//! The directory of outputs.

#![allow(clippy::unwrap_used)]

use super::*;

fn facts(bytes: &[u8]) -> OutputFacts {
    OutputFacts {
        bytes: bytes.len() as u64,
        digest: Digest::of(bytes),
        dropped: 0,
    }
}

#[tokio::test]
async fn a_pull_goes_on_where_it_was_cut_and_only_right_bytes_get_their_name() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(directory.path()).unwrap();
    let it = facts(b"one two");
    let mut part = outputs.begin(it).await.unwrap();
    part.write(b"one ").await.unwrap();
    part.pause().await.unwrap();
    assert!(!outputs.has(it).await);
    // Another process goes on.
    let outputs = Outputs::open(directory.path()).unwrap();
    let mut part = outputs.begin(it).await.unwrap();
    assert_eq!(part.have(), 4);
    part.write(b"six").await.unwrap();
    assert!(matches!(part.finish().await, Err(OutputError::Wrong)));
    let mut part = outputs.begin(it).await.unwrap();
    assert_eq!(part.have(), 0, "wrong bytes are thrown away");
    assert!(matches!(
        part.write(b"more than there is").await,
        Err(OutputError::Wrong)
    ));
    drop(part);
    let mut part = outputs.begin(it).await.unwrap();
    assert_eq!(part.have(), 0);
    part.write(b"one two").await.unwrap();
    part.finish().await.unwrap();
    assert!(outputs.has(it).await);
    let mut text = String::new();
    let mut file = outputs.read(it.digest).await.unwrap();
    tokio::io::AsyncReadExt::read_to_string(&mut file, &mut text)
        .await
        .unwrap();
    assert_eq!(text, "one two");
}

#[tokio::test]
async fn case_43_what_would_fill_the_disk_does_not_begin() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(directory.path()).unwrap();
    let huge = OutputFacts {
        bytes: u64::MAX,
        ..facts(b"")
    };
    assert!(matches!(outputs.begin(huge).await, Err(OutputError::Full)));
}

#[tokio::test]
async fn what_nothing_names_is_swept_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(directory.path()).unwrap();
    for bytes in [b"a".as_slice(), b"b", b"c"] {
        let mut part = outputs.begin(facts(bytes)).await.unwrap();
        part.write(bytes).await.unwrap();
        part.finish().await.unwrap();
    }
    let busy = facts(b"busy");
    let mut part = outputs.begin(busy).await.unwrap();
    part.write(b"bu").await.unwrap();
    part.pause().await.unwrap();
    outputs.begin(facts(b"given up")).await.unwrap();
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let mut unnamed = outputs.contents().unwrap();
    assert_eq!(unnamed.len(), 5);
    unnamed.remove(&facts(b"b").digest);
    unnamed.remove(&busy.digest);
    assert_eq!(outputs.remove(&unnamed).unwrap(), 3);
    assert_eq!(outputs.remove(&unnamed).unwrap(), 0);
    assert!(outputs.has(facts(b"b")).await);
    assert!(!outputs.has(facts(b"a")).await);
    assert!(directory.path().join("notes.txt").exists());
    assert_eq!(outputs.begin(busy).await.unwrap().have(), 2);
}

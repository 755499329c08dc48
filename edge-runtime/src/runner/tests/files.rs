//! Files in, files out: what arrives, what is repeated, what is remembered.

use std::collections::BTreeSet;
use std::io::Write as _;

use super::*;

const FILTER: &str = "[input.file]\npath = \"in.log\"\n[[stage]]\nname = \"filter\"\nplugin = \"./filter_contains.wasm\"\nconfig = { contains = \"7\" }\n[output.file]\npath = \"out/${node.labels.site}.log\"\n";
const COPY: &str = "[input.file]\npath = \"in.log\"\n[output.file]\npath = \"out.log\"\n";

#[tokio::test]
async fn a_filter_gives_what_grep_gives() {
    let fixture = Fixture::new();
    let text: String = (0..5000)
        .map(|number| format!("line {number} {}\r\n", "y".repeat(number % 500)))
        .collect();
    fixture.write("in.log", text.trim_end());
    let expected: String = text
        .lines()
        .filter(|line| line.contains('7'))
        .map(|line| format!("{line}\n"))
        .collect();
    let (end, counters) = fixture.run(FILTER).await;
    assert_eq!(end, End::Completed);
    assert_eq!(counters, numbers(5000, expected.lines().count() as u64, 0));
    assert_eq!(fixture.read("out/plant-7.log"), expected);
    assert_eq!(stored_counters(&fixture.state_dir()), Some(counters));
}

#[tokio::test]
async fn empty_files_and_empty_lines_are_what_they_are() {
    let fixture = Fixture::new();
    fixture.write("in.log", "");
    assert_eq!(fixture.run(COPY).await, (End::Completed, numbers(0, 0, 0)));
    assert_eq!(fixture.read("out.log"), "");
    fixture.write("in.log", "\n\r\nx");
    assert_eq!(fixture.run(COPY).await, (End::Completed, numbers(3, 3, 0)));
    assert_eq!(fixture.read("out.log"), "\n\nx\n");
}

#[tokio::test]
async fn a_record_over_the_limit_is_one_dead_letter() {
    let fixture = Fixture::new();
    let mut text = b"before\n".to_vec();
    text.resize(text.len() + 20_000_000, b'x');
    text.extend_from_slice(b"\nlarge ");
    text.resize(text.len() + 10_000_000, b'y');
    text.extend_from_slice(b"\nafter\n");
    fixture.write("in.log", &text);
    assert_eq!(fixture.run(COPY).await, (End::Completed, numbers(4, 3, 1)));
    let out = fixture.read("out.log");
    assert_eq!(
        out.len(),
        "before\n".len() + 10_000_000 + "large \n".len() + "after\n".len()
    );
    assert!(out.ends_with("y\nafter\n"));
    let letters = dead_letters_tail(&fixture.state_dir(), 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].kind.as_str(), letters[0].bytes),
        ("too-large", 20_000_000)
    );
    assert!(letters[0].text.as_ref().unwrap().starts_with("xxx"));
}

#[tokio::test]
async fn a_batch_of_nothing_but_a_reject_passes_nothing() {
    let fixture = Fixture::new();
    let mut text = lines(5 * 256).into_bytes();
    text.resize(text.len() + 20_000_000, b'x');
    fixture.write("in.log", &text);
    let all = lines(5 * 256);
    let kept: String = all
        .lines()
        .filter(|line| line.contains('7'))
        .map(|line| format!("{line}\n"))
        .collect();
    let counted = numbers(5 * 256 + 1, kept.lines().count() as u64, 1);
    assert_eq!(fixture.run(FILTER).await, (End::Completed, counted));
    assert_eq!(fixture.read("out/plant-7.log"), kept);
}

#[tokio::test]
async fn many_large_records_stay_within_the_window() {
    let fixture = Fixture::new();
    let large = "z".repeat(3_000_000);
    let text: String = (0..30)
        .map(|number| format!("{number} {large}\n"))
        .collect();
    fixture.write("in.log", &text);
    assert_eq!(
        fixture.run(COPY).await,
        (End::Completed, numbers(30, 30, 0))
    );
    assert!(fixture.read("out.log") == text, "all of them, in order");
}

#[tokio::test]
async fn the_same_pipeline_continues_and_another_starts_over() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(1000));
    assert_eq!(
        fixture.run(COPY).await,
        (End::Completed, numbers(1000, 1000, 0))
    );

    let mut again = fixture.plan(COPY);
    again.attempt = Attempt(2);
    assert_eq!(
        fixture.start(again).await.ended().await,
        (End::Completed, numbers(1000, 1000, 0))
    );
    assert_eq!(
        fixture.read("out.log"),
        lines(1000),
        "a new attempt finds nothing new"
    );

    fixture.write("in.log", lines(1005));
    assert_eq!(
        fixture.run(COPY).await,
        (End::Completed, numbers(1005, 1005, 0)),
        "it grew"
    );
    assert_eq!(fixture.read("out.log"), lines(1005));

    let mut changed = fixture.plan(&COPY.replace("out.log", "out2.log"));
    changed.version = Version(2);
    assert_eq!(
        fixture.start(changed).await.ended().await,
        (End::Completed, numbers(1005, 1005, 0))
    );
    assert_eq!(fixture.read("out2.log"), lines(1005));
}

/// What a `kill -9` leaves: the last checkpoint, and an output that went on past it.
#[tokio::test]
async fn after_a_kill_it_continues_at_the_checkpoint_and_mends_the_output() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(600));
    let state = fixture.state_dir();
    fixture.run(COPY).await;
    let checkpoint = std::fs::read(state.join("checkpoint")).unwrap();

    fixture.write("in.log", lines(2000));
    fixture.run(COPY).await;
    assert_eq!(fixture.read("out.log"), lines(2000));

    // Killed after 900 lines and half of the next had reached the disk, before their checkpoint.
    let torn = lines(900) + "line 9";
    let output = std::fs::OpenOptions::new()
        .write(true)
        .open(fixture.path("out.log"))
        .unwrap();
    output.set_len(torn.len() as u64).unwrap();
    std::fs::write(state.join("checkpoint"), checkpoint).unwrap();

    assert_eq!(
        fixture.run(COPY).await,
        (End::Completed, numbers(2000, 2000, 0))
    );
    let repeated: String = lines(2000)
        .lines()
        .skip(600)
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        fixture.read("out.log"),
        lines(900) + &repeated,
        "at least once, order kept, none glued"
    );
}

#[tokio::test]
async fn a_damaged_checkpoint_starts_over_and_says_so() {
    let fixture = Fixture::new();
    fixture.write("in.log", lines(10));
    fixture.run(COPY).await;
    std::fs::write(
        fixture.state_dir().join("checkpoint"),
        "sluice-checkpoint 1 nonsense\n{}\n",
    )
    .unwrap();
    assert_eq!(
        fixture.run(COPY).await,
        (End::Completed, numbers(10, 10, 0))
    );
    assert_eq!(fixture.read("out.log"), lines(10).repeat(2));
    assert!(fixture.logged("the checkpoint is damaged"));

    std::fs::write(
        fixture.state_dir().join("checkpoint"),
        "sluice-checkpoint 99 x\n{}\n",
    )
    .unwrap();
    let (end, _) = fixture.run(COPY).await;
    assert!(
        matches!(&end, End::Backoff { message } if message.contains("format 99")),
        "{end:?}"
    );
}

#[tokio::test]
async fn stopping_drains_and_continuing_loses_nothing() {
    let fixture = Fixture::new();
    let endless = "[input.generate]\ninterval = \"1ms\"\ntemplate = \"${seq}\"\n[[stage]]\nname = \"same\"\nplugin = \"./identity.wasm\"\n[output.file]\npath = \"out.log\"\n";
    let mut counted = 0;
    for _ in 0..3 {
        let mut started = fixture.start(fixture.plan(endless)).await;
        assert!(matches!(started.event().await, RunnerEvent::Running { .. }));
        started
            .until("records move", |counters| counters.records_out > counted)
            .await;
        started.running.stop();
        let (end, counters) = started.ended().await;
        assert_eq!(end, End::Stopped);
        assert_eq!(counters.records_in, counters.records_out);
        counted = counters.records_out;
        let expected: String = (0..counted).map(|seq| format!("{seq}\n")).collect();
        assert_eq!(
            fixture.read("out.log"),
            expected,
            "everything read was written, once"
        );
    }
}

#[tokio::test]
async fn dropping_the_handle_stops() {
    let fixture = Fixture::new();
    let plan =
        fixture.plan("[input.generate]\ninterval = \"1h\"\ntemplate = \"x\"\n[output.discard]\n");
    let Started {
        running,
        mut events,
    } = fixture.start(plan).await;
    assert!(matches!(
        events.recv().await.unwrap(),
        RunnerEvent::Running { .. }
    ));
    drop(running);
    let ended = tokio::time::timeout(PATIENCE, events.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(
            ended,
            RunnerEvent::Ended {
                end: End::Stopped,
                ..
            }
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_full_disk_acks_nothing_and_loses_nothing() {
    let fixture = Fixture::new();
    let small = fixture.path("small");
    std::fs::create_dir(&small).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(&small)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        let why =
            "skipped: mounting a small tmpfs needs root; the output's own test uses /dev/full";
        let _ = writeln!(std::io::stderr(), "{why}");
        return;
    }
    let _unmount = Unmount(small.clone());
    fixture.write("in.log", lines(20_000));
    let pipeline = "[input.file]\npath = \"in.log\"\n[output.file]\npath = \"small/out.log\"\n";
    let (end, counters) = fixture.run(pipeline).await;
    assert!(
        matches!(&end, End::Backoff { message } if message.contains("no space left") && message.contains("small/out.log")),
        "{end:?}"
    );
    let safe = counters.records_out;
    assert!(safe < 20_000);
    assert_eq!(
        stored_counters(&fixture.state_dir())
            .unwrap_or_default()
            .records_out,
        safe
    );

    let remount = std::process::Command::new("mount")
        .args(["-o", "remount,size=4m"])
        .arg(&small)
        .output();
    assert!(remount.unwrap().status.success());
    assert_eq!(
        fixture.run(pipeline).await,
        (End::Completed, numbers(20_000, 20_000, 0))
    );
    let out = fixture.read("small/out.log");
    let seen: BTreeSet<&str> = out.lines().collect();
    let all = lines(20_000);
    assert_eq!(
        seen,
        all.lines().collect(),
        "every line is there, and no half one"
    );
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).output();
    }
}

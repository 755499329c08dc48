//! The one contract that every connector passes, and what only files have to show.
//!
//! Inputs: the records come in order, in batches within their bounds; opening at the position of any batch gives exactly
//! the rest; after the last record comes `End`. Outputs: what was accepted arrives in order, `acked` never runs ahead
//! of `sync`, and after `sync` everything is acked.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_model::pipeline::{Codec, Template, TemplateScope};
use sluice_record::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};

use crate::{
    AllowedCommands, AllowedPaths, CommandError, CommandLine, Input, InputBatch, InputError,
    InputSettings, LineSink, Next, Output, OutputSettings, Position, StdinSource, StdoutTarget,
};

fn allowed(directory: &Path) -> AllowedPaths {
    AllowedPaths::new([directory.to_path_buf()]).unwrap()
}

/// As [`drain_with`], with no command allowed.
async fn drain(
    settings: &InputSettings,
    position: Option<Position>,
    allowed: &AllowedPaths,
    stdin: Option<&StdinSource>,
) -> Vec<(Vec<u8>, Option<Position>)> {
    drain_with(
        settings,
        position,
        allowed,
        &AllowedCommands::default(),
        stdin,
    )
    .await
}

/// Everything from `position` on: each record with the position behind its batch.
async fn drain_with(
    settings: &InputSettings,
    position: Option<Position>,
    allowed: &AllowedPaths,
    commands: &AllowedCommands,
    stdin: Option<&StdinSource>,
) -> Vec<(Vec<u8>, Option<Position>)> {
    let mut input = Input::open(settings.clone(), position, allowed, commands, stdin)
        .await
        .unwrap();
    let mut batch = InputBatch::default();
    let mut records = Vec::new();
    while input.next(&mut batch).await.unwrap() == Next::Batch {
        assert!(!batch.is_empty(), "a batch has something in it");
        assert!(batch.batch.len() <= BATCH_RECORDS_MAX);
        assert!(batch.batch.len() == 1 || batch.batch.data.len() <= BATCH_BYTES_MAX);
        records.extend(
            batch
                .batch
                .iter()
                .map(|record| (record.to_vec(), batch.position)),
        );
    }
    assert!(batch.is_empty(), "End comes without records");
    records
}

async fn check_input(
    settings: InputSettings,
    expected: &[Vec<u8>],
    allowed: &AllowedPaths,
    stdin: Option<&StdinSource>,
) {
    let all = drain(&settings, None, allowed, stdin).await;
    let records: Vec<_> = all.iter().map(|(record, _)| record.clone()).collect();
    assert_eq!(records, expected);
    let mut index = 0;
    while index < all.len() {
        let position = all[index].1;
        index = all.iter().rposition(|(_, at)| *at == position).unwrap() + 1;
        if position.is_some() {
            let rest = drain(&settings, position, allowed, stdin).await;
            let rest: Vec<_> = rest.into_iter().map(|(record, _)| record).collect();
            assert_eq!(rest, expected[index..], "continued behind record {index}");
        }
    }
}

fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("record {number} {}", "x".repeat(number % 3000)).into_bytes())
        .collect()
}

#[tokio::test]
async fn generate_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    for interval in [None, Some(Duration::from_micros(10))] {
        let settings = InputSettings::Generate {
            interval,
            count: Some(1000),
            template: Template::parse("n=${seq}", TemplateScope::Record).unwrap(),
        };
        assert!(settings.ends());
        let expected: Vec<_> = (0..1000)
            .map(|seq| format!("n={seq}").into_bytes())
            .collect();
        check_input(settings, &expected, &allowed(directory.path()), None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn generate_keeps_its_interval() {
    let directory = tempfile::tempdir().unwrap();
    let settings = InputSettings::Generate {
        interval: Some(Duration::from_secs(60)),
        count: None,
        template: Template::parse("${seq} ${now}", TemplateScope::Record).unwrap(),
    };
    assert!(!settings.ends());
    let mut input = Input::open(
        settings,
        None,
        &allowed(directory.path()),
        &AllowedCommands::default(),
        None,
    )
    .await
    .unwrap();
    let mut batch = InputBatch::default();
    let start = tokio::time::Instant::now();
    for seq in 0..5_u32 {
        assert_eq!(input.next(&mut batch).await.unwrap(), Next::Batch);
        assert_eq!(batch.batch.len(), 1);
        let (number, now) = std::str::from_utf8(batch.batch.record(0))
            .unwrap()
            .split_once(' ')
            .unwrap();
        assert_eq!(number, seq.to_string());
        assert!(now.parse::<jiff::Timestamp>().is_ok(), "{now}");
        assert_eq!(start.elapsed().as_secs(), 60 * u64::from(seq));
    }
}

#[tokio::test]
async fn file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = allowed(directory.path());
    let settings = InputSettings::File {
        path: "in.log".to_owned(),
    };
    for (line_end, last) in [("\n", ""), ("\n", "\n"), ("\r\n", ""), ("\r\n", "\r\n")] {
        for count in [1, 2, 255, 256, 257, 2000] {
            let records = numbered(count);
            let mut text = records.join(line_end.as_bytes());
            text.extend_from_slice(last.as_bytes());
            std::fs::write(directory.path().join("in.log"), &text).unwrap();
            check_input(settings.clone(), &records, &allowed, None).await;
        }
    }
    std::fs::write(directory.path().join("in.log"), "").unwrap();
    check_input(settings, &[], &allowed, None).await;
}

#[tokio::test]
async fn stdin_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let records = numbered(2000);
    let text = records.join(b"\r\n".as_slice());
    let stdin: StdinSource = Arc::new(move || Box::new(std::io::Cursor::new(text.clone())));
    check_input(
        InputSettings::Stdin,
        &records,
        &allowed(directory.path()),
        Some(&stdin),
    )
    .await;
    let none = Input::open(
        InputSettings::Stdin,
        None,
        &allowed(directory.path()),
        &AllowedCommands::default(),
        None,
    )
    .await;
    assert!(matches!(none, Err(InputError::NoStdin)));
}

#[tokio::test]
async fn stdin_of_a_launch_keeps_the_contract_and_goes_on_in_another_file_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let expected = numbered(1000);
    let text = expected.join(&b'\n');
    let kept = |name: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, &text).unwrap();
        InputSettings::KeptStdin { path }
    };
    let settings = kept("one");
    assert!(settings.resumes() && settings.ends());
    let nowhere = tempfile::tempdir().unwrap();
    check_input(settings.clone(), &expected, &allowed(nowhere.path()), None).await;
    // Pulled again, it is another file.
    let all = drain(&settings, None, &allowed(nowhere.path()), None).await;
    let position = all[0].1;
    let done = all.iter().filter(|(_, at)| *at == position).count();
    assert!(done < all.len());
    let rest = drain(&kept("two"), position, &allowed(nowhere.path()), None).await;
    let rest: Vec<_> = rest.into_iter().map(|(record, _)| record).collect();
    assert_eq!(rest, expected[done..]);
    std::fs::write(directory.path().join("empty"), b"").unwrap();
    let path = directory.path().join("empty");
    let empty = InputSettings::KeptStdin { path };
    assert_eq!(
        drain(&empty, None, &allowed(nowhere.path()), None).await,
        []
    );
    let path = directory.path().join("nowhere");
    let (allowed, commands) = (allowed(nowhere.path()), AllowedCommands::default());
    let settings = InputSettings::KeptStdin { path };
    let gone = Input::open(settings, None, &allowed, &commands, None);
    let error = gone.await.unwrap_err().to_string();
    assert!(error.contains("the stdin of the launch"), "{error}");
}

#[tokio::test]
async fn stdin_does_not_wait_for_a_full_batch() {
    struct Typed(std::sync::mpsc::Receiver<&'static str>);
    impl Read for Typed {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Ok(text) = self.0.recv() else {
                return Ok(0);
            };
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }
    let (keys, typed) = std::sync::mpsc::channel();
    let typed = Mutex::new(Some(Typed(typed)));
    let stdin: StdinSource = Arc::new(move || Box::new(typed.lock().unwrap().take().unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let mut input = Input::open(
        InputSettings::Stdin,
        None,
        &allowed(directory.path()),
        &AllowedCommands::default(),
        Some(&stdin),
    )
    .await
    .unwrap();
    let mut batch = InputBatch::default();
    keys.send("one\ntw").unwrap();
    assert_eq!(input.next(&mut batch).await.unwrap(), Next::Batch);
    assert_eq!(batch.batch.iter().collect::<Vec<_>>(), [b"one"]);
    keys.send("o").unwrap();
    drop(keys);
    assert_eq!(input.next(&mut batch).await.unwrap(), Next::Batch);
    assert_eq!(batch.batch.iter().collect::<Vec<_>>(), [b"two"]);
    assert_eq!(input.next(&mut batch).await.unwrap(), Next::End);
}

fn command(argv: &[&str]) -> (InputSettings, AllowedCommands) {
    let name: sluice_model::CommandName = "it".parse().unwrap();
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let line = CommandLine::new(argv).unwrap();
    let settings = InputSettings::Exec {
        command: name.clone(),
        deadline: Duration::from_secs(60),
    };
    (
        settings,
        AllowedCommands::new([(name, line)].into()).unwrap(),
    )
}

async fn open_command(argv: &[&str]) -> Result<Input, InputError> {
    let (settings, commands) = command(argv);
    let directory = tempfile::tempdir().unwrap();
    Input::open(settings, None, &allowed(directory.path()), &commands, None).await
}

/// What a command comes to when it is not well.
async fn command_error(argv: &[&str]) -> String {
    let mut batch = InputBatch::default();
    match open_command(argv).await {
        Err(error) => error.to_string(),
        Ok(mut input) => loop {
            match input.next(&mut batch).await {
                Ok(Next::Batch) => {}
                Ok(Next::End) => panic!("{argv:?} ended well"),
                Err(error) => break error.to_string(),
            }
        },
    }
}

#[tokio::test]
async fn exec_gives_the_lines_of_a_command_with_a_clean_environment_and_no_shell() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = allowed(directory.path());
    for count in [0, 1, 257, 5000] {
        let (settings, commands) = command(&["/usr/bin/seq", "-f", "n %g", &count.to_string()]);
        assert!(settings.ends());
        let records = drain_with(&settings, None, &allowed, &commands, None).await;
        assert!(records.iter().all(|(_, position)| position.is_none()));
        let records: Vec<_> = records.into_iter().map(|(record, _)| record).collect();
        let expected = (1..=count).map(|number| format!("n {number}").into_bytes());
        assert_eq!(records, expected.collect::<Vec<_>>());
    }
    for (argv, expected) in [
        (
            &["/usr/bin/env"] as &[&str],
            "LC_ALL=C|PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        ),
        (&["/bin/echo", "$HOME; id"], "$HOME; id"),
        (&["/bin/pwd"], "/"),
        (&["/bin/cat"], ""),
    ] {
        let (settings, commands) = command(argv);
        let records = drain_with(&settings, None, &allowed, &commands, None).await;
        let mut lines: Vec<_> = records
            .into_iter()
            .map(|(record, _)| String::from_utf8(record).unwrap())
            .collect();
        lines.sort_unstable();
        assert_eq!(lines.join("|"), expected, "{argv:?}");
    }
}

#[tokio::test]
async fn exec_says_what_went_wrong_and_what_the_command_said() {
    let not_there = command_error(&["/nonexistent/nvidia-smi"]).await;
    assert!(
        not_there.contains("there is no program /nonexistent/nvidia-smi on this machine"),
        "{not_there}"
    );
    let script = "echo out; echo 'one' >&2; echo 'No devices were found' >&2; exit 6";
    let failed = command_error(&["/bin/sh", "-c", script]).await;
    assert_eq!(
        failed,
        "the command `it` (/bin/sh) ended with exit code 6; its last words: one / No devices were found"
    );
    let killed = command_error(&["/bin/sh", "-c", "kill -9 $$"]).await;
    assert!(killed.ends_with("was ended by signal 9"), "{killed}");
    let not_run = command_error(&["/etc/passwd"]).await;
    assert!(not_run.contains("cannot start /etc/passwd"), "{not_run}");
}

#[tokio::test]
async fn exec_runs_nothing_that_is_not_listed() {
    let (settings, _) = command(&["/bin/echo"]);
    let directory = tempfile::tempdir().unwrap();
    let none = AllowedCommands::default();
    let error = Input::open(settings, None, &allowed(directory.path()), &none, None)
        .await
        .unwrap_err();
    assert!(matches!(
        &error,
        InputError::Command(CommandError::NotListed { .. })
    ));
    assert!(error.to_string().contains("--allow-command"), "{error}");
}

#[tokio::test]
async fn a_command_that_is_late_or_not_wanted_any_more_is_killed_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    // A child that holds a lock for as long as it lives, and a parent that waits for it.
    let fifo = directory.path().join("alive");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let script = format!(
        "(exec 3>{0}; echo started; sleep 1000) & wait",
        fifo.display()
    );
    for late in [false, true] {
        let (settings, commands) = command(&["/bin/sh", "-c", &script]);
        let InputSettings::Exec { command, .. } = settings else {
            unreachable!()
        };
        let deadline = Duration::from_secs(if late { 1 } else { 600 });
        let settings = InputSettings::Exec { command, deadline };
        let mut input = Input::open(settings, None, &allowed(directory.path()), &commands, None)
            .await
            .unwrap();
        let reader = fifo.clone();
        // Opens when the child has, and reads its end when no process of the group holds it.
        let gone = tokio::task::spawn_blocking(move || std::fs::read(reader).unwrap());
        let mut batch = InputBatch::default();
        assert_eq!(input.next(&mut batch).await.unwrap(), Next::Batch);
        if late {
            let error = input.next(&mut batch).await.unwrap_err().to_string();
            assert!(error.contains("had not ended after 1s"), "{error}");
        }
        drop(input);
        let read = tokio::time::timeout(Duration::from_secs(60), gone).await;
        assert_eq!(read.unwrap().unwrap(), b"");
    }
}

#[tokio::test]
async fn a_silent_command_is_killed_at_its_deadline_though_nobody_takes_records() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("alive");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let script = format!("exec 3>{0}; exec sleep 1000", fifo.display());
    let (settings, commands) = command(&["/bin/sh", "-c", &script]);
    let InputSettings::Exec { command, .. } = settings else {
        unreachable!()
    };
    let deadline = Duration::from_secs(1);
    let settings = InputSettings::Exec { command, deadline };
    let mut input = Input::open(settings, None, &allowed(directory.path()), &commands, None)
        .await
        .unwrap();
    let gone = tokio::task::spawn_blocking(move || std::fs::read(fifo).unwrap());
    let read = tokio::time::timeout(Duration::from_secs(60), gone).await;
    assert_eq!(read.unwrap().unwrap(), b"");
    let error = input.next(&mut InputBatch::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("had not ended after 1s"),
        "{error}"
    );
}

#[tokio::test]
async fn another_file_under_the_same_name_starts_over() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = allowed(directory.path());
    let path = directory.path().join("in.log");
    let settings = InputSettings::File {
        path: "in.log".to_owned(),
    };
    let read = async |position| {
        let records = drain(&settings, position, &allowed, None).await;
        let Some(Position::File(last)) = records.last().and_then(|(_, position)| *position) else {
            return (String::new(), 0, None);
        };
        let text: Vec<_> = records
            .iter()
            .map(|(record, _)| String::from_utf8_lossy(record))
            .collect();
        (text.join(","), last.epoch, Some(Position::File(last)))
    };

    std::fs::write(&path, "one\ntwo\n").unwrap();
    let (text, epoch, position) = read(None).await;
    assert_eq!((text.as_str(), epoch), ("one,two", 0));

    let grown = "one\ntwo\nthree\n".to_owned() + &"x".repeat(2000) + "\n";
    std::fs::write(&path, &grown).unwrap();
    let (text, epoch, grown_position) = read(position).await;
    assert_eq!(
        (&text[..5], epoch),
        ("three", 0),
        "the same file, grown past the fingerprint"
    );
    assert_eq!(read(grown_position).await.0, "", "nothing new");

    std::fs::write(&path, "one\n").unwrap();
    assert_eq!(read(position).await.1, 1, "shorter than the offset");

    std::fs::write(&path, "ONE\ntwo\nthree\n").unwrap();
    let (text, epoch, _) = read(position).await;
    assert_eq!(
        (text.as_str(), epoch),
        ("ONE,two,three", 1),
        "another start"
    );

    std::fs::write(directory.path().join("other"), "one\ntwo\nthree\n").unwrap();
    std::fs::rename(directory.path().join("other"), &path).unwrap();
    assert_eq!(read(position).await.1, 1, "another inode");
}

#[tokio::test]
async fn a_missing_input_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let settings = InputSettings::File {
        path: "logs/in.log".to_owned(),
    };
    let error = Input::open(
        settings,
        None,
        &allowed(directory.path()),
        &AllowedCommands::default(),
        None,
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("logs/in.log"), "{error}");
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[derive(Default)]
struct Collected(Mutex<Vec<u8>>);

impl LineSink for Collected {
    fn records(&self, records: &mut dyn Iterator<Item = &[u8]>) {
        let mut all = self.0.lock().unwrap();
        for record in records {
            all.extend_from_slice(record);
            all.push(b'\n');
        }
    }
}

struct Shared(Arc<Collected>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(1000);
        self.0.0.lock().unwrap().extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn check_output(mut output: Output, written: impl Fn() -> Option<Vec<u8>>) {
    let records = numbered(2000);
    let mut batches = 0;
    for some in records.chunks(256) {
        output.write(some.iter().map(Vec::as_slice)).await.unwrap();
        batches += 1;
        assert!(
            output.acked() <= batches,
            "nothing is acked before it was accepted"
        );
    }
    output.write(std::iter::empty()).await.unwrap();
    batches += 1;
    output.settle().await.unwrap();
    assert!(
        output.acked() == batches || output.sync_at().is_some(),
        "what waits for its ack has a time"
    );
    output.sync().await.unwrap();
    assert_eq!(output.acked(), batches);
    assert_eq!(output.sync_at(), None);
    if let Some(written) = written() {
        let expected: Vec<u8> = records
            .iter()
            .flat_map(|record| [record.as_slice(), b"\n"].concat())
            .collect();
        assert!(
            written == expected,
            "every record arrives, whole and in order"
        );
    }
}

#[tokio::test]
async fn outputs_keep_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = allowed(directory.path());
    let collected = Arc::new(Collected::default());
    let logged = Arc::new(Collected::default());
    let stream: StdoutTarget = {
        let collected = Arc::clone(&collected);
        StdoutTarget::Stream(Arc::new(move || Box::new(Shared(Arc::clone(&collected)))))
    };
    let log = StdoutTarget::Log(Arc::clone(&logged) as Arc<dyn LineSink>);
    let stdout = OutputSettings::Stdout {
        codec: Codec::Lines,
    };
    let file = OutputSettings::File {
        path: "new/deep/out.log".to_owned(),
        codec: Codec::Lines,
    };

    let open = async |settings, target| {
        Output::open(settings, None, &allowed, target)
            .await
            .unwrap()
    };
    check_output(open(stdout.clone(), &stream).await, || {
        Some(collected.0.lock().unwrap().clone())
    })
    .await;
    check_output(open(stdout.clone(), &log).await, || {
        Some(logged.0.lock().unwrap().clone())
    })
    .await;
    let told = Arc::new(Collected::default());
    let path = directory.path().join("output");
    let kept = StdoutTarget::Kept {
        path: path.clone(),
        bytes_max: 16 << 20,
        log: Arc::clone(&told) as Arc<dyn LineSink>,
    };
    check_output(open(stdout, &kept).await, || {
        Some(std::fs::read(&path).unwrap())
    })
    .await;
    let told = told.0.lock().unwrap().clone();
    assert_eq!(told, std::fs::read(&path).unwrap(), "the log hears it, too");
    check_output(open(OutputSettings::Discard, &log).await, || None).await;
    let path = directory.path().join("new/deep/out.log");
    check_output(open(file, &log).await, || {
        Some(std::fs::read(&path).unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_closed_stdout_is_told_apart() {
    struct Broken;
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let target = StdoutTarget::Stream(Arc::new(|| Box::new(Broken)));
    let settings = OutputSettings::Stdout {
        codec: Codec::Lines,
    };
    let mut output = Output::open(settings, None, &allowed(directory.path()), &target)
        .await
        .unwrap();
    output.write([b"x".as_slice()].into_iter()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(
            output.sync().await,
            Err(crate::OutputError::Closed { .. })
        ));
    }
    assert_eq!(output.acked(), 0);
}

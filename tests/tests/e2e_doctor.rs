//! `sluice doctor` on directories of real programs: whole ones, and each thing broken on purpose.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sluice_edge_runtime::store::{Meta, Store};
use sluice_tests::e2e::{Cluster, ClusterOptions, SmallDisk, wait};

/// Enough for an edge without work, and less than a healthy disk has free.
const DISK_BYTES: u64 = 48 * 1024 * 1024;

/// What the doctor says: its exit code and its checks.
struct Said {
    code: i32,
    checks: Vec<Value>,
    side: String,
}

impl Said {
    fn of(cluster: &Cluster, dir: &Path) -> Self {
        let dir = dir.to_str().unwrap();
        let ran = cluster.sluice(&["doctor", "--state-dir", dir, "--output", "json"]);
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        Self {
            code: ran.code,
            checks: said["checks"].as_array().unwrap().clone(),
            side: said["side"].as_str().unwrap().to_owned(),
        }
    }

    /// The worst of a check's findings, and that it says how to mend it.
    #[track_caller]
    fn finds(&self, check: &str, verdict: &str, seen: &str, mend: &str) {
        let fits = |finding: &&Value| {
            let has =
                |key: &str, part: &str| finding[key].as_str().unwrap_or_default().contains(part);
            finding["check"] == check
                && finding["verdict"] == verdict
                && has("seen", seen)
                && has("mend", mend)
        };
        assert!(
            self.checks.iter().any(|finding| fits(&finding)),
            "no {check} {verdict} {seen:?} {mend:?} in {:#?}",
            self.checks
        );
        assert_eq!(self.code, i32::from(self.failed()));
    }

    fn failed(&self) -> bool {
        self.checks
            .iter()
            .any(|finding| finding["verdict"] == "fail")
    }

    #[track_caller]
    fn is_well(&self, side: &str) {
        assert_eq!(self.side, side);
        assert_eq!(self.code, 0, "{:#?}", self.checks);
        let has_mend =
            |finding: &&Value| finding["verdict"] != "ok" && finding["check"] != "disk-space";
        let ill: Vec<_> = self.checks.iter().filter(has_mend).collect();
        assert!(ill.is_empty(), "{ill:#?}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Overwrites what follows the first page, so that the file still looks like a store.
fn damage(path: &Path) {
    // A killed program leaves what it wrote in the log beside the store: bring it in first.
    let store = rusqlite::Connection::open(path).unwrap();
    store
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(store);
    let mut bytes = fs::read(path).unwrap();
    assert!(bytes.len() > 3 * 4096);
    bytes[4096..3 * 4096].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_orchestrators_directory_is_well_while_it_runs_and_after_it_was_killed() {
    let mut cluster = Cluster::start(&["e1"]);
    let dir = cluster.orchestrator_dir();
    let said = Said::of(&cluster, &dir);
    said.is_well("orchestrator");
    said.finds("directory", "ok", "in use by process", "");
    said.finds("port-edges", "ok", "is open", "");
    // It works on as if nobody had looked.
    assert_eq!(cluster.sluice(&["status"]).code, 0);
    cluster.kill_orchestrator();
    let said = Said::of(&cluster, &dir);
    said.is_well("orchestrator");
    said.finds("directory", "ok", "not in use", "");
    said.finds("port-api", "ok", "free for the next start", "");
    assert!(!dir.join("doctor.tmp").exists());
    cluster.start_orchestrator();
}

#[test]
fn what_is_broken_in_an_orchestrators_directory_is_named_with_the_way_out() {
    let mut cluster = Cluster::start(&[]);
    let dir = cluster.orchestrator_dir();
    let port = cluster.edge_address().port();
    let text = "name = \"steady\"\n[input.generate]\ninterval = \"1s\"\ntemplate = \"x\"\n[output.discard]\n";
    assert_eq!(cluster.try_deploy(text).code, 0);
    cluster.kill_orchestrator();

    let taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    Said::of(&cluster, &dir).finds("port-edges", "fail", "another program has UDP", "ss -lntup");
    drop(taken);

    set_mode(&dir, 0o755);
    set_mode(&dir.join("operator.toml"), 0o644);
    let said = Said::of(&cluster, &dir);
    said.finds("directory", "warn", "others may look", "chmod 700");
    said.finds("secrets", "warn", "operator.toml", "chmod 600");
    assert_eq!(said.code, 0, "a warning is no failure");
    set_mode(&dir, 0o700);

    let authority = fs::read_to_string(dir.join("authority.pem")).unwrap();
    fs::write(dir.join("authority.pem"), &authority[..authority.len() / 2]).unwrap();
    Said::of(&cluster, &dir).finds("certificate", "fail", "authority.pem", "from a backup");
    fs::remove_file(dir.join("authority.pem")).unwrap();
    Said::of(&cluster, &dir).finds("certificate", "fail", "is not there", "from a backup");
    fs::write(dir.join("listen.toml"), "edges = = 1").unwrap();
    Said::of(&cluster, &dir).finds("ports", "fail", "listen.toml cannot be read", "remove it");

    // A disk that gives back another text: SQLite finds nothing wrong with it.
    let store = rusqlite::Connection::open(dir.join("orchestrator.db")).unwrap();
    let flipped = "UPDATE spec SET bytes = zeroblob(length(bytes))";
    assert_eq!(store.execute(flipped, []).unwrap(), 1);
    drop(store);
    let said = Said::of(&cluster, &dir);
    said.finds("store", "ok", "is whole", "");
    let seen = "1 of 1 kept pipelines (steady version 1) are not what was written: the next start refuses it";
    said.finds("content", "fail", seen, "put a backup");
    let ran = cluster.run(&mut cluster.orchestrator_command());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("(steady version 1) are not what was written"),
        "{ran:?}"
    );

    damage(&dir.join("orchestrator.db"));
    Said::of(&cluster, &dir).finds("store", "fail", "orchestrator.db", "put a backup");
    fs::write(dir.join("orchestrator.db"), "no store at all").unwrap();
    Said::of(&cluster, &dir).finds("store", "fail", "orchestrator.db", "put a backup");
    fs::remove_file(dir.join("orchestrator.db")).unwrap();
    Said::of(&cluster, &dir).finds("store", "fail", "is not there", "put a backup");
}

#[test]
fn an_edges_directory_is_well_while_it_runs_and_its_orchestrator_is_missed() {
    let mut cluster = Cluster::start(&["e1"]);
    let dir = cluster.edge_state("e1");
    let said = Said::of(&cluster, &dir);
    said.is_well("edge");
    said.finds("directory", "ok", "in use by process", "");
    said.finds("orchestrator", "ok", "it answered", "");
    said.finds("certificate", "ok", "its key matches", "");
    let opened = cluster.edge_log("e1").events("session.open").len();
    assert_eq!(opened, 1, "the look took no session away");
    cluster.kill_edge("e1");
    Said::of(&cluster, &dir).is_well("edge");
    cluster.kill_orchestrator();
    Said::of(&cluster, &dir).finds(
        "orchestrator",
        "fail",
        "127.0.0.1:",
        "UDP to that address is let through",
    );
}

#[test]
fn what_is_broken_in_an_edges_directory_is_named_with_the_way_out() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    let dir = cluster.edge_state("e1");
    cluster.kill_edge("e1");
    cluster.kill_edge("e2");

    let options = fs::read_to_string(dir.join("edge.toml")).unwrap();
    fs::write(dir.join("edge.toml"), format!("naem = 1\n{options}")).unwrap();
    Said::of(&cluster, &dir).finds(
        "options",
        "fail",
        "line 1: unknown key `naem`",
        "correct that line",
    );
    // Gone altogether: what to write is said by the doctor and by a start, with the node's name.
    fs::remove_file(dir.join("edge.toml")).unwrap();
    let lines = "`name = \"e1\"` and `orchestrator = [";
    Said::of(&cluster, &dir).finds("options", "fail", "edge.toml is not there", lines);
    let mut start = cluster.edge_command_in(&dir);
    cluster.run(&mut start).fails(2, &[lines]);
    fs::write(dir.join("edge.toml"), &options).unwrap();

    let files = cluster.root().join("e1/files");
    fs::rename(&files, cluster.root().join("e1/away")).unwrap();
    Said::of(&cluster, &dir).finds("allow-path", "fail", "files cannot be used", "make ");

    // The certificate of another edge under the key of this one.
    let identity = fs::read_to_string(dir.join("identity.pem")).unwrap();
    let other = fs::read_to_string(cluster.edge_state("e2").join("identity.pem")).unwrap();
    let block = |text: &str, nth: usize| -> String {
        let whole: Vec<String> = pem::parse_many(text)
            .unwrap()
            .iter()
            .map(pem::encode)
            .collect();
        whole[nth].clone()
    };
    let mixed = [block(&identity, 0), block(&other, 1), block(&identity, 2)].concat();
    fs::write(dir.join("identity.pem"), mixed).unwrap();
    Said::of(&cluster, &dir).finds(
        "certificate",
        "fail",
        "another key",
        "sluice token create --node",
    );
    fs::remove_file(dir.join("identity.pem")).unwrap();
    Said::of(&cluster, &dir).finds("certificate", "fail", "has not joined", "--join TOKEN");

    damage(&dir.join("edge.db"));
    Said::of(&cluster, &dir).finds("store", "fail", "edge.db", "move edge.db");
    let away = Said::of(&cluster, &cluster.root().join("nowhere"));
    away.finds("directory", "fail", "is not there", "--state-dir");
    let empty = cluster.root().join("empty");
    fs::create_dir(&empty).unwrap();
    Said::of(&cluster, &empty).finds(
        "side",
        "fail",
        "nothing of an orchestrator or an edge",
        "--state-dir",
    );
}

#[test]
fn a_clock_that_stands_before_what_the_orchestrator_told_is_named() {
    let mut cluster = Cluster::start(&["e1"]);
    let dir = cluster.edge_state("e1");
    cluster.kill_edge("e1");
    let mut store = Store::open(&dir.join("edge.db")).unwrap();
    let told = store.meta().unwrap();
    assert!(told.server_time.0 > 0, "it was told the time");
    let ahead = Meta {
        server_time: told.server_time.plus(Duration::from_secs(60 * 60)),
        ..told.clone()
    };
    store.put_meta(&told, &ahead).unwrap();
    drop(store);
    let seen = "s before the last time that the orchestrator told";
    Said::of(&cluster, &dir).finds("clock", "fail", seen, "set the clock");
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must not look like one that ran"
)]
fn a_disk_with_little_room_is_named() {
    let mut cluster = Cluster::start(&[]);
    let disk = match SmallDisk::mount(&cluster.root().join("disk"), DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("SKIPPED a_disk_with_little_room_is_named: {why}");
            return;
        }
    };
    cluster.place_edge_state("e1", &disk.path().join("state"));
    cluster.join(&["e1"]);
    let said = Said::of(&cluster, &cluster.edge_state("e1"));
    said.finds(
        "disk-space",
        "fail",
        "MiB are free",
        "make room on the disk",
    );
    cluster.kill_edge("e1");
}

#[test]
fn a_certificate_that_is_due_is_a_warning_and_one_that_ended_a_failure() {
    let options = ClusterOptions {
        certificate_life: Some(Duration::from_secs(5)),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &["e1"]);
    let dir = cluster.edge_state("e1");
    cluster.kill_edge("e1");
    wait::until("the certificate to be over", || {
        let said = Said::of(&cluster, &dir);
        wait::check(said.failed(), || format!("{:?}", said.checks))
    });
    Said::of(&cluster, &dir).finds("certificate", "fail", "it ended", "renews by itself");
    // Away with the clock's own store: what the certificate says is enough.
    cluster.start_edge("e1");
    wait::until("the certificate to be renewed", || {
        let said = Said::of(&cluster, &dir);
        wait::check(!said.failed(), || format!("{:?}", said.checks))
    });
}

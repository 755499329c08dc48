//! What a token of the API opens, what its end closes, and what is written of it; with the real program.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use sluice_api::{AuditEntry, ErrorCode, Run, StdinInfo, TokenCreated, routes};
use sluice_model::{Role, RunState};
use sluice_tests::e2e::{Api, Cluster, Ran, Refusal, wait};

const JOB: &str = "name = \"slow\"\nkind = \"batch\"\n[input.generate]\ncount = 100000\ninterval = \"100ms\"\ntemplate = \"x\"\n[output.discard]\n";

/// A token for a role, and a context with which it is used.
fn context(cluster: &Cluster, role: Role) -> (TokenCreated, PathBuf) {
    let name = format!("a-{role}");
    let created: TokenCreated = cluster
        .sluice(&[
            "token",
            "create",
            "--role",
            role.as_str(),
            "--name",
            &name,
            "--output",
            "json",
        ])
        .json();
    let own = std::fs::read_to_string(cluster.context_file()).unwrap();
    let line = |line: &str| match line.starts_with("token = ") {
        true => format!("token = \"{}\"", created.token),
        false => line.to_owned(),
    };
    let text: Vec<String> = own.lines().map(line).collect();
    let file = cluster.root().join(format!("{role}.toml"));
    std::fs::write(&file, text.join("\n")).unwrap();
    (created, file)
}

fn with(cluster: &Cluster, context: &PathBuf, args: &[&str]) -> Ran {
    let mut command = cluster.sluice_command(args);
    command.env("SLUICE_CONTEXT", context);
    cluster.run(&mut command)
}

#[test]
fn a_token_does_what_its_role_may_until_it_is_revoked_and_the_audit_log_names_it() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.try_deploy(JOB).json::<serde_json::Value>();
    let (reader, reads) = context(&cluster, Role::Reader);
    let (deployer, deploys) = context(&cluster, Role::Deployer);

    assert_eq!(with(&cluster, &reads, &["job", "list"]).code, 0);
    let refused = with(&cluster, &reads, &["run", "launch", "slow"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("reader"), "{refused:?}");
    let refused = with(&cluster, &deploys, &["node", "revoke", "e1"]);
    assert_ne!(refused.code, 0);
    let runs: Vec<Run> = cluster.sluice(&["run", "list", "--output", "json"]).json();
    assert!(runs.is_empty(), "{runs:?}");

    let launched = with(&cluster, &deploys, &["run", "launch", "slow", "--wait=1s"]);
    assert_eq!(launched.code, 5, "{launched:?}");
    let id = launched.stdout.trim().to_owned();
    let run = || -> Run {
        cluster
            .sluice(&["run", "describe", &id, "--output", "json"])
            .json()
    };
    assert_eq!(with(&cluster, &deploys, &["run", "cancel", &id]).code, 0);
    wait::until("the run to be called off", || {
        let run = run();
        wait::check(run.state == RunState::Cancelled, || format!("{run:?}"))
    });
    // One that does not complete ends its wait with 1.
    let mut waits = cluster.sluice_command(&["run", "launch", "slow", "--wait=60s"]);
    waits.env("SLUICE_CONTEXT", &deploys);
    let waits = std::thread::spawn(move || waits.output().unwrap());
    let second = wait::until("the second run to be there", || {
        let runs: Vec<Run> = cluster.sluice(&["run", "list", "--output", "json"]).json();
        let open = runs.into_iter().find(|run| run.id.to_string() != id);
        open.ok_or_else(|| "there is one run".to_owned())
    });
    let second = second.id.to_string();
    assert_eq!(
        with(&cluster, &deploys, &["run", "cancel", &second]).code,
        0
    );
    assert_eq!(waits.join().unwrap().status.code(), Some(1));

    cluster.sluice(&["token", "revoke", &deployer.id.to_string()]);
    let refused = with(&cluster, &deploys, &["job", "list"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("does not accept the token"),
        "{refused:?}"
    );
    assert_eq!(with(&cluster, &reads, &["job", "list"]).code, 0);

    let log: Vec<AuditEntry> = cluster.sluice(&["audit", "--output", "json"]).json();
    let of = |token: &TokenCreated| -> Vec<(&str, &str)> {
        let id = token.id.to_string();
        log.iter()
            .filter(|entry| entry.token == id)
            .map(|entry| (entry.operation.as_str(), entry.outcome.as_str()))
            .collect()
    };
    assert_eq!(of(&reader), [("run.launch", "forbidden")]);
    assert_eq!(
        of(&deployer),
        [
            ("run.cancel", "done"),
            ("run.launch", "done"),
            ("run.cancel", "done"),
            ("run.launch", "done"),
            ("node.revoke", "forbidden"),
        ]
    );
    let launch = log
        .iter()
        .find(|entry| entry.operation == "run.launch" && entry.outcome == "done");
    let made = launch.unwrap().message.as_deref().unwrap();
    assert!(made.contains(&second) && made.contains("slow"), "{made}");
    let made = log.iter().filter(|entry| entry.operation == "token.create");
    let made: Vec<&str> = made.filter_map(|entry| entry.message.as_deref()).collect();
    assert!(
        made.iter()
            .any(|it| it.contains(&deployer.id.to_string()) && it.contains("deployer")),
        "{made:?}"
    );
}

#[test]
fn a_refused_upload_gets_its_whole_answer_over_tls_however_often() {
    let cluster = Cluster::start(&[]);
    let (_, reads) = context(&cluster, Role::Reader);
    let api = Api::open(&reads);
    let bytes = vec![7; 6 << 20];
    let digest = sluice_model::Digest::of(&bytes).to_string();
    let path = routes::fill(routes::STDIN, &[&digest]);
    for nth in 0..60 {
        match api.put::<StdinInfo>(&path, bytes.clone()) {
            Err(Refusal::Refused(403, body)) => assert_eq!(body.code, ErrorCode::Forbidden),
            other => panic!("answer {nth}: {other:?}"),
        }
    }
}

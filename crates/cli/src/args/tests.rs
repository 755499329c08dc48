//! Command lines that are right and that are wrong.

#![allow(clippy::unwrap_used)]

use clap::CommandFactory as _;

use super::*;

fn parsed(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace())
}

#[test]
fn every_command_of_this_version_parses() {
    Args::command().debug_assert();
    for line in [
        "sluice dev p.toml",
        "sluice dev p.toml --state-dir d --log json",
        "sluice orchestrator --state-dir d",
        "sluice orchestrator --state-dir d --listen 127.0.0.1:0 --api [::1]:0 --advertise a:1 --advertise b:2 \
         --heartbeat 200ms --lost-after 2s --certificate-life 30d --log json",
        "sluice edge --state-dir d --name e1 --join @t --label a=b --label c=d --allow-path x --allow-path y",
        "sluice edge --state-dir d",
        "sluice token create",
        "sluice token create --ttl 90m --uses 0 --node e1 --rejoin",
        "sluice token create --role reader",
        "sluice token create --role deployer --name ci --ttl 90d",
        "sluice audit --limit 1000",
        "sluice audit --operation job.deploy --token operator.toml --outcome refused --since 24h --until 1h",
        "sluice audit --since 2026-11-01T00:00:00Z",
        "sluice token list --output json",
        "sluice token list --kind api --role reader --state used-up",
        "sluice token list --all",
        "sluice token describe 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11",
        "sluice token revoke 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11",
        "sluice deploy p.toml",
        "sluice deploy p.toml --if-version 3",
        "sluice deploy p.toml --wait",
        "sluice deploy p.toml --wait=1s",
        "sluice deploy --dry-run p.toml",
        "sluice status --output json --quiet",
        "sluice job list",
        "sluice job describe a --context c.toml",
        "sluice job start a",
        "sluice job stop a",
        "sluice job restart a",
        "sluice job history a",
        "sluice job rollback a",
        "sluice job rollback a --to 3",
        "sluice job delete a --yes",
        "sluice rollout status a --output json",
        "sluice rollout pause a",
        "sluice rollout resume a",
        "sluice rollout promote a",
        "sluice rollout abort a",
        "sluice schedule create s --job a --every 1h",
        "sluice schedule create s --job a --cron @daily --tz Europe/Berlin --overlap cancel-previous --catch-up skip \
         --jitter 10m --param a=b --param c=d --node e1",
        "sluice schedule list --job a --output json",
        "sluice schedule describe s",
        "sluice schedule history s --limit 1000",
        "sluice schedule pause s",
        "sluice schedule resume s",
        "sluice schedule delete s --yes",
        "sluice execution list --job a --node e1 --all",
        "sluice execution describe a/e1",
        "sluice node list",
        "sluice node describe e1",
        "sluice node label e1 a=b c- d=",
        "sluice node cordon e1",
        "sluice node uncordon e1",
        "sluice node drain e1",
        "sluice node drain e1 --deadline 30s",
        "sluice node revoke e1 --yes",
        "sluice node delete e1",
        "sluice explain a",
        "sluice logs a --tail 5 --node e1",
        "sluice logs --run 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --follow",
        "sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --task a/e1 --wait=1s",
        "sluice orchestrator --state-dir d --keep-outputs 7d --outputs-max 500MiB",
        "sluice plugin list",
        "sluice plugin list --job a --unused",
        "sluice plugin describe sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sluice plugin inspect a.wasm",
        "sluice pipeline validate p.toml",
        "sluice pipeline schema",
        "sluice pipeline run p.toml",
        "sluice pipeline run p.toml --param a=b --param c=d=e",
        "sluice dev p.toml --param a=b",
        "sluice run launch a --stdin app.log --wait",
        "sluice run launch a b --stdin -",
        "sluice completions bash",
        "sluice --output json --context c.toml status",
    ] {
        if let Err(error) = parsed(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_is_wrong_is_usage_and_says_what_would_be_right() {
    for (line, says) in [
        ("sluice", "Usage"),
        ("sluice jobs", "unrecognized subcommand"),
        ("sluice node label e1", "K=V"),
        ("sluice node label e1 site", "write K=V to set a label"),
        ("sluice node label e1 =x", "must have 1 to 63"),
        ("sluice node label e1 a=b=c", "may have only letters"),
        ("sluice job histories a", "unrecognized subcommand"),
        ("sluice node banish e1", "unrecognized subcommand"),
        ("sluice run launch", "JOB"),
        ("sluice dev p --param a", "NAME=VALUE"),
        ("sluice pipeline run p --param =a", "NAME=VALUE"),
        ("sluice schedule create a", "--cron <EXPRESSION>|--every"),
        ("sluice plugin new a", "unrecognized subcommand"),
        ("sluice plugin describe a.wasm", "invalid value"),
        ("sluice audit --since yesterday", "how long ago"),
        ("sluice token list --state gone", "one of valid"),
        ("sluice token list --kind edge", "one of join"),
        ("sluice token steal", "unrecognized subcommand"),
        ("sluice token revoke", "ID"),
        ("sluice token revoke e1", "invalid value"),
        ("sluice node delete", "NODE"),
        ("sluice job describe", "JOB"),
        ("sluice job describe Not_A_Name", "a-z, 0-9"),
        ("sluice deploy", "PIPELINE"),
        ("sluice deploy p --wait=soon", "is not a duration"),
        ("sluice deploy p --wait=0s", "more than 0"),
        ("sluice deploy p --wait --dry-run", "cannot be used with"),
        ("sluice deploy p --wait 1s", "unexpected argument"),
        (
            "sluice status --output yaml",
            "possible values: table, json",
        ),
        ("sluice orchestrator", "--state-dir"),
        (
            "sluice orchestrator --state-dir d --listen nowhere",
            "invalid socket address",
        ),
        (
            "sluice orchestrator --state-dir d --heartbeat 5",
            "is not a duration",
        ),
        ("sluice edge --name e1", "--state-dir"),
        ("sluice token create --uses -1", "unexpected argument"),
        ("sluice token create --role owner", "one of reader"),
        (
            "sluice token create --role reader --node e1",
            "cannot be used",
        ),
        ("sluice token create --name ci", "--role"),
        ("sluice token create --ttl 1y", "is not a duration"),
        ("sluice logs a --tail 10001", "10001"),
        ("sluice logs", "JOB"),
        (
            "sluice logs a --run 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11",
            "--run",
        ),
        (
            "sluice run output 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11 --task a",
            "JOB/NODE",
        ),
        (
            "sluice orchestrator --state-dir d --outputs-max 5",
            "is not a size",
        ),
        ("sluice logs a --follow --since 5", "is not a duration"),
        ("sluice logs a --stage A_b", "--stage"),
        ("sluice completions tcsh", "possible values"),
    ] {
        let error = parsed(line).unwrap_err();
        assert!(error.use_stderr() && error.exit_code() == 2, "{line}");
        let text = error.to_string();
        assert!(text.contains(says), "{line}: {text}");
    }
}

#[test]
fn wait_has_a_default_and_takes_a_duration_after_an_equals_sign() {
    let wait = |line| match parsed(line).unwrap().command {
        Command::Deploy(args) => args.wait,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait("sluice deploy p"), None);
    assert_eq!(
        wait("sluice deploy p --wait"),
        Some(Duration::from_secs(120))
    );
    assert_eq!(
        wait("sluice deploy --wait p"),
        Some(Duration::from_secs(120))
    );
    assert_eq!(
        wait("sluice deploy p --wait=90s"),
        Some(Duration::from_secs(90))
    );
}

#[test]
fn every_command_shows_examples() {
    fn leaves(command: &clap::Command, path: &str, without: &mut Vec<String>) {
        let mut is_leaf = true;
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            is_leaf = false;
            leaves(sub, &format!("{path} {}", sub.get_name()), without);
        }
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        if is_leaf
            && !help.contains(&format!("{path} "))
            && !help.contains(&format!("{path}\n"))
            && !help.ends_with(path)
        {
            without.push(path.to_owned());
        }
    }
    let mut without = Vec::new();
    leaves(&Args::command(), "sluice", &mut without);
    assert_eq!(
        without, [""; 0],
        "commands without an example of themselves"
    );
}

//! The plugins that report, on real logs and by real programs; what they say is confirmed by `grep`, `awk`, `sort` and `uniq`.
//!
//! The sample logs are not part of the project: SLUICE_SAMPLE_LOGS names their folder, and without it those tests say that
//! they were skipped.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_tests::e2e::pipelines::plugin;
use sluice_tests::e2e::sluice_program;

/// The folder of sample logs, if the machine has them.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must not look like one that ran"
)]
fn sample_logs(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICE_SAMPLE_LOGS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        eprintln!("SKIPPED {test}: SLUICE_SAMPLE_LOGS does not name a folder of sample logs");
    }
    folder.map(PathBuf::from)
}

/// What a shell prints, without the line's end.
fn shell(script: &str, dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn same(what: &str, found: &Value, script: &str, dir: &Path) {
    let expected = shell(script, dir);
    let found = match found {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    assert_eq!(found, expected, "{what}: {script}");
}

/// Runs the plugin over a file with the whole program, and gives the report.
fn report(component: &str, config: &str, logs: &Path, file: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(logs.join(file), dir.path().join("in.log")).unwrap();
    let input = "[input.file]\npath = \"in.log\"\n";
    report_of(component, config, input, dir.path(), &[])
}

/// The same over any input of 2,000 records.
fn report_of(component: &str, config: &str, input: &str, dir: &Path, options: &[&str]) -> Value {
    let (talk, written) = run_over(component, config, input, dir, options);
    assert!(
        talk.contains("2000 records in, 1 out, 0 dead letters"),
        "{talk}"
    );
    serde_json::from_str(&written).unwrap()
}

/// Runs the plugin over an input; what the program said, and what the plugin wrote.
fn run_over(
    component: &str,
    config: &str,
    input: &str,
    dir: &Path,
    options: &[&str],
) -> (String, String) {
    let text = format!(
        "name = \"report\"\n{input}[[stage]]\nname = \"report\"\nplugin = \"{}\"\nconfig = {config}\n\
         [output.file]\npath = \"out.json\"\n",
        plugin(component).display()
    );
    let pipeline = dir.join("pipeline.toml");
    std::fs::write(&pipeline, text).unwrap();
    let ran = Command::new(sluice_program())
        .args(["pipeline", "run"])
        .arg(&pipeline)
        .args(options)
        .current_dir(dir)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{talk}");
    (talk, std::fs::read_to_string(dir.join("out.json")).unwrap())
}

/// The count of the template with this text.
#[track_caller]
fn template<'a>(report: &'a Value, text: &str) -> &'a Value {
    let templates = report["templates"].as_array().unwrap();
    let found = templates.iter().find(|it| it["template"] == text);
    found.unwrap_or_else(|| panic!("no template {text:?} in {templates:#?}"))
}

#[test]
fn a_triage_of_real_logs_says_what_grep_and_awk_count() {
    let Some(logs) = sample_logs("a_triage_of_real_logs_says_what_grep_and_awk_count") else {
        return;
    };
    let config = "{ top = 1000 }";

    let apache = report("log_triage", config, &logs, "Apache_2k.log");
    let levels = &apache["levels"];
    same(
        "errors",
        &levels["error"],
        "grep -c '\\] \\[error\\] ' Apache_2k.log",
        &logs,
    );
    same(
        "notices",
        &levels["notice"],
        "grep -c '\\] \\[notice\\] ' Apache_2k.log",
        &logs,
    );
    for (text, pattern) in [
        (
            "jk2_init() Found child <num> in scoreboard slot <num>",
            "jk2_init() Found child",
        ),
        (
            "mod_jk child workerEnv in error state <num>",
            "mod_jk child workerEnv in error state",
        ),
        (
            "[client <ip>] Directory index forbidden by rule: <path>",
            "Directory index forbidden",
        ),
    ] {
        let counted = &template(&apache, text)["count"];
        same(
            text,
            counted,
            &format!("grep -c -F '{pattern}' Apache_2k.log"),
            &logs,
        );
    }
    let top = "sed -E 's/^\\[[^]]*\\] //; s/[0-9]+/N/g' Apache_2k.log | tr -d '\\r' | sort | uniq -c | sort -rn | awk 'NR==1{print $1}'";
    same(
        "the top template",
        &apache["templates"][0]["count"],
        top,
        &logs,
    );
    same(
        "templates",
        &apache["templates_found"],
        "sed -E 's/^\\[[^]]*\\] //; s/[0-9]+/N/g; s/-N/N/' Apache_2k.log | tr -d '\\r' | sort -u | wc -l",
        &logs,
    );
    same(
        "first",
        &apache["first_seen"],
        "awk 'NR==1{print $5 \"-12-\" $3 \"T\" $4}' Apache_2k.log | tr -d ']'",
        &logs,
    );
    same(
        "last of a template",
        &template(&apache, "mod_jk child init <num> <num>")["last_seen"],
        "grep 'mod_jk child init' Apache_2k.log | tail -1 | awk '{print $5 \"-12-\" $3 \"T\" $4}' | tr -d ']'",
        &logs,
    );

    let openstack = report("log_triage", config, &logs, "OpenStack_2k.log");
    same(
        "warnings",
        &openstack["levels"]["warn"],
        "awk '$5==\"WARNING\"' OpenStack_2k.log | wc -l",
        &logs,
    );
    same(
        "infos",
        &openstack["levels"]["info"],
        "awk '$5==\"INFO\"' OpenStack_2k.log | wc -l",
        &logs,
    );
    same(
        "requests",
        &openstack["templates"][0]["count"],
        "grep -c 'HTTP/1.1\" status:' OpenStack_2k.log",
        &logs,
    );
    same(
        "last",
        &openstack["last_seen"],
        "awk '{print $2 \"T\" $3}' OpenStack_2k.log | sort | tail -1",
        &logs,
    );

    let ssh = report("log_triage", config, &logs, "OpenSSH_2k.log");
    same(
        "errors",
        &ssh["levels"]["error"],
        "grep -c '\\]: error: ' OpenSSH_2k.log",
        &logs,
    );
    same(
        "fatals",
        &ssh["levels"]["fatal"],
        "grep -c '\\]: fatal: ' OpenSSH_2k.log",
        &logs,
    );
    let failed = template(&ssh, "Failed password for <*> from <ip> port <num> ssh2");
    same(
        "failed passwords",
        &failed["count"],
        "grep '\\]: Failed password for' OpenSSH_2k.log | grep -v -c 'invalid user'",
        &logs,
    );
    same(
        "first failed password",
        &failed["first_seen"],
        "grep '\\]: Failed password for' OpenSSH_2k.log | grep -v 'invalid user' | awk 'NR==1{print \"12-\" $2 \"T\" $3}'",
        &logs,
    );
    // The fullest minute is in a burst.
    let fullest = shell(
        "cut -c1-12 OpenSSH_2k.log | sort | uniq -c | sort -rn | awk 'NR==1{print $1}'",
        &logs,
    );
    let bursts = ssh["bursts"].as_array().unwrap();
    let peak = bursts
        .iter()
        .filter_map(|it| it["peak"].as_u64())
        .max()
        .unwrap();
    assert_eq!(peak.to_string(), fullest, "{bursts:#?}");

    let health = report("log_triage", config, &logs, "HealthApp_2k.log");
    same(
        "steps",
        &template(&health, "onStandStepChanged <num>")["count"],
        "grep -c '|onStandStepChanged [0-9]*' HealthApp_2k.log",
        &logs,
    );
    // `20171224-1:2:35:789|`, where an hour has one digit or two.
    let times = "awk -F'[-:|]' '{printf \"%s-%s-%sT%02d:%02d:%02d.%03d\\n\", substr($1,1,4), substr($1,5,2), substr($1,7,2), $2, $3, $4, $5}' HealthApp_2k.log | sort";
    for (what, end) in [("first_seen", "head -1"), ("last_seen", "tail -1")] {
        same(what, &health[what], &format!("{times} | {end}"), &logs);
    }

    for report in [&apache, &openstack, &ssh, &health] {
        let templates = report["templates"].as_array().unwrap();
        let counted: u64 = templates
            .iter()
            .map(|it| it["count"].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 2000, "every line is in one template");
    }
}

#[test]
fn a_map_of_real_requests_says_what_awk_counts() {
    let Some(logs) = sample_logs("a_map_of_real_requests_says_what_awk_counts") else {
        return;
    };
    let map = report("service_map", "{ top = 1000 }", &logs, "OpenStack_2k.log");
    let requests = "tr -d '\\r' < OpenStack_2k.log | grep 'HTTP/1.1\" status: '";
    same(
        "requests",
        &map["requests"],
        &format!("{requests} | wc -l"),
        &logs,
    );
    for status in ["200", "202", "204", "404"] {
        let script = format!("{requests} | grep -c ' status: {status} '");
        same(status, &map["status"][status], &script, &logs);
    }
    let sum =
        format!("{requests} | sed 's/.* len: //' | awk '{{bytes += $1}} END {{print bytes}}'");
    same("bytes", &map["bytes"], &sum, &logs);
    // The nearest rank of the times in microseconds, cut off behind them.
    let quantile = |part: &str, percent: u64| {
        format!(
            "{part} | sed 's/.* time: //' | awk -F. '{{print $1 * 1000000 + substr($2 \"000000\", 1, 6)}}' | sort -n | \
             awk '{{it[NR] = $1}} END {{rank = NR * {percent} / 100; if (rank > int(rank)) rank = int(rank) + 1; print it[rank]}}'"
        )
    };
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
        same(
            name,
            &map["latency_us"][name],
            &quantile(requests, percent),
            &logs,
        );
    }
    let calls = map["calls"].as_array().unwrap();
    let call = |caller: &str, method: &str, route: &str| {
        let found = calls
            .iter()
            .find(|it| it["caller"] == caller && it["method"] == method && it["route"] == route);
        found.unwrap_or_else(|| panic!("no {method} {route} by {caller}: {calls:#?}"))
    };
    let detail = call("10.11.10.1", "GET", "/v2/{id}/servers/detail");
    let theirs = format!("{requests} | grep ' 10.11.10.1 \"GET /v2/[0-9a-f]*/servers/detail[ ?]'");
    same(
        "calls",
        &detail["requests"],
        &format!("{theirs} | wc -l"),
        &logs,
    );
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        let told = &detail["latency_us"][name];
        same(name, told, &quantile(&theirs, percent), &logs);
    }
    assert_eq!(detail["latency_us"]["exact"], true);
    let events = call("10.11.10.1", "POST", "/v2/{id}/os-server-external-events");
    for status in ["200", "404"] {
        let script = format!(
            "{requests} | grep -c '\"POST .*/os-server-external-events .* status: {status} '"
        );
        same(status, &events["status"][status], &script, &logs);
    }
    let edges = format!(
        "{requests} | sed -E 's/^[^ ]* [^ ]* [^ ]* [^ ]* INFO ([^ ]*) .*\\] ([0-9.]*)[, ].*/\\2 \\1/' | sort"
    );
    same(
        "edges",
        &map["edges_found"],
        &format!("{edges} -u | wc -l"),
        &logs,
    );
    // The same as a graph: a line for each of them, with its requests.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(logs.join("OpenStack_2k.log"), dir.path().join("in.log")).unwrap();
    let config = "{ top = 1000, format = \"dot\" }";
    let input = "[input.file]\npath = \"in.log\"\n";
    let (_, graph) = run_over("service_map", config, input, dir.path(), &[]);
    let drawn: Vec<&str> = graph.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(Value::from(drawn.len()), map["edges_found"], "{graph}");
    let mut labels: Vec<&str> = drawn
        .iter()
        .map(|line| line.split_once(" requests").unwrap().0.trim())
        .collect();
    labels.sort_unstable();
    let counted = format!(
        "{edges} | uniq -c | awk '{{print \"\\\"\" $2 \"\\\" -> \\\"\" $3 \"\\\" [label=\\\"\" $1}}' | sort"
    );
    same(
        "the graph",
        &Value::from(labels.join("\n")),
        &counted,
        &logs,
    );
}

/// A table of four GPUs as `nvidia-smi --loop` prints it: a header, and 1,999 samples.
const GPU_TABLE: &str = "awk 'BEGIN {
    print \"index, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, clocks_throttle_reasons.active\"
    srand(7)
    for (n = 0; n < 1999; n++) {
        throttled = rand() < 0.1 ? \"0x0000000000000020\" : \"0x0000000000000000\"
        printf \"%d, NVIDIA A10, %d %%, %d MiB, 23028 MiB, %d, %s\\n\", n % 4, rand() * 101, rand() * 20000, 40 + rand() * 50, throttled
    }
}' > gpus.csv";

#[test]
fn a_report_of_gpus_says_what_awk_counts() {
    let dir = tempfile::tempdir().unwrap();
    shell(GPU_TABLE, dir.path());
    let path = dir.path().join("gpus.csv");
    let found = report("gpu_report", "{}", dir.path(), "gpus.csv");
    same(
        "samples",
        &found["samples"],
        "tail -n +2 gpus.csv | wc -l",
        dir.path(),
    );
    for gpu in 0..4 {
        let told = &found["gpus"][gpu];
        let of = format!("awk -F', ' '$1==\"{gpu}\"' gpus.csv");
        same("gpu", &told["gpu"], &format!("echo {gpu}"), dir.path());
        for (what, field, column) in [
            ("utilisation", "utilisation_percent", 3),
            ("memory", "memory_used_mib", 4),
            ("temperature", "temperature_c", 6),
        ] {
            let numbers = format!("{of} | awk -F', ' '{{print ${column} + 0}}' | sort -n");
            for (part, script) in [
                ("min", "head -1"),
                ("max", "tail -1"),
                (
                    "mean",
                    "awk '{sum += $1} END {printf \"%d\", int(sum / NR)}'",
                ),
            ] {
                let script = format!("{numbers} | {script}");
                same(
                    &format!("{part} {what} of {gpu}"),
                    &told[field][part],
                    &script,
                    dir.path(),
                );
            }
        }
        let throttled = format!("{of} | grep -c '0x0*20$'");
        same(
            "throttled",
            &told["throttled_samples"],
            &throttled,
            dir.path(),
        );
        same(
            "why",
            &told["throttling"]["sw-thermal-slowdown"],
            &throttled,
            dir.path(),
        );
    }
    // As the output of a command, the same.
    let command = format!("gpu-query=/bin/cat {}", path.display());
    let input = "[input.exec]\ncommand = \"gpu-query\"\n";
    let of_command = report_of(
        "gpu_report",
        "{}",
        input,
        dir.path(),
        &["--allow-command", &command],
    );
    assert_eq!(of_command, found);
}

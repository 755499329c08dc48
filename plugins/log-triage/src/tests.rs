//! Reports of small logs, and of the real ones where they are.
#![allow(clippy::unwrap_used)]

use sluice_sdk::testing::Harness;

use super::*;

fn triage(config: &str, lines: &[&str]) -> Vec<String> {
    let mut harness = Harness::<LogTriage>::new(config).unwrap();
    for batch in lines.chunks(3) {
        assert!(harness.process(batch).unwrap().records.is_empty());
    }
    harness.finish().unwrap()
}

const APACHE: [&str; 5] = [
    "[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok /etc/httpd/conf/workers2.properties\r",
    "[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6\r",
    "",
    "[Sun Dec 04 04:51:18 2005] [error] mod_jk child workerEnv in error state 7",
    "java.lang.Oops: 7",
];

#[test]
fn a_log_becomes_one_json_record() {
    let report = triage("{}", &APACHE);
    let expected = concat!(
        r#"{"report":"log-triage","lines":4,"blank":1,"without_time":1,"#,
        r#""first_seen":"2005-12-04T04:47:44","last_seen":"2005-12-04T04:51:18","#,
        r#""levels":{"error":2,"notice":1,"none":1},"forms":{"apache":3,"other":1},"templates_found":3,"templates":["#,
        r#"{"template":"mod_jk child workerEnv in error state <num>","level":"error","count":2,"#,
        r#""first_seen":"2005-12-04T04:47:44","last_seen":"2005-12-04T04:51:18","example":"mod_jk child workerEnv in error state 6"},"#,
        r#"{"template":"workerEnv.init() ok <path>","level":"notice","count":1,"#,
        r#""first_seen":"2005-12-04T04:47:44","last_seen":"2005-12-04T04:47:44","example":"workerEnv.init() ok /etc/httpd/conf/workers2.properties"},"#,
        r#"{"template":"java.lang.Oops: <num>","level":"none","count":1,"first_seen":null,"last_seen":null,"example":"java.lang.Oops: 7"}],"#,
        r#""lines_of_other_templates":0,"lines_left_out":0,"window_s":60,"bursts_found":0,"bursts":[],"burst_lines_left_out":0}"#,
    );
    assert_eq!(report, [expected]);
}

#[test]
fn the_text_is_short_and_says_the_worst_first() {
    let text = triage(r#"{"format":"text","top":2}"#, &APACHE);
    assert_eq!(
        text,
        [
            "4 lines from 2005-12-04T04:47:44 to 2005-12-04T04:51:18: 2 error, 1 notice, 1 none",
            "       2  error   mod_jk child workerEnv in error state <num>",
            "       1  notice  workerEnv.init() ok <path>",
            "          and 1 more templates",
        ]
    );
    let both = triage(r#"{"format":"both","top":1}"#, &APACHE);
    assert_eq!(both.len(), 4);
    assert!(
        both[0].contains(r#""lines_of_other_templates":2"#),
        "{both:?}"
    );
}

#[test]
fn nothing_at_all_is_a_report_too() {
    let report = triage(r#"{"format":"both"}"#, &[]);
    assert!(report[0].contains(r#""lines":0"#) && report[0].contains(r#""templates":[]"#));
    assert_eq!(report[1..], ["0 lines"]);
}

#[test]
fn bursts_name_their_template_and_time() {
    let mut lines: Vec<String> = Vec::new();
    for minute in 0..10 {
        let count = if minute == 4 { 30 } else { 2 };
        for number in 0..count {
            lines.push(format!(
                "Dec 31 10:0{minute}:{number:02} host sshd[7]: Failed try {number}"
            ));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = triage(r#"{"format":"both","burst_lines":10}"#, &lines);
    for subject in ["null", r#""Failed try <num>""#] {
        let burst = format!(
            r#"{{"template":{subject},"from":"12-31T10:04:00","to":"12-31T10:05:00","lines":30,"peak":30,"median":2}}"#
        );
        assert!(report[0].contains(&burst), "{report:?}");
    }
    let said = "burst: 30 lines from 12-31T10:04:00 to 12-31T10:05:00, 30 in one window where 2 is usual: all lines";
    assert!(report.iter().any(|line| line == said), "{report:?}");
}

#[test]
fn a_new_year_comes_after_the_old_one() {
    let report = triage(
        "{}",
        &[
            "Dec 31 23:59:59 host sshd[7]: a",
            "Jan  1 00:00:00 host sshd[7]: a",
            "Dec 31 23:59:58 host sshd[7]: a",
        ],
    );
    let expected = r#""first_seen":"12-31T23:59:58","last_seen":"01-01T00:00:00""#;
    assert!(report[0].contains(expected), "{report:?}");
}

#[test]
fn a_wrong_config_is_refused_with_its_key() {
    for (config, said) in [
        (r#"{"top":0}"#, "`top` is 0, and may be 1 to 1000"),
        (r#"{"window_s":0}"#, "`window_s` is 0"),
        (r#"{"window_s":86401}"#, "`window_s` is 86401"),
        (r#"{"similarity_percent":101}"#, "may be 1 to 100"),
        (r#"{"burst_factor":0}"#, "`burst_factor` is 0"),
        (r#"{"format":"xml"}"#, "unknown variant `xml`"),
        (r#"{"tops":1}"#, "unknown field `tops`"),
    ] {
        let error = Harness::<LogTriage>::new(config).unwrap_err();
        assert!(error.contains(said), "{config}: {error}");
    }
}

/// Looks at every real log, if there are any: what is counted twice in two ways is the same.
#[test]
#[allow(
    clippy::print_stderr,
    reason = "a skipped test must not look like one that ran"
)]
fn every_line_of_real_logs_is_in_one_template() {
    let Some(folder) = std::env::var_os("SLUICE_SAMPLE_LOGS") else {
        eprintln!("skipped: SLUICE_SAMPLE_LOGS names no folder of sample logs");
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    for (file, templates_max) in [
        ("Apache_2k.log", 10),
        ("HealthApp_2k.log", 120),
        ("OpenSSH_2k.log", 60),
        ("OpenStack_2k.log", 80),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let mut harness = Harness::<LogTriage>::new(r#"{"format":"both","top":1000}"#).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        harness.process(&lines).unwrap();
        let report = harness.finish().unwrap();
        let templates = report[0].matches(r#"{"template":"#).count();
        for line in &report[1..] {
            eprintln!("{line}");
        }
        assert!(templates <= templates_max, "{file}: {templates} templates");
        assert!(report[0].contains(r#""lines":2000"#), "{file}");
        assert!(report[0].contains(r#""lines_left_out":0"#), "{file}");
        assert!(report[0].contains(r#""without_time":0"#), "{file}");
    }
}

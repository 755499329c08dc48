//! Each kind of message, hostile names, rejects, and the real file.
#![allow(clippy::unwrap_used)]

use sluice_sdk::json::Scanner;
use sluice_sdk::testing::{Harness, Processed};

use super::*;

/// The file of the LogHub collection, in the folder that `SLUICE_SAMPLE_LOGS` names.
const SAMPLE: &str = "OpenSSH_2k.log";

fn run(lines: &[&str]) -> Processed {
    Harness::<SshdAuth>::new("")
        .unwrap()
        .process(lines)
        .unwrap()
}

/// `event user ip port repeat` of a message, `-` for null.
fn said(message: &str) -> String {
    let processed = run(&[&format!("Dec 10 06:55:46 LabSZ sshd[24200]: {message}")]);
    let [record] = processed.records.as_slice() else {
        return "rejected".to_owned();
    };
    let mut scanner = Scanner::new();
    let object = scanner.object(record).unwrap();
    let fields = ["event", "user", "ip", "port", "repeat"].map(|name| {
        let value = object.get(name).unwrap();
        match value.raw() {
            "null" => "-".to_owned(),
            raw => value
                .text()
                .map_or(raw.to_owned(), |text| text.into_owned()),
        }
    });
    fields.join(" ")
}

#[test]
fn an_event_is_one_json_object_with_all_its_fields() {
    let processed = run(&[
        "Dec 10 07:13:56 LabSZ sshd[24227]: message repeated 5 times: [ Failed password for root from 5.36.59.76 port 42393 ssh2]",
        "2024-12-01T07:13:56.123456+01:00 host.example sshd-session[7]: pam_unix(sshd:auth): check pass; user unknown",
    ]);
    assert_eq!(
        processed.text(),
        [
            r#"{"time":"Dec 10 07:13:56","host":"LabSZ","pid":24227,"event":"failed-password","user":"root","ip":"5.36.59.76","port":42393,"repeat":5}"#,
            r#"{"time":"2024-12-01T07:13:56.123456+01:00","host":"host.example","pid":7,"event":"pam-user-unknown","user":null,"ip":null,"port":null,"repeat":1}"#,
        ]
    );
}

#[test]
fn each_kind_of_message_is_known() {
    let cases = [
        (
            "Failed password for root from 112.95.230.3 port 45378 ssh2",
            "failed-password root 112.95.230.3 45378 1",
        ),
        (
            "Failed password for invalid user admin from 1.2.3.4 port 5 ssh2",
            "failed-password admin 1.2.3.4 5 1",
        ),
        (
            "Failed none for invalid user 0 from 5.188.10.180 port 49811 ssh2",
            "failed-none 0 5.188.10.180 49811 1",
        ),
        (
            "Failed keyboard-interactive/pam for a from ::1 port 5 ssh2",
            "failed-keyboard-interactive a ::1 5 1",
        ),
        (
            "Accepted password for fztu from 119.137.62.142 port 49116 ssh2",
            "accepted-password fztu 119.137.62.142 49116 1",
        ),
        (
            "Accepted publickey for a from 1.2.3.4 port 5 ssh2: RSA SHA256:x",
            "accepted-publickey a 1.2.3.4 5 1",
        ),
        (
            "Postponed publickey for a from 1.2.3.4 port 5 ssh2 [preauth]",
            "postponed-publickey a 1.2.3.4 5 1",
        ),
        (
            "Invalid user webmaster from 173.234.31.186",
            "invalid-user webmaster 173.234.31.186 - 1",
        ),
        (
            "Invalid user a from 1.2.3.4 port 5",
            "invalid-user a 1.2.3.4 5 1",
        ),
        ("Invalid user  from 1.2.3.4", "invalid-user  1.2.3.4 - 1"),
        (
            "input_userauth_request: invalid user webmaster [preauth]",
            "invalid-user-request webmaster - - 1",
        ),
        (
            "User a from h.example not allowed because not listed in AllowUsers",
            "user-not-allowed a - - 1",
        ),
        (
            "pam_unix(sshd:auth): check pass; user unknown",
            "pam-user-unknown - - - 1",
        ),
        (
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=173.234.31.186 ",
            "pam-failure - 173.234.31.186 - 1",
        ),
        (
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=h.example.om  user=root",
            "pam-failure root - - 1",
        ),
        (
            "PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=106.5.5.195  user=root",
            "pam-more-failures root 106.5.5.195 - 5",
        ),
        (
            "PAM 1 more authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=5.188.10.180 ",
            "pam-more-failures - 5.188.10.180 - 1",
        ),
        (
            "PAM service(sshd) ignoring max retries; 6 > 3",
            "pam-max-retries - - - 1",
        ),
        (
            "pam_unix(sshd:session): session opened for user fztu by (uid=0)",
            "session-opened fztu - - 1",
        ),
        (
            "pam_unix(sshd:session): session opened for user a(uid=1000) by (uid=0)",
            "session-opened a - - 1",
        ),
        (
            "pam_unix(sshd:session): session closed for user fztu",
            "session-closed fztu - - 1",
        ),
        (
            "Received disconnect from 173.234.31.186: 11: Bye Bye [preauth]",
            "received-disconnect - 173.234.31.186 - 1",
        ),
        (
            "Received disconnect from 119.137.62.142: 11: disconnected by user",
            "received-disconnect - 119.137.62.142 - 1",
        ),
        (
            "error: Received disconnect from 195.154.37.122: 3: com.jcraft.jsch.JSchException: Auth fail [preauth]",
            "received-disconnect - 195.154.37.122 - 1",
        ),
        (
            "Received disconnect from 1.2.3.4 port 5:11: Bye Bye [preauth]",
            "received-disconnect - 1.2.3.4 5 1",
        ),
        (
            "Received disconnect from 2001:db8::1: 11: port 7: x",
            "received-disconnect - 2001:db8::1 - 1",
        ),
        (
            "Received disconnect from 2001:db8::1 port 5:11: x",
            "received-disconnect - 2001:db8::1 5 1",
        ),
        (
            "Disconnecting: Too many authentication failures for root [preauth]",
            "too-many-failures root - - 1",
        ),
        (
            "Disconnecting authenticating user root 1.2.3.4 port 5: Too many authentication failures [preauth]",
            "too-many-failures root 1.2.3.4 5 1",
        ),
        (
            "error: maximum authentication attempts exceeded for invalid user a from 1.2.3.4 port 5 ssh2 [preauth]",
            "too-many-failures a 1.2.3.4 5 1",
        ),
        (
            "Connection closed by 104.192.3.34 [preauth]",
            "connection-closed - 104.192.3.34 - 1",
        ),
        (
            "Connection closed by invalid user a b 1.2.3.4 port 5 [preauth]",
            "connection-closed a b 1.2.3.4 5 1",
        ),
        (
            "Connection closed by UNKNOWN port 65535",
            "connection-closed - - 65535 1",
        ),
        (
            "Connection reset by authenticating user root 1.2.3.4 port 5 [preauth]",
            "connection-reset root 1.2.3.4 5 1",
        ),
        (
            "Disconnected from user a 1.2.3.4 port 5",
            "disconnected a 1.2.3.4 5 1",
        ),
        (
            "Disconnected from 1.2.3.4 port 5 [preauth]",
            "disconnected - 1.2.3.4 5 1",
        ),
        (
            "fatal: Timeout before authentication for 1.2.3.4 port 5",
            "connection-timeout - 1.2.3.4 5 1",
        ),
        (
            "Timeout before authentication for connection from 1.2.3.4 to 4.3.2.1, pid = 9",
            "connection-timeout - 1.2.3.4 - 1",
        ),
        (
            "Did not receive identification string from 123.235.32.19",
            "no-identification - 123.235.32.19 - 1",
        ),
        (
            "Bad protocol version identification 'GET / from x' from 1.2.3.4 port 5",
            "bad-protocol - 1.2.3.4 5 1",
        ),
        (
            "Unable to negotiate with 1.2.3.4 port 5: no matching cipher found. Their offer: x",
            "no-common-algorithm - 1.2.3.4 5 1",
        ),
        (
            "Connection from 1.2.3.4 port 5 on 4.3.2.1 port 22",
            "connection - 1.2.3.4 5 1",
        ),
        (
            "fatal: Write failed: Connection reset by peer [preauth]",
            "write-failed - - - 1",
        ),
        (
            "reverse mapping checking getaddrinfo for ns.x.com [173.234.31.186] failed - POSSIBLE BREAK-IN ATTEMPT!",
            "reverse-mapping-failed - 173.234.31.186 - 1",
        ),
        (
            "Address 1.2.3.4 maps to h.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!",
            "reverse-mapping-failed - 1.2.3.4 - 1",
        ),
        (
            "Server listening on 0.0.0.0 port 22.",
            "server-listening - - - 1",
        ),
        ("Received signal 15; terminating.", "server-stopped - - - 1"),
    ];
    for (message, expected) in cases {
        assert_eq!(said(message), expected, "{message}");
    }
}

#[test]
fn a_name_that_looks_like_an_address_fools_nobody() {
    assert_eq!(
        said(
            "Failed password for invalid user root from 9.9.9.9 port 9 ssh2 from 1.2.3.4 port 5 ssh2"
        ),
        "failed-password root from 9.9.9.9 port 9 ssh2 1.2.3.4 5 1"
    );
    assert_eq!(
        said("Invalid user a from 9.9.9.9 from 1.2.3.4"),
        "invalid-user a from 9.9.9.9 1.2.3.4 - 1"
    );
    let processed = run(&["Dec  1 00:00:00 h sshd[1]: Invalid user \"\\\u{1}é from 1.2.3.4"]);
    assert!(
        processed.text()[0].contains(r#""user":"\"\\\u0001é","#),
        "{}",
        processed.text()[0]
    );
    assert_eq!(
        said("Invalid user  0101 from 5.188.10.180"),
        "invalid-user  0101 5.188.10.180 - 1"
    );
}

#[test]
fn what_is_not_known_is_rejected_with_a_reason() {
    let cases = [
        ("", "not a syslog line: it does not start with a time"),
        (
            "no log line at all",
            "not a syslog line: it does not start with a time",
        ),
        (
            "Dez 10 06:55:46 LabSZ sshd[1]: Connection closed by 1.2.3.4",
            "not a syslog line: it does not start with a time",
        ),
        (
            "Dec 10 06:55:4é LabSZ sshd[1]: x",
            "not a syslog line: it does not start with a time",
        ),
        (
            "Dec 10 06:55:46 LabSZ",
            "not a syslog line: nothing after the time",
        ),
        (
            "Dec 10 06:55:46 LabSZ sshd[1]",
            "not a syslog line: no program before the message",
        ),
        (
            "Dec 10 06:55:46 LabSZ CRON[1]: x",
            "not a line of sshd: the program is \"CRON\"",
        ),
        ("Dec 10 06:55:46 LabSZ sshd: x", "no process id in \"sshd\""),
        (
            "Dec 10 06:55:46 LabSZ sshd[x]: x",
            "no process id in \"sshd[x]\"",
        ),
        (
            "Dec 10 06:55:46 LabSZ sshd[1]: something new",
            "unknown message: something new",
        ),
        (
            "Dec 10 06:55:46 LabSZ sshd[1]: Failed telepathy for a from 1.2.3.4 port 5 ssh2",
            "unknown message: Failed telepathy for a from 1.2.3.4 port 5 ssh2",
        ),
        (
            "Dec 10 06:55:46 LabSZ sshd[1]: message repeated 5 times: [ something new]",
            "unknown message: message repeated 5 times: [ something new]",
        ),
    ];
    for (line, expected) in cases {
        let processed = run(&[line]);
        assert!(processed.records.is_empty(), "{line}");
        assert_eq!(processed.rejects, [(0, expected.to_owned())]);
    }
    let mut harness = Harness::<SshdAuth>::new("").unwrap();
    let processed = harness.process(&[&b"Dec 10 \xff"[..]]).unwrap();
    assert_eq!(processed.rejects[0].1, "not UTF-8 at byte 7");
}

/// Counts on the real file, against counts of its lines by their text alone.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn the_real_file_is_read_as_its_lines_say() {
    let Some(folder) = std::env::var_os("SLUICE_SAMPLE_LOGS") else {
        eprintln!("skipped: SLUICE_SAMPLE_LOGS names no folder of sample logs");
        return;
    };
    let text = std::fs::read_to_string(std::path::Path::new(&folder).join(SAMPLE)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2000);

    let mut harness = Harness::<SshdAuth>::new("").unwrap();
    let (mut records, mut rejects) = (Vec::new(), Vec::new());
    for batch in lines.chunks(256) {
        let processed = harness.process(batch).unwrap();
        records.extend(processed.text());
        rejects.extend(processed.rejects);
    }
    assert_eq!(records.len() + rejects.len(), lines.len());
    assert!(
        rejects.is_empty(),
        "this file's messages are all known: {:?}",
        rejects[0]
    );

    let events = |field: &str, value: &str| {
        let wanted = |record: &&String| {
            let mut scanner = Scanner::new();
            let object = scanner.object(record.as_bytes()).unwrap();
            object.len() == 8 && object.get(field).unwrap().raw() == value
        };
        records.iter().filter(wanted).count()
    };
    let with = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(with("Failed password"), 520);
    for (event, part) in [
        ("failed-password", "Failed password"),
        ("failed-none", "Failed none"),
        ("accepted-password", "Accepted password"),
        ("invalid-user", ": Invalid user"),
        (
            "invalid-user-request",
            "input_userauth_request: invalid user",
        ),
        ("pam-failure", "pam_unix(sshd:auth): authentication failure"),
        ("pam-more-failures", "more authentication failure"),
        ("pam-user-unknown", "check pass; user unknown"),
        ("pam-max-retries", "ignoring max retries"),
        ("received-disconnect", "Received disconnect"),
        ("too-many-failures", "Too many authentication failures"),
        ("connection-closed", "Connection closed by"),
        ("no-identification", "Did not receive identification"),
        ("reverse-mapping-failed", "reverse mapping checking"),
        ("session-opened", "session opened"),
        ("session-closed", "session closed"),
        ("write-failed", "Write failed"),
    ] {
        assert_eq!(
            events("event", &format!("\"{event}\"")),
            with(part),
            "{event}"
        );
    }
    assert_eq!(
        events("repeat", "5"),
        with("message repeated 5 times") + with("PAM 5 more")
    );
    assert_eq!(events("ip", "\"183.62.140.253\""), with("183.62.140.253"));
    assert_eq!(events("user", "\"fztu\""), with("fztu"));
    assert_eq!(events("user", "\" 0101\""), with("  0101"));
}

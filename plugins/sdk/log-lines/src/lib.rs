//! Log lines of well-known programs: when, how bad, by which part, and what they say.
//!
//! ```text
//! [Sun Dec 04 04:47:44 2005] [error] MESSAGE                                       Apache's error log, 2.4's too
//! Dec 10 06:55:46 HOST PROGRAM[PID]: MESSAGE                                       syslog; names no year
//! 20171223-22:15:29:606|PART|PID|MESSAGE                                           HealthApp
//! [FILE] 2017-05-16 00:00:00.008 PID INFO PART [req-... - - -] MESSAGE             OpenStack
//! 2017-05-16T00:00:00.008Z LEVEL MESSAGE                                           many others
//! ```
//!
//! A line of no such form is all message. Nothing here allocates.

mod moment;

pub use moment::{Moment, clf};

/// What is known of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its form.
    pub form: Form,
    /// When it was written, by its own clock.
    pub at: Option<Moment>,
    /// How bad it is.
    pub level: Level,
    /// The program, or the part of it, that wrote it.
    pub part: Option<&'a str>,
    /// What it says.
    pub message: &'a str,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Apache's error log.
    Apache,
    /// syslog, as OpenSSH's.
    Syslog,
    /// HealthApp's.
    HealthApp,
    /// OpenStack's.
    OpenStack,
    /// A date and a time, and then anything.
    Dated,
    /// None of these.
    Other,
}

impl Form {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apache => "apache",
            Self::Syslog => "syslog",
            Self::HealthApp => "healthapp",
            Self::OpenStack => "openstack",
            Self::Dated => "dated",
            Self::Other => "other",
        }
    }
}

/// How bad a line is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Also `critical`, `crit`, `alert`, `emerg`, `panic`.
    Fatal,
    /// Also `err`, `severe`.
    Error,
    /// Also `warning`.
    Warn,
    /// In between.
    Notice,
    /// Also `audit`.
    Info,
    /// Also `debug1` to `debug3`.
    Debug,
    /// The least.
    Trace,
    /// The line does not say.
    None,
}

impl Level {
    /// All of them, the worst first.
    pub const ALL: [Self; 8] = [
        Self::Fatal,
        Self::Error,
        Self::Warn,
        Self::Notice,
        Self::Info,
        Self::Debug,
        Self::Trace,
        Self::None,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
            Self::None => "none",
        }
    }

    /// The level that a word names, in any case.
    pub fn of(word: &str) -> Option<Self> {
        const WORDS: [(&str, Level); 19] = [
            ("fatal", Level::Fatal),
            ("critical", Level::Fatal),
            ("crit", Level::Fatal),
            ("alert", Level::Fatal),
            ("emerg", Level::Fatal),
            ("panic", Level::Fatal),
            ("error", Level::Error),
            ("err", Level::Error),
            ("severe", Level::Error),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("notice", Level::Notice),
            ("info", Level::Info),
            ("audit", Level::Info),
            ("debug", Level::Debug),
            ("debug1", Level::Debug),
            ("debug2", Level::Debug),
            ("debug3", Level::Debug),
            ("trace", Level::Trace),
        ];
        WORDS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word))
            .map(|(_, level)| *level)
    }
}

/// Reads a line. Its end, `\r` or not, does not matter.
pub fn read(line: &str) -> Line<'_> {
    let line = line.trim_end();
    apache(line)
        .or_else(|| syslog(line))
        .or_else(|| health_app(line))
        .or_else(|| dated(line))
        .unwrap_or_else(|| Line {
            form: Form::Other,
            at: None,
            level: leading_level(line),
            part: None,
            message: line,
        })
}

fn apache(line: &str) -> Option<Line<'_>> {
    let (at, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let at = Moment::apache(at)?;
    let (level, mut message) = rest.strip_prefix('[')?.split_once(']')?;
    let (part, level) = match level.split_once(':') {
        Some((part, level)) => (Some(part), level),
        None => (None, level),
    };
    message = message.trim_start();
    // 2.4 names the process and thread before the message.
    if let Some((_, rest)) = message
        .strip_prefix("[pid ")
        .and_then(|rest| rest.split_once("] "))
    {
        message = rest;
    }
    Some(Line {
        form: Form::Apache,
        at: Some(at),
        level: Level::of(level)?,
        part,
        message,
    })
}

fn syslog(line: &str) -> Option<Line<'_>> {
    let (at, rest) = Moment::syslog(line)?;
    let (_host, rest) = rest.split_once(' ')?;
    let (tag, message) = rest.split_once(": ")?;
    if tag.contains(' ') {
        return None;
    }
    let program = tag.split('[').next().filter(|program| !program.is_empty());
    Some(Line {
        form: Form::Syslog,
        at: Some(at),
        level: leading_level(message),
        part: program,
        message,
    })
}

fn health_app(line: &str) -> Option<Line<'_>> {
    let (at, rest) = line.split_once('|')?;
    let at = Moment::health_app(at)?;
    let (part, rest) = rest.split_once('|')?;
    let (_pid, message) = rest.split_once('|')?;
    Some(Line {
        form: Form::HealthApp,
        at: Some(at),
        level: leading_level(message),
        part: Some(part),
        message,
    })
}

/// What begins with a date and a time, or with a word before them: OpenStack's, where a process and a level follow.
fn dated(line: &str) -> Option<Line<'_>> {
    let (at, rest) = Moment::dated(line).or_else(|| Moment::dated(line.split_once(' ')?.1))?;
    let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        let (level, behind) = behind.split_once(' ').unwrap_or((behind, ""));
        if let Some(level) = Level::of(level) {
            let (part, message) = behind.split_once(' ').unwrap_or((behind, ""));
            return Some(Line {
                form: Form::OpenStack,
                at: Some(at),
                level,
                part: Some(part),
                message: without_request(message),
            });
        }
    }
    let word = first.trim_matches(|it: char| matches!(it, '[' | ']' | ':'));
    let (level, message) = match Level::of(word) {
        Some(level) => (level, behind.trim_start()),
        None => (Level::None, rest),
    };
    Some(Line {
        form: Form::Dated,
        at: Some(at),
        level,
        part: None,
        message,
    })
}

/// The message behind the request that it belongs to: `[req-... USER TENANT - - -]`, or `[-]`.
fn without_request(message: &str) -> &str {
    let context = message
        .strip_prefix('[')
        .filter(|rest| rest.starts_with("req-") || rest.starts_with("-]"))
        .and_then(|rest| rest.split_once(']'));
    match context {
        Some((_, message)) => message.trim_start(),
        None => message,
    }
}

/// The level of a message that begins with one: `error: ...`.
fn leading_level(message: &str) -> Level {
    let word = message.split_once(':').map(|(word, _)| word);
    word.and_then(Level::of).unwrap_or(Level::None)
}

/// Whether a word is a UUID.
pub fn is_uuid(word: &[u8]) -> bool {
    word.len() == 36
        && word.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(line: &str, form: Form, at: &str, level: Level, part: &str, message: &str) {
        let read = read(line);
        assert_eq!(read.form, form, "{line}");
        let shown = read.at.map(|at| at.to_string()).unwrap_or_default();
        assert_eq!(shown, at, "{line}");
        assert_eq!(read.level, level, "{line}");
        assert_eq!(read.part.unwrap_or_default(), part, "{line}");
        assert_eq!(read.message, message, "{line}");
    }

    #[test]
    fn lines_of_each_form_are_read() {
        check(
            "[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6\r",
            Form::Apache,
            "2005-12-04T04:47:44",
            Level::Error,
            "",
            "mod_jk child workerEnv in error state 6",
        );
        check(
            "[Sun Dec 04 04:47:44.120000 2005] [core:warn] [pid 7:tid 8] [client 10.0.0.9:1] slow",
            Form::Apache,
            "2005-12-04T04:47:44.120",
            Level::Warn,
            "core",
            "[client 10.0.0.9:1] slow",
        );
        check(
            "Dec  9 06:55:46 LabSZ sshd[24200]: error: Received disconnect",
            Form::Syslog,
            "12-09T06:55:46",
            Level::Error,
            "sshd",
            "error: Received disconnect",
        );
        check(
            "20171224-1:2:35:789|Step_LSC|30002312|onExtend:15 14 0 4",
            Form::HealthApp,
            "2017-12-24T01:02:35.789",
            Level::None,
            "Step_LSC",
            "onExtend:15 14 0 4",
        );
        for before in ["", "nova-api.log.1.2017-05-16_13:53:08 "] {
            check(
                &format!(
                    "{before}2017-05-16 00:00:00.008 25746 WARNING nova.wsgi [req-38101a0b-2096-447d-96ea-a692162415ae a - -] hello [x]"
                ),
                Form::OpenStack,
                "2017-05-16T00:00:00.008",
                Level::Warn,
                "nova.wsgi",
                "hello [x]",
            );
        }
        check(
            "2017-05-16 00:00:00.008 2931 INFO nova.compute [-] [instance: a] up",
            Form::OpenStack,
            "2017-05-16T00:00:00.008",
            Level::Info,
            "nova.compute",
            "[instance: a] up",
        );
        check(
            "2024-02-29T12:00:01,5+01:00 [ERROR] gone",
            Form::Dated,
            "2024-02-29T12:00:01.500",
            Level::Error,
            "",
            "gone",
        );
        check(
            "2024-02-29 12:00:01 7 apples",
            Form::Dated,
            "2024-02-29T12:00:01",
            Level::None,
            "",
            "7 apples",
        );
    }

    #[test]
    fn what_is_no_such_line_is_all_message() {
        for line in [
            "",
            "    at Main.main(Main.java:7)",
            "[Sun Dec 04 2005] [error] x",
            "[Sun Dec 34 04:47:44 2005] [error] x",
            "Foo 10 06:55:46 host a: b",
            "20171324-1:2:35:789|a|b|c",
            "2017-02-29 00:00:00 x",
            "2017-05-16 24:00:00 x",
        ] {
            let read = read(line);
            assert_eq!(
                (read.form, read.at, read.message),
                (Form::Other, None, line)
            );
        }
        assert_eq!(read("fatal: no space left").level, Level::Fatal);
        assert_eq!(read("Résumé: ü").level, Level::None);
    }

    #[test]
    fn lines_that_are_cut_anywhere_are_read_without_a_panic() {
        for line in [
            "[Sun Dec 04 04:47:44 2005] [error] ä mod_jk",
            "Dec 10 06:55:46 LabSZ sshd[24200]: ä",
            "20171223-22:15:29:606|ä|30002312|m",
            "f 2017-05-16 00:00:00.008 25746 INFO nova [req-ä] m",
        ] {
            for end in 0..=line.len() {
                if line.is_char_boundary(end) {
                    let _ = read(&line[..end]);
                    let _ = read(&line[end..]);
                }
            }
        }
    }

    #[test]
    fn uuids_are_told_from_what_looks_like_one() {
        assert!(is_uuid(b"38101a0b-2096-447d-96ea-a692162415ae"));
        assert!(!is_uuid(b"38101a0b-2096-447d-96ea-a692162415ag"));
        assert!(!is_uuid(b"38101a0b-2096-447d-96ea_a692162415ae"));
        assert!(!is_uuid(b"38101a0b"));
    }
}

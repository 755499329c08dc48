//! Values of options: each is read from its text, or the text says what would be right.

use std::time::{Duration, SystemTime};

use sluice_model::pipeline::{parse_duration, parse_size};
use sluice_model::{
    CatchUp, JobName, NodeName, Overlap, Role, StageName, TokenKind, TokenState, UnixMs,
    check_label_key, check_label_value,
};

/// A time, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Then.
    At(UnixMs),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    /// The time, by this machine's clock.
    pub(crate) fn time(self) -> UnixMs {
        let ago = match self {
            Self::At(time) => return time,
            Self::Ago(ago) => ago,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        UnixMs(now.map_or(0, ms).saturating_sub(ms(ago)))
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = positive_duration(text) {
            return Ok(Self::Ago(ago));
        }
        serde_json::from_value(text.into())
            .map(Self::At)
            .map_err(|_| {
                "write a time such as 2026-11-01T00:00:00Z, or how long ago, such as 24h".to_owned()
            })
    }
}

/// `K=V` or `K-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabelChange {
    /// Set it.
    Set(String, String),
    /// Take it away.
    Remove(String),
}

impl std::str::FromStr for LabelChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key_problem = |error| format!("a label's key {error}");
        if let Some((key, value)) = text.split_once('=') {
            check_label_key(key).map_err(key_problem)?;
            check_label_value(value).map_err(|error| format!("a label's value {error}"))?;
            Ok(Self::Set(key.to_owned(), value.to_owned()))
        } else if let Some(key) = text.strip_suffix('-') {
            check_label_key(key).map_err(key_problem)?;
            Ok(Self::Remove(key.to_owned()))
        } else {
            Err("write K=V to set a label, K- to take it away".to_owned())
        }
    }
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    text.parse()
        .map_err(|_| "one of reader, deployer, admin".to_owned())
}

pub(super) fn token_kind(text: &str) -> Result<TokenKind, String> {
    text.parse().map_err(|_| "one of join, api".to_owned())
}

pub(super) fn token_state(text: &str) -> Result<TokenState, String> {
    text.parse()
        .map_err(|_| "one of valid, used-up, expired, revoked".to_owned())
}

pub(super) fn job_and_node(text: &str) -> Result<(JobName, NodeName), String> {
    let (job, node) = text
        .split_once('/')
        .ok_or_else(|| "write JOB/NODE".to_owned())?;
    let job = job.parse().map_err(|rule| format!("a job's name {rule}"))?;
    let node = node
        .parse()
        .map_err(|rule| format!("a node's name {rule}"))?;
    Ok((job, node))
}

pub(super) fn overlap(text: &str) -> Result<Overlap, String> {
    text.parse()
        .map_err(|_| "one of allow, skip, queue, cancel-previous".to_owned())
}

pub(super) fn catch_up(text: &str) -> Result<CatchUp, String> {
    text.parse().map_err(|_| "one of one, all, skip".to_owned())
}

/// A duration, checked and sent as it was written.
pub(super) fn duration_text(text: &str) -> Result<String, String> {
    positive_duration(text).map(|_| text.to_owned())
}

pub(super) fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

pub(super) fn pool(text: &str) -> Result<(String, u32), String> {
    let wrong = || "write NAME=SIZE, such as gpu=2".to_owned();
    let (name, size) = text.split_once('=').ok_or_else(wrong)?;
    let name: StageName = name
        .parse()
        .map_err(|rule| format!("a pool's name {rule}"))?;
    let size = size.parse().ok().filter(|size| *size > 0);
    Ok((name.to_string(), size.ok_or_else(wrong)?))
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

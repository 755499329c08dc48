//! The messages of sshd and of the PAM modules it calls, and the events they stand for.
//!
//! | event | says |
//! |---|---|
//! | `accepted-METHOD`, `failed-METHOD`, `postponed-METHOD` | how a try to log in ended; METHOD is `password`, `none`, `publickey`, `keyboard-interactive`, `hostbased`, `gssapi` |
//! | `invalid-user` | somebody asked for a user that does not exist |
//! | `invalid-user-request` | the same, as the protocol saw it (`input_userauth_request`) |
//! | `user-not-allowed` | the user exists and may not log in |
//! | `pam-failure`, `pam-more-failures` | PAM's own count; `repeat` of the second is the number it gives |
//! | `pam-user-unknown`, `pam-max-retries` | |
//! | `session-opened`, `session-closed` | |
//! | `received-disconnect`, `disconnected`, `disconnecting`, `connection-closed`, `connection-reset`, `connection-timeout` | how a connection ended, and who ended it |
//! | `too-many-failures` | the server cut it after the last try |
//! | `connection`, `no-identification`, `bad-protocol`, `no-common-algorithm`, `write-failed` | before or beside any login |
//! | `reverse-mapping-failed` | address and host name contradict each other |
//! | `server-listening`, `server-stopped` | |
//!
//! A user's name is whatever the other side sent, spaces and ` from ` included; so addresses are read from the end of a
//! line, where sshd writes them.

use std::net::IpAddr;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// One of the module's table.
    pub name: &'static str,
    /// The user's name, as sent.
    pub user: Option<&'a str>,
    /// The other side's address.
    pub ip: Option<&'a str>,
    /// The other side's port.
    pub port: Option<u16>,
    /// How often it happened.
    pub repeat: u32,
}

/// Reads a message; `None` when it is not one of those known here.
pub fn read(text: &str) -> Option<Event<'_>> {
    if let Some(repeated) = text.strip_prefix("message repeated ") {
        let (count, inner) = repeated.split_once(" times: [ ")?;
        let event = single(inner.strip_suffix(']')?)?;
        return Some(Event {
            repeat: count.parse().ok()?,
            ..event
        });
    }
    single(text)
}

fn single(text: &str) -> Option<Event<'_>> {
    let text = text.trim_end();
    let text = text.strip_suffix(" [preauth]").unwrap_or(text);
    // sshd's own levels; the same messages come with and without them.
    let text = text
        .strip_prefix("error: ")
        .or_else(|| text.strip_prefix("fatal: "))
        .unwrap_or(text);
    login(text)
        .or_else(|| pam(text))
        .or_else(|| connection_end(text))
        .or_else(|| connection(text))
        .or_else(|| server(text))
}

fn event(name: &'static str) -> Event<'static> {
    Event {
        name,
        user: None,
        ip: None,
        port: None,
        repeat: 1,
    }
}

impl<'a> Event<'a> {
    fn user(self, user: &'a str) -> Self {
        Self {
            user: Some(user),
            ..self
        }
    }

    /// Takes address and port where `peer` is `ADDRESS` or `ADDRESS port N`; sshd also writes host names and `UNKNOWN`.
    fn peer(self, peer: &'a str) -> Self {
        let (ip, port) = match peer.split_once(" port ") {
            Some((ip, port)) => (ip, port.parse().ok()),
            None => (peer, None),
        };
        Self {
            ip: ip.parse::<IpAddr>().is_ok().then_some(ip),
            port,
            ..self
        }
    }
}

/// Tries to log in, and users that cannot.
fn login(text: &str) -> Option<Event<'_>> {
    if let Some(user) = text.strip_prefix("input_userauth_request: invalid user ") {
        return Some(event("invalid-user-request").user(user));
    }
    if let Some(rest) = text.strip_prefix("Invalid user ") {
        let (user, peer) = rest.rsplit_once(" from ")?;
        return Some(event("invalid-user").user(user).peer(peer));
    }
    if let Some(rest) = text.strip_prefix("User ") {
        let (user, rest) = rest.rsplit_once(" from ")?;
        let (peer, _why) = rest.split_once(" not allowed because ")?;
        return Some(event("user-not-allowed").user(user).peer(peer));
    }
    if let Some(rest) = text.strip_prefix("maximum authentication attempts exceeded for ") {
        let (user, peer) = user_from(rest)?;
        return Some(event("too-many-failures").user(user).peer(peer));
    }
    let (result, rest) = text.split_once(' ')?;
    let (method, rest) = rest.split_once(" for ")?;
    let (user, peer) = user_from(rest)?;
    Some(event(attempt(result, method)?).user(user).peer(peer))
}

/// Splits `[invalid user ]USER from PEER[ ssh2][: KEY]`.
fn user_from(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("invalid user ").unwrap_or(text);
    let (user, peer) = text.rsplit_once(" from ")?;
    let peer = peer.split_once(" ssh").map_or(peer, |(peer, _)| peer);
    Some((user, peer))
}

fn attempt(result: &str, method: &str) -> Option<&'static str> {
    // keyboard-interactive/pam: the part behind the slash is a device.
    let method = method
        .split_once('/')
        .map_or(method, |(method, _device)| method);
    Some(match (result, method) {
        ("Accepted", "password") => "accepted-password",
        ("Accepted", "none") => "accepted-none",
        ("Accepted", "publickey") => "accepted-publickey",
        ("Accepted", "keyboard-interactive") => "accepted-keyboard-interactive",
        ("Accepted", "hostbased") => "accepted-hostbased",
        ("Accepted", "gssapi-with-mic" | "gssapi-keyex") => "accepted-gssapi",
        ("Failed", "password") => "failed-password",
        ("Failed", "none") => "failed-none",
        ("Failed", "publickey") => "failed-publickey",
        ("Failed", "keyboard-interactive") => "failed-keyboard-interactive",
        ("Failed", "hostbased") => "failed-hostbased",
        ("Failed", "gssapi-with-mic" | "gssapi-keyex") => "failed-gssapi",
        ("Postponed", "publickey") => "postponed-publickey",
        ("Postponed", "keyboard-interactive") => "postponed-keyboard-interactive",
        ("Postponed", "gssapi-with-mic") => "postponed-gssapi",
        _ => return None,
    })
}

/// What PAM says through sshd.
fn pam(text: &str) -> Option<Event<'_>> {
    if let Some(rest) = text.strip_prefix("PAM service(sshd) ignoring max retries; ") {
        return rest.contains(" > ").then(|| event("pam-max-retries"));
    }
    if let Some(rest) = text.strip_prefix("PAM ") {
        let (count, rest) = rest.split_once(" more authentication failure")?;
        let rest = rest.strip_prefix('s').unwrap_or(rest).strip_prefix("; ")?;
        return Some(Event {
            repeat: count.parse().ok()?,
            ..pam_pairs("pam-more-failures", rest)
        });
    }
    // pam_unix(sshd:auth): ..., pam_sss(sshd:auth): ...
    let (module, rest) = text.split_once("): ")?;
    let (module, service) = module.split_once('(')?;
    if !module.starts_with("pam_") || !service.starts_with("sshd:") {
        return None;
    }
    if let Some(pairs) = rest.strip_prefix("authentication failure; ") {
        return Some(pam_pairs("pam-failure", pairs));
    }
    if rest == "check pass; user unknown" {
        return Some(event("pam-user-unknown"));
    }
    if let Some(rest) = rest.strip_prefix("session opened for user ") {
        // `USER by (uid=0)`, newer: `USER(uid=1000) by (uid=0)` or `by OTHER(uid=0)`.
        let (user, _by) = rest.rsplit_once(" by ")?;
        let user = user.split_once("(uid=").map_or(user, |(user, _)| user);
        return Some(event("session-opened").user(user));
    }
    let user = rest.strip_prefix("session closed for user ")?;
    Some(event("session-closed").user(user))
}

/// `... rhost=HOST  user=USER`, both optional.
fn pam_pairs<'a>(name: &'static str, pairs: &'a str) -> Event<'a> {
    let mut event = event(name);
    let (pairs, user) = match pairs.split_once(" user=") {
        Some((pairs, user)) => (pairs, Some(user)),
        None => (pairs, None),
    };
    if let Some((_, peer)) = pairs.split_once("rhost=") {
        event = event.peer(peer.trim_end());
    }
    Event { user, ..event }
}

/// How connections end.
fn connection_end(text: &str) -> Option<Event<'_>> {
    if let Some(rest) = text.strip_prefix("Received disconnect from ") {
        // `ADDRESS: 11: TEXT` or `ADDRESS port N:11: TEXT`. An IPv6 address has colons too, but no space behind them.
        let peer = match rest.split_once(" port ") {
            Some((ip, tail)) if !ip.contains(' ') => {
                &rest[..ip.len() + " port ".len() + tail.find(':')?]
            }
            _ => rest.split_once(": ")?.0,
        };
        return Some(event("received-disconnect").peer(peer));
    }
    if let Some(user) = text.strip_prefix("Disconnecting: Too many authentication failures for ") {
        return Some(event("too-many-failures").user(user));
    }
    if text == "Disconnecting: Too many authentication failures" {
        return Some(event("too-many-failures"));
    }
    if let Some(rest) = text.strip_prefix("Disconnecting ") {
        let (who, why) = rest.rsplit_once(": ")?;
        let tried = why.starts_with("Too many authentication failures");
        return ended(
            if tried {
                "too-many-failures"
            } else {
                "disconnecting"
            },
            who,
        );
    }
    const ENDS: [(&str, &str); 4] = [
        ("Connection closed by ", "connection-closed"),
        ("Connection reset by ", "connection-reset"),
        ("Disconnected from ", "disconnected"),
        ("Timeout before authentication for ", "connection-timeout"),
    ];
    let (prefix, name) = ENDS.iter().find(|(prefix, _)| text.starts_with(prefix))?;
    ended(name, &text[prefix.len()..])
}

/// `[authenticating user U |invalid user U |user U ]ADDRESS[ port N]`. `Timeout before authentication for connection from
/// ADDRESS to OURS` is written since 10.0.
fn ended<'a>(name: &'static str, who: &'a str) -> Option<Event<'a>> {
    const WITH_USER: [&str; 3] = ["authenticating user ", "invalid user ", "user "];
    let Some(prefix) = WITH_USER.iter().find(|prefix| who.starts_with(**prefix)) else {
        let who = who.strip_prefix("connection from ").unwrap_or(who);
        let who = who.split_once(" to ").map_or(who, |(peer, _ours)| peer);
        return Some(event(name).peer(who));
    };
    let who = &who[prefix.len()..];
    let (before_port, _) = who.rsplit_once(" port ")?;
    let user = before_port.rsplit_once(' ').map(|(user, _ip)| user)?;
    Some(event(name).user(user).peer(&who[user.len() + 1..]))
}

/// What happens before or beside a login.
fn connection(text: &str) -> Option<Event<'_>> {
    if let Some(rest) = text.strip_prefix("reverse mapping checking getaddrinfo for ") {
        let (_host, rest) = rest.rsplit_once('[')?;
        let (ip, _) = rest.split_once("] failed")?;
        return Some(event("reverse-mapping-failed").peer(ip));
    }
    if let Some(rest) = text.strip_prefix("Address ") {
        let (ip, rest) = rest.split_once(" maps to ")?;
        rest.contains("does not map back to the address")
            .then_some(())?;
        return Some(event("reverse-mapping-failed").peer(ip));
    }
    if let Some(peer) = text.strip_prefix("Did not receive identification string from ") {
        return Some(event("no-identification").peer(peer));
    }
    if let Some(rest) = text.strip_prefix("Bad protocol version identification ") {
        return Some(event("bad-protocol").peer(rest.rsplit_once(" from ")?.1));
    }
    if let Some(rest) = text.strip_prefix("Unable to negotiate with ") {
        return Some(event("no-common-algorithm").peer(rest.split_once(": no matching ")?.0));
    }
    if let Some(rest) = text.strip_prefix("Connection from ") {
        return Some(
            event("connection").peer(rest.split_once(" on ").map_or(rest, |(peer, _ours)| peer)),
        );
    }
    text.strip_prefix("Write failed: ")
        .map(|_why| event("write-failed"))
}

/// The server itself; its own address is nobody's.
fn server(text: &str) -> Option<Event<'_>> {
    if text.starts_with("Server listening on ") {
        return Some(event("server-listening"));
    }
    (text.starts_with("Received signal ") && text.ends_with("terminating."))
        .then(|| event("server-stopped"))
}

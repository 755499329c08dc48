//! Finds the request in a line.
//!
//! ```text
//! ... nova.osapi_compute.wsgi.server [req-...] 10.11.10.1 "GET /v2/x/servers HTTP/1.1" status: 200 len: 1893 time: 0.2477829
//! 203.0.113.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 ["REFERER" "AGENT"] [0.031]
//! ```
//!
//! Of several addresses, `CLIENT,PROXY`, the first is the caller.

use sluice_log_lines::{Form, Moment, clf, read};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) caller: &'a str,
    /// Who answered; `None` where the line does not say.
    pub(crate) service: Option<&'a str>,
    pub(crate) method: &'a str,
    /// As asked for, with what is behind `?`.
    pub(crate) target: &'a str,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) at: Option<Moment>,
    /// Microseconds; what is finer is cut off.
    pub(crate) took_us: Option<u64>,
}

/// What the last field of an access log's line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Duration {
    /// Nothing about time.
    #[default]
    None,
    /// Seconds with a part behind the point: nginx's `$request_time`.
    Seconds,
    /// Microseconds: Apache's `%D`.
    Microseconds,
}

/// The request of a line, if there is one.
pub(crate) fn find(line: &str, duration: Duration) -> Option<Request<'_>> {
    let line = line.trim_end();
    wsgi(line).or_else(|| access(line, duration))
}

fn wsgi(text: &str) -> Option<Request<'_>> {
    let line = read(text);
    if line.form != Form::OpenStack {
        return None;
    }
    let (callers, rest) = line.message.split_once(" \"")?;
    let (request, rest) = rest.split_once('"')?;
    let (method, target) = method_and_target(request)?;
    let mut fields = rest.split_ascii_whitespace();
    let mut field = |name: &str| (fields.next()? == name).then(|| fields.next())?;
    let status = field("status:")?.parse().ok()?;
    let bytes = field("len:")?.parse().ok()?;
    let took_us = field("time:").and_then(seconds);
    Some(Request {
        caller: caller(callers)?,
        service: line.part,
        method,
        target,
        status,
        bytes,
        at: line.at,
        took_us,
    })
}

fn access(line: &str, duration: Duration) -> Option<Request<'_>> {
    let (callers, rest) = line.split_once(' ')?;
    let (_user, rest) = rest.split_once('[')?;
    let (at, rest) = rest.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let (method, target) = method_and_target(request)?;
    let mut fields = rest.split_ascii_whitespace();
    let status = fields.next()?.parse().ok()?;
    // `-`: nothing was sent.
    let bytes = fields.next().map(|bytes| bytes.parse().unwrap_or(0))?;
    let last = fields.next_back();
    let took_us = last.and_then(|last| match duration {
        Duration::None => None,
        Duration::Seconds => seconds(last),
        Duration::Microseconds => last.parse().ok(),
    });
    Some(Request {
        caller: caller(callers)?,
        service: None,
        method,
        target,
        status,
        bytes,
        at: Some(clf(at)?),
        took_us,
    })
}

/// `GET /path HTTP/1.1`; a method is a word in capitals.
fn method_and_target(request: &str) -> Option<(&str, &str)> {
    let (method, rest) = request.split_once(' ')?;
    let target = rest.split(' ').next()?;
    let capitals = !method.is_empty() && method.bytes().all(|it| it.is_ascii_uppercase());
    (capitals && !target.is_empty()).then_some((method, target))
}

fn caller(callers: &str) -> Option<&str> {
    let first = callers.split(',').next()?.trim();
    (!first.is_empty() && !first.contains(' ')).then_some(first)
}

/// Microseconds of seconds with a part behind a point; what is finer is cut off.
fn seconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let mut us: u64 = whole.parse().ok()?;
    for place in 0..6 {
        let digit = part.as_bytes().get(place).copied().unwrap_or(b'0');
        let digit = char::from(digit).to_digit(10)?;
        us = us.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(us)
}

/// The target without its query, and with what differs from call to call taken out.
pub(crate) fn route(target: &str) -> String {
    /// Longer ones are cut: nobody reads them.
    const ROUTE_BYTES_MAX: usize = 256;
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut route = String::with_capacity(path.len());
    for (place, segment) in path.split('/').enumerate() {
        if place > 0 {
            route.push('/');
        }
        route.push_str(if is_id(segment) { "{id}" } else { segment });
    }
    route.truncate(route.floor_char_boundary(ROUTE_BYTES_MAX));
    route
}

/// Whether a segment names one thing of many: a number, a UUID, or a long number in hexadecimal.
fn is_id(segment: &str) -> bool {
    const HEX_ID_BYTES_MIN: usize = 16;
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|it| it.is_ascii_digit()).count();
    if bytes.is_empty() || digits == 0 {
        return false;
    }
    digits == bytes.len()
        || sluice_log_lines::is_uuid(bytes)
        || (bytes.len() >= HEX_ID_BYTES_MIN && bytes.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn requests_of_both_forms_are_found() {
        let line = "nova-api.log 2017-05-16 00:00:00.008 25746 INFO nova.metadata.wsgi.server [req-38 a b - - -] 10.11.21.143,10.11.10.1 \"GET /v2/54fadb412c4e40cdbaed9335e4c35a9e/servers/detail HTTP/1.1\" status: 200 len: 1893 time: 0.2477829\r";
        let found = find(line, Duration::None).unwrap();
        assert_eq!(
            (found.caller, found.service),
            ("10.11.21.143", Some("nova.metadata.wsgi.server"))
        );
        assert_eq!(
            (found.method, found.status, found.bytes),
            ("GET", 200, 1893)
        );
        assert_eq!(found.took_us, Some(247_782));
        assert_eq!(route(found.target), "/v2/{id}/servers/detail");
        assert_eq!(found.at.unwrap().to_string(), "2017-05-16T00:00:00.008");

        let line = "203.0.113.9 - frank [10/Oct/2000:13:55:36 -0700] \"POST /a.gif?x=1 HTTP/1.0\" 404 - \"http://a/\" \"Mozilla/4.0 (x)\" 0.5";
        let found = find(line, Duration::Seconds).unwrap();
        assert_eq!(
            (found.caller, found.method, found.status, found.bytes),
            ("203.0.113.9", "POST", 404, 0)
        );
        assert_eq!((found.took_us, found.service), (Some(500_000), None));
        assert_eq!(route(found.target), "/a.gif");
        assert_eq!(find(line, Duration::None).unwrap().took_us, None);
        let common = "h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 7";
        assert_eq!(find(common, Duration::Seconds).unwrap().took_us, None);
        let micros = format!("{common} \"-\" \"x\" 31");
        assert_eq!(
            find(&micros, Duration::Microseconds).unwrap().took_us,
            Some(31)
        );
    }

    #[test]
    fn what_is_no_request_is_none() {
        for line in [
            "",
            "2017-05-16 00:00:00.008 25746 INFO nova.compute [-] [instance: a] VM \"up\" now",
            "2017-05-16 00:00:00.008 25746 INFO nova.wsgi [-] 10.0.0.1 \"GET / HTTP/1.1\" status: x len: 1 time: 1",
            "h - - [10/Oct/2000:13:55:36 -0700] \"\\x16\\x03\" 400 0",
            "h - - [10/Oct/2000:25:55:36 -0700] \"GET / HTTP/1.0\" 200 7",
            "h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0",
        ] {
            assert_eq!(find(line, Duration::Seconds), None, "{line}");
        }
    }

    #[test]
    fn routes_have_no_ids() {
        for (target, expected) in [
            ("/", "/"),
            ("/v2.1/7/x", "/v2.1/{id}/x"),
            (
                "/openstack/2013-10-17/meta_data.json",
                "/openstack/2013-10-17/meta_data.json",
            ),
            ("/s/faf974ea-cba5-4e1b-93f4-3a3bc606006f?a=/7", "/s/{id}"),
            (
                "/deadbeefdeadbeef/deadbeef00000000",
                "/deadbeefdeadbeef/{id}",
            ),
            ("*", "*"),
        ] {
            assert_eq!(route(target), expected);
        }
        // Cut before the character that would reach over the bound.
        assert_eq!(route(&"ä/".repeat(500)).len(), 255);
        assert_eq!(seconds("18446744073709551616"), None);
        assert_eq!(seconds("18446744073709551615"), None);
        assert_eq!(seconds("1.x"), None);
    }
}

//! Takes out of a message what differs each time: numbers, addresses, ids, paths.
//!
//! ```text
//! jk2_init() Found child 6725 in scoreboard slot 10   ->   jk2_init() Found child <num> in scoreboard slot <num>
//! 10.11.10.1 "GET /v2/x HTTP/1.1" time: 0.24          ->   <ip> "GET <path> HTTP/<num>" time: <num>
//! ```
//!
//! A mask begins where no letter, digit or `_` stands before it, so that names with digits in them stay.

use sluice_log_lines::is_uuid;

/// From this length on, digits and letters a to f together are an id and no word.
const HEX_ID_BYTES_MIN: usize = 8;
/// Letters behind a number that are a unit: `ms`, `KB`, `s`.
const UNIT_BYTES_MAX: usize = 2;

/// Appends the masked message.
pub(crate) fn mask(message: &str, out: &mut String) {
    let bytes = message.as_bytes();
    let mut at = 0;
    let mut copied = 0;
    let mut before = b' ';
    while at < bytes.len() {
        if let Some((length, with)) = mask_at(&bytes[at..], before) {
            out.push_str(&message[copied..at]);
            out.push_str(with);
            at += length;
            copied = at;
            before = bytes[at - 1];
            continue;
        }
        before = bytes[at];
        at += 1;
    }
    out.push_str(&message[copied..]);
}

/// What is to be masked at the start of `rest`: its length, and what takes its place. Always whole ASCII.
fn mask_at(rest: &[u8], before: u8) -> Option<(usize, &'static str)> {
    if is_word(before) {
        return None;
    }
    match *rest.first()? {
        b'/' => path(rest, before).map(|length| (length, "<path>")),
        b'-' if before.is_ascii_whitespace() || before == b'=' => {
            let (length, with) = number(&rest[1..])?;
            (with == "<num>").then_some((length + 1, with))
        }
        first if first.is_ascii_hexdigit() => {
            if rest.get(..36).is_some_and(is_uuid) && !is_word_at(rest, 36) {
                return Some((36, "<uuid>"));
            }
            if let Some(length) = address(rest) {
                return Some((length, "<ip>"));
            }
            number(rest)
        }
        _ => None,
    }
}

/// The length of a path: from a `/` that follows no word, to what ends a word.
fn path(rest: &[u8], before: u8) -> Option<usize> {
    if !before.is_ascii_whitespace() && !b"(\"'=[<,:".contains(&before) {
        return None;
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>()[],;|".contains(byte);
    let mut length = rest.iter().position(ends).unwrap_or(rest.len());
    while length > 0 && matches!(rest[length - 1], b':' | b'.') {
        length -= 1;
    }
    // A mask is whole ASCII, so that it never cuts a character; a path in another script stays.
    let (path, named) = (
        &rest[..length],
        rest[..length].iter().any(u8::is_ascii_alphanumeric),
    );
    (named && path.is_ascii()).then_some(length)
}

/// The length of an IPv4 address.
fn address(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    for group in 0..4 {
        if group > 0 {
            if rest.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let digits = rest[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=3).contains(&digits) {
            return None;
        }
        at += digits;
    }
    let longer = rest.get(at) == Some(&b'.') && rest.get(at + 1).is_some_and(u8::is_ascii_digit);
    (!longer && !is_word_at(rest, at)).then_some(at)
}

/// A number, with a part behind a point and a unit or without; or an id.
fn number(rest: &[u8]) -> Option<(usize, &'static str)> {
    let word = rest.iter().take_while(|byte| is_word(**byte)).count();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ascii = rest[..word].is_ascii();
    if digits > 0 && digits == word {
        let part = &rest[digits..];
        let more = part
            .iter()
            .skip(1)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let fraction = part.first() == Some(&b'.') && more > 0 && !is_word_at(part, more + 1);
        return Some((digits + if fraction { 1 + more } else { 0 }, "<num>"));
    }
    if digits > 0 && word - digits <= UNIT_BYTES_MAX && rest[digits..word].is_ascii() {
        // The unit stays.
        return Some((digits, "<num>"));
    }
    let hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    if rest.starts_with(b"0x") && word > 2 && hex(&rest[2..word]) {
        return Some((word, "<hex>"));
    }
    let any_digit = rest[..word].iter().any(u8::is_ascii_digit);
    if word >= HEX_ID_BYTES_MIN && any_digit && hex(&rest[..word]) {
        return Some((word, "<hex>"));
    }
    (digits > 0 && ascii).then_some((word, "<id>"))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_word_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|byte| is_word(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_masked_and_what_names_is_kept() {
        for (message, expected) in [
            (
                "jk2_init() Found child 6725 in slot 10",
                "jk2_init() Found child <num> in slot <num>",
            ),
            ("init 1 -2", "init <num> <num>"),
            ("ok /etc/httpd/conf/workers2.properties", "ok <path>"),
            (
                "10.11.21.143,10.11.10.1 \"GET /v2/54fadb41/x HTTP/1.1\" time: 0.24",
                "<ip>,<ip> \"GET <path> HTTP/<num>\" time: <num>",
            ),
            (
                "from 183.62.140.253 port 52683 ssh2",
                "from <ip> port <num> ssh2",
            ),
            (
                "version 1.2.3.4.5 of 1.2",
                "version <num>.<num>.<num> of <num>",
            ),
            (
                "[instance: faf974ea-cba5-4e1b-93f4-3a3bc606006f] up",
                "[instance: <uuid>] up",
            ),
            ("req-faf974ea-cba5-4e1b-93f4-3a3bc606006f", "req-<uuid>"),
            (
                "base a489c868f0c37da93b76227c91bb03908ac0e742 deadbeef",
                "base <hex> deadbeef",
            ),
            ("at 0xffee 0x", "at <hex> <num>x"),
            (
                "took 31.5ms, 12KB, 4x4q",
                "took <num>.<num>ms, <num>KB, <id>",
            ),
            (
                "steps=1514038440000##6993##548365",
                "steps=<num>##<num>##<num>",
            ),
            ("and/or a/b key=/x/y: end.", "and/or a/b key=<path>: end."),
            ("http://host/x", "http:<path>"),
            ("größe 7é x7 _9 /ü/x", "größe 7é x7 _9 /ü/x"),
            ("", ""),
        ] {
            let mut masked = String::new();
            mask(message, &mut masked);
            assert_eq!(masked, expected, "{message}");
        }
    }
}

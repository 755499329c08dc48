//! Rust text with everything blanked out that is not code, so that plain searching finds code only.
//!
//! Blanking keeps every line break and every byte position, so lines can be counted afterwards.

use std::ops::Range;

/// `text` with comments and the content of string and character literals as spaces.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'\'' => match char_end(text, at) {
                Some(end) => end,
                // A lifetime or a label.
                None => at + 1,
            },
            b'r' | b'b' | b'c' if !is_word_before(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at + 1,
            },
            _ => at + 1,
        };
        if end > at + 1 {
            blank(&mut out, at..end);
        }
        at = end;
    }
    String::from_utf8(out).expect("whole literals and comments were replaced by ASCII")
}

/// `masked` without the items that exist in tests only.
pub fn mask_tests(masked: &str) -> String {
    let mut out = masked.as_bytes().to_vec();
    for range in test_items(masked) {
        blank(&mut out, range);
    }
    String::from_utf8(out).expect("an item starts and ends at ASCII")
}

/// The names of modules in files of their own that exist in tests only.
pub fn test_modules(masked: &str) -> Vec<String> {
    test_items(masked)
        .into_iter()
        .filter_map(|range| {
            let item = masked[range].strip_suffix(';')?;
            let mut words = item.split_whitespace().rev();
            let name = words.next()?;
            (words.next() == Some("mod")).then(|| name.to_owned())
        })
        .collect()
}

/// From each `#[cfg(test)]` to the end of the item that it stands before.
fn test_items(masked: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let bytes = masked.as_bytes();
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(found) = masked[from..].find(MARK) {
        let start = from + found;
        let mut at = start + MARK.len();
        let mut depth = 0_usize;
        while at < bytes.len() {
            match bytes[at] {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && bytes[at] == b'}' {
                        break;
                    }
                }
                b';' if depth == 0 => break,
                _ => {}
            }
            at += 1;
        }
        // `use a::{b};` ends behind its brace.
        let more = bytes.get(at + 1) == Some(&b';');
        let end = (at + 1 + usize::from(more)).min(bytes.len());
        items.push(start..end);
        from = end;
    }
    items
}

/// The lines, counted from 1, where `needle` stands in `masked` as whole words.
pub fn lines_with(masked: &str, needle: &str) -> Vec<usize> {
    positions(masked, needle)
        .into_iter()
        .map(|at| line_of(masked, at))
        .collect()
}

/// Where `needle` stands in `masked` as whole words.
pub fn positions(masked: &str, needle: &str) -> Vec<usize> {
    let bytes = masked.as_bytes();
    let starts_with_word = needle.bytes().next().is_some_and(is_word);
    let ends_with_word = needle.bytes().last().is_some_and(is_word);
    masked
        .match_indices(needle)
        .map(|(at, _)| at)
        .filter(|&at| !starts_with_word || !is_word_before(bytes, at))
        .filter(|&at| {
            let after = bytes.get(at + needle.len());
            !ends_with_word || !after.is_some_and(|&byte| is_word(byte))
        })
        .collect()
}

/// The line, counted from 1, of a byte position.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn blank(out: &mut [u8], range: Range<usize>) {
    for byte in &mut out[range] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| from + length)
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"..."`, `r##"..."##`, `b"..."`, `br"..."`, `c"..."` or `cr"..."` at `from`, if it is one.
fn raw_string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    if matches!(bytes[at], b'b' | b'c') {
        at += 1;
    }
    if bytes.get(at) != Some(&b'r') {
        return (bytes.get(at) == Some(&b'"')).then(|| string_end(bytes, at));
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|&&byte| byte == b'#').count();
    at += hashes;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let rest = &bytes[at + 1..];
    let length = rest
        .windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |length| length + close.len());
    Some(at + 1 + length)
}

/// The end of the character literal at `from`; `None` when it is a lifetime.
fn char_end(text: &str, from: usize) -> Option<usize> {
    let mut rest = text[from + 1..].char_indices();
    match rest.next()? {
        (_, '\\') => {
            // The escaped character may be a quote itself.
            rest.next()?;
            let (length, _) = rest.find(|&(_, c)| c == '\'')?;
            Some(from + 1 + length + 1)
        }
        _ => match rest.next()? {
            (length, '\'') => Some(from + 1 + length + 1),
            _ => None,
        },
    }
}

//! Checks JSON without building anything. Positions in, positions out; no recursion, so that no record can exhaust the
//! stack.

use std::fmt;

/// How deep objects and arrays may nest, the outermost counted: what serde_json takes.
pub const DEPTH_MAX: usize = 127;

/// What is wrong with a record that should be a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The byte at which it shows.
    pub byte: usize,
    problem: &'static str,
}

impl JsonError {
    pub(super) fn at(byte: usize, problem: &'static str) -> Self {
        Self { byte, problem }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "not a JSON object: {} at byte {}",
            self.problem, self.byte
        )
    }
}

impl std::error::Error for JsonError {}

type Checked<T> = Result<T, JsonError>;

/// Checks that `bytes` are UTF-8.
pub(super) fn text(bytes: &[u8]) -> Checked<()> {
    // Without a way out of the loop the compiler makes vectors of it, which the standard library's search does not have
    // on Wasm. Most records are ASCII.
    if bytes.iter().fold(0, |all, byte| all | byte) < 0x80 {
        return Ok(());
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(JsonError::at(error.valid_up_to(), "invalid UTF-8")),
    }
}

/// Checks that the whole of `bytes`, which is UTF-8, is one object. Calls `field` with where each top-level key is
/// (without quotes), whether it has escapes, and where its value is.
pub(super) fn object(
    bytes: &[u8],
    mut field: impl FnMut((usize, usize), bool, (usize, usize)),
) -> Checked<()> {
    let mut at = blank(bytes, 0);
    at = expect(bytes, at, b'{', "expected `{`")?;
    at = blank(bytes, at);
    if bytes.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let key_start = expect(bytes, at, b'"', "expected a key in quotes")?;
            let (after_key, escaped) = string(bytes, key_start)?;
            at = expect(bytes, blank(bytes, after_key), b':', "expected `:`")?;
            let value_start = blank(bytes, at);
            at = value(bytes, value_start)?;
            field((key_start, after_key - 1), escaped, (value_start, at));
            at = blank(bytes, at);
            match bytes.get(at) {
                Some(b',') => at = blank(bytes, at + 1),
                Some(b'}') => break at += 1,
                _ => return Err(JsonError::at(at, "expected `,` or `}`")),
            }
        }
    }
    at = blank(bytes, at);
    if at == bytes.len() {
        Ok(())
    } else {
        Err(JsonError::at(at, "more text after the object"))
    }
}

/// Checks a value inside the outermost object and returns where it ends.
fn value(bytes: &[u8], mut at: usize) -> Checked<usize> {
    // One bit for each open container, the innermost lowest: 1 = object.
    let mut open: u128 = 0;
    let mut depth = 1;
    loop {
        // A value starts here.
        match bytes.get(at) {
            Some(b'"') => at = string(bytes, at + 1)?.0,
            Some(b'{' | b'[') => {
                let is_object = bytes[at] == b'{';
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(JsonError::at(at, "nested too deep"));
                }
                open = open << 1 | u128::from(is_object);
                at = blank(bytes, at + 1);
                let close = if is_object { b'}' } else { b']' };
                if bytes.get(at) != Some(&close) {
                    if is_object {
                        at = key(bytes, at)?;
                    }
                    continue;
                }
                // Empty: the closing below takes it.
            }
            Some(b'-' | b'0'..=b'9') => at = number(bytes, at)?,
            Some(b't') => at = literal(bytes, at, b"true")?,
            Some(b'f') => at = literal(bytes, at, b"false")?,
            Some(b'n') => at = literal(bytes, at, b"null")?,
            _ => return Err(JsonError::at(at, "expected a value")),
        }
        // A value ended here: close what ends with it, go on to the next.
        loop {
            if depth == 1 {
                return Ok(at);
            }
            let is_object = open & 1 == 1;
            at = blank(bytes, at);
            match bytes.get(at) {
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(b',') => {
                    at = blank(bytes, at + 1);
                    if is_object {
                        at = key(bytes, at)?;
                    }
                    break;
                }
                _ => {
                    return Err(JsonError::at(
                        at,
                        if is_object {
                            "expected `,` or `}`"
                        } else {
                            "expected `,` or `]`"
                        },
                    ));
                }
            }
            at += 1;
            open >>= 1;
            depth -= 1;
        }
    }
}

/// Checks `"key":` and returns where its value starts.
fn key(bytes: &[u8], at: usize) -> Checked<usize> {
    let start = expect(bytes, at, b'"', "expected a key in quotes")?;
    let (end, _) = string(bytes, start)?;
    let at = expect(bytes, blank(bytes, end), b':', "expected `:`")?;
    Ok(blank(bytes, at))
}

/// Checks a string from behind its opening quote. Returns where it ends, behind the closing quote, and whether it has
/// escapes.
fn string(bytes: &[u8], mut at: usize) -> Checked<(usize, bool)> {
    let mut escaped = false;
    loop {
        at = plain(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, escaped)),
            Some(b'\\') => {
                escaped = true;
                at = escape(bytes, at + 1)?;
            }
            Some(_) => return Err(JsonError::at(at, "unescaped control character")),
            None => return Err(JsonError::at(at, "unfinished string")),
        }
    }
}

/// Skips what needs no look inside a string: everything but quotes, backslashes and control characters.
#[inline]
fn plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    // A byte below `n` borrows into its high bit. A borrow may spoil the bytes above it, never those below, and the
    // lowest one is taken.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let found =
            below(word, 0x20) | below(word ^ (ONES * 0x22), 1) | below(word ^ (ONES * 0x5C), 1);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
        // A text that is longer than keys and short values are: see where in 16 bytes it ends only once it does.
        while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            if chunk
                .iter()
                .fold(false, |any, byte| any | is_special(*byte))
            {
                break;
            }
            at += 16;
        }
    }
    while bytes.get(at).is_some_and(|byte| !is_special(*byte)) {
        at += 1;
    }
    at
}

/// What ends a plain stretch of a string.
#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Checks an escape from behind its backslash and returns where it ends.
fn escape(bytes: &[u8], at: usize) -> Checked<usize> {
    match bytes.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => match bytes.get(at + 1..at + 5).and_then(hex) {
            None => Err(JsonError::at(
                at,
                "expected four hexadecimal digits after `\\u`",
            )),
            Some(0xD800..=0xDBFF) => match bytes.get(at + 5..at + 11) {
                Some([b'\\', b'u', low @ ..])
                    if hex(low).is_some_and(|low| (0xDC00..0xE000).contains(&low)) =>
                {
                    Ok(at + 11)
                }
                _ => Err(JsonError::at(at, "half a surrogate pair")),
            },
            Some(0xDC00..=0xDFFF) => Err(JsonError::at(at, "half a surrogate pair")),
            Some(_) => Ok(at + 5),
        },
        _ => Err(JsonError::at(at, "unknown escape")),
    }
}

/// The value of hexadecimal digits.
pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value * 16 + (*digit as char).to_digit(16)?)
    })
}

fn number(bytes: &[u8], mut at: usize) -> Checked<usize> {
    if bytes[at] == b'-' {
        at += 1;
    }
    match bytes.get(at) {
        Some(b'0') => at += 1,
        Some(b'1'..=b'9') => at = digits(bytes, at),
        _ => return Err(JsonError::at(at, "expected a digit")),
    }
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = some_digits(bytes, at)?;
    }
    Ok(at)
}

fn some_digits(bytes: &[u8], at: usize) -> Checked<usize> {
    let end = digits(bytes, at);
    if end == at {
        Err(JsonError::at(at, "expected a digit"))
    } else {
        Ok(end)
    }
}

fn digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Checked<usize> {
    if bytes[at..].starts_with(word) {
        Ok(at + word.len())
    } else {
        Err(JsonError::at(at, "expected a value"))
    }
}

#[inline]
fn blank(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

#[inline]
fn expect(bytes: &[u8], at: usize, byte: u8, problem: &'static str) -> Checked<usize> {
    if bytes.get(at) == Some(&byte) {
        Ok(at + 1)
    } else {
        Err(JsonError::at(at, problem))
    }
}

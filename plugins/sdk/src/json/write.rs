//! Writes JSON piece by piece.

use crate::Buffer;

/// Writes a string, quoted and escaped.
pub fn write_text(text: &str, out: &mut impl Buffer) {
    out.put(b"\"");
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (place, byte) in bytes.iter().enumerate() {
        let hex;
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                hex = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
                &hex
            }
            _ => continue,
        };
        out.put(&bytes[copied..place]);
        out.put(escape);
        copied = place + 1;
    }
    out.put(&bytes[copied..]);
    out.put(b"\"");
}

/// Writes an integer.
pub fn write_integer(value: u64, out: &mut impl Buffer) {
    // As many digits as the largest has.
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut left = value;
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put(&digits[start..]);
}

/// Writes an object, field by field. Names are written as given, repeated or not.
#[derive(Debug)]
pub struct ObjectWriter<'a, B: Buffer> {
    out: &'a mut B,
    first: bool,
}

impl<'a, B: Buffer> ObjectWriter<'a, B> {
    /// Opens an object.
    pub fn new(out: &'a mut B) -> Self {
        out.put(b"{");
        Self { out, first: true }
    }

    /// A field whose value is a string, or null.
    pub fn text<'t>(&mut self, name: &str, text: impl Into<Option<&'t str>>) {
        self.name(name);
        match text.into() {
            Some(text) => write_text(text, self.out),
            None => self.out.put(b"null"),
        }
    }

    /// A field whose value is an integer, or null.
    pub fn integer(&mut self, name: &str, value: impl Into<Option<u64>>) {
        self.name(name);
        match value.into() {
            Some(value) => write_integer(value, self.out),
            None => self.out.put(b"null"),
        }
    }

    /// A field whose value is a boolean.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }

    /// A field whose value is this JSON, as it is.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.put(json.as_bytes());
    }

    /// Closes the object.
    pub fn finish(self) {
        self.out.put(b"}");
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.put(b",");
        }
        write_text(name, self.out);
        self.out.put(b":");
    }
}

/// A JSON list, each item as `write` puts it.
pub fn list<T>(items: &[T], mut write: impl FnMut(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut json = b"[".to_vec();
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            json.put(b",");
        }
        write(item, &mut json);
    }
    json.put(b"]");
    json
}

/// What was written here, as text for [`ObjectWriter::raw`].
///
/// # Panics
///
/// When it is not UTF-8, which nothing of this module writes.
pub fn json_text(json: &[u8]) -> &str {
    std::str::from_utf8(json).expect("made of text")
}

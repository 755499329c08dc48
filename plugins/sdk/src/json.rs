//! JSON records without a tree: find, test and splice the fields of an object, and write new ones.
//!
//! Building a tree is what makes JSON slow, many times the cost of the call into the sandbox. A [`Scanner`] walks a
//! record once, checks all of it (RFC 8259, UTF-8 and escapes included) and notes where the top-level fields are; what
//! nobody asks for is never decoded. Untouched parts of a record stay byte for byte what they were.
//!
//! ```
//! use sluice_sdk::json::{Edit, Scanner};
//!
//! let mut scanner = Scanner::new();
//! let object = scanner.object(br#"{"level": "info", "n": 1}"#).unwrap();
//! assert!(object.get("level").is_some_and(|level| level.is_text("info")));
//!
//! let mut out = Vec::new();
//! object.write_with(&[Edit::Set("n", "2"), Edit::Set("seen", "true")], &mut out);
//! assert_eq!(out, br#"{"level": "info", "n": 2,"seen":true}"#);
//! ```
//!
//! Nested objects: scan the value's [`raw`](Value::raw) text with another scanner. A key that occurs twice is found by its
//! last value, as most parsers have it, and an edit changes every occurrence, so that no parser can tell otherwise.

use std::borrow::Cow;

use crate::Buffer;

mod check;
mod write;

pub use check::{DEPTH_MAX, JsonError};
pub use write::{ObjectWriter, json_text, list, write_integer, write_text};

/// Walks records. Keep it between records: its list of fields is reused.
#[derive(Debug, Default)]
pub struct Scanner {
    fields: Vec<Span>,
}

/// Where a field is in its record.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The key without its quotes.
    key: (usize, usize),
    value: (usize, usize),
    /// Whether the key has escapes.
    key_escaped: bool,
}

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a record and finds its fields. The error says what is wrong at which byte.
    ///
    /// Numbers may be of any size; nesting goes [`DEPTH_MAX`] deep.
    pub fn object<'s>(&'s mut self, record: &'s [u8]) -> Result<Object<'s>, JsonError> {
        check::text(record)?;
        self.fields.clear();
        check::object(record, |key, key_escaped, value| {
            self.fields.push(Span {
                key,
                value,
                key_escaped,
            })
        })?;
        Ok(Object {
            text: record,
            fields: &self.fields,
        })
    }
}

/// A checked JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Object<'s> {
    /// Valid UTF-8; as bytes, because most stages only compare and copy it.
    text: &'s [u8],
    fields: &'s [Span],
}

impl<'s> Object<'s> {
    /// The object as it was written, white space around it included.
    pub fn raw(&self) -> &'s str {
        checked(self.text)
    }

    /// How many fields, repeated keys counted each.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<Value<'s>> {
        self.fields
            .iter()
            .rev()
            .find(|field| self.is_key(field, name))
            .map(|field| self.value(field))
    }

    /// The fields in the order they were written.
    pub fn fields(&self) -> impl Iterator<Item = (Cow<'s, str>, Value<'s>)> {
        let object = *self;
        self.fields
            .iter()
            .map(move |field| (object.key(field), object.value(field)))
    }

    /// Writes the object with some fields changed. What no edit names stays byte for byte as it was, but for the commas
    /// and white space between fields when one is removed. New fields come last, in the order of the edits. Of several
    /// edits for one name the first counts.
    pub fn write_with(&self, edits: &[Edit<'_>], out: &mut impl Buffer) {
        let removes = |field: &Span| matches!(self.edit_of(field, edits), Some(Edit::Remove(_)));
        if edits.iter().any(|edit| matches!(edit, Edit::Remove(_)))
            && self.fields.iter().any(removes)
        {
            self.write_without(edits, removes, out);
            return;
        }
        let mut copied = 0;
        for field in self.fields {
            if let Some(Edit::Set(_, json)) = self.edit_of(field, edits) {
                out.put(&self.text[copied..field.value.0]);
                out.put(json.as_bytes());
                copied = field.value.1;
            }
        }
        let last = match self.fields.last() {
            Some(field) => field.value.1,
            None => self.open() + 1,
        };
        out.put(&self.text[copied..last]);
        self.write_new(edits, self.fields.is_empty(), out);
        out.put(&self.text[last..]);
    }

    fn write_without(
        &self,
        edits: &[Edit<'_>],
        removes: impl Fn(&Span) -> bool,
        out: &mut impl Buffer,
    ) {
        out.put(b"{");
        let mut first = true;
        for field in self.fields.iter().filter(|field| !removes(field)) {
            if !std::mem::take(&mut first) {
                out.put(b",");
            }
            match self.edit_of(field, edits) {
                Some(Edit::Set(_, json)) => {
                    out.put(&self.text[field.key.0 - 1..field.value.0]);
                    out.put(json.as_bytes());
                }
                _ => out.put(&self.text[field.key.0 - 1..field.value.1]),
            }
        }
        self.write_new(edits, first, out);
        out.put(b"}");
    }

    /// Writes the edits that set what is not there yet.
    fn write_new(&self, edits: &[Edit<'_>], mut first: bool, out: &mut impl Buffer) {
        for (index, edit) in edits.iter().enumerate() {
            let Edit::Set(name, json) = edit else {
                continue;
            };
            let earlier = edits[..index].iter().any(|earlier| earlier.name() == *name);
            if earlier || self.fields.iter().any(|field| self.is_key(field, name)) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.put(b",");
            }
            write_text(name, out);
            out.put(b":");
            out.put(json.as_bytes());
        }
    }

    fn edit_of<'e>(&self, field: &Span, edits: &'e [Edit<'e>]) -> Option<&'e Edit<'e>> {
        edits.iter().find(|edit| self.is_key(field, edit.name()))
    }

    /// Where the opening brace is.
    fn open(&self) -> usize {
        let brace = self.text.iter().position(|byte| *byte == b'{');
        brace.expect("a checked object opens")
    }

    #[inline]
    fn is_key(&self, field: &Span, name: &str) -> bool {
        if field.key_escaped {
            self.key(field) == name
        } else {
            &self.text[field.key.0..field.key.1] == name.as_bytes()
        }
    }

    fn key(&self, field: &Span) -> Cow<'s, str> {
        let key = checked(&self.text[field.key.0..field.key.1]);
        if field.key_escaped {
            Cow::Owned(unescape(key))
        } else {
            Cow::Borrowed(key)
        }
    }

    fn value(&self, field: &Span) -> Value<'s> {
        Value {
            raw: &self.text[field.value.0..field.value.1],
        }
    }
}

/// One change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// The field of this name gets this value, which must be valid JSON: `1`, `true`, `"text"` with its quotes.
    Set(&'a str, &'a str),
    /// The field of this name goes away.
    Remove(&'a str),
}

impl Edit<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Remove(name) => name,
        }
    }
}

/// What sort of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are JSON's own")]
pub enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Array,
    Object,
}

/// A checked JSON value, not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'s> {
    /// Valid UTF-8, not empty.
    raw: &'s [u8],
}

impl<'s> Value<'s> {
    /// The value as it was written, without white space around it.
    pub fn raw(&self) -> &'s str {
        checked(self.raw)
    }

    /// What sort of value it is.
    pub fn kind(&self) -> Kind {
        match self.raw[0] {
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Bool,
            b'"' => Kind::Text,
            b'[' => Kind::Array,
            b'{' => Kind::Object,
            _ => Kind::Number,
        }
    }

    /// The text, when it is a string. Borrowed unless it has escapes.
    pub fn text(&self) -> Option<Cow<'s, str>> {
        let text = self.raw().strip_prefix('"')?.strip_suffix('"')?;
        Some(if text.contains('\\') {
            Cow::Owned(unescape(text))
        } else {
            Cow::Borrowed(text)
        })
    }

    /// Whether it is this string. Copies nothing unless the value has escapes.
    pub fn is_text(&self, text: &str) -> bool {
        match self.raw {
            [b'"', raw @ .., b'"'] if raw == text.as_bytes() => !raw.contains(&b'\\'),
            [b'"', raw @ .., b'"'] => raw.contains(&b'\\') && unescape(checked(raw)) == text,
            _ => false,
        }
    }

    /// The integer, when it is one that fits and is written without fraction or exponent.
    pub fn integer(&self) -> Option<i64> {
        if self.kind() == Kind::Number {
            self.raw().parse().ok()
        } else {
            None
        }
    }

    /// The number, when it is one; as near as a float can be.
    pub fn number(&self) -> Option<f64> {
        if self.kind() == Kind::Number {
            self.raw().parse().ok()
        } else {
            None
        }
    }

    /// The boolean, when it is one.
    pub fn boolean(&self) -> Option<bool> {
        match self.raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

/// Part of a record that was checked, between two characters of ASCII.
fn checked(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("the record was checked to be UTF-8")
}

/// Decodes the inside of a checked string.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('\\') {
        out.push_str(&rest[..place]);
        let escape = rest.as_bytes()[place + 1];
        rest = &rest[place + 2..];
        out.push(match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let high =
                    check::hex(&rest.as_bytes()[..4]).expect("a checked escape has four digits");
                rest = &rest[4..];
                let mut code = high;
                if (0xD800..0xDC00).contains(&high) {
                    let low =
                        check::hex(&rest.as_bytes()[2..6]).expect("a checked pair has two halves");
                    rest = &rest[6..];
                    code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                }
                char::from_u32(code).expect("a checked escape is a character")
            }
            other => other as char,
        });
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;

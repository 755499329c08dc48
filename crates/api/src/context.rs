//! What a person's machine needs to reach an orchestrator: the content of `operator.toml`.

use std::fmt;

/// An endpoint, how to recognise it, and how to be recognised. The token is a secret: files that hold it have mode 0600.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorContext {
    /// `https://HOST:PORT` of the orchestrator's API.
    pub endpoint: String,
    /// The cluster CA's certificate, PEM.
    pub ca: String,
    /// The bearer token.
    pub token: String,
}

impl OperatorContext {
    /// The file's text, as the `sluice` program reads it.
    pub fn to_toml(&self) -> String {
        format!(
            "# How to reach this orchestrator as an operator. The token is a secret.\n\
             # Use it with --context FILE, SLUICE_CONTEXT=FILE, or as ~/.config/sluice/context.toml\n\
             endpoint = {}\n\
             token = {}\n\
             ca = \"\"\"\n{}\"\"\"\n",
            quoted(&self.endpoint),
            quoted(&self.token),
            // Certificates come with the line ends of mail.
            escaped(&self.ca.replace("\r\n", "\n"), Newlines::Kept),
        )
    }
}

impl fmt::Debug for OperatorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorContext")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Newlines {
    Kept,
    Escaped,
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, Newlines::Escaped))
}

/// `text` for the inside of a TOML basic string.
fn escaped(text: &str, newlines: Newlines) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' if newlines == Newlines::Kept => out.push('\n'),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_three_keys_and_escapes_what_toml_would_read() {
        let context = OperatorContext {
            endpoint: "https://127.0.0.1:7480".to_owned(),
            ca: "-----BEGIN\r\nabc\n-----END\r\n".to_owned(),
            token: "a\"b\\c".to_owned(),
        };
        let text = context.to_toml();
        assert!(
            text.contains("endpoint = \"https://127.0.0.1:7480\"\n"),
            "{text}"
        );
        assert!(text.contains("token = \"a\\\"b\\\\c\"\n"), "{text}");
        assert!(
            text.contains("ca = \"\"\"\n-----BEGIN\nabc\n-----END\n\"\"\"\n"),
            "{text}"
        );
        assert!(
            !format!("{context:?}").contains("a\"b"),
            "the token must not reach a log"
        );
    }
}

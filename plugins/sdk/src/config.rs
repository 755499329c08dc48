//! The stage's `config`: JSON from the host, a type for the author.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The config of a stage that takes none: any key is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads a config. Absent (nothing, or `null`) is the same as an empty table. The error says what is wrong with which
/// key; a position in JSON that the author of a pipeline never saw is left out.
pub(crate) fn read<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    let json = match json.trim() {
        "" | "null" => "{}",
        json => json,
    };
    serde_json::from_str(json).map_err(|error| {
        let message = error.to_string();
        let message = match message.rfind(" at line ") {
            Some(place) => &message[..place],
            None => &message,
        };
        format!("config: {message}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        limit: u32,
    }

    #[test]
    fn a_config_is_read_into_its_type() {
        assert_eq!(read(r#"{"limit":3}"#), Ok(Config { limit: 3 }));
        for absent in ["", " ", "null", "{}"] {
            assert_eq!(read(absent), Ok(NoConfig {}));
        }
    }

    #[test]
    fn a_wrong_config_names_the_key() {
        let cases = [
            (
                r#"{"limit":3,"limt":4}"#,
                "config: unknown field `limt`, expected `limit`",
            ),
            (r#"{}"#, "config: missing field `limit`"),
            (
                r#"{"limit":"x"}"#,
                "config: invalid type: string \"x\", expected u32",
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(read::<Config>(json), Err(expected.to_owned()));
        }
        assert_eq!(
            read::<NoConfig>(r#"{"a":1}"#),
            Err("config: unknown field `a`, there are no fields".to_owned())
        );
    }
}

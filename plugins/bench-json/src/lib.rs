//! The JSON work of the benches: drops the records whose field has a given text, sets fields in the others. No tree.
//!
//! `config = {}` drops what has `"level": "debug"` and sets `"edge": "bench"`.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice_sdk::json::{Edit, Scanner};
use sluice_sdk::{Decision, Emit, Record, RecordStage, stage};

/// The stage's config.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The field to look at.
    pub field: String,
    /// The text in it that drops a record.
    pub drop: String,
    /// The fields to set, with any JSON value.
    pub set: BTreeMap<String, serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        let set = BTreeMap::from([("edge".to_owned(), "bench".into())]);
        Self {
            field: "level".to_owned(),
            drop: "debug".to_owned(),
            set,
        }
    }
}

/// The stage.
#[derive(Debug)]
pub struct BenchJson {
    field: String,
    drop: String,
    set: Vec<(String, String)>,
    scanner: Scanner,
}

impl RecordStage for BenchJson {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let set = config
            .set
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        Ok(Self {
            field: config.field,
            drop: config.drop,
            set,
            scanner: Scanner::new(),
        })
    }

    fn record(&mut self, record: Record<'_>, emit: &mut Emit) -> Decision {
        let object = match self.scanner.object(record.bytes()) {
            Ok(object) => object,
            Err(error) => return Decision::reject(error.to_string()),
        };
        if object
            .get(&self.field)
            .is_some_and(|value| value.is_text(&self.drop))
        {
            return Decision::Drop;
        }
        let mut writer = emit.start();
        match self.set.as_slice() {
            // One edit needs no list.
            [(name, json)] => object.write_with(&[Edit::Set(name, json)], &mut writer),
            set => {
                let edits: Vec<_> = set
                    .iter()
                    .map(|(name, json)| Edit::Set(name, json))
                    .collect();
                object.write_with(&edits, &mut writer);
            }
        }
        writer.finish();
        Decision::Emitted
    }
}

stage!(BenchJson);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sluice_sdk::testing::Harness;

    #[test]
    fn debug_goes_the_rest_gets_a_field_and_nonsense_is_rejected() {
        let mut harness = Harness::<BenchJson>::new("{}").unwrap();
        let records = [
            r#"{"level":"debug","n":1}"#,
            r#"{"level":"info","n":2}"#,
            "nonsense",
            r#"{"edge":"old"}"#,
        ];
        let processed = harness.process(&records).unwrap();
        assert_eq!(
            processed.text(),
            [
                r#"{"level":"info","n":2,"edge":"bench"}"#,
                r#"{"edge":"bench"}"#
            ]
        );
        assert_eq!(processed.origin, [1, 3]);
        assert_eq!(
            processed.rejects,
            [(2, "not a JSON object: expected `{` at byte 0".to_owned())]
        );
    }

    #[test]
    fn field_text_and_fields_to_set_come_from_the_config() {
        let config = r#"{"field":"kind","drop":"x","set":{"a":1,"b":[true]}}"#;
        let mut harness = Harness::<BenchJson>::new(config).unwrap();
        let processed = harness
            .process(&[r#"{"kind":"x"}"#, r#"{"level":"debug"}"#])
            .unwrap();
        assert_eq!(processed.text(), [r#"{"level":"debug","a":1,"b":[true]}"#]);
    }
}

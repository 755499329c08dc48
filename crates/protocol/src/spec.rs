//! A spec: the pipeline text as its author wrote it, with what its plugin references were resolved to.

use prost::Message;
use sluice_model::pipeline::{ParamValue, Params, content_of, is_batch};
use sluice_model::{Digest, StageName, World};

/// What a job version runs. Its encoded bytes are kept as they are; their sha256 is the `spec` that rows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The pipeline file.
    pub pipeline: String,
    /// One for each stage, in order.
    pub components: Vec<SpecComponent>,
    /// What a launch said; empty for what is not a batch.
    pub params: Params,
    /// What a launch brought for `[input.stdin]`.
    pub stdin: Option<SpecStdin>,
}

/// Bytes that an execution reads as its input, fetched as components are and never looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecStdin {
    /// Their sha256.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

/// Which component a stage runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecComponent {
    /// The stage.
    pub stage: StageName,
    /// The component.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is made for.
    pub world: World,
}

/// A spec that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not the encoding of a spec.
    #[error("not a spec")]
    Malformed(#[from] prost::DecodeError),
    /// A field's content is impossible.
    #[error("bad {field} in a spec")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSpec {
    #[prost(string, tag = "1")]
    pipeline: String,
    #[prost(message, repeated, tag = "2")]
    components: Vec<WireComponent>,
    #[prost(message, repeated, tag = "3")]
    params: Vec<WireParam>,
    #[prost(message, optional, tag = "4")]
    stdin: Option<WireStdin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireStdin {
    #[prost(bytes = "vec", tag = "1")]
    digest: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireParam {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(oneof = "WireValue", tags = "2, 3, 4, 5")]
    value: Option<WireValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireValue {
    #[prost(string, tag = "2")]
    Text(String),
    #[prost(sint64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Number(f64),
    #[prost(bool, tag = "5")]
    Boolean(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireComponent {
    #[prost(string, tag = "1")]
    stage: String,
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
    #[prost(uint64, tag = "3")]
    size: u64,
    /// World `report`; otherwise `transform`.
    #[prost(bool, tag = "4")]
    reports: bool,
}

impl Spec {
    /// The spec's bytes.
    pub fn encode(&self) -> Vec<u8> {
        WireSpec {
            pipeline: self.pipeline.clone(),
            components: self
                .components
                .iter()
                .map(|component| WireComponent {
                    stage: component.stage.to_string(),
                    digest: component.digest.as_bytes().to_vec(),
                    size: component.size,
                    reports: component.world == World::Report,
                })
                .collect(),
            params: self
                .params
                .iter()
                .map(|(name, value)| WireParam {
                    name: name.clone(),
                    value: Some(match value {
                        ParamValue::Text(value) => WireValue::Text(value.clone()),
                        ParamValue::Integer(value) => WireValue::Integer(*value),
                        ParamValue::Number(value) => WireValue::Number(
                            value
                                .as_f64()
                                .expect("a parameter's number was made of one"),
                        ),
                        ParamValue::Boolean(value) => WireValue::Boolean(*value),
                    }),
                })
                .collect(),
            stdin: self.stdin.map(|stdin| WireStdin {
                digest: stdin.digest.as_bytes().to_vec(),
                size: stdin.size,
            }),
        }
        .encode_to_vec()
    }

    /// Reads a spec. The pipeline text is not checked here.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpecError> {
        let wire = WireSpec::decode(bytes)?;
        let components = wire
            .components
            .into_iter()
            .map(|component| {
                Ok(SpecComponent {
                    stage: component
                        .stage
                        .parse()
                        .map_err(|_| SpecError::Field { field: "stage" })?,
                    digest: Digest::from_slice(&component.digest)
                        .ok_or(SpecError::Field { field: "digest" })?,
                    size: component.size,
                    world: if component.reports {
                        World::Report
                    } else {
                        World::Transform
                    },
                })
            })
            .collect::<Result<_, SpecError>>()?;
        let params = wire
            .params
            .into_iter()
            .map(|param| {
                let bad = SpecError::Field { field: "params" };
                let value = match param.value.ok_or(bad)? {
                    WireValue::Text(value) => ParamValue::Text(value),
                    WireValue::Integer(value) => ParamValue::Integer(value),
                    WireValue::Number(value) => {
                        let bad = SpecError::Field { field: "params" };
                        ParamValue::Number(serde_json::Number::from_f64(value).ok_or(bad)?)
                    }
                    WireValue::Boolean(value) => ParamValue::Boolean(value),
                };
                Ok((param.name, value))
            })
            .collect::<Result<_, SpecError>>()?;
        let stdin = wire.stdin.map(|stdin| {
            Ok::<_, SpecError>(SpecStdin {
                digest: Digest::from_slice(&stdin.digest)
                    .ok_or(SpecError::Field { field: "stdin" })?,
                size: stdin.size,
            })
        });
        Ok(Self {
            pipeline: wire.pipeline,
            components,
            params,
            stdin: stdin.transpose()?,
        })
    }

    /// Whether it is launched and runs to an end.
    pub fn is_batch(&self) -> bool {
        is_batch(&self.pipeline)
    }

    /// The digest that rows name this spec by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// The digest of what it runs: equal for specs that differ only in where the job is wanted and how it gets there, so
    /// that what runs the one runs the other. A text that cannot be read equals only itself.
    pub fn content(&self) -> Digest {
        match content_of(&self.pipeline) {
            Some(pipeline) => Self {
                pipeline,
                ..self.clone()
            }
            .digest(),
            None => self.digest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_is_made_for_travels_and_makes_another_spec() {
        let spec = |world| Spec {
            pipeline: "name = \"a\"".to_owned(),
            components: vec![SpecComponent {
                stage: "only".parse().expect("a name"),
                digest: Digest::of(b"component"),
                size: 9,
                world,
            }],
            params: Params::new(),
            stdin: None,
        };
        for world in [World::Transform, World::Report] {
            let sent = spec(world);
            assert_eq!(Spec::decode(&sent.encode()).expect("just encoded"), sent);
        }
        assert_ne!(
            spec(World::Report).digest(),
            spec(World::Transform).digest()
        );
    }

    #[test]
    fn the_content_is_what_runs_and_not_where() {
        let spec = |head: &str, component: &[u8]| Spec {
            pipeline: format!("{head}name = \"a\"\n[input.stdin]\n[output.stdout]\n"),
            components: vec![SpecComponent {
                stage: "only".parse().expect("a name"),
                digest: Digest::of(component),
                size: 9,
                world: World::Transform,
            }],
            params: Params::new(),
            stdin: None,
        };
        let (one, other) = (spec("count = 1\n", b"x"), spec("count = 2\n", b"x"));
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.content(), other.content());
        assert_ne!(one.content(), spec("count = 1\n", b"y").content());
        let unreadable = spec("count = \n", b"x");
        assert_eq!(unreadable.content(), unreadable.digest());
    }

    #[test]
    fn parameters_travel_as_what_they_are_and_make_another_spec() {
        let plain = Spec {
            pipeline: "name = \"a\"".to_owned(),
            components: Vec::new(),
            params: Params::new(),
            stdin: None,
        };
        let number = serde_json::Number::from_f64(0.5).expect("a number");
        let spec = Spec {
            params: Params::from([
                ("day".to_owned(), ParamValue::Text("monday".to_owned())),
                ("empty".to_owned(), ParamValue::Text(String::new())),
                ("half".to_owned(), ParamValue::Number(number)),
                ("no".to_owned(), ParamValue::Boolean(false)),
                ("top".to_owned(), ParamValue::Integer(-10)),
            ]),
            ..plain.clone()
        };
        assert_eq!(Spec::decode(&spec.encode()).expect("just encoded"), spec);
        assert_ne!(spec.digest(), plain.digest());
    }

    #[test]
    fn what_a_launch_brings_travels_and_makes_another_spec() {
        let without = Spec {
            pipeline: "name = \"a\"".to_owned(),
            components: Vec::new(),
            params: Params::new(),
            stdin: None,
        };
        let mut digests = vec![without.digest()];
        for bytes in [b"".as_slice(), b"one\n"] {
            let spec = Spec {
                stdin: Some(SpecStdin {
                    digest: Digest::of(bytes),
                    size: bytes.len() as u64,
                }),
                ..without.clone()
            };
            assert_eq!(Spec::decode(&spec.encode()).expect("just encoded"), spec);
            digests.push(spec.digest());
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 3);
        let short = WireSpec {
            stdin: Some(WireStdin {
                digest: vec![1; 31],
                size: 1,
            }),
            ..WireSpec::default()
        };
        let refused = Spec::decode(&short.encode_to_vec());
        assert!(matches!(refused, Err(SpecError::Field { field: "stdin" })));
    }
}

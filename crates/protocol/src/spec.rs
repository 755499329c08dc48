//! A spec: the pipeline text as its author wrote it, with what its plugin references were resolved to.

use prost::Message;
use sluice_model::{Digest, StageName};

/// What a job version runs. Its encoded bytes are kept as they are; their sha256 is the `spec` that rows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The pipeline file.
    pub pipeline: String,
    /// One for each stage, in order.
    pub components: Vec<SpecComponent>,
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
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireComponent {
    #[prost(string, tag = "1")]
    stage: String,
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
    #[prost(uint64, tag = "3")]
    size: u64,
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
                })
                .collect(),
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
                })
            })
            .collect::<Result<_, SpecError>>()?;
        Ok(Self {
            pipeline: wire.pipeline,
            components,
        })
    }

    /// The digest that rows name this spec by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

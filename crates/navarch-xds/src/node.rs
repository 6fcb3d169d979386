//! Who is at the other end of a stream.

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value};

use crate::proto;

pub use crate::proto::Locality;

/// The node of the first request of a stream, without its list of extensions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// `node.id`; never empty.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.metadata` as JSON.
    pub metadata: Map<String, Value>,
    /// `node.locality`.
    pub locality: Locality,
    /// `node.user_agent_name`, for example `envoy` or `gRPC Go`.
    pub user_agent_name: String,
    /// `node.user_agent_version` or, if it is given as numbers, `major.minor.patch`.
    pub user_agent_version: String,
    /// `node.client_features`.
    pub client_features: Vec<String>,
}

impl Node {
    /// Reads an encoded `envoy.config.core.v3.Node`.
    ///
    /// # Errors
    /// If the bytes are not a node.
    pub fn decode(bytes: Bytes) -> Result<Self, prost::DecodeError> {
        let node = proto::Node::decode(bytes)?;
        let built = node.user_agent_build_version.and_then(|build| build.version);
        Ok(Self {
            id: node.id,
            cluster: node.cluster,
            metadata: node.metadata.map(object).unwrap_or_default(),
            locality: node.locality.unwrap_or_default(),
            user_agent_name: node.user_agent_name,
            user_agent_version: match built {
                Some(v) if node.user_agent_version.is_empty() => {
                    format!("{}.{}.{}", v.major, v.minor, v.patch)
                }
                _ => node.user_agent_version,
            },
            client_features: node.client_features,
        })
    }

    /// A text in the metadata.
    #[must_use]
    pub fn metadata_str(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }
}

fn object(fields: proto::Struct) -> Map<String, Value> {
    fields.fields.into_iter().map(|(key, value)| (key, json(value))).collect()
}

fn json(value: proto::Value) -> Value {
    match value.kind {
        None | Some(proto::Kind::Null(_)) => Value::Null,
        Some(proto::Kind::Number(number)) => json_number(number),
        Some(proto::Kind::String(text)) => Value::String(text),
        Some(proto::Kind::Bool(flag)) => Value::Bool(flag),
        Some(proto::Kind::Struct(fields)) => Value::Object(object(fields)),
        Some(proto::Kind::List(list)) => Value::Array(list.values.into_iter().map(json).collect()),
    }
}

/// Whole numbers as integers, as JSON writers do; protobuf has only doubles.
fn json_number(number: f64) -> Value {
    // 2^53: beyond it a double does not hold every integer.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Value::from(number as i64);
    }
    serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
}

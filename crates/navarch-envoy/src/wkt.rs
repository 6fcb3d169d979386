//! Well-known types in the forms that translators need. Wrapper types need nothing:
//! `google.protobuf.UInt32Value` is `Option<u32>` in the generated types.

use std::collections::BTreeMap;

pub use prost_types::value::Kind;
pub use prost_types::{Duration, FieldMask, ListValue, Struct, Timestamp, Value};

use crate::proto::envoy::config::core::v3::Metadata;

/// A span of `seconds` seconds.
pub fn duration_secs(seconds: u32) -> Duration {
    Duration { seconds: i64::from(seconds), nanos: 0 }
}

/// A span of `millis` milliseconds.
pub fn duration_ms(millis: u32) -> Duration {
    duration(std::time::Duration::from_millis(u64::from(millis)))
}

/// A span of time; seconds beyond what protobuf can hold are cut off at the largest value.
pub fn duration(span: std::time::Duration) -> Duration {
    /// The largest `google.protobuf.Duration`: 10,000 years, by its definition.
    const SECONDS_MAX: i64 = 315_576_000_000;
    match i64::try_from(span.as_secs()) {
        Ok(seconds) if seconds < SECONDS_MAX => {
            Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
        }
        _ => Duration { seconds: SECONDS_MAX, nanos: 0 },
    }
}

/// A `Struct` of the given fields.
pub fn structure<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect() }
}

/// A string as a `Value`.
pub fn string(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

/// A number as a `Value`.
pub fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

/// A boolean as a `Value`.
pub fn boolean(truth: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(truth)) }
}

/// A list as a `Value`.
pub fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.into_iter().collect() })) }
}

/// A `Struct` as a `Value`.
pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
    Value { kind: Some(Kind::StructValue(structure(fields))) }
}

/// A JSON value as a `Value`.
pub fn of_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value { kind: Some(Kind::NullValue(0)) },
        serde_json::Value::Bool(truth) => boolean(*truth),
        serde_json::Value::Number(value) => number(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => string(text),
        serde_json::Value::Array(items) => list(items.iter().map(of_json)),
        serde_json::Value::Object(fields) => {
            object(fields.iter().map(|(name, value)| (name.as_str(), of_json(value))))
        }
    }
}

/// Filter metadata with one namespace, for example `istio`.
pub fn metadata(namespace: impl Into<String>, fields: Struct) -> Metadata {
    Metadata { filter_metadata: BTreeMap::from([(namespace.into(), fields)]), ..Metadata::default() }
}

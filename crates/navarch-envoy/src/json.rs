//! Canonical proto3 JSON of any message that the descriptor set knows.
//!
//! In: encoded messages with their type, or JSON from configuration. Out: JSON values with every `Any`
//! expanded, or dynamic messages. Rules: <https://protobuf.dev/programming-guides/json/>, and where they
//! leave room, what the Go implementation prints.
//!
//! The descriptor set is decoded at the first use (some 20 ms). The push path never needs it.

mod form;
mod parse;
mod print;

use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use serde_json::Value;

pub use crate::descriptors::{DESCRIPTORS, descriptor, pool};
use parse::Unknown;
pub use parse::{JsonError, Problem};

/// JSON of an encoded message, by full name or type URL, without a `@type` of its own.
///
/// A type that the descriptor set lacks, or bytes that are not of that type, give what an `Any` of them
/// gives: `{"@type": …, "value": <base64>}`.
pub fn to_json(name_or_url: &str, value: &[u8]) -> Value {
    match descriptor(name_or_url).and_then(|kind| DynamicMessage::decode(kind, value).ok()) {
        Some(message) => print::message(&message),
        None => print::opaque(name_or_url, value),
    }
}

/// JSON of an `Any` with the given type URL and payload: its `@type` and, if the type is known, its fields.
pub fn any_to_json(type_url: &str, value: &[u8]) -> Value {
    print::any(type_url, value)
}

/// JSON of a message built from generated types.
pub fn typed_to_json<M: Message + Name>(message: &M) -> Value {
    to_json(&M::full_name(), &message.encode_to_vec())
}

/// Reads a message of the type `full_name`. Keys may be lowerCamelCase or as in the `.proto` file; an unknown
/// key is an error, so are an unknown enum value, two members of one oneof, and an `Any` of unknown type,
/// unless it has the form that [`to_json`] prints.
pub fn from_json(full_name: &str, json: &Value) -> Result<DynamicMessage, JsonError> {
    parse::message(full_name, json, Unknown::Reject).map(|(message, _)| message)
}

/// Like [`from_json`], but unknown keys are skipped; their paths are returned. Istio reads the values of an
/// EnvoyFilter this way, for they may come from a newer Envoy API than ours.
pub fn from_json_lenient(full_name: &str, json: &Value) -> Result<(DynamicMessage, Vec<String>), JsonError> {
    parse::message(full_name, json, Unknown::Skip)
}

#[cfg(test)]
mod tests;

//! Canonical proto3 JSON of any message that the descriptor set knows.
//!
//! In: encoded messages with their type, or JSON from configuration. Out: JSON values with every `Any`
//! expanded, or dynamic messages. Rules: <https://protobuf.dev/programming-guides/json/>, and where they
//! leave room, what the Go implementation prints.
//!
//! The descriptor set is decoded at the first use (some 20 ms). The push path never needs it.

mod parse;
mod print;

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

pub use parse::Problem;
use parse::Unknown;

/// The encoded `FileDescriptorSet` of the whole API, as a gRPC reflection service serves it.
pub static DESCRIPTORS: &[u8] = include_bytes!("../descriptors.binpb");

/// Messages inside messages, counted through `Any`, beyond which input is refused and output stays encoded.
const DEPTH_MAX: usize = 100;

/// Why JSON is not a message of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct JsonError {
    /// Where in the JSON, for example `filters[0].typedConfig.statPrefix`, with keys as the input spells
    /// them.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// Descriptors of every message of the API.
pub fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The set is part of the program, and a test decodes it: an empty pool cannot happen in a program that
    // was tested.
    POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_default())
}

/// The descriptor of a message, by full name or type URL.
pub fn descriptor(name_or_url: &str) -> Option<MessageDescriptor> {
    let name = name_or_url.rsplit_once('/').map_or(name_or_url, |(_, name)| name);
    pool().get_message_by_name(name)
}

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

/// Whether inside an `Any` the message stands as a whole under the key `value`: the types whose JSON is not
/// an object of their fields, and `Empty`.
fn has_own_form(full_name: &str) -> bool {
    let special = ["Any", "Duration", "Empty", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"];
    let short = full_name.strip_prefix("google.protobuf.");
    short.is_some_and(|short| is_wrapper(short) || special.contains(&short))
}

/// Whether the message of `google.protobuf` is a scalar that can be absent.
fn is_wrapper(short: &str) -> bool {
    let wrapped = ["Bool", "String", "Bytes", "Double", "Float", "Int32", "Int64", "UInt32", "UInt64"];
    short.strip_suffix("Value").is_some_and(|scalar| wrapped.contains(&scalar))
}

#[cfg(test)]
mod tests;

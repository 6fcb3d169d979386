//! Messages without generated types: what EnvoyFilter patches work on, because they keep fields that the
//! generated types do not know.

use bytes::Bytes;
use prost::{DecodeError, Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::Any;
use crate::descriptors::descriptor;

/// Why bytes could not become a dynamic message, or two messages could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum DynamicError {
    /// The descriptor set does not hold the type.
    #[error("unknown message type {0:?}")]
    Type(String),
    /// The bytes are not of that type.
    #[error("not a valid {name}")]
    Payload {
        /// Full name of the message.
        name: String,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// A patch has another type than what it patches.
    #[error("cannot merge a {patch} into a {base}")]
    Mismatch {
        /// Full name of the message to change.
        base: String,
        /// Full name of the patch.
        patch: String,
    },
}

/// What merging does with a list that both sides set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// The patch's elements come after those of the base (EnvoyFilter `MERGE`).
    Append,
    /// The patch's list takes the place of the base's (EnvoyFilter `MERGE_AND_REPLACE_LIST`).
    Replace,
}

/// Decodes a message, by full name or type URL.
pub fn decode(name_or_url: &str, bytes: &[u8]) -> Result<DynamicMessage, DynamicError> {
    let kind = descriptor(name_or_url).ok_or_else(|| DynamicError::Type(name_or_url.to_owned()))?;
    let name = kind.full_name().to_owned();
    DynamicMessage::decode(kind, bytes).map_err(|source| DynamicError::Payload { name, source })
}

/// The dynamic form of a message built from generated types.
pub fn from_typed<M: Message + Name>(message: &M) -> Result<DynamicMessage, DynamicError> {
    decode(&M::full_name(), &message.encode_to_vec())
}

/// Encodes a message so that equal messages give equal bytes: fields by number, map entries by key. The
/// library's own encoder writes map entries in the order of a randomly keyed hash map.
pub fn encode(message: &DynamicMessage) -> Bytes {
    let mut out = Vec::new();
    encode_into(message, &mut out);
    out.into()
}

fn encode_into(message: &DynamicMessage, out: &mut Vec<u8>) {
    if !message.fields().any(|(_, value)| holds_map(value)) {
        out.extend(message.encode_to_vec());
        return;
    }
    for (field, value) in message.fields() {
        match value {
            Value::Map(entries) => encode_map(&field, entries.iter().collect(), out),
            Value::Message(inner) if holds_map(value) => delimited(field.number(), inner, out),
            Value::List(items) if holds_map(value) => {
                let messages = items.iter().filter_map(Value::as_message);
                messages.for_each(|inner| delimited(field.number(), inner, out));
            }
            plain => {
                // A message is the concatenation of its fields, so one field alone is a valid piece of it.
                let mut alone = DynamicMessage::new(message.descriptor());
                alone.set_field(&field, plain.clone());
                out.extend(alone.encode_to_vec());
            }
        }
    }
    append_unknown(message, out);
}

/// Whether the value is or holds a map.
fn holds_map(value: &Value) -> bool {
    match value {
        Value::Map(_) => true,
        Value::Message(message) => message.fields().any(|(_, inner)| holds_map(inner)),
        Value::List(items) => items.iter().any(holds_map),
        _ => false,
    }
}

fn encode_map(field: &FieldDescriptor, mut entries: Vec<(&MapKey, &Value)>, out: &mut Vec<u8>) {
    let Kind::Message(kind) = field.kind() else { return };
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        let mut entry = DynamicMessage::new(kind.clone());
        entry.set_field(&kind.map_entry_key_field(), key.clone().into());
        entry.set_field(&kind.map_entry_value_field(), value.clone());
        delimited(field.number(), &entry, out);
    }
}

fn delimited(number: u32, message: &DynamicMessage, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    encode_into(message, &mut body);
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(body.len() as u64, out);
    out.extend(body);
}

fn append_unknown(message: &DynamicMessage, out: &mut Vec<u8>) {
    message.unknown_fields().for_each(|field| field.encode(out));
}

/// Merges `patch` into `base` as Istio does for EnvoyFilter, which is Go's `proto.Merge` with one exception:
/// a duration is replaced as a whole, since merging `1s` with `0.5s` would make `1.5s`.
///
/// Scalars that the patch sets are replaced, messages are merged, map entries replaced by key, lists as
/// `lists` says. A default value in a wrapper (`false`, `0`) does not show as set inside the wrapper, so it
/// changes nothing: Istio behaves so too.
pub fn merge(base: &mut DynamicMessage, patch: &DynamicMessage, lists: Lists) -> Result<(), DynamicError> {
    let (ours, theirs) = (base.descriptor(), patch.descriptor());
    if ours.full_name() != theirs.full_name() {
        let (base, patch) = (ours.full_name().to_owned(), theirs.full_name().to_owned());
        return Err(DynamicError::Mismatch { base, patch });
    }
    for (field, value) in patch.fields() {
        match value {
            Value::List(items) if lists == Lists::Append => {
                if let Some(list) = base.get_field_mut(&field).as_list_mut() {
                    list.extend(items.iter().cloned());
                }
            }
            Value::Map(entries) => {
                if let Some(map) = base.get_field_mut(&field).as_map_mut() {
                    map.extend(entries.iter().map(|(key, entry)| (key.clone(), entry.clone())));
                }
            }
            Value::Message(inner) if inner.descriptor().full_name() != "google.protobuf.Duration" => {
                if let Some(message) = base.get_field_mut(&field).as_message_mut() {
                    merge(message, inner, lists)?;
                }
            }
            replacing => base.set_field(&field, replacing.clone()),
        }
    }
    let mut unknown = Vec::new();
    append_unknown(patch, &mut unknown);
    // Bytes that were kept from an earlier decode decode again.
    base.merge(unknown.as_slice())
        .map_err(|source| DynamicError::Payload { name: ours.full_name().to_owned(), source })
}

/// Merges the message packed in `patch` into the one packed in `base`; both must have the same type.
pub fn merge_any(base: &Any, patch: &Any, lists: Lists) -> Result<Any, DynamicError> {
    let mut merged = decode(&base.type_url, &base.value)?;
    merge(&mut merged, &decode(&patch.type_url, &patch.value)?, lists)?;
    Ok(Any { type_url: base.type_url.clone(), value: encode(&merged) })
}

#[cfg(test)]
mod tests;

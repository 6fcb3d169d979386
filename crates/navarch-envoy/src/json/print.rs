//! Messages to JSON.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage};
use serde_json::{Map, Number, Value};

use super::form::{DEPTH_MAX, has_own_form, is_wrapper};
use crate::descriptors::descriptor;

/// The JSON of a message.
pub fn message(message: &DynamicMessage) -> Value {
    nested(message, 0)
}

/// The JSON of an `Any`.
pub fn any(type_url: &str, value: &[u8]) -> Value {
    expanded(type_url, value, 0)
}

/// What stands for a payload that cannot be read.
pub fn opaque(type_url: &str, value: &[u8]) -> Value {
    object([
        ("@type".to_owned(), Value::from(type_url)),
        ("value".to_owned(), Value::from(BASE64_STANDARD.encode(value))),
    ])
}

/// An object with sorted keys.
fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    let sorted: BTreeMap<String, Value> = fields.into_iter().collect();
    Value::Object(Map::from_iter(sorted))
}

fn nested(message: &DynamicMessage, depth: usize) -> Value {
    match well_known(message, depth) {
        Some(json) => json,
        None => object(fields(message, depth)),
    }
}

fn fields(message: &DynamicMessage, depth: usize) -> Vec<(String, Value)> {
    let fields = message.fields();
    fields
        .map(|(field, value)| (field.json_name().to_owned(), json(value, &field.kind(), depth + 1)))
        .collect()
}

fn expanded(type_url: &str, payload: &[u8], depth: usize) -> Value {
    let known = descriptor(type_url).filter(|_| depth < DEPTH_MAX);
    let Some(message) = known.and_then(|kind| DynamicMessage::decode(kind, payload).ok()) else {
        return opaque(type_url, payload);
    };
    let mut keys = if has_own_form(message.descriptor().full_name()) {
        vec![("value".to_owned(), nested(&message, depth))]
    } else {
        fields(&message, depth)
    };
    keys.push(("@type".to_owned(), Value::from(type_url)));
    object(keys)
}

/// The JSON of a type with a form of its own; nothing for all others.
fn well_known(message: &DynamicMessage, depth: usize) -> Option<Value> {
    let kind = message.descriptor();
    let short = kind.full_name().strip_prefix("google.protobuf.")?;
    let field = |number| message.get_field_by_number(number);
    match short {
        "Any" => {
            let (type_url, payload) = (field(1)?, field(2)?);
            let (type_url, payload) = (type_url.as_str()?, payload.as_bytes()?);
            // An Any that was never filled has no type to name.
            Some(if type_url.is_empty() { object([]) } else { expanded(type_url, payload, depth + 1) })
        }
        "Struct" | "ListValue" => {
            let content = field(1)?;
            let inner = kind.get_field(1)?;
            Some(json(&content, &inner.kind(), depth + 1))
        }
        "Value" => Some(match message.fields().next() {
            Some((inner, value)) => json(value, &inner.kind(), depth + 1),
            None => Value::Null,
        }),
        wrapper if is_wrapper(wrapper) => Some(json(&*field(1)?, &kind.get_field(1)?.kind(), depth + 1)),
        // Out of range values have no JSON form; their fields are better than nothing.
        "Duration" | "Timestamp" | "FieldMask" => serde_json::to_value(message).ok(),
        _ => None,
    }
}

fn json(value: &prost_reflect::Value, kind: &Kind, depth: usize) -> Value {
    use prost_reflect::Value as Field;
    match value {
        Field::Bool(truth) => Value::from(*truth),
        Field::I32(number) => Value::from(*number),
        Field::U32(number) => Value::from(*number),
        Field::I64(number) => Value::from(number.to_string()),
        Field::U64(number) => Value::from(number.to_string()),
        // The shortest decimal that reads back as this float, not the digits of its double.
        Field::F32(number) => float(number.to_string().parse().unwrap_or(f64::from(*number))),
        Field::F64(number) => float(*number),
        Field::String(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::from(BASE64_STANDARD.encode(bytes)),
        Field::EnumNumber(number) => enumeration(*number, kind),
        Field::Message(message) => nested(message, depth),
        Field::List(items) => Value::Array(items.iter().map(|item| json(item, kind, depth)).collect()),
        Field::Map(entries) => {
            let entry_kind = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            object(entries.iter().map(|(key, entry)| (map_key(key), json(entry, &entry_kind, depth))))
        }
    }
}

fn enumeration(number: i32, kind: &Kind) -> Value {
    let Kind::Enum(names) = kind else { return Value::from(number) };
    if names.full_name() == "google.protobuf.NullValue" {
        return Value::Null;
    }
    names.get_value(number).map_or(Value::from(number), |value| Value::from(value.name()))
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

/// Integral numbers print without a fraction, as Go prints them.
fn float(number: f64) -> Value {
    /// Below this every integer is exact in a double, and Go uses no exponent.
    const INTEGRAL_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < INTEGRAL_MAX {
        return Value::from(number as i64);
    }
    match Number::from_f64(number) {
        Some(finite) => Value::Number(finite),
        None if number.is_nan() => Value::from("NaN"),
        None if number > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

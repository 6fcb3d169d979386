//! JSON to messages.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field,
};
use serde::de::DeserializeSeed;
use serde_json::Value;

use super::form::{DEPTH_MAX, has_own_form, is_wrapper};
use crate::descriptors::descriptor;
use crate::dynamic;

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

/// What to do with keys that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// An unknown key is an error.
    Reject,
    /// An unknown key is skipped and reported.
    Skip,
}

/// What is wrong at a place in the JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The message type is not in the descriptor set.
    #[error("unknown message type {0:?}")]
    Type(String),
    /// The message has no such field.
    #[error("{message} has no field {field:?}")]
    Field {
        /// Full name of the message.
        message: String,
        /// The key found.
        field: String,
    },
    /// The enum has no such value.
    #[error("{kind} has no value {value:?}")]
    EnumValue {
        /// Full name of the enum.
        kind: String,
        /// The name found.
        value: String,
    },
    /// The JSON has another form than the field.
    #[error("expected {expected}, found {found}")]
    Form {
        /// What the field needs.
        expected: &'static str,
        /// What the JSON holds.
        found: String,
    },
    /// Two keys name the same field.
    #[error("the field is set twice")]
    Twice,
    /// Another member of the same oneof is set.
    #[error("cannot be set together with {0:?}")]
    Oneof(String),
    /// An `Any` does not say what it holds.
    #[error("expected an \"@type\" with the type URL of the message")]
    Untyped,
    /// Messages are nested too deeply.
    #[error("nested more than {DEPTH_MAX} levels deep")]
    Depth,
    /// A well-known type does not have its form, for example a duration without unit.
    #[error("{0}")]
    WellKnown(String),
}

/// Reads a message; also returns the paths of keys that were skipped.
pub fn message(
    name: &str,
    json: &Value,
    unknown: Unknown,
) -> Result<(DynamicMessage, Vec<String>), JsonError> {
    let mut reader = Reader { unknown, skipped: Vec::new(), path: Vec::new() };
    let message = match descriptor(name) {
        Some(kind) => reader.message(&kind, json),
        None => Err(Problem::Type(name.to_owned())),
    };
    match message {
        Ok(message) => Ok((message, reader.skipped)),
        Err(problem) => Err(JsonError { path: render(&reader.path), problem }),
    }
}

/// One step from a value to a part of it.
enum Step {
    Key(String),
    Index(usize),
}

fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Reads values and remembers where it is. After an error the path stays where the error is.
struct Reader {
    unknown: Unknown,
    skipped: Vec<String>,
    path: Vec<Step>,
}

type Read<T> = Result<T, Problem>;

impl Reader {
    /// Runs `read` one step further in.
    fn at<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.path.push(step);
        // Indices count too, which makes the limit a little stricter than its name says.
        if self.path.len() > 2 * DEPTH_MAX {
            return Err(Problem::Depth);
        }
        let value = read(self)?;
        self.path.pop();
        Ok(value)
    }

    fn message(&mut self, kind: &MessageDescriptor, json: &Value) -> Read<DynamicMessage> {
        match kind.full_name().strip_prefix("google.protobuf.") {
            Some("Any") => self.any(kind, json),
            Some(short) if is_wrapper(short) => {
                let mut wrapper = DynamicMessage::new(kind.clone());
                if let Some(field) = kind.get_field(1) {
                    let value = self.single(&field.kind(), json)?;
                    wrapper.set_field(&field, value);
                }
                Ok(wrapper)
            }
            Some("Struct" | "Value" | "ListValue") => {
                self.free_form(json, self.path.len())?;
                well_known(kind, json)
            }
            Some("Duration" | "Timestamp" | "FieldMask") => well_known(kind, json),
            _ => self.fields(kind, json, false),
        }
    }

    /// Checks the depth of a value without descriptor, which the library reads by recursion.
    fn free_form(&self, json: &Value, depth: usize) -> Read<()> {
        if depth > 2 * DEPTH_MAX {
            return Err(Problem::Depth);
        }
        match json {
            Value::Array(items) => items.iter().try_for_each(|item| self.free_form(item, depth + 1)),
            Value::Object(entries) => entries.values().try_for_each(|entry| self.free_form(entry, depth + 1)),
            _ => Ok(()),
        }
    }

    fn fields(&mut self, kind: &MessageDescriptor, json: &Value, in_any: bool) -> Read<DynamicMessage> {
        let Value::Object(entries) = json else { return Err(form("an object", json)) };
        let mut message = DynamicMessage::new(kind.clone());
        for (key, value) in entries.iter().filter(|(key, _)| !(in_any && *key == "@type")) {
            self.at(Step::Key(key.clone()), |reader| reader.entry(&mut message, kind, key, value))?;
        }
        Ok(message)
    }

    fn entry(
        &mut self,
        message: &mut DynamicMessage,
        kind: &MessageDescriptor,
        key: &str,
        json: &Value,
    ) -> Read<()> {
        let Some(field) = kind.get_field_by_json_name(key).or_else(|| kind.get_field_by_name(key)) else {
            if self.unknown == Unknown::Skip {
                self.skipped.push(render(&self.path));
                return Ok(());
            }
            return Err(Problem::Field { message: kind.full_name().to_owned(), field: key.to_owned() });
        };
        if json.is_null() && !takes_null(&field) {
            return Ok(());
        }
        if message.has_field(&field) {
            return Err(Problem::Twice);
        }
        if let Some(oneof) = field.containing_oneof()
            && let Some(other) = oneof.fields().find(|other| message.has_field(other))
        {
            return Err(Problem::Oneof(other.name().to_owned()));
        }
        let value = self.field(&field, json)?;
        message.set_field(&field, value);
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor, json: &Value) -> Read<Field> {
        let kind = field.kind();
        if field.is_map() {
            let Value::Object(entries) = json else { return Err(form("an object", json)) };
            let Kind::Message(entry) = &kind else { return Err(form("a map", json)) };
            let (key_kind, value_kind) =
                (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let mut map = HashMap::with_capacity(entries.len());
            for (key, value) in entries {
                let value = self.at(Step::Key(key.clone()), |reader| reader.single(&value_kind, value))?;
                map.insert(map_key(&key_kind, key)?, value);
            }
            return Ok(Field::Map(map));
        }
        if field.is_list() {
            let Value::Array(items) = json else { return Err(form("a list", json)) };
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                list.push(self.at(Step::Index(index), |reader| reader.single(&kind, item))?);
            }
            return Ok(Field::List(list));
        }
        self.single(&kind, json)
    }

    fn single(&mut self, kind: &Kind, json: &Value) -> Read<Field> {
        Ok(match kind {
            Kind::Bool => Field::Bool(json.as_bool().ok_or_else(|| form("true or false", json))?),
            Kind::String => Field::String(json.as_str().ok_or_else(|| form("a string", json))?.to_owned()),
            Kind::Bytes => Field::Bytes(base64(json)?),
            Kind::Double => Field::F64(float(json)?),
            Kind::Float => Field::F32(float(json)? as f32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(integer(json, "a 32-bit integer")?),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(integer(json, "a 64-bit integer")?),
            Kind::Uint32 | Kind::Fixed32 => Field::U32(integer(json, "an unsigned 32-bit integer")?),
            Kind::Uint64 | Kind::Fixed64 => Field::U64(integer(json, "an unsigned 64-bit integer")?),
            Kind::Enum(names) => Field::EnumNumber(enumeration(names, json)?),
            Kind::Message(message) => Field::Message(self.message(message, json)?),
        })
    }

    fn any(&mut self, kind: &MessageDescriptor, json: &Value) -> Read<DynamicMessage> {
        let Value::Object(entries) = json else { return Err(form("an object", json)) };
        let mut any = DynamicMessage::new(kind.clone());
        if entries.is_empty() {
            return Ok(any);
        }
        let type_url = entries.get("@type").and_then(Value::as_str).ok_or(Problem::Untyped)?;
        let payload = match (descriptor(type_url), entries.get("value")) {
            // The form in which a payload of unknown type is printed.
            (None, Some(Value::String(text))) if entries.len() == 2 => base64(&Value::from(text.as_str()))?,
            (None, _) => return Err(Problem::Type(type_url.to_owned())),
            (Some(inner), value) if has_own_form(inner.full_name()) => {
                let value = value.unwrap_or(&Value::Null);
                let message =
                    self.at(Step::Key("value".to_owned()), |reader| reader.message(&inner, value))?;
                dynamic::encode(&message)
            }
            (Some(inner), _) => dynamic::encode(&self.fields(&inner, json, true)?),
        };
        any.set_field_by_number(1, Field::String(type_url.to_owned()));
        any.set_field_by_number(2, Field::Bytes(payload));
        Ok(any)
    }
}

/// Null means "not set", except where null is a value.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => {
            message.full_name() == "google.protobuf.Value" && !field.is_list() && !field.is_map()
        }
        Kind::Enum(names) => names.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

fn well_known(kind: &MessageDescriptor, json: &Value) -> Read<DynamicMessage> {
    kind.clone().deserialize(json).map_err(|error| Problem::WellKnown(error.to_string()))
}

fn enumeration(names: &EnumDescriptor, json: &Value) -> Read<i32> {
    match json {
        Value::Null if names.full_name() == "google.protobuf.NullValue" => Ok(0),
        Value::String(name) => match names.get_value_by_name(name) {
            Some(value) => Ok(value.number()),
            None => Err(Problem::EnumValue { kind: names.full_name().to_owned(), value: name.clone() }),
        },
        Value::Number(_) => integer(json, "an enum value"),
        _ => Err(form("an enum value", json)),
    }
}

/// Integers may be numbers, numbers with a fraction of zero, or either of these in a string.
fn integer<T: TryFrom<i128>>(json: &Value, expected: &'static str) -> Read<T> {
    let text = match json {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(form(expected, json)),
    };
    let exact = text.parse::<i128>().ok();
    let whole =
        || text.parse::<f64>().ok().filter(|number| number.fract() == 0.0).map(|number| number as i128);
    exact.or_else(whole).and_then(|number| T::try_from(number).ok()).ok_or_else(|| form(expected, json))
}

fn float(json: &Value) -> Read<f64> {
    let number = match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            digits => digits.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    };
    number.ok_or_else(|| form("a number", json))
}

/// Standard or URL-safe alphabet, with or without padding: both are allowed on input.
fn base64(json: &Value) -> Read<Bytes> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = json.as_str().ok_or_else(|| form("a base64 string", json))?;
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    match GeneralPurpose::new(alphabet, LENIENT).decode(text) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(_) => Err(form("a base64 string", json)),
    }
}

fn map_key(kind: &Kind, key: &str) -> Read<MapKey> {
    let number = Value::from(key);
    Ok(match kind {
        Kind::Bool => MapKey::Bool(key.parse().map_err(|_| form("true or false", &number))?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(integer(&number, "a 32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(integer(&number, "a 64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(integer(&number, "an unsigned 32-bit integer")?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(integer(&number, "an unsigned 64-bit integer")?),
        _ => MapKey::String(key.to_owned()),
    })
}

fn form(expected: &'static str, json: &Value) -> Problem {
    let found = match json {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Problem::Form { expected, found }
}

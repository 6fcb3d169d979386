//! Values that proto3 JSON has and Rust has not, in a form that can be compared and hashed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::yaml::{self, Decode, Decoder, Node, ProblemKind, Scalar, Value};

/// A share of 100, in millionths: 100 % is 1,000,000. This is the resolution of Envoy's `FractionalPercent`
/// with denominator `MILLION`; finer shares are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    pub millionths: u32,
}

impl Percent {
    pub const ZERO: Self = Self { millionths: 0 };
    pub const HUNDRED: Self = Self { millionths: 1_000_000 };

    /// From whole percent; more than 100 becomes 100.
    pub fn from_whole(percent: u32) -> Self {
        Self { millionths: percent.min(100) * 10_000 }
    }

    /// The value on the scale 0 to 100.
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / 10_000.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.as_f64())
    }
}

/// Reads a number from 0 to 100, or the message `{value: <number>}` that VirtualService has.
impl Decode for Percent {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        if let Some(entries) = node.entries() {
            let mut percent = Self::ZERO;
            for entry in entries {
                if entry.key == "value" {
                    decoder.field(entry, &mut percent);
                } else {
                    decoder.unknown_field(entry, &["value"], &[]);
                }
            }
            return Some(percent);
        }
        let value = number(node, decoder)?;
        if !(0.0..=100.0).contains(&value) {
            return decoder.problem(ProblemKind::Invalid, node, format!("{value} is not between 0 and 100"));
        }
        // Rounded down, as istiod does; the small term undoes the error of binary fractions (0.29 * 10,000 =
        // 2,899.99…).
        Some(Self { millionths: (value * 10_000.0 + 1e-6) as u32 })
    }
}

/// A `double` that is not a percentage, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal {
    pub billionths: i64,
}

impl Decimal {
    pub fn as_f64(self) -> f64 {
        self.billionths as f64 / 1e9
    }
}

impl Decode for Decimal {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let value = number(node, decoder)?;
        if value.is_nan() || value.abs() > 9e9 {
            return decoder.problem(ProblemKind::Invalid, node, format!("{value} is out of range"));
        }
        Some(Self { billionths: (value * 1e9).round() as i64 })
    }
}

/// A number, or a string that holds one, as proto3 JSON allows.
fn number(node: &Node, decoder: &mut Decoder) -> Option<f64> {
    let value = match node.scalar() {
        Some(Scalar::Integer(value)) => Some(value as f64),
        Some(Scalar::Float(value)) => Some(value),
        Some(Scalar::String(text)) => text.parse().ok(),
        _ => None,
    };
    match value {
        Some(value) => Some(value),
        None => {
            let message = format!("expected a number, found {}", node.describe());
            decoder.problem(ProblemKind::WrongType, node, message)
        }
    }
}

/// Bytes, base64 in configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Decode for Bytes {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let text = String::decode(node, decoder)?;
        match decode_base64(&text) {
            Some(bytes) => Some(Self(bytes)),
            None => decoder.problem(ProblemKind::Invalid, node, "not valid base64"),
        }
    }
}

/// Standard or URL-safe base64 with or without padding; white space is skipped, as in wrapped YAML text.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0u32);
    let mut padding = 0;
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let digit = match byte {
            b'=' => {
                padding += 1;
                continue;
            }
            _ if padding > 0 => return None,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Six left-over bits would be a lone digit; padding never exceeds two.
    (count < 6 && bits == 0 && padding <= 2).then_some(out)
}

/// A value that must not appear in logs, messages or debug output.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Whoever calls this keeps it out of sight.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> Serialize for Redacted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl<T: Decode> Decode for Redacted<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        decoder.secretly(|decoder| T::decode(node, decoder)).map(Self)
    }
}

/// How a text is compared with a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringMatch {
    /// No pattern stated. For a header this means that it must be present, with any value.
    #[default]
    Any,
    Exact(String),
    Prefix(String),
    /// RE2 syntax; the whole text must match.
    Regex(String),
}

impl Decode for StringMatch {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let mut result = Self::Any;
        for entry in decoder.mapping(node)? {
            let make = match entry.key.as_str() {
                "exact" => Self::Exact,
                "prefix" => Self::Prefix,
                "regex" => Self::Regex,
                _ => {
                    decoder.unknown_field(entry, &["exact", "prefix", "regex"], &[]);
                    continue;
                }
            };
            if result != Self::Any {
                return decoder.problem(
                    ProblemKind::Invalid,
                    &entry.value,
                    "only one of exact, prefix, regex may be set",
                );
            }
            let mut text: Option<String> = None;
            decoder.field(entry, &mut text);
            if let Some(text) = text {
                result = make(text);
            }
        }
        Some(result)
    }
}

/// A free-form value (protobuf `Struct` and `Value`). Ordered, so that equal values have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Json {
    #[default]
    Null,
    Bool(bool),
    /// The shortest text that reads as the same number.
    Number(String),
    String(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads one YAML or JSON document.
    ///
    /// # Errors
    /// A message with the line and column of what cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (documents, errors) = yaml::parse(text, yaml::Budget::default());
        if let Some(error) = errors.first() {
            return Err(format!("{}:{}: {}", error.line, error.column, error.message));
        }
        let Some(root) = documents.first().and_then(|document| document.root.as_ref()) else {
            return Ok(Self::Null);
        };
        let mut decoder = Decoder::new();
        Self::decode(root, &mut decoder).ok_or_else(|| "a value cannot be expressed in JSON".to_owned())
    }

    /// The value under `key`; `None` if this is not an object or has no such key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(entries) => entries.get(key),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same value in `serde_json`'s terms.
    pub fn to_serde(&self) -> serde_json::Value {
        serde_json::Value::from(self)
    }
}

impl From<&Json> for serde_json::Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(text) => {
                if let Ok(value) = text.parse::<i64>() {
                    Self::from(value)
                } else if let Ok(value) = text.parse::<u64>() {
                    Self::from(value)
                } else {
                    text.parse::<f64>().map_or(Self::Null, Self::from)
                }
            }
            Json::String(text) => Self::String(text.clone()),
            Json::List(items) => Self::Array(items.iter().map(Self::from).collect()),
            Json::Object(entries) => {
                Self::Object(entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        }
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Number(number.to_string()),
            serde_json::Value::String(text) => Self::String(text.clone()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(entries) => {
                Self::Object(entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_serde().serialize(serializer)
    }
}

impl Decode for Json {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        Some(match &node.value {
            Value::Scalar { .. } => match node.scalar()? {
                Scalar::Null => Self::Null,
                Scalar::Bool(value) => Self::Bool(value),
                Scalar::Integer(value) => Self::Number(value.to_string()),
                Scalar::Float(value) if value.is_finite() => Self::Number(value.to_string()),
                Scalar::Float(value) => {
                    return decoder.problem(
                        ProblemKind::Invalid,
                        node,
                        format!("{value} cannot be expressed in JSON"),
                    );
                }
                Scalar::String(text) => Self::String(text.to_owned()),
            },
            Value::Sequence(_) => Self::List(Vec::decode(node, decoder)?),
            Value::Mapping(_) => Self::Object(BTreeMap::decode(node, decoder)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Budget, parse};

    fn decode<T: Decode>(text: &str) -> Result<T, String> {
        let (documents, errors) = parse(text, Budget::default());
        assert_eq!(errors, []);
        let mut decoder = Decoder::new();
        let value = T::decode(documents[0].root.as_ref().unwrap(), &mut decoder);
        value.ok_or_else(|| decoder.into_problems().remove(0).message)
    }

    #[test]
    fn percentages_are_scaled_to_millionths() {
        for (text, millionths) in [
            ("100", 1_000_000),
            ("50.5", 505_000),
            ("0.29", 2_900),
            ("0.0001", 1),
            ("0.00009", 0),
            ("\"10\"", 100_000),
        ] {
            assert_eq!(decode::<Percent>(text), Ok(Percent { millionths }), "{text}");
        }
        assert_eq!(decode::<Percent>("{value: 10}"), Ok(Percent::from_whole(10)));
        assert_eq!(decode::<Percent>("{}"), Ok(Percent::ZERO));
        assert!(decode::<Percent>("100.1").is_err());
        assert!(decode::<Percent>(".nan").is_err());
        assert!(decode::<Percent>("[1]").is_err());
    }

    #[test]
    fn base64_is_read_in_all_its_forms() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("YQ==", b"a"),
            ("YQ", b"a"),
            ("YWI=", b"ab"),
            ("YWJj", b"abc"),
            ("YW\n Jj", b"abc"),
            ("+/8=", &[0xfb, 0xff]),
            ("-_8", &[0xfb, 0xff]),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text:?}");
        }
        for text in ["Y", "YWJjZ", "YQ==YQ==", "Y*==", "YR==", "YQ==="] {
            assert_eq!(decode_base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Redacted::new("hunter2".to_owned());
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert_eq!(shown, "[redacted] [redacted] \"[redacted]\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn free_form_values_survive_the_way_to_serde_and_back() {
        let json: Json =
            decode("{a: [1, -2, 1.5, 18446744073709551615, true, null, x], b: {c: '1'}}").unwrap();
        let serde = json.to_serde();
        assert_eq!(
            serde,
            serde_json::json!({"a": [1, -2, 1.5, 18_446_744_073_709_551_615u64, true, null, "x"], "b": {"c": "1"}})
        );
        assert_eq!(Json::from(&serde), json);
    }

    #[test]
    fn a_match_without_pattern_is_any() {
        assert_eq!(decode::<StringMatch>("{}"), Ok(StringMatch::Any));
        assert_eq!(decode::<StringMatch>("{exact: ''}"), Ok(StringMatch::Exact(String::new())));
        assert_eq!(decode::<StringMatch>("{prefix: null, regex: a}"), Ok(StringMatch::Regex("a".to_owned())));
        assert!(decode::<StringMatch>("{prefix: a, regex: a}").is_err());
    }
}

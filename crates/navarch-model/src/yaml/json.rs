//! Objects as an API server sends them: JSON to nodes, without positions and without what only the
//! API server and its clients look at.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::fields::Fields;
use super::node::{Entry, Node, Value};
use super::scalar::Style;

/// Reads an object in JSON, as far as `fields` says and, of its metadata, `metadata`. Fields have no
/// positions. `metadata.managedFields`, and the annotation in which `kubectl apply` keeps a copy of the
/// object, are left out: both are often larger than the rest.
///
/// Keys are taken as they come: an API server writes each once.
pub(crate) fn object_of_json(json: &str, fields: Fields, metadata: Fields) -> serde_json::Result<Node> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let node = Within::Object { fields, metadata }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(node)
}

/// `kubectl apply` keeps the object as it was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Where in an object a value is, as far as that decides what is left out of it.
#[derive(Clone, Copy)]
enum Within {
    Object { fields: Fields, metadata: Fields },
    Metadata(Fields),
    Annotations,
    Rest(Fields),
}

impl Within {
    /// Where the value of a key is; `None` if it is left out.
    fn below(self, key: &str) -> Option<Within> {
        match (self, key) {
            (Within::Object { metadata, .. }, "metadata") => Some(Within::Metadata(metadata)),
            (Within::Metadata(_), "managedFields") | (Within::Annotations, LAST_APPLIED) => None,
            (Within::Metadata(_), "annotations") => Some(Within::Annotations),
            // The version that the object is of.
            (Within::Metadata(_), "resourceVersion") => Some(Within::Rest(Fields::All)),
            (Within::Annotations, _) => Some(Within::Rest(Fields::All)),
            (Within::Object { fields, .. } | Within::Metadata(fields) | Within::Rest(fields), key) => {
                fields.below(key).map(Within::Rest)
            }
        }
    }

    /// Where the items of a list are.
    fn item(self) -> Within {
        match self {
            Within::Rest(fields) => Within::Rest(fields),
            Within::Object { .. } | Within::Metadata(_) | Within::Annotations => Within::Rest(Fields::All),
        }
    }
}

/// A key, which most often is a part of the text.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfKey;

        impl<'de> Visitor<'de> for OfKey {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(OfKey)
    }
}

impl<'de> DeserializeSeed<'de> for Within {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(scalar("null", Style::Plain))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(scalar(value, Style::Text))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Node, E> {
        Ok(scalar(value, Style::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self.item())? {
            items.push(item);
        }
        Ok(nowhere(Value::Sequence(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            match self.below(&key) {
                Some(within) => {
                    let value = map.next_value_seed(within)?;
                    entries.push(Entry { key: key.into_owned(), line: 0, column: 0, value });
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(nowhere(Value::Mapping(entries)))
    }
}

fn nowhere(value: Value) -> Node {
    Node { value, line: 0, column: 0 }
}

fn scalar(text: impl Into<String>, style: Style) -> Node {
    nowhere(Value::Scalar { text: text.into(), style })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Budget, Decode, message, parse};

    message! {
        pub struct Sample {
            name: String,
            node_ip as "nodeIP": String,
            parts: Vec<Sample>,
        }
    }

    fn without_positions(node: &mut Node) {
        (node.line, node.column) = (0, 0);
        match &mut node.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => items.iter_mut().for_each(without_positions),
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| {
                (entry.line, entry.column) = (0, 0);
                without_positions(&mut entry.value);
            }),
        }
    }

    /// The text as an API server sends it is read as the same text in a file, after `expected` took
    /// its place.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        check_of(Fields::All, text, expected);
    }

    #[track_caller]
    fn check_of(fields: Fields, text: &str, expected: &str) {
        let read = object_of_json(text, fields, fields).expect("JSON");
        let (mut documents, errors) = parse(expected, Budget::default());
        assert_eq!(errors, [], "{expected}");
        let mut root = documents.remove(0).root.expect("a document");
        without_positions(&mut root);
        assert_eq!(read, root, "{text}");
    }

    #[test]
    fn json_of_an_api_server_means_what_it_means_in_a_file() {
        let text = r#"{"a": [1, -2, 1.5, true, null, "x", "1", "null", ""], "b": {"c": {}}, "d": []}"#;
        check(text, text);
    }

    #[test]
    fn what_only_the_api_server_looks_at_is_left_out() {
        check(
            &format!(
                r#"{{"metadata": {{"managedFields": [{{"f": {{}}}}], "name": "a", "annotations": {{"{LAST_APPLIED}": "…", "k": "v"}}}},
                     "spec": {{"managedFields": 1, "{LAST_APPLIED}": 2}}}}"#
            ),
            &format!(
                r#"{{"metadata": {{"name": "a", "annotations": {{"k": "v"}}}}, "spec": {{"managedFields": 1, "{LAST_APPLIED}": 2}}}}"#
            ),
        );
    }

    #[test]
    fn what_no_type_reads_is_left_out() {
        check_of(
            Sample::fields(),
            r#"{"metadata": {"resourceVersion": "7", "uid": "u", "name": "n", "annotations": {"a": "b"}}, "kind": "K",
                "nodeIP": "i", "nodeIp": "j", "name": {"any": 1}, "parts": [{"name": "p", "other": []}, 1, {"parts": [{"o": 1}]}]}"#,
            r#"{"metadata": {"resourceVersion": "7", "name": "n", "annotations": {"a": "b"}},
                "nodeIP": "i", "name": {"any": 1}, "parts": [{"name": "p"}, 1, {"parts": [{}]}]}"#,
        );
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        for text in [deep.as_str(), "", "{} {}", "{"] {
            assert!(object_of_json(text, Fields::All, Fields::All).is_err(), "{text}");
        }
    }
}

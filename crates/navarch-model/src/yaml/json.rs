//! Objects as an API server sends them: JSON to nodes, without positions and without what only the
//! API server and its clients look at.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::node::{Entry, Node, Value};
use super::scalar::Style;

/// An object in JSON. Fields have no positions. `metadata.managedFields`, and the annotation in
/// which `kubectl apply` keeps a copy of the object, are left out: both are often larger than the
/// rest.
///
/// Keys are taken as they come: an API server writes each once.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Within::Object.deserialize(deserializer)
    }
}

/// `kubectl apply` keeps the object as it was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Where in an object a value is, as far as that decides what is left out of it.
#[derive(Clone, Copy)]
enum Within {
    Object,
    Metadata,
    Annotations,
    Rest,
}

impl Within {
    /// Where the value of a key is; `None` if it is left out.
    fn below(self, key: &str) -> Option<Within> {
        match (self, key) {
            (Within::Object, "metadata") => Some(Within::Metadata),
            (Within::Metadata, "annotations") => Some(Within::Annotations),
            (Within::Metadata, "managedFields") | (Within::Annotations, LAST_APPLIED) => None,
            _ => Some(Within::Rest),
        }
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
        while let Some(item) = sequence.next_element_seed(Within::Rest)? {
            items.push(item);
        }
        Ok(nowhere(Value::Sequence(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.below(&key) {
                Some(within) => {
                    let value = map.next_value_seed(within)?;
                    entries.push(Entry { key, line: 0, column: 0, value });
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
    use crate::yaml::{Budget, parse};

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
        let read: Node = serde_json::from_str(text).expect("JSON");
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
    fn what_is_nested_too_deep_is_an_error() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        assert!(serde_json::from_str::<Node>(&deep).is_err());
    }
}

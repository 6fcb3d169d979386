//! JSON whose shape nobody has promised: every step may find something else than was expected.

use std::collections::BTreeMap;

use navarch_model::yaml::{Node, Scalar, Value as Yaml};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) type Object = Map<String, Value>;

/// The object under `key`, made if it is absent or null; `None` if something else is there.
pub(crate) fn object<'a>(parent: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// The list under `key`, made if it is absent or null; `None` if something else is there.
pub(crate) fn list<'a>(parent: &'a mut Object, key: &str) -> Option<&'a mut Vec<Value>> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

/// What is under `key`, if that is a list.
pub(crate) fn items<'a>(parent: &'a Object, key: &str) -> &'a [Value] {
    parent.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of an object of texts, such as labels.
pub(crate) fn texts(parent: &Object, key: &str) -> BTreeMap<String, String> {
    let object = parent.get(key).and_then(Value::as_object).into_iter().flatten();
    object.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The text under `key`; empty if there is none.
pub(crate) fn text<'a>(parent: &'a Object, key: &str) -> &'a str {
    parent.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The name of an item of a list of named things.
pub(crate) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Removes what is empty: an absent list and an empty one mean the same.
pub(crate) fn remove_empty(parent: &mut Object, key: &str) {
    let is_empty = match parent.get(key) {
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(entries)) => entries.is_empty(),
        _ => false,
    };
    if is_empty {
        // Those that stay keep their order.
        parent.shift_remove(key);
    }
}

/// One of our own types as JSON, none of which can fail to be that.
pub(crate) fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Merges `over` into `base` as a strategic merge patch does for what pods have: objects by field, lists of
/// named things by name, lists of mounts by path and of ports by number; null removes; other values are
/// replaced.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            // A variable says one of the two.
            for (stated, instead) in [("value", "valueFrom"), ("valueFrom", "value")] {
                if over.contains_key(stated) && base.contains_key("name") {
                    base.shift_remove(instead);
                }
            }
            for (key, value) in over {
                match base.get_mut(key) {
                    _ if value.is_null() => _ = base.shift_remove(key),
                    Some(there) => merge(there, value),
                    None => _ = base.insert(key.clone(), value.clone()),
                }
            }
        }
        (Value::Array(base), Value::Array(over)) if over.iter().all(|item| key_of(item).is_some()) => {
            for item in over {
                match base.iter_mut().find(|there| key_of(there) == key_of(item)) {
                    Some(there) => merge(there, item),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What items of a list are known by (`patchMergeKey`).
fn key_of(item: &Value) -> Option<&Value> {
    ["mountPath", "containerPort", "name"].into_iter().find_map(|key| item.get(key))
}

/// A tree of YAML as JSON, in its order; `None` if it has a number that JSON does not.
pub(crate) fn of_node(node: &Node) -> Option<Value> {
    Some(match &node.value {
        Yaml::Scalar { .. } => match node.scalar()? {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => json!(value),
            Scalar::Integer(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => json!(value),
                (_, Ok(value)) => json!(value),
                _ => json!(value as f64),
            },
            Scalar::Float(value) => Value::Number(serde_json::Number::from_f64(value)?),
            Scalar::String(text) => json!(text),
        },
        Yaml::Sequence(items) => Value::Array(items.iter().map(of_node).collect::<Option<_>>()?),
        Yaml::Mapping(entries) => {
            let entries = entries.iter().map(|entry| Some((entry.key.clone(), of_node(&entry.value)?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_merged_as_kubernetes_does() {
        let check = |base: Value, over: Value, expected: Value| {
            let mut merged = base;
            merge(&mut merged, &over);
            assert_eq!(merged, expected);
        };
        check(json!({"a": 1, "b": 2}), json!({"a": 3, "b": null}), json!({"a": 3}));
        let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
        let over = json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]);
        let both = json!([
            {"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}
        ]);
        check(env, over, both);
        check(json!(["a"]), json!(["b"]), json!(["b"]));
        let field = json!([{"name": "A", "valueFrom": {}}]);
        let text = json!([{"name": "A", "value": "1"}]);
        check(field, text.clone(), text);
        let mounts = json!([{"name": "v", "mountPath": "/a"}]);
        let more = json!([{"name": "v", "mountPath": "/b"}]);
        check(mounts, more, json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]));
        check(json!(null), json!({"a": 1}), json!({"a": 1}));
    }
}

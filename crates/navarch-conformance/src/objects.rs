//! Objects of an API server, as JSON.

use serde_json::{Map, Value};

/// A text of an object, by JSON pointer; "" if it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// The items of a list of an object, by JSON pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn is_leaving(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether a selector, a map of labels, selects an object. An empty one selects nothing, as for Services.
pub fn selects(selector: Option<&Map<String, Value>>, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector.is_some_and(|all| !all.is_empty() && all.iter().all(|(key, value)| labels[key] == *value))
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let mut conditions = items(pod, "/status/conditions").iter();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

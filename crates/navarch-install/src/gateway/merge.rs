//! What users write over objects that are made for them: strategic merge patches, as `kubectl patch` has
//! them ("Update API Objects in Place Using kubectl patch").

use serde_json::{Map, Value};

/// By what items of lists are known, where lists are merged item by item (`patchMergeKey` of Kubernetes' API
/// types). Other lists are replaced.
const KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    // Of a container, and of a Service.
    ("ports", &["containerPort", "port"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey"]),
];

/// The field of a patch that says what is done with the object that it is in.
const DIRECTIVE: &str = "$patch";

/// Merges a patch into an object.
///
/// # Errors
/// If it has a directive that is not known here.
pub(super) fn merge(base: &mut Value, patch: &Value) -> Result<(), String> {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => merge_object(base, patch),
        (base, patch) => {
            *base = without_nulls(patch);
            Ok(())
        }
    }
}

fn merge_object(base: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Replace => base.clear(),
        Directive::Delete => {
            base.clear();
            return Ok(());
        }
    }
    // A variable says one of the two, and two texts are not one.
    for (stated, instead) in [("value", "valueFrom"), ("valueFrom", "value")] {
        if patch.contains_key(stated) && base.contains_key("name") {
            base.shift_remove(instead);
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| *key != DIRECTIVE) {
        if key.starts_with('$') {
            return Err(format!("{key} is not known here"));
        }
        match base.get_mut(key) {
            _ if value.is_null() => _ = base.shift_remove(key),
            Some(Value::Array(items)) if value.is_array() => merge_list(key, items, value)?,
            Some(there) => merge(there, value)?,
            None => {
                let mut made = if value.is_object() { Value::Object(Map::new()) } else { Value::Null };
                match value {
                    Value::Array(items) => made = Value::Array(added(items)?),
                    value => merge(&mut made, value)?,
                }
                base.insert(key.clone(), made);
            }
        }
    }
    Ok(())
}

fn merge_list(name: &str, base: &mut Vec<Value>, patch: &Value) -> Result<(), String> {
    let patch = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let keys = KEYS.iter().find(|(list, _)| *list == name).map_or(&[][..], |(_, keys)| keys);
    let key_of = |item: &Value| keys.iter().find_map(|key| Some((*key, item.get(key)?.clone())));
    let mut directives = Vec::new();
    for item in patch {
        directives.push(item.as_object().map_or(Ok(Directive::Merge), directive)?);
    }
    let replaces = |(item, directive): (&Value, &Directive)| {
        *directive == Directive::Replace && item.as_object().is_some_and(|item| item.len() == 1)
    };
    if keys.is_empty() || patch.iter().zip(&directives).any(replaces) {
        *base = added(patch)?;
        return Ok(());
    }
    for (item, directive) in patch.iter().zip(directives) {
        let key = key_of(item).ok_or_else(|| format!("an item of {name} has no {}", keys.join(" or ")))?;
        let found = base.iter().position(|there| key_of(there).as_ref() == Some(&key));
        match (found, directive) {
            (Some(index), Directive::Delete) => _ = base.remove(index),
            (None, Directive::Delete) => {}
            (Some(index), _) => {
                if let Some(there) = base.get_mut(index) {
                    merge(there, item)?;
                }
            }
            (None, _) => base.extend(added(std::slice::from_ref(item))?),
        }
    }
    Ok(())
}

/// Items where there were none.
fn added(items: &[Value]) -> Result<Vec<Value>, String> {
    let mut made = Vec::new();
    for item in items {
        let Some(fields) = item.as_object() else {
            made.push(item.clone());
            continue;
        };
        // It says what is done, and is nothing itself.
        if directive(fields)? == Directive::Delete || fields.len() == 1 && fields.contains_key(DIRECTIVE) {
            continue;
        }
        let mut object = Map::new();
        merge_object(&mut object, fields)?;
        made.push(Value::Object(object));
    }
    Ok(made)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        value => value.clone(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, String> {
    match patch.get(DIRECTIVE).map(|value| value.as_str()) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(_) => Err(format!("{DIRECTIVE} is merge, replace or delete")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_are_merged_as_kubernetes_does() {
        let check = |base: Value, patch: Value, expected: Result<Value, &str>| {
            let mut merged = base;
            let done = merge(&mut merged, &patch).map(|()| merged);
            match (done, expected) {
                (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
                (done, expected) => assert_eq!(done, expected.map_err(str::to_owned), "{patch}"),
            }
        };
        check(json!({"a": 1, "b": 2}), json!({"a": 3, "b": null}), Ok(json!({"a": 3})));
        check(
            json!({"a": {"b": 1}}),
            json!({"a": {"c": {"d": null, "e": 2}}}),
            Ok(json!({"a": {"b": 1, "c": {"e": 2}}})),
        );
        check(json!({"args": ["a"]}), json!({"args": ["b"]}), Ok(json!({"args": ["b"]})));
        check(
            json!({"containers": [{"name": "p", "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}]}]}),
            json!({"containers": [
                {"name": "p", "env": [{"name": "B", "value": "2"}, {"name": "A", "$patch": "delete"}]},
                {"name": "q"},
            ]}),
            Ok(json!({"containers": [{"name": "p", "env": [{"name": "B", "value": "2"}]}, {"name": "q"}]})),
        );
        check(
            json!({"ports": [{"port": 80, "name": "http"}]}),
            json!({"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}),
            Ok(json!({"ports": [{"port": 80, "name": "http", "nodePort": 30080}, {"port": 443}]})),
        );
        check(
            json!({"a": {"b": 1}}),
            json!({"a": {"$patch": "replace", "c": 2}}),
            Ok(json!({"a": {"c": 2}})),
        );
        check(
            json!({"volumes": [{"name": "a"}]}),
            json!({"volumes": [{"$patch": "replace"}, {"name": "b"}]}),
            Ok(json!({"volumes": [{"name": "b"}]})),
        );
        check(json!({"volumes": []}), json!({"volumes": [{"emptyDir": {}}]}), Err("has no name"));
        check(json!({}), json!({"$setElementOrder/a": []}), Err("is not known here"));
        check(json!({}), json!({"a": {"$patch": "remove"}}), Err("is merge, replace or delete"));
    }
}

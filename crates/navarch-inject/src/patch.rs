//! The difference of two values as a JSON patch (RFC 6902).

use serde_json::{Value, json};

/// What makes `to` of `from`, in the order in which it is done.
pub fn patch(from: &Value, to: &Value) -> Vec<Value> {
    let mut steps = Vec::new();
    difference(from, to, &mut String::new(), &mut steps);
    steps
}

fn difference(from: &Value, to: &Value, path: &mut String, steps: &mut Vec<Value>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            for (key, value) in from {
                let length = descend(path, key);
                match to.get(key) {
                    Some(after) => difference(value, after, path, steps),
                    None => steps.push(json!({"op": "remove", "path": path})),
                }
                path.truncate(length);
            }
            for (key, value) in to.iter().filter(|(key, _)| !from.contains_key(*key)) {
                let length = descend(path, key);
                steps.push(json!({"op": "add", "path": path, "value": value}));
                path.truncate(length);
            }
        }
        (Value::Array(from), Value::Array(to)) => lists(from, to, path, steps),
        _ => steps.push(json!({"op": "replace", "path": path, "value": to})),
    }
}

/// Items that lists have in common at both ends stay; of those between, pairs are compared, and what there is
/// more or less of is added or removed.
fn lists(from: &[Value], to: &[Value], path: &mut String, steps: &mut Vec<Value>) {
    let before = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let shorter = from.len().min(to.len()) - before;
    let after = from.iter().rev().zip(to.iter().rev()).take(shorter).take_while(|(a, b)| a == b).count();
    let middle = |of: &[Value]| before..of.len() - after;
    let (left, right) = (middle(from), middle(to));
    let pairs = left.len().min(right.len());
    for index in before..before + pairs {
        let length = descend(path, &index.to_string());
        difference(&from[index], &to[index], path, steps);
        path.truncate(length);
    }
    for index in (before + pairs..left.end).rev() {
        steps.push(json!({"op": "remove", "path": format!("{path}/{index}")}));
    }
    for (index, added) in to.iter().enumerate().take(right.end).skip(before + pairs) {
        steps.push(json!({"op": "add", "path": format!("{path}/{index}"), "value": added}));
    }
}

/// Goes one step down; the length of the path before it.
fn descend(path: &mut String, key: &str) -> usize {
    let length = path.len();
    path.push('/');
    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_small() {
        let check = |from: Value, to: Value, expected: Value| assert_eq!(json!(patch(&from, &to)), expected);
        check(json!({"a": 1}), json!({"a": 1}), json!([]));
        check(json!({"a": 1}), json!({"a": 2}), json!([{"op": "replace", "path": "/a", "value": 2}]));
        check(
            json!({"a/b": {"c~d": 1}}),
            json!({"a/b": {}}),
            json!([{"op": "remove", "path": "/a~1b/c~0d"}]),
        );
        let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
        check(json!([1, 3]), json!([1, 2, 3]), add("/1", json!(2)));
        check(json!([1]), json!([0, 1]), add("/0", json!(0)));
        check(json!([1]), json!([1, 2]), add("/1", json!(2)));
        check(json!([1, 2, 3]), json!([1, 3]), json!([{"op": "remove", "path": "/1"}]));
        check(json!({}), json!({"l": [1]}), add("/l", json!([1])));
    }
}

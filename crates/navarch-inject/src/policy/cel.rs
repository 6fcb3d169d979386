//! JSON as an expression of CEL, with holes that are expressions themselves.
//!
//! A hole is a text between two characters of private use, which neither a name nor an address has. So what
//! makes JSON (types that serialize, templates) needs to know nothing of expressions.

use serde_json::Value;

/// Begins a hole that is a value, or a part of a text.
const VALUE: char = '\u{e000}';
/// Begins a hole in a list that is any number of its items.
const ITEMS: char = '\u{e001}';
/// Ends a hole.
const END: char = '\u{e002}';

/// A hole for a value: a whole one, or a part of a text.
pub(super) fn hole(expression: &str) -> String {
    format!("{VALUE}{expression}{END}")
}

/// A hole for items of a list.
pub(super) fn items(expression: &str) -> String {
    format!("{ITEMS}{expression}{END}")
}

/// A text as a literal. Escapes of JSON are escapes of CEL ("Language Definition", string and bytes values).
pub(super) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// A list of texts as a literal.
pub(super) fn quoted<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", texts.into_iter().map(quote).collect::<Vec<_>>().join(", "))
}

/// The expression of a value. Kubernetes has CEL refuse lists and maps of mixed types, so members are of type
/// `dyn`, but in lists of texts.
pub(super) fn expression(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => of_text(text),
        Value::Array(list) => of_list(list),
        Value::Object(fields) => {
            let of = |(key, value): (&String, &Value)| format!("{}: dyn({})", quote(key), expression(value));
            format!("{{{}}}", fields.iter().map(of).collect::<Vec<_>>().join(", "))
        }
    }
}

fn of_text(text: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once(VALUE).and_then(|(before, hole)| Some((before, hole.split_once(END)?)))
    {
        if !before.is_empty() {
            parts.push(quote(before));
        }
        parts.push(inside.to_owned());
        rest = after;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(quote(rest));
    }
    parts.join(" + ")
}

fn of_list(list: &[Value]) -> String {
    let texts_alone = list.iter().all(Value::is_string);
    let mut lists = Vec::new();
    let mut current = Vec::new();
    let listed = |current: &mut Vec<String>| format!("[{}]", std::mem::take(current).join(", "));
    for item in list {
        let inside = item.as_str().and_then(|text| text.strip_prefix(ITEMS)?.strip_suffix(END));
        match inside {
            Some(inside) => {
                if !current.is_empty() {
                    lists.push(listed(&mut current));
                }
                lists.push(format!("({inside})"));
            }
            // What a hole gives may be of type `dyn`, which is no text to a list of texts.
            None if texts_alone && item.as_str().is_some_and(|text| text.contains(VALUE)) => {
                current.push(format!("string({})", expression(item)));
            }
            None if texts_alone => current.push(expression(item)),
            None => current.push(format!("dyn({})", expression(item))),
        }
    }
    if !current.is_empty() || lists.is_empty() {
        lists.push(listed(&mut current));
    }
    lists.join(" + ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_expressions() {
        let check = |value: Value, expected: &str| assert_eq!(expression(&value), expected);
        check(json!(null), "null");
        check(json!(7), "7");
        check(json!("a\"b\\\n"), r#""a\"b\\\n""#);
        check(json!(""), r#""""#);
        check(json!(hole("v.a")), "v.a");
        check(json!(format!("a-{}-{}", hole("x"), hole("y"))), r#""a-" + x + "-" + y"#);
        check(json!([]), "[]");
        check(json!(["a", "b"]), r#"["a", "b"]"#);
        check(json!(["a", items("v.l"), "b", items("w")]), r#"["a"] + (v.l) + ["b"] + (w)"#);
        check(json!([items("v.l")]), "(v.l)");
        check(json!(["a", hole("v.t")]), r#"["a", string(v.t)]"#);
        check(json!([{"a": 1}, items("v.l")]), r#"[dyn({"a": dyn(1)})] + (v.l)"#);
        check(json!({"a": [true], "b": "c"}), r#"{"a": dyn([dyn(true)]), "b": dyn("c")}"#);
    }
}

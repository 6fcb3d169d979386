//! Paths of fields, such as `spec.http[0].route[1].weight`: what is there, and where it is written.

use super::node::{Entry, Node, Value};

/// Whether `key` names the field `rust_name`: as written in the proto file or in its JSON form
/// (lowerCamelCase). A trailing underscore, which keeps a name clear of Rust's keywords, does not count.
pub(crate) fn json_name_matches(rust_name: &str, key: &str) -> bool {
    let name = rust_name.strip_suffix('_').unwrap_or(rust_name);
    if name == key {
        return true;
    }
    let mut key = key.chars();
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let wanted = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

/// One step of a path.
enum Step {
    Field(String),
    Index(usize),
}

/// The steps of a path as [`super::Decoder`] writes it. Whatever does not follow that syntax ends the path.
fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('[') {
            if tail.starts_with('"') {
                let Some((name, after)) = quoted(tail) else { break };
                let Some(after) = after.strip_prefix(']') else { break };
                out.push(Step::Field(name));
                rest = after;
            } else {
                let Some((number, after)) = tail.split_once(']') else { break };
                let Ok(index) = number.parse() else { break };
                out.push(Step::Index(index));
                rest = after;
            }
        } else {
            let tail = rest.strip_prefix('.').unwrap_or(rest);
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            let (name, after) = tail.split_at(end);
            if name.is_empty() {
                break;
            }
            out.push(Step::Field(name.to_owned()));
            rest = after;
        }
    }
    out
}

/// A string literal at the start of `text`, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// The node at `path`, if it is there.
pub(crate) fn descend<'n>(node: &'n Node, path: &str) -> Option<&'n Node> {
    let mut node = node;
    for step in steps(path) {
        node = match step {
            Step::Field(name) => &field(node, &name)?.value,
            Step::Index(index) => node.items()?.get(index)?,
        };
    }
    Some(node)
}

/// The entry of a mapping with this JSON name, which the file may also write as in the proto definition.
fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Entry> {
    node.entry(name).or_else(|| node.entries()?.iter().find(|entry| json_name_matches(&entry.key, name)))
}

/// Line and column of the field at `path` or of its closest ancestor; `None` if nothing of the path is there.
pub(crate) fn locate(node: &Node, path: &str) -> Option<(u32, u32)> {
    let mut node = node;
    let mut found = None;
    for step in steps(path) {
        match step {
            Step::Field(name) => {
                let Some(entry) = field(node, &name) else { break };
                found = Some(match entry.value.value {
                    Value::Scalar { .. } => (entry.value.line, entry.value.column),
                    _ => (entry.line, entry.column),
                });
                node = &entry.value;
            }
            Step::Index(index) => {
                let Some(item) = node.items().and_then(|items| items.get(index)) else { break };
                found = Some((item.line, item.column));
                node = item;
            }
        }
    }
    found
}

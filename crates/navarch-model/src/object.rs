//! The envelope of every configuration object: its key, its metadata, and where it was written.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::Config;
use crate::finding::Span;
use crate::hashed::Hashed;
use crate::kinds::{Kind, Noun, Scope, Spec};
use crate::service::{self, Labels, Name};
use crate::yaml::{self, Budget, Node};

/// The creation time of objects that state none: 2025-01-01T00:00:00Z, in seconds since the epoch. Being equal for all of them, it
/// leaves conflicts to be decided by name and namespace.
pub const DEFAULT_CREATION: i64 = 1_735_689_600;

/// What identifies an object. Displays as `VirtualService default/reviews`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds without a namespace.
    pub namespace: Name,
    pub name: Name,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: service::name(namespace), name: service::name(name) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.scope() {
            Scope::Namespaced => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
            Scope::Cluster => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An object's metadata, as far as a service mesh reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    pub name: Name,
    /// Empty for kinds without a namespace.
    pub namespace: Name,
    pub labels: Labels,
    pub annotations: Labels,
    /// Seconds since the epoch; [`DEFAULT_CREATION`] if not stated.
    pub creation_timestamp: i64,
    /// Seconds since the epoch, of an object that is being deleted.
    pub deletion_timestamp: Option<i64>,
    pub generation: i64,
    pub uid: Name,
}

/// The metadata of nothing in particular.
impl Default for Metadata {
    fn default() -> Self {
        Self {
            name: Name::default(),
            namespace: Name::default(),
            labels: Labels::default(),
            annotations: Labels::default(),
            creation_timestamp: DEFAULT_CREATION,
            deletion_timestamp: None,
            generation: 0,
            uid: Name::default(),
        }
    }
}

/// A configuration object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub key: ObjectKey,
    pub metadata: Arc<Metadata>,
    pub spec: Spec,
    pub source: Source,
}

impl Object {
    /// The specification, if it is of type `T`.
    pub fn spec<T: Noun>(&self) -> Option<&Arc<Hashed<T>>> {
        T::of(&self.spec)
    }

    /// The object as translation sees it, if its specification is of type `T`.
    pub fn config<T: Noun>(&self) -> Option<Config<Arc<Hashed<T>>>> {
        Some(Config {
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            created_at: self.metadata.creation_timestamp,
            labels: self.metadata.labels.clone(),
            annotations: self.metadata.annotations.clone(),
            spec: self.spec::<T>()?.clone(),
        })
    }

    /// Whether the two say the same, wherever they are written.
    pub fn same_content(&self, other: &Self) -> bool {
        self.key == other.key && self.metadata == other.metadata && self.spec == other.spec
    }
}

/// Where an object was written.
///
/// It keeps the document's text instead of the position of every field: positions are wanted seldom (in a message, in `explain`),
/// and the text is a fraction of the size of a tree. [`Source::locate`] reads the document again, which costs what reading it cost the
/// first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub file: Arc<str>,
    /// Where the object starts.
    pub line: u32,
    pub column: u32,
    /// First line of the document that holds the object.
    pub document_line: u32,
    /// The text of that document; empty for Secrets, whose text is not kept.
    pub text: Arc<str>,
    /// Path of the object in the document: empty, or `items[3]` in a `List`.
    pub within: String,
}

impl Source {
    /// For objects that no file holds.
    pub fn none() -> Self {
        Self {
            file: Arc::default(),
            line: 0,
            column: 0,
            document_line: 0,
            text: Arc::default(),
            within: String::new(),
        }
    }

    /// Where the object starts.
    pub fn span(&self) -> Span {
        Span { file: self.file.clone(), line: self.line, column: self.column }
    }

    /// Where the field at `path` is, for example `spec.http[0].route[1].weight`: the value of a scalar, the key of a mapping or list,
    /// the start of a list's item. If the field is not there, its closest ancestor that is.
    pub fn locate(&self, path: &str) -> Span {
        let (documents, _) = yaml::parse(&self.text, Budget::default());
        let root = documents.first().and_then(|document| document.root.as_ref());
        let Some(object) = root.and_then(|root| descend(root, &self.within)) else {
            return self.span();
        };
        match locate(object, path) {
            Some((line, column)) => {
                let line = line.saturating_add(self.document_line).saturating_sub(1);
                Span { file: self.file.clone(), line, column }
            }
            None => self.span(),
        }
    }
}

/// One step of a path.
enum Step {
    Field(String),
    Index(usize),
}

/// The steps of a path as [`yaml::Decoder`] writes it. Whatever does not follow that syntax ends the path.
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
fn field<'n>(node: &'n Node, name: &str) -> Option<&'n yaml::Entry> {
    node.entry(name)
        .or_else(|| node.entries()?.iter().find(|entry| yaml::json_name_matches(&entry.key, name)))
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
                    yaml::Value::Scalar { .. } => (entry.value.line, entry.value.column),
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

#[cfg(test)]
mod tests {
    use crate::parse_text;

    fn check(text: &str, index: usize, path: &str, expected: &str) {
        let parsed = parse_text("a.yaml", text);
        assert_eq!(parsed.objects[index].source.locate(path).to_string(), expected, "{path}");
    }

    #[test]
    fn fields_are_found_where_they_are_written() {
        let text = "\
apiVersion: v1
kind: Namespace
metadata:
  name: a
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: a
  annotations: {\"a.b/c\": x}
spec:
  hosts: [a, b]
  http:
  - direct_response:
      status: 404
";
        check(text, 0, "metadata.name", "a.yaml:4:9");
        for (path, expected) in [
            ("", "a.yaml:6:1"),
            ("spec", "a.yaml:11:1"),
            ("spec.hosts[1]", "a.yaml:12:14"),
            ("spec.hosts[7]", "a.yaml:12:3"),
            ("spec.http[0].directResponse.status", "a.yaml:15:15"),
            ("spec.http[0].route[0].weight", "a.yaml:14:5"),
            ("metadata.annotations[\"a.b/c\"]", "a.yaml:10:26"),
            ("nonsense[", "a.yaml:6:1"),
        ] {
            check(text, 1, path, expected);
        }
    }

    #[test]
    fn items_of_lists_are_objects_of_their_own() {
        let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata:
    name: a
- apiVersion: v1
  kind: Namespace
  metadata:
    name: b
";
        check(text, 1, "metadata.name", "a.yaml:11:11");
        check(text, 1, "", "a.yaml:8:3");
    }

    #[test]
    fn the_text_of_secrets_is_not_kept() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n";
        let parsed = parse_text("a.yaml", text);
        assert!(!format!("{parsed:?}").contains("hunter2"));
        check(text, 0, "stringData", "a.yaml:1:1");
    }
}

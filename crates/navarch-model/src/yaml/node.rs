//! The tree that the parser makes: values with the position of their first character.

use super::scalar::{Scalar, Style, resolve};

/// A value and the place where it starts (1-based line and column, counted in characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub value: Value,
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A scalar as written; what it means depends on its style (see [`resolve`]).
    Scalar {
        text: String,
        style: Style,
    },
    Sequence(Vec<Node>),
    /// Entries in document order; keys are unique.
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub line: u32,
    pub column: u32,
    pub value: Node,
}

/// One YAML document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `None` for an empty document.
    pub root: Option<Node>,
    /// Line of the file on which the document starts (1-based); positions in `root` count from the file's
    /// start.
    pub line: u32,
    /// The text of the document, from `line` on.
    pub text: std::sync::Arc<str>,
    /// Keys that occur twice in one mapping: path, first and second position. The first one counts.
    pub duplicates: Vec<Duplicate>,
}

/// A key that occurs twice in one mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub key: String,
    /// Line and column of the first occurrence.
    pub first: (u32, u32),
    /// Line and column of the repetition.
    pub second: (u32, u32),
}

impl Node {
    /// The scalar's meaning under the scalar rules, `None` for sequences and mappings.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.value {
            Value::Scalar { text, style } => Some(resolve(text, *style)),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// The string that this node is, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self.scalar()? {
            Scalar::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The value under `key`; `None` if this is not a mapping or has no such key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry with `key`; `None` if this is not a mapping or has no such key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// What this is, for messages: `string "a"`, `number 5`, `a list`, `a mapping`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Scalar { text, style } => {
                let shown: String = text.chars().take(60).collect();
                match resolve(text, *style) {
                    Scalar::Null => "null".to_owned(),
                    Scalar::Bool(value) => format!("boolean {value}"),
                    Scalar::Integer(_) | Scalar::Float(_) => format!("number {shown}"),
                    Scalar::String(_) => format!("string {shown:?}"),
                }
            }
        }
    }
}

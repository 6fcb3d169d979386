//! Where objects are written, and positions in there.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::key::ObjectKey;
use crate::service::Name;
use crate::yaml::{self, Budget, descend, locate};

/// A place in a file: 1-based line and column, counted in characters. Displays as `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What people are pointed to: a place in a file, or an object that a cluster holds. Displays as
/// `file:line:column` or `cluster/kind/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    File(Span),
    Cluster {
        /// What the cluster is called.
        cluster: Name,
        object: ObjectKey,
    },
}

impl Position {
    /// The line, if it is in a file.
    pub fn line(&self) -> Option<u32> {
        match self {
            Position::File(span) => Some(span.line),
            Position::Cluster { .. } => None,
        }
    }

    /// The position that is `line` and `column` (from 1) in a text that starts here. An object in a cluster
    /// has one position.
    #[must_use]
    pub fn within(&self, line: u32, column: u32) -> Position {
        match self {
            Position::File(start) => Position::File(Span {
                file: start.file.clone(),
                line: line.saturating_add(start.line).saturating_sub(1),
                column: column.saturating_add(start.column).saturating_sub(1),
            }),
            cluster @ Position::Cluster { .. } => cluster.clone(),
        }
    }
}

impl From<Span> for Position {
    fn from(span: Span) -> Self {
        Position::File(span)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::File(span) => span.fmt(f),
            Position::Cluster { cluster, object } => {
                write!(f, "{cluster}/{}", object.kind)?;
                if !object.namespace.is_empty() {
                    write!(f, "/{}", object.namespace)?;
                }
                write!(f, "/{}", object.name)
            }
        }
    }
}

/// A place in a file as its fields, an object in a cluster as its text.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Position::File(span) => span.serialize(serializer),
            Position::Cluster { .. } => serializer.collect_str(self),
        }
    }
}

/// Where an object is written. It is not a part of what the object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    File(FilePlace),
    /// In a cluster's API server.
    Cluster {
        /// What the cluster is called. Which cluster it is, the object's key says.
        cluster: Name,
        /// The version that was read, for writing a status to exactly that one.
        resource_version: Name,
    },
    /// Nowhere: made by a program.
    #[default]
    None,
}

/// Where in a file an object is written.
///
/// It keeps the document's text instead of the position of every field: positions are wanted seldom (in a
/// message, in `explain`), and the text is a fraction of the size of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
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

impl Place {
    /// Where the object starts; `None` if it is written nowhere.
    pub fn position(&self, key: &ObjectKey) -> Option<Position> {
        match self {
            Place::File(place) => Some(place.span().into()),
            Place::Cluster { cluster, .. } => {
                Some(Position::Cluster { cluster: cluster.clone(), object: key.clone() })
            }
            Place::None => None,
        }
    }

    /// Where the field at `path` is, see [`FilePlace::locate`]. In a cluster, fields have no positions of
    /// their own.
    pub fn locate(&self, key: &ObjectKey, path: &str) -> Option<Position> {
        match self {
            Place::File(place) => Some(place.locate(path).into()),
            Place::Cluster { .. } | Place::None => self.position(key),
        }
    }
}

impl FilePlace {
    /// Where the object starts.
    pub fn span(&self) -> Span {
        Span { file: self.file.clone(), line: self.line, column: self.column }
    }

    /// Where the field at `path` is, for example `spec.http[0].route[1].weight`: the value of a scalar, the
    /// key of a mapping or list, the start of a list's item. If the field is not there, its closest ancestor
    /// that is.
    ///
    /// This reads the document again, which costs what reading it cost the first time.
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

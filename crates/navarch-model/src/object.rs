//! The envelope of every configuration object: its key, its metadata, and where it was written.

use std::hash::Hash;
use std::sync::Arc;

use crate::Config;
use crate::hashed::{Hashed, stable_hash};
pub use crate::key::ObjectKey;
use crate::kinds::{ConfigKind, Spec};
use crate::place::{Place, Position};
use crate::service::{Labels, Name};

/// The creation time of objects that state none: 2025-01-01T00:00:00Z, in seconds since the epoch. Being
/// equal for all of them, it leaves conflicts to be decided by name and namespace.
pub const DEFAULT_CREATION: i64 = 1_735_689_600;

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
    pub place: Place,
}

impl Object {
    /// The specification, if it is of type `T`.
    pub fn spec<T: ConfigKind>(&self) -> Option<&Arc<Hashed<T>>> {
        T::of(&self.spec)
    }

    /// The object as translation sees it, if its specification is of type `T`.
    pub fn config<T: ConfigKind>(&self) -> Option<Config<Arc<Hashed<T>>>> {
        Some(Config {
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            created_at: self.metadata.creation_timestamp,
            labels: self.metadata.labels.clone(),
            annotations: self.metadata.annotations.clone(),
            spec: self.spec::<T>()?.clone(),
        })
    }

    /// Where the object is written; `None` if it is written nowhere.
    pub fn position(&self) -> Option<Position> {
        self.place.position(&self.key)
    }

    /// Where the field at `path` is written, see [`Place::locate`].
    pub fn locate(&self, path: &str) -> Option<Position> {
        self.place.locate(&self.key, path)
    }

    /// A hash of what the object says, wherever it is written: the same on every replica.
    pub fn content(&self) -> u128 {
        stable_hash(|hasher| {
            let ObjectKey { kind, namespace, name, cluster } = &self.key;
            (kind.group(), kind.as_str(), namespace, name, cluster.remote_name()).hash(hasher);
            self.metadata.hash(hasher);
            self.spec.feed(hasher);
        })
    }

    /// The same of the specification alone, for comparing with an API server, which adds to the metadata.
    pub fn spec_content(&self) -> u128 {
        stable_hash(|hasher| self.spec.feed(hasher))
    }

    /// Whether the two say the same, wherever they are written.
    pub fn same_content(&self, other: &Self) -> bool {
        self.key == other.key && self.metadata == other.metadata && self.spec == other.spec
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_text;

    fn check(text: &str, index: usize, path: &str, expected: &str) {
        let parsed = parse_text("a.yaml", text);
        let position = parsed.objects[index].locate(path).map(|position| position.to_string());
        assert_eq!(position.as_deref(), Some(expected), "{path}");
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

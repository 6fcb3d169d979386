//! What something was made from, and which of two things that claim the same comes first.

use std::cmp::Ordering;

use crate::cluster::ClusterId;
use crate::kinds::Kind;
use crate::object::ObjectKey;
use crate::service::{self, Name};

/// The field of an object that something was made from.
///
/// It travels with what is made, so that nobody has to find it again from the result. It names no file and no
/// line: moving an object to another place changes nothing that is computed from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub key: ObjectKey,
    /// Path of the field, for example `spec.http[0]`; empty for the whole object.
    pub field: Name,
}

impl Origin {
    /// The whole object.
    pub fn object(key: ObjectKey) -> Self {
        Origin { key, field: Name::default() }
    }

    /// A field of an object.
    pub fn field(key: ObjectKey, field: &str) -> Self {
        Origin { key, field: service::name(field) }
    }
}

/// What decides between things that claim the same host, port or name, and tells them apart.
///
/// Ordered as Istio orders objects everywhere: oldest first, then by name, then by namespace. What is equal
/// in all of these differs in its kind or, if one object stands for several things, in its position, so
/// nothing replaces anything else in a map that is keyed by this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Precedence {
    /// Seconds since the epoch.
    pub created_at: i64,
    pub key: ObjectKey,
    /// Position among the things that the object stands for.
    pub position: u32,
}

impl Precedence {
    /// The sort key.
    fn order(&self) -> (i64, &str, &str, Kind, ClusterId, u32) {
        let Precedence { created_at, key: ObjectKey { kind, namespace, name, cluster }, position } = self;
        (*created_at, name, namespace, *kind, *cluster, *position)
    }
}

impl Ord for Precedence {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Precedence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_equals_stay_apart() {
        let precedence = |created_at, kind, namespace: &str, name: &str, position| Precedence {
            created_at,
            key: ObjectKey::new(kind, namespace, name),
            position,
        };
        let ordered = [
            precedence(1, Kind::VirtualService, "z", "z", 0),
            precedence(2, Kind::VirtualService, "b", "a", 0),
            precedence(2, Kind::VirtualService, "a", "b", 0),
            precedence(2, Kind::VirtualService, "b", "b", 0),
            precedence(2, Kind::VirtualService, "b", "b", 1),
            precedence(2, Kind::Gateway, "b", "b", 0),
        ];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }
}

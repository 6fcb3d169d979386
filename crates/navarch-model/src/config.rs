//! `Config`: a configuration object as translation sees it.

use crate::cluster::ClusterId;
use crate::kinds::ConfigKind;
use crate::object::ObjectKey;
use crate::service::{Labels, Name};

/// A configuration object of one kind: its identity, what decides precedence, and its specification.
///
/// It carries no source position, so moving an object to another line changes no fingerprint; positions are
/// found through the object's key when somebody asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config<T> {
    pub namespace: Name,
    pub name: Name,
    /// Seconds since the epoch; the oldest object wins a conflict, ties fall to name, then namespace.
    pub created_at: i64,
    pub labels: Labels,
    pub annotations: Labels,
    pub spec: T,
}

impl<T> Config<T> {
    /// Sort key for "oldest first": creation time, then name, then namespace (Istio's order everywhere).
    pub fn age_order(&self) -> (i64, &str, &str) {
        (self.created_at, &self.name, &self.namespace)
    }
}

impl<T: ConfigKind> Config<T> {
    /// The identity of the object. Configuration is of the local cluster.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: T::KIND,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            cluster: ClusterId::LOCAL,
        }
    }
}

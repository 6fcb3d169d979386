//! What identifies an object.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::cluster::ClusterId;
use crate::kinds::{Kind, Scope};
use crate::service::{self, Name};

/// What identifies an object. Displays as `VirtualService default/reviews`, of another cluster than the local
/// one with its name.
///
/// Keys are ordered by kind, namespace, name and, last, cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds without a namespace.
    pub namespace: Name,
    pub name: Name,
    pub cluster: ClusterId,
}

impl ObjectKey {
    /// The key of an object of the local cluster, as all configuration is.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self::of(ClusterId::LOCAL, kind, namespace, name)
    }

    /// The key of an object of any cluster.
    pub fn of(cluster: ClusterId, kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: service::name(namespace), name: service::name(name), cluster }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.scope() {
            Scope::Namespaced => write!(f, "{} {}/{}", self.kind, self.namespace, self.name)?,
            Scope::Cluster => write!(f, "{} {}", self.kind, self.name)?,
        }
        match self.cluster.remote_name() {
            Some(cluster) => write!(f, " of cluster {cluster}"),
            None => Ok(()),
        }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! Conditions on who asks and where.

use crate::kinds::Kind;
use crate::object::ObjectKey;
use crate::service::{Labels, Name};

/// The name by which configuration means all sidecars instead of a gateway.
pub const MESH_GATEWAY: &str = "mesh";

/// What routes are attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parent {
    /// All sidecars.
    #[default]
    Mesh,
    /// The proxies of a gateway, on all of its listeners.
    Gateway(ObjectKey),
    /// The proxies of a gateway, on one listener of the Gateway or ListenerSet that states it. (Gateway API.)
    Listener {
        gateway: ObjectKey,
        /// Name of the listener.
        section: Name,
    },
}

impl Parent {
    /// Reads the qualified name of an Istio Gateway, `<namespace>/<name>`, or `mesh`.
    pub fn parse(name: &str) -> Self {
        match name.split_once('/') {
            None if name == MESH_GATEWAY => Parent::Mesh,
            None => Parent::Gateway(ObjectKey::new(Kind::Gateway, "", name)),
            Some((namespace, name)) => Parent::Gateway(ObjectKey::new(Kind::Gateway, namespace, name)),
        }
    }

    /// The object that states the listeners, unless it is the mesh.
    pub fn gateway(&self) -> Option<&ObjectKey> {
        match self {
            Parent::Mesh => None,
            Parent::Gateway(key) | Parent::Listener { gateway: key, .. } => Some(key),
        }
    }
}

/// Conditions on the client and not on what it sends. They are decided while planning; Envoy never sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientMatch {
    /// The port that is connected to.
    pub port: Option<u16>,
    /// In place of the parents of the set; empty if all of those are meant.
    pub parents: Vec<Parent>,
    /// Labels of the client.
    pub labels: Labels,
    /// Namespace of the client.
    pub namespace: Option<Name>,
}

impl ClientMatch {
    /// Whether it holds on a port. Port zero, which stands for all ports, does not count as stated.
    pub fn holds_on(&self, port: u16) -> bool {
        self.port.is_none_or(|stated| stated == port)
    }

    /// Whether it holds for clients of a parent.
    pub fn holds_at(&self, parent: &Parent) -> bool {
        self.parents.is_empty() || self.parents.contains(parent)
    }

    /// Whether it holds for clients with these labels.
    pub fn holds_for(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

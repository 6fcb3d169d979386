//! ListenerSet: listeners that somebody adds to a Gateway.

use super::{GROUP, Listener};
use crate::key::ObjectKey;
use crate::kinds::Kind;
use crate::service::Name;
use crate::yaml::message;

message! {
    /// Listeners for a gateway, which may be of another namespace. Gateway API: `ListenerSetSpec`.
    pub struct ListenerSet {
        parent_ref: ParentGatewayReference,
        listeners: Vec<Listener>,
    }
}

message! {
    /// The gateway. Gateway API: `ParentGatewayReference`.
    pub struct ParentGatewayReference {
        group: Option<String>,
        kind: Option<String>,
        name: Name,
        namespace: Option<Name>,
    }
}

impl ListenerSet {
    /// The gateway that it is for, if it is one of the Gateway API. `namespace` is that of the ListenerSet.
    pub fn gateway(&self, namespace: &Name) -> Option<ObjectKey> {
        let ParentGatewayReference { group, kind, name, namespace: stated } = &self.parent_ref;
        let is_gateway =
            group.as_deref().unwrap_or(GROUP) == GROUP && kind.as_deref().unwrap_or("Gateway") == "Gateway";
        let namespace = stated.as_ref().unwrap_or(namespace);
        is_gateway.then(|| ObjectKey::new(Kind::KubernetesGateway, namespace, name))
    }
}

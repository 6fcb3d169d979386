//! References of routes to what they are attached to, and to what takes their traffic.

use crate::yaml::message;

message! {
    /// What a route is attached to. Without group and kind a Gateway, without namespace in that of the route.
    pub struct ParentReference {
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        name: String,
        /// A listener of a gateway, a port of a service.
        section_name: Option<String>,
        port: Option<u32>,
    }
}

message! {
    /// What takes traffic. Without group and kind a Service, without namespace in that of the route.
    pub struct BackendObjectReference {
        group: Option<String>,
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
        port: Option<u32>,
    }
}

message! {
    /// A backend of connections with its share.
    pub struct BackendRef {
        group: Option<String>,
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
        port: Option<u32>,
        /// Relative to the others; unset means 1.
        weight: Option<i32>,
    }
}

impl BackendRef {
    /// What takes the traffic.
    pub fn target(&self) -> BackendObjectReference {
        let BackendRef { group, kind, name, namespace, port, weight: _ } = self.clone();
        BackendObjectReference { group, kind, name, namespace, port }
    }
}

impl BackendObjectReference {
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Service")
    }

    /// Whether it is a Service of Kubernetes.
    pub fn is_service(&self) -> bool {
        self.group().is_empty() && self.kind() == "Service"
    }
}

impl ParentReference {
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(super::GROUP)
    }

    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }

    /// The namespace of the parent of a route in `own`.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().filter(|stated| !stated.is_empty()).unwrap_or(own)
    }
}

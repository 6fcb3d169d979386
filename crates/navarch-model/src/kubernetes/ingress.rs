//! Ingress and IngressClass: routes for HTTP from outside of a cluster.

use crate::service::Name;
use crate::yaml::{closed_enum, message};

message! {
    /// Routes by host and path. Kubernetes: `IngressSpec`.
    pub struct Ingress {
        ingress_class_name: Option<Name>,
        /// Where requests go that no rule is for.
        default_backend: Option<IngressBackend>,
        tls: Vec<IngressTls>,
        rules: Vec<IngressRule>,
    }
}

message! {
    /// The certificate of some hosts.
    pub struct IngressTls {
        hosts: Vec<String>,
        secret_name: String,
    }
}

message! {
    /// The paths of a host, of all hosts if none is stated.
    pub struct IngressRule {
        host: String,
        http: Option<HttpIngressRuleValue>,
    }
}

message! {
    /// The paths of a host.
    pub struct HttpIngressRuleValue {
        paths: Vec<HttpIngressPath>,
    }
}

message! {
    /// A path and where requests for it go.
    pub struct HttpIngressPath {
        path: String,
        path_type: Option<PathType>,
        backend: IngressBackend,
    }
}

closed_enum! {
    /// What a path stands for.
    pub enum PathType {
        /// As the controller likes.
        ImplementationSpecific = 0 "ImplementationSpecific",
        Exact = 1 "Exact",
        /// What starts with the same segments.
        Prefix = 2 "Prefix",
    }
}

message! {
    /// Where requests go: to a Service, or to another object that a controller knows.
    pub struct IngressBackend {
        service: Option<IngressServiceBackend>,
        resource: Option<TypedLocalObjectReference>,
    }
}

message! {
    /// A Service of the namespace.
    pub struct IngressServiceBackend {
        name: Name,
        port: ServiceBackendPort,
    }
}

message! {
    /// A port by name or by number.
    pub struct ServiceBackendPort {
        name: String,
        number: u32,
    }
}

message! {
    /// An object of the namespace.
    pub struct TypedLocalObjectReference {
        api_group: String,
        kind: String,
        name: String,
    }
}

message! {
    /// Who serves Ingresses of a class. Kubernetes: `IngressClassSpec`.
    pub struct IngressClass {
        controller: String,
        parameters: Option<IngressClassParameters>,
    }
}

message! {
    /// An object that says more about a class.
    pub struct IngressClassParameters {
        api_group: String,
        kind: String,
        name: String,
        namespace: String,
        scope: String,
    }
}

//! GRPCRoute: how gRPC calls for some hosts are routed.

use super::filter::{GrpcRouteFilter, SessionPersistence};
use super::http_route::HttpHeaderMatch;
use super::reference::{BackendObjectReference, ParentReference};
use super::values::{MatchType, UseDefaultGateways};
use crate::yaml::message;

message! {
    /// How gRPC calls are routed that come through gateways or, with services as parents, from within the
    /// mesh.
    pub struct GrpcRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: UseDefaultGateways,
        /// Empty means all that the parents serve.
        hostnames: Vec<String>,
        rules: Vec<GrpcRouteRule>,
    }
}

message! {
    /// What becomes of calls that meet one of some conditions.
    pub struct GrpcRouteRule {
        name: Option<String>,
        /// Empty means every call.
        matches: Vec<GrpcRouteMatch>,
        filters: Vec<GrpcRouteFilter>,
        backend_refs: Vec<GrpcBackendRef>,
        session_persistence: Option<SessionPersistence>,
    }
}

message! {
    /// Conditions that must all hold.
    pub struct GrpcRouteMatch {
        method: Option<GrpcMethodMatch>,
        headers: Vec<HttpHeaderMatch>,
    }
}

message! {
    /// A condition on the method that is called; unset parts are any.
    pub struct GrpcMethodMatch {
        type_: MatchType,
        service: Option<String>,
        method: Option<String>,
    }
}

message! {
    /// A backend with its share.
    pub struct GrpcBackendRef {
        group: Option<String>,
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
        port: Option<u32>,
        /// Relative to the others; unset means 1.
        weight: Option<i32>,
        filters: Vec<GrpcRouteFilter>,
    }
}

impl GrpcBackendRef {
    /// What takes the calls.
    pub fn target(&self) -> BackendObjectReference {
        let GrpcBackendRef { group, kind, name, namespace, port, weight: _, filters: _ } = self.clone();
        BackendObjectReference { group, kind, name, namespace, port }
    }
}

//! HTTPRoute: how requests for some hosts are routed.

use super::filter::{HttpRouteFilter, SessionPersistence};
use super::reference::{BackendObjectReference, ParentReference};
use super::values::{MatchType, RouteDuration, UseDefaultGateways};
use crate::yaml::{closed_enum, message};

message! {
    /// How requests are routed that come through gateways or, with services as parents, from within the mesh.
    pub struct HttpRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: UseDefaultGateways,
        /// Empty means all that the parents serve.
        hostnames: Vec<String>,
        /// Unset means one rule for everything, without backends.
        rules: Option<Vec<HttpRouteRule>>,
    }
}

message! {
    /// What becomes of requests that meet one of some conditions.
    pub struct HttpRouteRule {
        name: Option<String>,
        /// Unset means every request.
        matches: Option<Vec<HttpRouteMatch>>,
        filters: Vec<HttpRouteFilter>,
        backend_refs: Vec<HttpBackendRef>,
        timeouts: Option<HttpRouteTimeouts>,
        retry: Option<HttpRouteRetry>,
        session_persistence: Option<SessionPersistence>,
    }
}

message! {
    /// Conditions that must all hold.
    pub struct HttpRouteMatch {
        path: Option<HttpPathMatch>,
        headers: Vec<HttpHeaderMatch>,
        query_params: Vec<HttpQueryParamMatch>,
        method: Option<String>,
    }
}

message! {
    /// A condition on the path; what is not stated is a prefix, and `/`.
    pub struct HttpPathMatch {
        type_: PathMatchType,
        value: Option<String>,
    }
}

closed_enum! {
    /// How the path is compared.
    pub enum PathMatchType {
        PathPrefix = 0 "PathPrefix",
        Exact = 1 "Exact",
        RegularExpression = 2 "RegularExpression",
    }
}

message! {
    /// A condition on a header.
    pub struct HttpHeaderMatch {
        type_: MatchType,
        name: String,
        value: String,
    }
}

message! {
    /// A condition on a parameter of the query.
    pub struct HttpQueryParamMatch {
        type_: MatchType,
        name: String,
        value: String,
    }
}

message! {
    /// A backend with its share.
    pub struct HttpBackendRef {
        group: Option<String>,
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
        port: Option<u32>,
        /// Relative to the others; unset means 1.
        weight: Option<i32>,
        filters: Vec<HttpRouteFilter>,
    }
}

message! {
    /// How long a request may take. Zero means no limit.
    pub struct HttpRouteTimeouts {
        /// With all of its tries.
        request: Option<RouteDuration>,
        /// Each try.
        backend_request: Option<RouteDuration>,
    }
}

message! {
    /// When a failed request is tried again.
    pub struct HttpRouteRetry {
        codes: Vec<u32>,
        /// Besides the first one.
        attempts: Option<i32>,
        backoff: Option<RouteDuration>,
    }
}

impl HttpBackendRef {
    /// What takes the requests.
    pub fn target(&self) -> BackendObjectReference {
        let HttpBackendRef { group, kind, name, namespace, port, weight: _, filters: _ } = self.clone();
        BackendObjectReference { group, kind, name, namespace, port }
    }
}

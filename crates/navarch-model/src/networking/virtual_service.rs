//! VirtualService: how requests and connections to a host are routed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::values::{Bytes, Percent, StringMatch};
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// How requests and connections for hosts are routed. Without hosts it is a delegate of another
    /// VirtualService.
    pub struct VirtualService {
        hosts: Vec<String>,
        /// Empty means `mesh`: all sidecars.
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        /// Empty means the default of the mesh settings.
        export_to: Vec<String>,
    }
}

message! {
    /// Where traffic goes. A short host name is one of the rule's namespace.
    pub struct Destination {
        host: String,
        subset: String,
        port: Option<PortSelector>,
    }
}

message! {
    /// The first route with a match that holds is used; a route without matches always. Istio: `HTTPRoute`.
    pub struct HttpRoute {
        name: String,
        match_: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        /// Only in a VirtualService with hosts.
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        /// Unset means none.
        timeout: Option<Duration>,
        /// Unset means the default of the mesh settings.
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: `mirror_percentage` in whole percent.
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

message! {
    /// The VirtualService that has the rest of a route. An empty namespace is that of the route.
    pub struct Delegate {
        name: String,
        namespace: String,
    }
}

message! {
    /// Changes to headers of requests and responses.
    pub struct Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
}

message! {
    /// Changes to headers: overwritten, appended, removed. Istio: `Headers.HeaderOperations`.
    pub struct HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

message! {
    /// A route by server name, for TLS that is passed through. Istio: `TLSRoute`.
    pub struct TlsRoute {
        match_: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// A route by address. Istio: `TCPRoute`.
    pub struct TcpRoute {
        match_: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// Conditions that must all hold. Istio: `HTTPMatchRequest`.
    pub struct HttpMatchRequest {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        /// By name; names starting with `@request.auth.claims` stand for claims of the token.
        headers: BTreeMap<String, StringMatch>,
        /// 0 means any.
        port: u32,
        source_labels: BTreeMap<String, String>,
        /// Overrides the gateways of the VirtualService.
        gateways: Vec<String>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        without_headers: BTreeMap<String, StringMatch>,
        source_namespace: String,
        stat_prefix: String,
    }
}

message! {
    /// A destination with its share. A single destination takes everything, whatever its weight. Istio:
    /// `HTTPRouteDestination`.
    pub struct HttpRouteDestination {
        destination: Option<Destination>,
        weight: i32,
        headers: Option<Headers>,
    }
}

message! {
    /// A destination of TCP or TLS with its share.
    pub struct RouteDestination {
        destination: Option<Destination>,
        weight: i32,
    }
}

message! {
    /// Conditions on a connection that must all hold.
    pub struct L4MatchAttributes {
        destination_subnets: Vec<String>,
        port: u32,
        source_subnet: String,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

message! {
    /// Conditions on a TLS connection that must all hold. Istio: `TLSMatchAttributes`.
    pub struct TlsMatchAttributes {
        sni_hosts: Vec<String>,
        destination_subnets: Vec<String>,
        port: u32,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

message! {
    /// Answers with a redirect. Istio: `HTTPRedirect`.
    pub struct HttpRedirect {
        uri: String,
        authority: String,
        scheme: String,
        redirect_code: u32,
        prefix_rewrite: String,
        ;
        oneof redirect_port: RedirectPort,
    }
}

oneof! {
    /// The port that is redirected to.
    pub enum RedirectPort {
        port => Port(u32),
        derive_port => DerivePort(RedirectPortSelection),
    }
}

closed_enum! {
    /// How the port is derived if none is stated. Istio: `HTTPRedirect.RedirectPortSelection`.
    pub enum RedirectPortSelection {
        FromProtocolDefault = 0 "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = 1 "FROM_REQUEST_PORT",
    }
}

message! {
    /// Answers without an upstream. Istio: `HTTPDirectResponse`.
    pub struct HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
}

union_message! {
    /// The body of a direct response. Istio: `HTTPBody`.
    pub enum HttpBody {
        string => String(String),
        bytes => Bytes(Bytes),
    }
}

message! {
    /// Changes path and authority before the request is passed on. Istio: `HTTPRewrite`.
    pub struct HttpRewrite {
        uri: String,
        authority: String,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// Replaces what a pattern matches in the path; `rewrite` may use `\1`.
    pub struct RegexRewrite {
        match_: String,
        rewrite: String,
    }
}

message! {
    /// How often and when a failed request is tried again. 0 attempts turn retries off. Istio: `HTTPRetry`.
    pub struct HttpRetry {
        /// Besides the first one.
        attempts: i32,
        per_try_timeout: Option<Duration>,
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

message! {
    /// What browsers of other origins may do.
    pub struct CorsPolicy {
        /// Deprecated: `allow_origins`.
        allow_origin: Vec<String>,
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: UnmatchedPreflights,
    }
}

closed_enum! {
    /// What happens to preflight requests of origins that are not allowed. Istio:
    /// `CorsPolicy.UnmatchedPreflights`.
    pub enum UnmatchedPreflights {
        Unspecified = 0 "UNSPECIFIED",
        Forward = 1 "FORWARD",
        Ignore = 2 "IGNORE",
    }
}

message! {
    /// Faults for testing. Istio: `HTTPFaultInjection`.
    pub struct HttpFaultInjection {
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    }
}

message! {
    /// Delays a share of the requests. Istio: `HTTPFaultInjection.Delay`.
    pub struct FaultDelay {
        /// Deprecated: `percentage` in whole percent.
        percent: i32,
        percentage: Option<Percent>,
        ;
        oneof http_delay_type: FaultDelayKind,
    }
}

oneof! {
    /// How long the delay is. Only a fixed one is supported.
    pub enum FaultDelayKind {
        fixed_delay => FixedDelay(Duration),
        exponential_delay => ExponentialDelay(Duration),
    }
}

message! {
    /// Answers a share of the requests with an error. Istio: `HTTPFaultInjection.Abort`.
    pub struct FaultAbort {
        percentage: Option<Percent>,
        ;
        oneof error_type: FaultAbortKind,
    }
}

oneof! {
    /// The error.
    pub enum FaultAbortKind {
        http_status => HttpStatus(i32),
        grpc_status => GrpcStatus(String),
        http2_error => Http2Error(String),
    }
}

message! {
    /// Copies a share of the requests to another destination, whose answers are dropped. Istio:
    /// `HTTPMirrorPolicy`.
    pub struct HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }
}

message! {
    /// A port by number.
    pub struct PortSelector {
        number: u32,
    }
}

/// Names of the gRPC statuses, in the order of their numbers.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

//! VirtualService: how requests and connections to a host are routed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::values::{Bytes, Percent, StringMatch};
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// Istio: `VirtualService`.
    pub struct VirtualService {
        hosts: Vec<String>,
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<String>,
    }
}

message! {
    /// Istio: `Destination`.
    pub struct Destination {
        host: String,
        subset: String,
        port: Option<PortSelector>,
    }
}

message! {
    /// Istio: `HTTPRoute`.
    pub struct HttpRoute {
        name: String,
        match_: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        timeout: Option<Duration>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

message! {
    /// Istio: `Delegate`.
    pub struct Delegate {
        name: String,
        namespace: String,
    }
}

message! {
    /// Istio: `Headers`.
    pub struct Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
}

message! {
    /// Istio: `Headers.HeaderOperations`.
    pub struct HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

message! {
    /// Istio: `TLSRoute`.
    pub struct TlsRoute {
        match_: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// Istio: `TCPRoute`.
    pub struct TcpRoute {
        match_: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// Istio: `HTTPMatchRequest`.
    pub struct HttpMatchRequest {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: BTreeMap<String, StringMatch>,
        port: u32,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        without_headers: BTreeMap<String, StringMatch>,
        source_namespace: String,
        stat_prefix: String,
    }
}

message! {
    /// Istio: `HTTPRouteDestination`.
    pub struct HttpRouteDestination {
        destination: Option<Destination>,
        weight: i32,
        headers: Option<Headers>,
    }
}

message! {
    /// Istio: `RouteDestination`.
    pub struct RouteDestination {
        destination: Option<Destination>,
        weight: i32,
    }
}

message! {
    /// Istio: `L4MatchAttributes`.
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
    /// Istio: `TLSMatchAttributes`.
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
    /// Istio: `HTTPRedirect`.
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
    /// Istio: the `oneof redirect_port` of `HTTPRedirect`.
    pub enum RedirectPort {
        port => Port(u32),
        derive_port => DerivePort(RedirectPortSelection),
    }
}

closed_enum! {
    /// Istio: `HTTPRedirect.RedirectPortSelection`.
    pub enum RedirectPortSelection {
        FromProtocolDefault = 0 "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = 1 "FROM_REQUEST_PORT",
    }
}

message! {
    /// Istio: `HTTPDirectResponse`.
    pub struct HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
}

union_message! {
    /// Istio: `HTTPBody`.
    pub enum HttpBody {
        string => String(String),
        bytes => Bytes(Bytes),
    }
}

message! {
    /// Istio: `HTTPRewrite`.
    pub struct HttpRewrite {
        uri: String,
        authority: String,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// Istio: `RegexRewrite`.
    pub struct RegexRewrite {
        match_: String,
        rewrite: String,
    }
}

message! {
    /// Istio: `HTTPRetry`.
    pub struct HttpRetry {
        attempts: i32,
        per_try_timeout: Option<Duration>,
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

message! {
    /// Istio: `CorsPolicy`.
    pub struct CorsPolicy {
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
    /// Istio: `CorsPolicy.UnmatchedPreflights`.
    pub enum UnmatchedPreflights {
        Unspecified = 0 "UNSPECIFIED",
        Forward = 1 "FORWARD",
        Ignore = 2 "IGNORE",
    }
}

message! {
    /// Istio: `HTTPFaultInjection`.
    pub struct HttpFaultInjection {
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    }
}

message! {
    /// Istio: `HTTPFaultInjection.Delay`.
    pub struct FaultDelay {
        percent: i32,
        percentage: Option<Percent>,
        ;
        oneof http_delay_type: FaultDelayKind,
    }
}

oneof! {
    /// Istio: the `oneof http_delay_type` of `HTTPFaultInjection.Delay`.
    pub enum FaultDelayKind {
        fixed_delay => FixedDelay(Duration),
        exponential_delay => ExponentialDelay(Duration),
    }
}

message! {
    /// Istio: `HTTPFaultInjection.Abort`.
    pub struct FaultAbort {
        percentage: Option<Percent>,
        ;
        oneof error_type: FaultAbortKind,
    }
}

oneof! {
    /// Istio: the `oneof error_type` of `HTTPFaultInjection.Abort`.
    pub enum FaultAbortKind {
        http_status => HttpStatus(i32),
        grpc_status => GrpcStatus(String),
        http2_error => Http2Error(String),
    }
}

message! {
    /// Istio: `HTTPMirrorPolicy`.
    pub struct HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }
}

message! {
    /// Istio: `PortSelector`.
    pub struct PortSelector {
        number: u32,
    }
}

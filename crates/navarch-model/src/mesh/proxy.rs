//! Proxy settings of the mesh, which workloads may override.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::networking::{ClientTlsSettings, ProxyImage, ReadinessProbe, TcpKeepalive};
use crate::values::Percent;
use crate::yaml::{closed_enum, message, oneof, union_message};

closed_enum! {
    /// Whether proxies authenticate the control plane.
    pub enum AuthenticationPolicy {
        None = 0 "NONE",
        MutualTls = 1 "MUTUAL_TLS",
        Inherit = 1000 "INHERIT",
    }
}

message! {
    /// How requests are traced.
    pub struct Tracing {
        custom_tags: BTreeMap<String, CustomTag>,
        max_path_tag_length: u32,
        sampling: Percent,
        tls_settings: Option<ClientTlsSettings>,
        enable_istio_tags: Option<bool>,
        ;
        oneof tracer: Tracer,
    }
}

oneof! {
    /// Where traces go.
    pub enum Tracer {
        zipkin => Zipkin(Zipkin),
        lightstep => Lightstep(Lightstep),
        datadog => Datadog(Datadog),
        stackdriver => Stackdriver(Stackdriver),
        open_census_agent => OpenCensusAgent(OpenCensusAgent),
    }
}

message! {
    /// Traces in Zipkin's format. Istio: `Tracing.Zipkin`.
    pub struct Zipkin {
        address: String,
    }
}

message! {
    /// Traces for Lightstep. Istio: `Tracing.Lightstep`.
    pub struct Lightstep {
        address: String,
        access_token: String,
    }
}

message! {
    /// Traces for Datadog. Istio: `Tracing.Datadog`.
    pub struct Datadog {
        address: String,
    }
}

message! {
    /// Traces for Google's Cloud operations. Istio: `Tracing.Stackdriver`.
    pub struct Stackdriver {
        debug: bool,
        max_number_of_attributes: Option<i64>,
        max_number_of_annotations: Option<i64>,
        max_number_of_message_events: Option<i64>,
    }
}

message! {
    /// Traces for OpenCensus. Istio: `Tracing.OpenCensusAgent`.
    pub struct OpenCensusAgent {
        address: String,
        context: Vec<OpenCensusTraceContext>,
    }
}

closed_enum! {
    /// Which headers carry the context. Istio: `Tracing.OpenCensusAgent.TraceContext`.
    pub enum OpenCensusTraceContext {
        Unspecified = 0 "UNSPECIFIED",
        W3cTraceContext = 1 "W3C_TRACE_CONTEXT",
        GrpcBin = 2 "GRPC_BIN",
        CloudTraceContext = 3 "CLOUD_TRACE_CONTEXT",
        B3 = 4 "B3",
    }
}

union_message! {
    /// The value of a tag on traces. Istio: `Tracing.CustomTag`.
    pub enum CustomTag {
        literal => Literal(Literal),
        environment => Environment(Environment),
        header => Header(RequestHeader),
    }
}

message! {
    /// A tag with a fixed value. Istio: `Tracing.Literal`.
    pub struct Literal {
        value: String,
    }
}

message! {
    /// A tag from the proxy's environment. Istio: `Tracing.Environment`.
    pub struct Environment {
        name: String,
        default_value: String,
    }
}

message! {
    /// A tag from a request's header. Istio: `Tracing.RequestHeader`.
    pub struct RequestHeader {
        name: String,
        default_value: String,
    }
}

message! {
    /// No longer used. Istio: `SDS`.
    pub struct Sds {
        enabled: bool,
        k8s_sa_jwt_path: String,
    }
}

message! {
    /// What is in front of the gateway.
    pub struct Topology {
        num_trusted_proxies: u32,
        forward_client_cert_details: ForwardClientCertDetails,
        proxy_protocol: Option<ProxyProtocolConfiguration>,
    }
}

message! {
    /// If set, connections start with the PROXY protocol. Istio: `Topology.ProxyProtocolConfiguration`.
    pub struct ProxyProtocolConfiguration {
    }
}

closed_enum! {
    /// What happens to the header `x-forwarded-client-cert`.
    pub enum ForwardClientCertDetails {
        Undefined = 0 "UNDEFINED",
        Sanitize = 1 "SANITIZE",
        ForwardOnly = 2 "FORWARD_ONLY",
        AppendForward = 3 "APPEND_FORWARD",
        SanitizeSet = 4 "SANITIZE_SET",
        AlwaysForwardOnly = 5 "ALWAYS_FORWARD_ONLY",
    }
}

union_message! {
    /// Hardware that signs instead of the CPU.
    pub enum PrivateKeyProvider {
        cryptomb => Cryptomb(CryptoMb),
        qat => Qat(Qat),
    }
}

message! {
    /// Intel's CryptoMB. Istio: `PrivateKeyProvider.CryptoMb`.
    pub struct CryptoMb {
        poll_delay: Option<Duration>,
        fallback: Option<bool>,
    }
}

message! {
    /// Intel's QuickAssist. Istio: `PrivateKeyProvider.QAT`.
    pub struct Qat {
        poll_delay: Option<Duration>,
        fallback: Option<bool>,
    }
}

message! {
    /// Settings of a proxy. The default value is what istiod assumes without any configuration.
    pub struct ProxyConfig defaults by hand {
        config_path: String,
        binary_path: String,
        drain_duration: Option<Duration>,
        discovery_address: String,
        discovery_refresh_delay: Option<Duration>,
        zipkin_address: String,
        statsd_udp_address: String,
        envoy_metrics_service_address: String,
        proxy_admin_port: i32,
        availability_zone: String,
        control_plane_auth_policy: AuthenticationPolicy,
        custom_config_file: String,
        stat_name_length: i32,
        concurrency: Option<i32>,
        proxy_bootstrap_template_path: String,
        interception_mode: InboundInterceptionMode,
        tracing: Option<Tracing>,
        sds: Option<Sds>,
        envoy_access_log_service: Option<RemoteService>,
        envoy_metrics_service: Option<RemoteService>,
        proxy_metadata: BTreeMap<String, String>,
        runtime_values: BTreeMap<String, String>,
        status_port: i32,
        extra_stat_tags: Vec<String>,
        gateway_topology: Option<Topology>,
        termination_drain_duration: Option<Duration>,
        mesh_id: String,
        readiness_probe: Option<ReadinessProbe>,
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        hold_application_until_proxy_starts: Option<bool>,
        ca_certificates_pem: Vec<String>,
        image: Option<ProxyImage>,
        private_key_provider: Option<PrivateKeyProvider>,
        proxy_headers: Option<ProxyHeaders>,
        file_flush_interval: Option<Duration>,
        file_flush_min_size_kb: u32,
        stats_compression: Option<bool>,
        connection_settings: Option<ConnectionSettings>,
        ;
        oneof cluster_name: ClusterName,
    }
}

oneof! {
    /// The name under which traces show the proxy.
    pub enum ClusterName {
        service_cluster => ServiceCluster(String),
        tracing_service_name => TracingServiceName(TracingServiceName),
    }
}

closed_enum! {
    /// How the name is made. Istio: `ProxyConfig.TracingServiceName`.
    pub enum TracingServiceName {
        AppLabelAndNamespace = 0 "APP_LABEL_AND_NAMESPACE",
        CanonicalNameOnly = 1 "CANONICAL_NAME_ONLY",
        CanonicalNameAndNamespace = 2 "CANONICAL_NAME_AND_NAMESPACE",
    }
}

closed_enum! {
    /// How traffic is redirected to the proxy. Istio: `ProxyConfig.InboundInterceptionMode`.
    pub enum InboundInterceptionMode {
        Redirect = 0 "REDIRECT",
        Tproxy = 1 "TPROXY",
        None = 2 "NONE",
    }
}

message! {
    /// Statistics that are kept besides the usual ones. Istio: `ProxyConfig.ProxyStatsMatcher`.
    pub struct ProxyStatsMatcher {
        inclusion_prefixes: Vec<String>,
        inclusion_suffixes: Vec<String>,
        inclusion_regexps: Vec<String>,
    }
}

message! {
    /// Headers that the proxy adds. Istio: `ProxyConfig.ProxyHeaders`.
    pub struct ProxyHeaders {
        forwarded_client_cert: ForwardClientCertDetails,
        set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        request_id: Option<RequestIdHeader>,
        server: Option<ServerHeader>,
        attempt_count: Option<AttemptCountHeader>,
        envoy_debug_headers: Option<EnvoyDebugHeaders>,
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        preserve_http1_header_case: Option<bool>,
        x_forwarded_host: Option<XForwardedHostHeader>,
        x_forwarded_port: Option<XForwardedPortHeader>,
    }
}

message! {
    /// The header `server`. Istio: `ProxyConfig.ProxyHeaders.Server`.
    pub struct ServerHeader {
        disabled: Option<bool>,
        value: String,
    }
}

message! {
    /// The header `x-request-id`. Istio: `ProxyConfig.ProxyHeaders.RequestId`.
    pub struct RequestIdHeader {
        disabled: Option<bool>,
    }
}

message! {
    /// The header `x-envoy-attempt-count`. Istio: `ProxyConfig.ProxyHeaders.AttemptCount`.
    pub struct AttemptCountHeader {
        disabled: Option<bool>,
    }
}

message! {
    /// The header `x-forwarded-host`. Istio: `ProxyConfig.ProxyHeaders.XForwardedHost`.
    pub struct XForwardedHostHeader {
        enabled: Option<bool>,
    }
}

message! {
    /// The header `x-forwarded-port`. Istio: `ProxyConfig.ProxyHeaders.XForwardedPort`.
    pub struct XForwardedPortHeader {
        enabled: Option<bool>,
    }
}

message! {
    /// Headers with Envoy's own measurements. Istio: `ProxyConfig.ProxyHeaders.EnvoyDebugHeaders`.
    pub struct EnvoyDebugHeaders {
        disabled: Option<bool>,
    }
}

closed_enum! {
    /// Whether workload metadata leaves the mesh. Istio: `ProxyConfig.ProxyHeaders.MetadataExchangeMode`.
    pub enum MetadataExchangeMode {
        Undefined = 0 "UNDEFINED",
        InMesh = 1 "IN_MESH",
    }
}

message! {
    /// Headers with workload metadata. Istio: `ProxyConfig.ProxyHeaders.MetadataExchangeHeaders`.
    pub struct MetadataExchangeHeaders {
        mode: MetadataExchangeMode,
    }
}

message! {
    /// What `x-forwarded-client-cert` says about the client's certificate.
    ///
    /// Istio: `ProxyConfig.ProxyHeaders.SetCurrentClientCertDetails`.
    pub struct SetCurrentClientCertDetails {
        subject: Option<bool>,
        cert: Option<bool>,
        chain: Option<bool>,
        dns: Option<bool>,
        uri: Option<bool>,
    }
}

message! {
    /// Limits on connections that a proxy accepts. Istio: `ProxyConfig.ConnectionSettings`.
    pub struct ConnectionSettings {
        profile: ConnectionProfile,
        listener_per_connection_buffer_limit_bytes: Option<i32>,
        cluster_per_connection_buffer_limit_bytes: Option<i32>,
        http_idle_timeout: Option<Duration>,
        http_max_connection_duration: Option<Duration>,
        http_drain_timeout: Option<Duration>,
        http_request_timeout: Option<Duration>,
        http_request_headers_timeout: Option<Duration>,
        http_stream_idle_timeout: Option<Duration>,
        http_max_stream_duration: Option<Duration>,
        http_max_concurrent_streams: Option<i32>,
        http2_initial_stream_window_size: Option<i32>,
        http2_initial_connection_window_size: Option<i32>,
        http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        http_merge_slashes: Option<bool>,
        http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        listener_connection_limit: Option<i32>,
        global_downstream_connection_limit: Option<i32>,
    }
}

closed_enum! {
    /// Where the proxy is, which sets the limits that are not stated. Istio:
    /// `ProxyConfig.ConnectionSettings.Profile`.
    pub enum ConnectionProfile {
        Sidecar = 0 "SIDECAR",
        Edge = 1 "EDGE",
    }
}

closed_enum! {
    /// What happens to headers with underscores in their names.
    ///
    /// Istio: `ProxyConfig.ConnectionSettings.HeadersWithUnderscoresAction`.
    pub enum HeadersWithUnderscoresAction {
        HeadersWithUnderscoresUnspecified = 0 "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
        HeadersWithUnderscoresAllow = 1 "HEADERS_WITH_UNDERSCORES_ALLOW",
        HeadersWithUnderscoresRejectRequest = 2 "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
        HeadersWithUnderscoresDropHeader = 3 "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
    }
}

closed_enum! {
    /// What happens to paths with escaped slashes. Istio:
    /// `ProxyConfig.ConnectionSettings.PathWithEscapedSlashesAction`.
    pub enum PathWithEscapedSlashesAction {
        PathWithEscapedSlashesUnspecified = 0 "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
        KeepUnchanged = 1 "KEEP_UNCHANGED",
        RejectRequest = 2 "REJECT_REQUEST",
        UnescapeAndRedirect = 3 "UNESCAPE_AND_REDIRECT",
        UnescapeAndForward = 4 "UNESCAPE_AND_FORWARD",
    }
}

message! {
    /// A service outside of the proxy.
    pub struct RemoteService {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        tcp_keepalive: Option<TcpKeepalive>,
    }
}

/// The settings of a proxy for which nothing is configured, as istiod assumes them.
impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            config_path: "./etc/istio/proxy".to_owned(),
            binary_path: "/usr/local/bin/envoy".to_owned(),
            cluster_name: Some(ClusterName::ServiceCluster("istio-proxy".to_owned())),
            drain_duration: Some(Duration::from_secs(45)),
            termination_drain_duration: Some(Duration::from_secs(5)),
            discovery_address: "istiod.istio-system.svc:15012".to_owned(),
            discovery_refresh_delay: None,
            zipkin_address: String::new(),
            statsd_udp_address: String::new(),
            envoy_metrics_service_address: String::new(),
            proxy_admin_port: 15000,
            availability_zone: String::new(),
            control_plane_auth_policy: AuthenticationPolicy::MutualTls,
            custom_config_file: String::new(),
            stat_name_length: 189,
            concurrency: None,
            proxy_bootstrap_template_path: String::new(),
            interception_mode: InboundInterceptionMode::Redirect,
            tracing: None,
            sds: None,
            envoy_access_log_service: None,
            envoy_metrics_service: None,
            proxy_metadata: BTreeMap::new(),
            runtime_values: BTreeMap::new(),
            status_port: 15020,
            extra_stat_tags: Vec::new(),
            gateway_topology: None,
            mesh_id: String::new(),
            readiness_probe: None,
            proxy_stats_matcher: None,
            hold_application_until_proxy_starts: None,
            ca_certificates_pem: Vec::new(),
            image: None,
            private_key_provider: None,
            proxy_headers: None,
            file_flush_interval: None,
            file_flush_min_size_kb: 0,
            stats_compression: None,
            connection_settings: None,
        }
    }
}

impl ProxyConfig {
    /// Nothing is set: for those who have defaults of their own.
    pub fn unstated() -> Self {
        Self {
            config_path: String::new(),
            binary_path: String::new(),
            cluster_name: None,
            drain_duration: None,
            termination_drain_duration: None,
            discovery_address: String::new(),
            control_plane_auth_policy: AuthenticationPolicy::None,
            proxy_admin_port: 0,
            stat_name_length: 0,
            status_port: 0,
            ..Self::default()
        }
    }
}

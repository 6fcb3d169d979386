//! What the HTTP connection managers of one proxy in one direction have in common.

use std::time::Duration;

use ipnet::IpNet;
use navarch_envoy::proto::envoy::config::accesslog::v3::AccessLog;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use navarch_model::mesh::{
    ConnectionProfile, ConnectionSettings, ForwardClientCertDetails, HeadersWithUnderscoresAction,
    MeshConfig, PathNormalizationType, PathWithEscapedSlashesAction, ProxyConfig,
};

use crate::encoded::Encoded;
use crate::filters::HttpFilters;

/// The server name that proxies answer with on behalf of workloads.
const SERVER_NAME: &str = "istio-envoy";

/// Which side of which proxy a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the network to the workload of a sidecar.
    Inbound,
    /// From the workload of a sidecar to the network.
    Outbound,
    /// Through a gateway.
    Gateway,
}

/// Settings of all HTTP connection managers of a proxy in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpSettings {
    pub direction: Direction,
    pub path_normalization: PathNormalizationType,
    pub headers: Headers,
    pub connection: Option<ConnectionSettings>,
    /// Connection idle timeout that the proxy itself states (`IDLE_TIMEOUT`).
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.0 requests are accepted.
    pub accept_http_10: bool,
    pub access_log: Vec<Encoded<AccessLog>>,
    pub tracing: Option<Encoded<hcm::Tracing>>,
    /// The decision to trace a request is stored in its id.
    pub request_id_samples_traces: bool,
    /// Filters that configuration adds.
    pub filters: HttpFilters,
    /// Services with persistent sessions are visible: chains carry the filter that their routes configure.
    pub stateful_sessions: bool,
    /// Addresses whose internal headers are trusted, for connection managers that use the remote address.
    pub internal_networks: Vec<IpNet>,
}

impl HttpSettings {
    /// Settings of a proxy with configuration `proxy`; access logs, tracing and filters are left empty.
    pub fn new(direction: Direction, mesh: &MeshConfig, proxy: &ProxyConfig) -> Self {
        HttpSettings {
            direction,
            path_normalization: mesh
                .path_normalization
                .as_ref()
                .map_or(PathNormalizationType::Default, |normalization| normalization.normalization),
            headers: Headers::new(direction, proxy),
            connection: connection_settings(direction, mesh, proxy),
            idle_timeout: None,
            accept_http_10: false,
            access_log: Vec::new(),
            tracing: None,
            request_id_samples_traces: true,
            filters: HttpFilters::default(),
            stateful_sessions: false,
            internal_networks: Vec::new(),
        }
    }
}

/// Header behaviour of a proxy (`ProxyConfig.proxyHeaders`, with the defaults of the direction).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Headers {
    /// Empty: Envoy's own.
    pub server_name: String,
    /// The upstream's `server` header is passed on.
    pub server_pass_through: bool,
    pub forwarded_client_cert: ForwardClientCertDetails,
    /// Parts of the client certificate that `x-forwarded-client-cert` carries.
    pub client_cert: ClientCertDetails,
    pub generate_request_id: bool,
    /// `x-envoy-*` headers are left out.
    pub suppress_envoy_headers: bool,
    pub append_x_forwarded_port: bool,
    /// Names of HTTP/1 headers keep their case.
    pub preserve_header_case: bool,
    /// Requests carry the number of the attempt (virtual hosts).
    pub include_request_attempt_count: bool,
    /// A rewritten host is kept in `x-forwarded-host` (routes).
    pub append_x_forwarded_host: bool,
}

/// Parts of a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

impl Headers {
    /// The headers of a proxy with configuration `proxy`.
    pub fn new(direction: Direction, proxy: &ProxyConfig) -> Self {
        let configured = proxy.proxy_headers.clone().unwrap_or_default();
        let on = |disabled: Option<bool>| !disabled.unwrap_or(false);
        // Outbound, Envoy's own name stays: applications see the answer of another workload, not of the mesh.
        let default_name = if direction == Direction::Outbound { "" } else { SERVER_NAME };
        let server = configured.server.unwrap_or_default();
        let server_disabled = server.disabled.unwrap_or(false);
        let server_name = match server.value {
            _ if server_disabled => String::new(),
            value if !value.is_empty() => value,
            _ => default_name.to_owned(),
        };
        let details = configured.set_current_client_cert_details.unwrap_or_default();
        Headers {
            server_name,
            server_pass_through: server_disabled,
            forwarded_client_cert: match configured.forwarded_client_cert {
                ForwardClientCertDetails::Undefined => ForwardClientCertDetails::AppendForward,
                stated => stated,
            },
            client_cert: ClientCertDetails {
                subject: details.subject.unwrap_or(true),
                cert: details.cert.unwrap_or(false),
                chain: details.chain.unwrap_or(false),
                dns: details.dns.unwrap_or(true),
                uri: details.uri.unwrap_or(true),
            },
            generate_request_id: on(configured.request_id.unwrap_or_default().disabled),
            suppress_envoy_headers: !on(configured.envoy_debug_headers.unwrap_or_default().disabled),
            append_x_forwarded_port: configured.x_forwarded_port.unwrap_or_default().enabled.unwrap_or(false),
            preserve_header_case: configured.preserve_http1_header_case.unwrap_or(false),
            include_request_attempt_count: on(configured.attempt_count.unwrap_or_default().disabled),
            append_x_forwarded_host: configured.x_forwarded_host.unwrap_or_default().enabled.unwrap_or(false),
        }
    }
}

/// The connection settings of a proxy: its own, else those of the mesh; on gateways with the defaults of
/// profile EDGE.
pub fn connection_settings(
    direction: Direction,
    mesh: &MeshConfig,
    proxy: &ProxyConfig,
) -> Option<ConnectionSettings> {
    let stated = proxy
        .connection_settings
        .as_ref()
        .or_else(|| mesh.default_config.as_ref().and_then(|config| config.connection_settings.as_ref()))?;
    let edge = direction == Direction::Gateway && stated.profile == ConnectionProfile::Edge;
    Some(if edge { with_edge_defaults(stated.clone()) } else { stated.clone() })
}

/// Envoy's recommendations for proxies at the edge ("Configuring Envoy as an edge proxy"), where nothing is
/// stated.
fn with_edge_defaults(mut settings: ConnectionSettings) -> ConnectionSettings {
    settings.listener_per_connection_buffer_limit_bytes.get_or_insert(32 * 1024);
    settings.http_idle_timeout.get_or_insert(Duration::from_secs(3600));
    settings.http_stream_idle_timeout.get_or_insert(Duration::from_secs(300));
    settings.http_request_timeout.get_or_insert(Duration::from_secs(300));
    settings.http_request_headers_timeout.get_or_insert(Duration::from_secs(60));
    settings.http_max_concurrent_streams.get_or_insert(100);
    settings.http2_initial_stream_window_size.get_or_insert(64 * 1024);
    settings.http2_initial_connection_window_size.get_or_insert(1024 * 1024);
    settings.http_merge_slashes.get_or_insert(true);
    if settings.http_headers_with_underscores_action
        == HeadersWithUnderscoresAction::HeadersWithUnderscoresUnspecified
    {
        settings.http_headers_with_underscores_action =
            HeadersWithUnderscoresAction::HeadersWithUnderscoresRejectRequest;
    }
    if settings.http_path_with_escaped_slashes_action
        == PathWithEscapedSlashesAction::PathWithEscapedSlashesUnspecified
    {
        settings.http_path_with_escaped_slashes_action = PathWithEscapedSlashesAction::UnescapeAndRedirect;
    }
    settings
}

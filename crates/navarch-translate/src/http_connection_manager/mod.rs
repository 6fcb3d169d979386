//! The HTTP connection manager: one builder for inbound, outbound and gateway chains.

mod settings;

pub use settings::{ClientCertDetails, Direction, Headers, HttpSettings, connection_settings};

use std::time::Duration;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions,
    Http3ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig, config_source, http_protocol_options,
    http1_protocol_options,
};
use navarch_envoy::proto::envoy::config::listener::v3::Filter;
use navarch_envoy::proto::envoy::config::route::v3::RouteConfiguration;
use navarch_envoy::proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, RequestIdExtension, http_connection_manager as hcm,
};
use navarch_envoy::proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use navarch_envoy::proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use navarch_envoy::wkt;
use navarch_model::mesh::{
    ConnectionSettings, ForwardClientCertDetails, HeadersWithUnderscoresAction, PathNormalizationType,
    PathWithEscapedSlashesAction,
};
use navarch_model::service::Protocol;

use crate::encoded::messages;
use crate::filters::http::{self, HttpPhase};
use crate::filters::network::network_filter;

/// Name of the network filter.
pub const NAME: &str = "envoy.filters.network.http_connection_manager";

/// What distinguishes one connection manager of a proxy from another.
pub struct Options<'a> {
    pub settings: &'a HttpSettings,
    pub stat_prefix: String,
    pub routes: Routes,
    /// Port that filters of configuration are selected by.
    pub port: u16,
    /// Protocol of the service port, for what only some protocols need (gRPC-Web, HTTP/2).
    pub protocol: Protocol,
    /// The client is who connects, not who `x-forwarded-for` names.
    pub use_remote_address: bool,
    /// Trusted proxies in front (gateways).
    pub xff_trusted_hops: u32,
    /// Absolute URLs are accepted: an HTTP proxy.
    pub allow_absolute_url: bool,
    /// Client certificates are passed on in `x-forwarded-client-cert`: `Some` where TLS may be terminated.
    pub client_certificates: Option<(ForwardClientCertDetails, ClientCertDetails)>,
    /// HTTP/3 instead of detecting HTTP/1 or HTTP/2.
    pub http3_only: bool,
    /// Requests for hosts unknown in advance are resolved through this cache.
    pub dns_cache: Option<DnsCacheConfig>,
    /// Upstream connections are marked as HTTP for mesh servers that detect the protocol.
    pub mesh_alpn: bool,
}

/// Where the routes come from.
pub enum Routes {
    /// A route configuration of this name, over ADS.
    Rds(String),
    Inline(Box<RouteConfiguration>),
}

impl<'a> Options<'a> {
    /// A connection manager without anything special.
    pub fn new(settings: &'a HttpSettings, stat_prefix: String, routes: Routes) -> Self {
        Options {
            settings,
            stat_prefix,
            routes,
            port: 0,
            protocol: Protocol::Http,
            use_remote_address: false,
            xff_trusted_hops: 0,
            allow_absolute_url: false,
            client_certificates: None,
            http3_only: false,
            dns_cache: None,
            mesh_alpn: false,
        }
    }
}

/// The connection manager as a network filter.
pub fn filter(options: Options<'_>) -> Filter {
    network_filter(NAME, &build(options))
}

/// Builds the connection manager.
pub fn build(options: Options<'_>) -> HttpConnectionManager {
    let settings = options.settings;
    let headers = &settings.headers;
    let mut manager = HttpConnectionManager {
        codec_type: codec(options.http3_only),
        http3_protocol_options: options.http3_only.then(Http3ProtocolOptions::default),
        stat_prefix: options.stat_prefix.clone(),
        http_filters: http_filters(&options),
        http_protocol_options: http1(&options),
        http2_protocol_options: (settings.direction == Direction::Inbound && options.protocol.is_http2())
            .then(Http2ProtocolOptions::default),
        common_http_protocol_options: settings.idle_timeout.map(|timeout| HttpProtocolOptions {
            idle_timeout: Some(wkt::duration(timeout)),
            ..HttpProtocolOptions::default()
        }),
        server_name: headers.server_name.clone(),
        server_header_transformation: if headers.server_pass_through {
            hcm::ServerHeaderTransformation::PassThrough
        } else {
            hcm::ServerHeaderTransformation::Overwrite
        } as i32,
        generate_request_id: (!headers.generate_request_id).then_some(false),
        append_x_forwarded_port: headers.append_x_forwarded_port,
        use_remote_address: Some(options.use_remote_address),
        xff_num_trusted_hops: options.xff_trusted_hops,
        // Without it, a client that waits for "100 Continue" would get it from the proxy, not from the
        // server.
        proxy_100_continue: true,
        upgrade_configs: vec![hcm::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..hcm::UpgradeConfig::default()
        }],
        stream_idle_timeout: Some(wkt::duration(Duration::ZERO)),
        access_log: messages(&settings.access_log),
        tracing: settings.tracing.as_ref().map(crate::encoded::Encoded::to_message),
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(any(&UuidRequestIdConfig {
                use_request_id_for_trace_sampling: Some(settings.request_id_samples_traces),
                ..UuidRequestIdConfig::default()
            })),
        }),
        internal_address_config: internal_addresses(&options),
        ..HttpConnectionManager::default()
    };
    if let Some((forward, details)) = options.client_certificates {
        manager.forward_client_cert_details = forward_client_cert(forward) as i32;
        // Envoy ignores the details elsewhere; inbound, istiod states them all the same.
        let stated = settings.direction != Direction::Gateway
            || matches!(
                forward,
                ForwardClientCertDetails::AppendForward | ForwardClientCertDetails::SanitizeSet
            );
        manager.set_current_client_cert_details = stated.then(|| hcm::SetCurrentClientCertDetails {
            subject: Some(details.subject),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
            ..hcm::SetCurrentClientCertDetails::default()
        });
    }
    normalize_paths(&mut manager, settings.path_normalization);
    if let Some(connection) = &settings.connection {
        apply_connection_settings(&mut manager, connection);
    }
    manager.route_specifier = Some(match options.routes {
        Routes::Rds(name) => hcm::RouteSpecifier::Rds(Rds {
            config_source: Some(ads_without_timeout()),
            route_config_name: name,
        }),
        Routes::Inline(routes) => hcm::RouteSpecifier::RouteConfig(*routes),
    });
    manager
}

fn codec(http3_only: bool) -> i32 {
    if http3_only { hcm::CodecType::Http3 as i32 } else { hcm::CodecType::Auto as i32 }
}

fn http_filters(
    options: &Options<'_>,
) -> Vec<navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter> {
    let settings = options.settings;
    let mut standard = vec![
        (HttpPhase::GrpcStats, http::grpc_stats()),
        (HttpPhase::Fault, http::fault()),
        (HttpPhase::Cors, http::cors()),
        (HttpPhase::Router, http::router(false, settings.headers.suppress_envoy_headers)),
    ];
    if options.protocol == Protocol::GrpcWeb {
        standard.push((HttpPhase::GrpcWeb, http::grpc_web()));
    }
    if settings.stateful_sessions && settings.direction != Direction::Inbound {
        standard.push((HttpPhase::StatefulSession, http::stateful_session()));
    }
    if options.mesh_alpn {
        standard.push((HttpPhase::Alpn, http::mesh_alpn()));
    }
    if let Some(cache) = &options.dns_cache {
        standard.push((HttpPhase::DynamicForwardProxy, http::dynamic_forward_proxy(cache.clone())));
    }
    http::chain(&settings.filters, options.port, standard)
}

/// Options of HTTP/1, if any differ from Envoy's defaults.
fn http1(options: &Options<'_>) -> Option<Http1ProtocolOptions> {
    let settings = options.settings;
    let header_key_format = settings.headers.preserve_header_case.then(preserve_case);
    let stated = settings.accept_http_10
        || options.allow_absolute_url
        || header_key_format.is_some()
        || settings.direction == Direction::Gateway;
    if !stated {
        return None;
    }
    Some(Http1ProtocolOptions {
        accept_http_10: settings.accept_http_10,
        allow_absolute_url: options.allow_absolute_url.then_some(true),
        header_key_format,
        ..Http1ProtocolOptions::default()
    })
}

fn preserve_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::HeaderFormat;
    http1_protocol_options::HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".to_owned(),
            typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
        })),
    }
}

/// Envoy trusts internal headers of no address by default once it uses the remote address; networks of the
/// mesh are named explicitly.
fn internal_addresses(options: &Options<'_>) -> Option<hcm::InternalAddressConfig> {
    let networks = &options.settings.internal_networks;
    if !options.use_remote_address || networks.is_empty() {
        return None;
    }
    let cidr_ranges = networks
        .iter()
        .map(|network| CidrRange {
            address_prefix: network.addr().to_string(),
            prefix_len: Some(u32::from(network.prefix_len())),
        })
        .collect();
    Some(hcm::InternalAddressConfig { cidr_ranges, ..hcm::InternalAddressConfig::default() })
}

fn normalize_paths(manager: &mut HttpConnectionManager, normalization: PathNormalizationType) {
    manager.normalize_path = Some(normalization != PathNormalizationType::None);
    manager.merge_slashes = matches!(
        normalization,
        PathNormalizationType::MergeSlashes | PathNormalizationType::DecodeAndMergeSlashes
    );
    manager.path_with_escaped_slashes_action =
        if normalization == PathNormalizationType::DecodeAndMergeSlashes {
            hcm::PathWithEscapedSlashesAction::UnescapeAndForward
        } else {
            hcm::PathWithEscapedSlashesAction::KeepUnchanged
        } as i32;
}

/// `ProxyConfig.connectionSettings`; they take precedence over the mesh's path normalization.
fn apply_connection_settings(manager: &mut HttpConnectionManager, settings: &ConnectionSettings) {
    let span = |value: Option<Duration>| value.map(wkt::duration);
    let common = HttpProtocolOptions {
        idle_timeout: span(settings.http_idle_timeout),
        max_connection_duration: span(settings.http_max_connection_duration),
        max_stream_duration: span(settings.http_max_stream_duration),
        headers_with_underscores_action: underscores(settings.http_headers_with_underscores_action) as i32,
        ..HttpProtocolOptions::default()
    };
    let stated = common.idle_timeout.is_some()
        || common.max_connection_duration.is_some()
        || common.max_stream_duration.is_some()
        || settings.http_headers_with_underscores_action
            != HeadersWithUnderscoresAction::HeadersWithUnderscoresUnspecified;
    if stated {
        let earlier = manager.common_http_protocol_options.take().unwrap_or_default();
        manager.common_http_protocol_options = Some(HttpProtocolOptions {
            idle_timeout: common.idle_timeout.or(earlier.idle_timeout),
            ..common
        });
    }
    if let Some(timeout) = settings.http_stream_idle_timeout {
        manager.stream_idle_timeout = Some(wkt::duration(timeout));
    }
    manager.request_timeout = span(settings.http_request_timeout);
    manager.request_headers_timeout = span(settings.http_request_headers_timeout);
    manager.drain_timeout = span(settings.http_drain_timeout);
    apply_http2(manager, settings);
    if let Some(merge) = settings.http_merge_slashes {
        manager.merge_slashes = merge;
    }
    if let Some(action) = escaped_slashes(settings.http_path_with_escaped_slashes_action) {
        manager.path_with_escaped_slashes_action = action as i32;
    }
}

fn apply_http2(manager: &mut HttpConnectionManager, settings: &ConnectionSettings) {
    let streams = settings.http_max_concurrent_streams;
    let stream_window = settings.http2_initial_stream_window_size;
    let connection_window = settings.http2_initial_connection_window_size;
    if streams.or(stream_window).or(connection_window).is_none() {
        return;
    }
    // Negative numbers are invalid; they count as unset.
    let unsigned = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let http2 = manager.http2_protocol_options.get_or_insert_default();
    http2.max_concurrent_streams = unsigned(streams);
    http2.initial_stream_window_size = unsigned(stream_window);
    http2.initial_connection_window_size = unsigned(connection_window);
}

fn underscores(action: HeadersWithUnderscoresAction) -> http_protocol_options::HeadersWithUnderscoresAction {
    use http_protocol_options::HeadersWithUnderscoresAction as Envoy;
    match action {
        HeadersWithUnderscoresAction::HeadersWithUnderscoresRejectRequest => Envoy::RejectRequest,
        HeadersWithUnderscoresAction::HeadersWithUnderscoresDropHeader => Envoy::DropHeader,
        _ => Envoy::Allow,
    }
}

fn escaped_slashes(action: PathWithEscapedSlashesAction) -> Option<hcm::PathWithEscapedSlashesAction> {
    use hcm::PathWithEscapedSlashesAction as Envoy;
    Some(match action {
        PathWithEscapedSlashesAction::PathWithEscapedSlashesUnspecified => return None,
        PathWithEscapedSlashesAction::RejectRequest => Envoy::RejectRequest,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => Envoy::UnescapeAndRedirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => Envoy::UnescapeAndForward,
        _ => Envoy::KeepUnchanged,
    })
}

fn forward_client_cert(details: ForwardClientCertDetails) -> hcm::ForwardClientCertDetails {
    use hcm::ForwardClientCertDetails as Envoy;
    match details {
        ForwardClientCertDetails::ForwardOnly => Envoy::ForwardOnly,
        ForwardClientCertDetails::AppendForward => Envoy::AppendForward,
        ForwardClientCertDetails::SanitizeSet => Envoy::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => Envoy::AlwaysForwardOnly,
        _ => Envoy::Sanitize,
    }
}

/// ADS as the source, waiting without limit: a listener must not serve with missing routes (they would all be
/// 404).
pub fn ads_without_timeout() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(wkt::duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        ..ConfigSource::default()
    }
}

//! Connection pools: limits, timeouts, keep-alive, and the HTTP version spoken upstream.

use navarch_envoy::proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use navarch_envoy::proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use navarch_envoy::proto::envoy::config::core::v3::http1_protocol_options::{HeaderKeyFormat, header_key_format};
use navarch_envoy::proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
    TcpKeepalive as Keepalive, TypedExtensionConfig,
};
use navarch_envoy::proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use navarch_envoy::proto::envoy::r#type::v3::Percent;
use navarch_envoy::{any::any, wkt};
use navarch_model::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, RetryBudget, TcpKeepalive,
};
use navarch_model::proxy::ProxyKind;
use navarch_model::service::Protocol;

use super::draft::explicit;
use super::{ClusterMesh, ClusterView, Draft};

/// Circuit breakers, timeouts, keep-alive and connection limits. What is not set has no limit: Envoy's own
/// defaults (1,024 connections, 3 retries) break busy clients in ways that are hard to understand.
pub(super) fn apply(
    draft: &mut Draft,
    mesh: &ClusterMesh,
    pool: Option<&ConnectionPoolSettings>,
    retry_budget: Option<&RetryBudget>,
) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    draft.cluster.connect_timeout =
        tcp.and_then(|tcp| tcp.connect_timeout).or(mesh.connect_timeout).map(wkt::duration);
    let limit = |value: Option<i32>| Some(positive(value).unwrap_or(u32::MAX));
    draft.cluster.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: limit(tcp.map(|tcp| tcp.max_connections)),
            max_pending_requests: limit(http.map(|http| http.http1_max_pending_requests)),
            max_requests: limit(http.map(|http| http.http2_max_requests)),
            max_retries: limit(http.map(|http| http.max_retries)),
            retry_budget: retry_budget.map(budget),
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    });
    keepalive(&mut draft.cluster, mesh.tcp_keepalive.as_ref());
    keepalive(&mut draft.cluster, tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()));
    connection_limits(draft, pool);
    if http.is_some_and(|http| http.use_client_protocol) {
        use_downstream_protocol(draft);
    }
}

fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0)
}

fn budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.map_or(20.0, |percent| percent.as_f64()) }),
        budget_interval: budget.budget_interval.map(wkt::duration),
        min_retry_concurrency: Some(match budget.min_retry_concurrency {
            0 => 3,
            concurrency => concurrency,
        }),
    }
}

/// An empty message switches keep-alive on with the defaults of the operating system.
fn keepalive(cluster: &mut Cluster, settings: Option<&TcpKeepalive>) {
    let Some(settings) = settings else { return };
    let options = cluster.upstream_connection_options.get_or_insert_with(UpstreamConnectionOptions::default);
    let keepalive = options.tcp_keepalive.get_or_insert_with(Keepalive::default);
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    if settings.probes > 0 {
        keepalive.keepalive_probes = Some(settings.probes);
    }
    if let Some(time) = settings.time {
        keepalive.keepalive_time = Some(seconds(time));
    }
    if let Some(interval) = settings.interval {
        keepalive.keepalive_interval = Some(seconds(interval));
    }
}

fn connection_limits(draft: &mut Draft, pool: Option<&ConnectionPoolSettings>) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let default = HttpSettings::default();
    let http = pool.and_then(|pool| pool.http.as_ref()).unwrap_or(&default);
    let idle_timeout = http.idle_timeout.or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let max_connection_duration = tcp.and_then(|tcp| tcp.max_connection_duration);
    let max_requests = positive(Some(http.max_requests_per_connection));
    let max_streams = positive(Some(http.max_concurrent_streams));
    let ping = http.http2_keep_alive.as_ref();
    if idle_timeout.is_none()
        && max_connection_duration.is_none()
        && max_requests.is_none()
        && max_streams.is_none()
        && ping.is_none()
    {
        return;
    }
    let options = draft.http();
    let common = options.common_http_protocol_options.get_or_insert_with(CommonOptions::default);
    if let Some(timeout) = idle_timeout {
        common.idle_timeout = Some(wkt::duration(timeout));
    }
    if max_requests.is_some() {
        common.max_requests_per_connection = max_requests;
    }
    if let Some(duration) = max_connection_duration {
        common.max_connection_duration = Some(wkt::duration(duration));
    }
    if let Some(http2) = explicit_http2(options) {
        if max_streams.is_some() {
            http2.max_concurrent_streams = max_streams;
        }
        if let Some(ping) = ping {
            http2.connection_keepalive = Some(KeepaliveSettings {
                interval: ping.interval.map(wkt::duration),
                timeout: ping.timeout.map(wkt::duration),
                ..KeepaliveSettings::default()
            });
        }
    }
}

/// The HTTP version that the port's protocol implies.
pub(super) fn protocol(draft: &mut Draft, protocol: Protocol, view: &ClusterView) {
    if protocol.is_http2() {
        return http2(draft);
    }
    let sniffed = protocol.is_sniffed();
    if (protocol.is_http() || sniffed) && view.preserve_header_case {
        draft.http().upstream_protocol_options =
            Some(explicit(ProtocolConfig::HttpProtocolOptions(preserve_case())));
    }
    // A gateway does not sniff, and offering h2 by ALPN to servers that do not speak it would break them.
    if sniffed && matches!(view.kind, ProxyKind::Sidecar | ProxyKind::Waypoint) {
        use_downstream_protocol(draft);
    }
}

/// Speaks HTTP/2 if the policy or the mesh asks for it. The mesh-wide setting touches ports that are declared
/// as HTTP only: on a sniffed port the client's version decides.
pub(super) fn upgrade(
    draft: &mut Draft,
    mesh: &ClusterMesh,
    pool: Option<&ConnectionPoolSettings>,
    protocol: Protocol,
) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        return;
    }
    let upgrades = match http.map_or(H2UpgradePolicy::Default, |http| http.h2_upgrade_policy) {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => mesh.h2_upgrade && protocol.is_http(),
    };
    if upgrades {
        http2(draft);
    }
}

fn http2(draft: &mut Draft) {
    draft.http().upstream_protocol_options.get_or_insert_with(|| {
        explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()))
    });
}

/// Whether HTTP/2 is always spoken.
pub(super) fn is_http2(draft: &Draft) -> bool {
    let options = draft.http.as_ref().and_then(|options| options.upstream_protocol_options.as_ref());
    matches!(
        options,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(_)),
        }))
    )
}

fn use_downstream_protocol(draft: &mut Draft) {
    let options = draft.http();
    let http1 = match options.upstream_protocol_options.take() {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1)),
        })) => http1,
        _ => Http1ProtocolOptions::default(),
    };
    options.upstream_protocol_options = Some(downstream(http1));
}

fn downstream(http1: Http1ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(http1),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

/// HTTP options of clusters for unknown destinations: the client's version, and connections
/// that are given up after five idle minutes.
pub(super) fn unknown_destination(view: &ClusterView) -> HttpProtocolOptions {
    let http1 = if view.preserve_header_case { preserve_case() } else { Http1ProtocolOptions::default() };
    HttpProtocolOptions {
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: Some(wkt::duration_secs(300)),
            ..CommonOptions::default()
        }),
        upstream_protocol_options: Some(downstream(http1)),
        ..HttpProtocolOptions::default()
    }
}

fn preserve_case() -> Http1ProtocolOptions {
    let formatter = TypedExtensionConfig {
        name: "preserve_case".to_owned(),
        typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
    };
    Http1ProtocolOptions {
        header_key_format: Some(HeaderKeyFormat {
            header_format: Some(header_key_format::HeaderFormat::StatefulFormatter(formatter)),
        }),
        ..Http1ProtocolOptions::default()
    }
}

/// HTTP/2 and nothing else.
pub(super) fn only_http2() -> HttpProtocolOptions {
    HttpProtocolOptions {
        upstream_protocol_options: Some(explicit(ProtocolConfig::Http2ProtocolOptions(
            Http2ProtocolOptions::default(),
        ))),
        ..HttpProtocolOptions::default()
    }
}

fn explicit_http2(options: &mut HttpProtocolOptions) -> Option<&mut Http2ProtocolOptions> {
    match options.upstream_protocol_options.as_mut()? {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
        }) => Some(http2),
        _ => None,
    }
}

//! HTTP filters in the order in which Istio runs them.

use std::sync::LazyLock;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string,
};
use navarch_envoy::proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use navarch_envoy::proto::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue, filter_state_value,
};
use navarch_envoy::proto::envoy::extensions::filters::http::cors::v3::Cors;
use navarch_envoy::proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as forward_proxy;
use navarch_envoy::proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use navarch_envoy::proto::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use navarch_envoy::proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use navarch_envoy::proto::envoy::extensions::filters::http::router::v3::Router;
use navarch_envoy::proto::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state;
use navarch_envoy::proto::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use prost::{Message, Name};

use crate::encoded::Encoded;

/// Envoy's "well known filter state": the application protocols that an upstream TLS connection offers, over
/// the cluster's.
const ALPN_KEY: &str = "envoy.network.application_protocols";
const MESH_ALPN: &str = "istio-http/1.1,istio-h2,istio";

/// Where in the chain an HTTP filter runs; the order of the variants is the order on the wire.
///
/// Authentication precedes authorization, and both precede everything that changes a request, so that a
/// policy sees what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpPhase {
    /// What the client's proxy says of its workload is taken, before anything answers in place of the server.
    PeerMetadata,
    /// CUSTOM authorization: a shadow RBAC filter and ext_authz, one pair per provider.
    CustomAuthorization,
    /// Extensions of phase AUTHN.
    AuthenticationExtension,
    /// JWT checks of RequestAuthentication.
    Authentication,
    /// Extensions of phase AUTHZ.
    AuthorizationExtension,
    /// RBAC filters: AUDIT, DENY, ALLOW.
    Authorization,
    /// Extensions of phase STATS.
    StatsExtension,
    /// Extensions without a phase.
    Extension,
    /// External processing for inference pools (gateways).
    InferencePool,
    GrpcWeb,
    GrpcStats,
    /// Choice of the upstream's application protocol.
    Alpn,
    Fault,
    Cors,
    /// Metrics.
    Stats,
    StatefulSession,
    DynamicForwardProxy,
    /// Terminal.
    Router,
}

/// An HTTP filter that configuration adds to the chains of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PhasedHttpFilter {
    pub phase: HttpPhase,
    pub filter: Encoded<HttpFilter>,
    /// Ports of the workload (inbound) or of the listener (outbound) that it applies to; empty means every
    /// port.
    pub ports: Vec<u16>,
}

/// The HTTP filters that configuration adds to the chains of one proxy in one direction. Within a phase the
/// given order is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpFilters {
    pub filters: Vec<PhasedHttpFilter>,
}

impl HttpFilters {
    /// Adds a filter for every port.
    pub fn push(&mut self, phase: HttpPhase, filter: HttpFilter) {
        self.push_for(phase, filter, Vec::new());
    }

    /// Adds a filter for some ports; no ports means every port.
    pub fn push_for(&mut self, phase: HttpPhase, filter: HttpFilter, ports: Vec<u16>) {
        self.filters.push(PhasedHttpFilter { phase, filter: Encoded::new(filter), ports });
    }

    /// Adds a filter whose configuration is `config`.
    pub fn add<M: Message + Name>(&mut self, phase: HttpPhase, name: &str, config: &M) {
        self.push(phase, http_filter(name, config));
    }
}

/// The complete chain: what configuration adds for `port`, and what every chain has, in the order of the
/// phases.
pub fn chain(
    configured: &HttpFilters,
    port: u16,
    standard: impl IntoIterator<Item = (HttpPhase, HttpFilter)>,
) -> Vec<HttpFilter> {
    let mut all: Vec<(HttpPhase, HttpFilter)> = configured
        .filters
        .iter()
        .filter(|entry| entry.ports.is_empty() || entry.ports.contains(&port))
        .map(|entry| (entry.phase, HttpFilter::clone(&entry.filter)))
        .chain(standard)
        .collect();
    all.sort_by_key(|(phase, _)| *phase);
    all.into_iter().map(|(_, filter)| filter).collect()
}

/// An HTTP filter with its configuration packed.
pub fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

/// gRPC statistics as filter state, not per method: methods are chosen by clients and would be unbounded.
pub fn grpc_stats() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| {
        let config = grpc_stats::FilterConfig {
            emit_filter_state: true,
            per_method_stat_specifier: Some(
                grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(false),
            ),
            ..grpc_stats::FilterConfig::default()
        };
        http_filter("envoy.filters.http.grpc_stats", &config)
    });
    FILTER.clone()
}

/// Translates gRPC-Web into gRPC.
pub fn grpc_web() -> HttpFilter {
    http_filter("envoy.filters.http.grpc_web", &GrpcWeb::default())
}

/// Fault injection; routes configure it.
pub fn fault() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> =
        LazyLock::new(|| http_filter("envoy.filters.http.fault", &HttpFault::default()));
    FILTER.clone()
}

/// Cross-origin resource sharing; routes configure it.
pub fn cors() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> =
        LazyLock::new(|| http_filter("envoy.filters.http.cors", &Cors::default()));
    FILTER.clone()
}

/// Sticky sessions; virtual hosts and routes configure it.
pub fn stateful_session() -> HttpFilter {
    http_filter("envoy.filters.http.stateful_session", &StatefulSession::default())
}

/// Marks connections to mesh servers as HTTP.
///
/// A server that detects the protocol of a port tells HTTP over mutual TLS from bytes by the application
/// protocols that the client offers. The list has none that HTTP itself negotiates (`h2`, `http/1.1`): the
/// upstream's protocol is that of the request, whatever the handshake would say.
pub fn mesh_alpn() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| {
        let format = SubstitutionFormatString {
            format: Some(substitution_format_string::Format::TextFormatSource(DataSource {
                specifier: Some(data_source::Specifier::InlineString(MESH_ALPN.to_owned())),
                ..DataSource::default()
            })),
            ..SubstitutionFormatString::default()
        };
        let value = FilterStateValue {
            key: Some(filter_state_value::Key::ObjectKey(ALPN_KEY.to_owned())),
            value: Some(filter_state_value::Value::FormatString(format)),
            ..FilterStateValue::default()
        };
        let config = set_filter_state::Config { on_request_headers: vec![value], ..Default::default() };
        http_filter("navarch.alpn", &config)
    });
    FILTER.clone()
}

/// Resolves the requested host by DNS, through the cache that a dynamic forward proxy cluster shares.
pub fn dynamic_forward_proxy(cache: DnsCacheConfig) -> HttpFilter {
    let config = forward_proxy::FilterConfig {
        implementation_specifier: Some(
            forward_proxy::filter_config::ImplementationSpecifier::DnsCacheConfig(cache),
        ),
        ..forward_proxy::FilterConfig::default()
    };
    http_filter("envoy.filters.http.dynamic_forward_proxy", &config)
}

/// The terminal filter.
pub fn router(start_child_span: bool, suppress_envoy_headers: bool) -> HttpFilter {
    let config = Router { start_child_span, suppress_envoy_headers, ..Router::default() };
    http_filter("envoy.filters.http.router", &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> HttpFilter {
        HttpFilter { name: name.to_owned(), ..HttpFilter::default() }
    }

    fn check(configured: &HttpFilters, port: u16, expected: &[&str]) {
        let standard = [(HttpPhase::Router, named("router")), (HttpPhase::Fault, named("fault"))];
        let names: Vec<String> =
            chain(configured, port, standard).into_iter().map(|filter| filter.name).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn filters_run_in_the_order_of_phases_and_then_as_added() {
        let mut filters = HttpFilters::default();
        filters.push(HttpPhase::Stats, named("stats"));
        filters.push(HttpPhase::Authorization, named("deny"));
        filters.push(HttpPhase::Authorization, named("allow"));
        filters.push(HttpPhase::Authentication, named("jwt"));
        check(&filters, 80, &["jwt", "deny", "allow", "fault", "stats", "router"]);
    }

    #[test]
    fn a_filter_for_some_ports_is_left_out_elsewhere() {
        let mut filters = HttpFilters::default();
        filters.push_for(HttpPhase::Extension, named("extension"), vec![8080]);
        check(&filters, 8080, &["extension", "fault", "router"]);
        check(&filters, 80, &["fault", "router"]);
    }
}

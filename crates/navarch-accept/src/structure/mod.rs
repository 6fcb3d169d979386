//! What Envoy's code insists on beyond the rules of the API: the order of filters, unique names, fields that
//! need each other. Every check was tried on the real binary, and its words follow what Envoy says.

mod cluster;
mod content;
mod filters;
mod listener;
mod numbers;
mod route;
mod tls;
mod tokens;

use crate::walk::At;
use crate::wire::{message, text};

/// Looks at one encoded message.
pub type Check = fn(&[u8], &mut At<'_>);

/// The check of a type of message, by its full name.
pub fn check_of(full_name: &str) -> Option<Check> {
    CHECKS.iter().find(|(message, _)| *message == full_name).map(|(_, check)| *check)
}

/// The check of what is wrong in a type of message whatever stands beside it, by its full name.
pub fn content_of(full_name: &str) -> Option<Check> {
    CONTENT.iter().find(|(message, _)| *message == full_name).map(|(_, check)| *check)
}

const CHECKS: &[(&str, Check)] = &[
    ("envoy.extensions.filters.network.http_connection_manager.v3.Rds", route::rds),
    ("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", tls::downstream),
    ("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", tls::upstream),
    ("envoy.extensions.transport_sockets.tls.v3.CommonTlsContext", tls::common),
    ("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", filters::http_local_limit),
    ("envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", filters::network_local_limit),
    ("envoy.extensions.filters.http.lua.v3.Lua", filters::lua),
    ("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", filters::ext_authz),
    ("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", tokens::authentication),
    ("envoy.extensions.access_loggers.stats.v3.Config.Counter", content::counter),
    ("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", content::cel_filter),
    ("envoy.config.core.v3.ExtensionConfigSource", filters::extension_source),
    ("envoy.config.listener.v3.Listener", listener::listener),
    ("envoy.config.listener.v3.FilterChain", listener::filter_chain),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        filters::connection_manager,
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        filters::upgrade,
    ),
    ("envoy.extensions.filters.http.router.v3.Router", filters::router),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", filters::http_options),
    ("envoy.config.route.v3.RouteConfiguration", route::route_configuration),
    ("envoy.config.route.v3.RouteAction", route::route_action),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", route::mirror),
    ("envoy.config.route.v3.WeightedCluster", route::weighted_cluster),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", route::cluster_weight),
    ("envoy.config.route.v3.RetryPolicy.RetryBackOff", route::retry_back_off),
    ("envoy.config.route.v3.FilterConfig", route::filter_config),
    ("envoy.config.core.v3.HealthCheck.HttpHealthCheck", cluster::http_health_check),
    ("envoy.config.cluster.v3.Cluster", cluster::cluster),
    ("envoy.config.cluster.v3.Cluster.CustomClusterType", cluster::custom_type),
    ("envoy.config.cluster.v3.LoadBalancingPolicy", cluster::load_balancing_policy),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", cluster::assignment),
];

const CONTENT: &[(&str, Check)] = &[
    ("envoy.config.route.v3.RouteConfiguration", route::headers_of_all),
    ("envoy.extensions.transport_sockets.tls.v3.TlsParameters", tls::parameters),
    ("envoy.config.listener.v3.FilterChainMatch", listener::chain_match),
    ("envoy.config.route.v3.Route", route::route),
    ("envoy.config.route.v3.VirtualHost", route::virtual_host),
    ("envoy.extensions.access_loggers.file.v3.FileAccessLog", content::file_log),
    ("envoy.extensions.filters.http.lua.v3.Lua", filters::lua_code),
    ("envoy.extensions.filters.http.lua.v3.LuaPerRoute", filters::lua_per_route),
    ("envoy.config.core.v3.BindConfig", content::bind),
    ("envoy.config.core.v3.SubstitutionFormatString", content::format_string),
    ("envoy.config.core.v3.CidrRange", content::cidr),
    ("envoy.type.matcher.v3.RegexMatcher", content::regex),
    ("xds.type.matcher.v3.RegexMatcher", content::regex),
];

/// The full name of the message that the `Any` in field `number` of `outer` stands for, also if it is a
/// `TypedStruct`; empty without one.
fn type_of(outer: &[u8], number: u32) -> &str {
    let Some(any) = message(outer, number) else { return "" };
    let name = name_in(text(any, 1));
    if matches!(name, "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct") {
        return name_in(text(message(any, 2).unwrap_or_default(), 1));
    }
    name
}

/// The full name of a message in a type URL.
fn name_in(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

//! Which extensions stock Envoy has, and where each may stand.
//!
//! `tables/extensions.txt` is what the pinned Envoy says of itself on its admin port; a test compares them.
//! `tables/categories.txt` is what the API's comments say of its fields. Envoy finds an extension by the type
//! of its configuration alone; the name that stands beside it is free, with few exceptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;

/// What the pinned Envoy registers: its version, then `<category> <name> [<type>,...]` in each line.
pub const TABLE: &str = include_str!("../tables/extensions.txt");

const CATEGORIES: &str = include_str!("../tables/categories.txt");

/// The category of what stands in `typed_per_filter_config`. Envoy has none for it; the table makes it of the
/// HTTP filters without those of [`NOT_PER_ROUTE`].
pub const PER_ROUTE: &str = "per route";

/// The category of what is found by the key of its map.
pub const BY_KEY: &str = "by key";

/// The protocol options that are not extensions of their own, but of filters.
const OPTIONS_OF_FILTERS: &[(&str, &str)] = &[
    (
        "envoy.filters.network.redis_proxy",
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions",
    ),
    (
        "envoy.filters.network.thrift_proxy",
        "envoy.extensions.filters.network.thrift_proxy.v3.ThriftProtocolOptions",
    ),
    ("envoy.upstreams.http.http_protocol_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
    ("envoy.upstreams.tcp.tcp_protocol_options", "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"),
];

/// HTTP filters that Envoy refuses in `typed_per_filter_config` ("doesn't support virtual host or route
/// specific configurations").
const NOT_PER_ROUTE: &[&str] = &[
    "envoy.filters.http.a2a",
    "envoy.filters.http.alternate_protocols_cache",
    "envoy.filters.http.body_size_limit",
    "envoy.filters.http.cache",
    "envoy.filters.http.cache_v2",
    "envoy.filters.http.connect_grpc_bridge",
    "envoy.filters.http.gcp_authn",
    "envoy.filters.http.grpc_http1_bridge",
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.grpc_web",
    "envoy.filters.http.ip_tagging",
    "envoy.filters.http.mcp_router",
    "envoy.filters.http.original_src",
    "envoy.filters.http.proto_api_scrubber",
    "envoy.filters.http.proto_message_extraction",
    "envoy.filters.http.rate_limit_quota",
    "envoy.filters.http.router",
    "envoy.filters.http.thrift_to_metadata",
    "envoy.filters.http.wasm",
];

/// What the comments leave out or say otherwise than the code does.
const CORRECTIONS: &[(&str, &str, &[&str])] = &[
    ("envoy.config.cluster.v3.Cluster", "transport_socket", &["envoy.transport_sockets.upstream"]),
    ("envoy.config.cluster.v3.Filter", "typed_config", &["envoy.filters.upstream_network"]),
    ("envoy.config.cluster.v3.Cluster", "typed_extension_protocol_options", &[BY_KEY]),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "custom_handshaker",
        &["envoy.tls_handshakers"],
    ),
    // Found by name if not by type; the list of policies may hold unknown ones. Checks of their own look at
    // them.
    ("envoy.config.cluster.v3.Cluster.CustomClusterType", "typed_config", &[]),
    ("envoy.config.cluster.v3.LoadBalancingPolicy.Policy", "typed_extension_config", &[]),
    ("envoy.config.common.matcher.v3.Matcher.MatcherList.Predicate.SinglePredicate", "input", INPUTS),
    ("envoy.config.common.matcher.v3.Matcher.MatcherTree", "input", INPUTS),
    ("xds.type.matcher.v3.Matcher.MatcherList.Predicate.SinglePredicate", "input", INPUTS),
    ("xds.type.matcher.v3.Matcher.MatcherTree", "input", INPUTS),
    ("envoy.config.common.matcher.v3.Matcher.MatcherTree", "custom_match", CUSTOM),
    ("xds.type.matcher.v3.Matcher.MatcherTree", "custom_match", CUSTOM),
    ("envoy.config.route.v3.RouteConfiguration", "typed_per_filter_config", &[PER_ROUTE]),
    ("envoy.config.route.v3.VirtualHost", "typed_per_filter_config", &[PER_ROUTE]),
    ("envoy.config.route.v3.Route", "typed_per_filter_config", &[PER_ROUTE]),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "typed_per_filter_config", &[PER_ROUTE]),
    ("envoy.config.route.v3.FilterConfig", "config", &[PER_ROUTE]),
    (
        "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport",
        "transport_socket",
        UPSTREAM,
    ),
    (
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "transport_socket",
        UPSTREAM,
    ),
    (
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "transport_socket",
        UPSTREAM,
    ),
];

const UPSTREAM: &[&str] = &["envoy.transport_sockets.upstream"];

/// What a matcher may look at depends on what it matches for; any of these will do here.
const INPUTS: &[&str] = &[
    "envoy.matching.common_inputs",
    "envoy.matching.http.input",
    "envoy.matching.network.input",
    "envoy.matching.transport_socket.input",
    "envoy.matching.generic_proxy_request_input.input",
    "envoy.matching.stat_matching_data.input",
    "envoy.matching.stat_tag_matching_data.input",
];

const CUSTOM: &[&str] = &["envoy.matching.http.custom_matchers", "envoy.matching.network.custom_matchers"];

/// The categories of extensions that a field may hold; empty if it holds none.
pub fn categories(message: &str, field: &str) -> Vec<&'static str> {
    static FIELDS: OnceLock<HashMap<(&str, &str), Vec<&str>>> = OnceLock::new();
    let fields = FIELDS.get_or_init(|| {
        let mut fields = HashMap::new();
        for line in CATEGORIES.lines() {
            if let [message, field, categories] = line.split(' ').collect::<Vec<_>>()[..] {
                fields.insert((message, field), categories.split(',').collect());
            }
        }
        fields.extend(CORRECTIONS.iter().map(|(message, field, of)| ((*message, *field), of.to_vec())));
        fields
    });
    fields.get(&(message, field)).cloned().unwrap_or_default()
}

/// The extensions of an Envoy.
pub struct Extensions {
    /// Category and type of configuration, with the type as which Envoy reads it: the type of the filter's
    /// own configuration stands for that of a route, and the other way round, without a check of the type.
    by_type: HashMap<(&'static str, &'static str), &'static str>,
    /// Category and name, with the type of the configuration if it has one of its own.
    names: HashMap<(&'static str, &'static str), Option<&'static str>>,
    types: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

/// Those of the pinned Envoy.
pub fn stock() -> &'static Extensions {
    static STOCK: OnceLock<Extensions> = OnceLock::new();
    STOCK.get_or_init(|| Extensions::parse(TABLE))
}

impl Extensions {
    fn parse(table: &'static str) -> Self {
        let mut found = Self { by_type: HashMap::new(), names: HashMap::new(), types: BTreeMap::new() };
        for line in table.lines().skip(1) {
            let mut words = line.split(' ');
            let (Some(category), Some(name)) = (words.next(), words.next()) else { continue };
            let types: Vec<&str> = words.next().map(|types| types.split(',').collect()).unwrap_or_default();
            found.add(category, name, &types);
        }
        found
    }

    fn add(&mut self, category: &'static str, name: &'static str, types: &[&'static str]) {
        let own = types.iter().find(|name| !is_of_routes(name)).or(types.first());
        self.names.insert((category, name), own.copied());
        let of_routes = types.iter().find(|name| is_of_routes(name)).or(types.first());
        for kind in types {
            self.types.entry(kind).or_default().insert(category);
            self.by_type.insert((category, kind), own.unwrap_or(kind));
            if category == "envoy.filters.http" && !NOT_PER_ROUTE.contains(&name) {
                self.by_type.insert((PER_ROUTE, kind), of_routes.unwrap_or(kind));
            }
        }
    }

    /// The type as which Envoy reads a configuration of the type `full_name` in a place for extensions of one
    /// of the categories; nothing if it refuses it there.
    pub fn read_as(&self, categories: &[&str], full_name: &str) -> Option<&'static str> {
        // The keys are static and the arguments are not; their lifetimes do not matter to the comparison.
        categories.iter().find_map(|category| self.by_type.get(&(*category, full_name)).copied())
    }

    /// Whether there is an extension of this name.
    pub fn has_name(&self, category: &str, name: &str) -> bool {
        self.names.contains_key(&(category, name))
    }

    /// The type of the configuration of the extension with this name.
    pub fn type_of(&self, category: &str, name: &str) -> Option<&'static str> {
        self.names.get(&(category, name)).copied().flatten()
    }

    /// The type as which Envoy reads the protocol options with this key; nothing if it refuses them.
    pub fn options_of(&self, key: &str) -> Option<&'static str> {
        let of_filters = OPTIONS_OF_FILTERS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind);
        of_filters.or_else(|| self.by_type.get(&("envoy.upstream_options", key)).copied())
    }

    /// All types of configuration.
    pub fn types(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.types.keys().copied()
    }

    /// The categories in which a type of configuration is known.
    pub fn categories_of(&self, full_name: &str) -> Vec<&'static str> {
        self.types.get(full_name).into_iter().flatten().copied().collect()
    }
}

/// Whether the type configures a filter for a route, by its name.
fn is_of_routes(full_name: &str) -> bool {
    let short = full_name.rsplit_once('.').map_or(full_name, |(_, short)| short);
    short.contains("PerRoute") || short.ends_with("Override") || short == "CorsPolicy"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_in_its_categories() {
        let router = "envoy.extensions.filters.http.router.v3.Router";
        let per_route = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
        let buffer = "envoy.extensions.filters.http.buffer.v3.Buffer";
        for (category, kind, expected) in [
            ("envoy.filters.http", router, Some(router)),
            ("envoy.filters.network", router, None),
            (PER_ROUTE, router, None),
            (PER_ROUTE, buffer, Some(per_route)),
            (PER_ROUTE, per_route, Some(per_route)),
            ("envoy.filters.http", per_route, Some(buffer)),
            ("envoy.filters.http", "envoy.extensions.filters.http.no_such.v3.Filter", None),
        ] {
            assert_eq!(stock().read_as(&[category], kind), expected, "{category} {kind}");
        }
        assert!(stock().has_name("envoy.clusters", "envoy.cluster.eds"));
        assert_eq!(stock().categories_of(router), ["envoy.filters.http"]);
    }

    #[test]
    fn fields_have_their_categories() {
        for (message, field, expected) in [
            ("envoy.config.listener.v3.Filter", "typed_config", &["envoy.filters.network"][..]),
            ("envoy.config.accesslog.v3.AccessLog", "typed_config", &["envoy.access_loggers"]),
            ("envoy.config.route.v3.Route", "typed_per_filter_config", &[PER_ROUTE]),
            ("envoy.config.listener.v3.Listener", "name", &[]),
        ] {
            assert_eq!(categories(message, field), expected, "{message}.{field}");
        }
    }
}

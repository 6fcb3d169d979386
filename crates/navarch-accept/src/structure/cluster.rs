//! Clusters: their type and the fields that go with it, balancing, health checks, endpoints.

use super::filters::wrapped;
use super::numbers::{
    assignment as a, balancing, balancing_policy, cluster as c, custom_type as custom, eds, endpoint,
    explicit_http, health_check, http_health_check as http, http_options, int64_range, lb_endpoint,
    locality_endpoints, maglev, ring_hash, transport_socket, typed_extension,
};
use super::{content, name_in, route, type_of};
use crate::extensions::stock;
use crate::schema::shape_of;
use crate::violation::Rule;
use crate::walk::{At, check};
use crate::wire::{Value, last, message, messages, text};

// Values of `envoy.config.cluster.v3.Cluster.DiscoveryType`.
const STATIC: u64 = 0;
const LOGICAL_DNS: u64 = 2;
const EDS: u64 = 3;
const ORIGINAL_DST: u64 = 4;

// Values of `envoy.config.cluster.v3.Cluster.LbPolicy`.
const RING_HASH: u64 = 2;
const MAGLEV: u64 = 5;
const CLUSTER_PROVIDED: u64 = 6;
const POLICY_CONFIG: u64 = 7;

/// Kinds of clusters that balance by themselves, so that `lb_policy` has to say so.
const PROVIDERS: &[&str] = &[
    "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
    "envoy.extensions.clusters.composite.v3.ClusterConfig",
    "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
    "envoy.extensions.clusters.original_dst.v3.OriginalDstCluster",
    "envoy.extensions.clusters.redis.v3.RedisClusterConfig",
];

const CLUSTERS: &str = "envoy.clusters";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS: &[&str] = &[
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
];

/// The ring's sizes without `ring_hash_lb_config`.
const RING_MIN: u64 = 1024;
const RING_MAX: u64 = 8 * 1024 * 1024;

pub fn cluster(cluster: &[u8], at: &mut At<'_>) {
    let number = |field| last(cluster, field).and_then(Value::varint).unwrap_or_default();
    let has = |field| message(cluster, field).is_some();
    let discovery = (!has(c::CLUSTER_TYPE)).then(|| number(c::TYPE));
    if let Some(discovery) = discovery {
        kind(cluster, discovery, at);
    }
    balancer(cluster, discovery, number(c::LB_POLICY), at);
    let both = has(c::HTTP_PROTOCOL_OPTIONS) && has(c::HTTP2_PROTOCOL_OPTIONS) && !has_http_options(cluster);
    if both && number(c::PROTOCOL_SELECTION) == 0 {
        let words = "is set beside `http_protocol_options`, which needs another `protocol_selection`";
        at.say(Rule::Structure, "http2_protocol_options", words.to_owned());
    }
    health_checks(cluster, at);
    if automatic(cluster) && !TLS.contains(&socket(cluster)) {
        let words = "chooses the protocol by ALPN, which the cluster's transport socket does not do";
        at.say(Rule::Structure, "typed_extension_protocol_options", words.to_owned());
    }
}

/// The fields that a kind of cluster needs, and those that it must not have.
fn kind(cluster: &[u8], discovery: u64, at: &mut At<'_>) {
    let eds = message(cluster, c::EDS_CLUSTER_CONFIG).is_some();
    if eds != (discovery == EDS) {
        let words = if eds { "is set, but the type is not `EDS`" } else { "is missing for the type `EDS`" };
        at.say(Rule::Structure, "eds_cluster_config", words.to_owned());
    }
    let config = message(cluster, c::EDS_CLUSTER_CONFIG).filter(|_| discovery == EDS);
    if config.is_some_and(|config| message(config, eds::EDS_CONFIG).is_none()) {
        at.say(Rule::Structure, "eds_cluster_config.eds_config", "is missing".to_owned());
    }
    let assignment = message(cluster, c::LOAD_ASSIGNMENT);
    match (discovery, assignment) {
        (STATIC, Some(assignment)) => addresses(assignment, "load_assignment.", at),
        (LOGICAL_DNS, assignment) => {
            let assignment = assignment.unwrap_or_default();
            let localities = messages(assignment, a::ENDPOINTS).count();
            let endpoints = messages(assignment, a::ENDPOINTS).flat_map(endpoints).count();
            if (localities, endpoints) != (1, 1) {
                let words =
                    format!("has {endpoints} endpoints, but must have one for the type `LOGICAL_DNS`");
                at.say(Rule::Structure, "load_assignment", words);
            }
        }
        (ORIGINAL_DST, Some(_)) => {
            let words = "is set, but must not be for the type `ORIGINAL_DST`";
            at.say(Rule::Structure, "load_assignment", words.to_owned());
        }
        _ => {}
    }
}

fn endpoints(locality: &[u8]) -> impl Iterator<Item = &[u8]> {
    messages(locality, locality_endpoints::LB_ENDPOINTS)
}

fn balancer(cluster: &[u8], discovery: Option<u64>, policy: u64, at: &mut At<'_>) {
    let configured = message(cluster, c::LOAD_BALANCING_POLICY).is_some();
    if policy == POLICY_CONFIG && !configured {
        let words = "is missing, but `lb_policy` refers to it";
        at.say(Rule::Structure, "load_balancing_policy", words.to_owned());
    }
    if !configured {
        let provides = match discovery {
            Some(discovery) => Some(discovery == ORIGINAL_DST),
            None => provides(cluster),
        };
        let words = match provides {
            Some(true) if policy != CLUSTER_PROVIDED => "must be `CLUSTER_PROVIDED` for the cluster's type",
            Some(false) if policy == CLUSTER_PROVIDED => {
                "is `CLUSTER_PROVIDED`, which the cluster's type does not do"
            }
            _ => "",
        };
        if !words.is_empty() {
            at.say(Rule::Structure, "lb_policy", words.to_owned());
        }
        if policy == CLUSTER_PROVIDED && has_subsets(cluster) {
            let words = "is set, but cannot be for the `lb_policy` `CLUSTER_PROVIDED`";
            at.say(Rule::Structure, "lb_subset_config", words.to_owned());
        }
    }
    let ring = message(cluster, c::RING_HASH_LB_CONFIG).unwrap_or_default();
    let least = wrapped(ring, ring_hash::MINIMUM_RING_SIZE).unwrap_or(RING_MIN);
    let most = wrapped(ring, ring_hash::MAXIMUM_RING_SIZE).unwrap_or(RING_MAX);
    if policy == RING_HASH && !configured && least > most {
        let words = format!("has the minimum {least}, which is more than the maximum {most}");
        at.say(Rule::Structure, "ring_hash_lb_config", words);
    }
    let table = message(cluster, c::MAGLEV_LB_CONFIG).and_then(|config| wrapped(config, maglev::TABLE_SIZE));
    if let Some(size) = table.filter(|size| policy == MAGLEV && !configured && !is_prime(*size)) {
        let words = format!("is {size}, but must be a prime number");
        at.say(Rule::Structure, "maglev_lb_config.table_size", words);
    }
}

fn has_subsets(cluster: &[u8]) -> bool {
    message(cluster, c::LB_SUBSET_CONFIG).is_some_and(|config| !config.is_empty())
}

/// Sizes are at most 5,000,011, so that few divisors have to be tried.
fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// Whether a cluster of a registered kind balances by itself; nothing if it is not known.
fn provides(cluster: &[u8]) -> Option<bool> {
    let kind = message(cluster, c::CLUSTER_TYPE).unwrap_or_default();
    let full_name = type_of(kind, custom::TYPED_CONFIG);
    if PROVIDERS.contains(&full_name) {
        return Some(true);
    }
    (full_name == "envoy.extensions.clusters.dns.v3.DnsCluster").then_some(false)
}

/// A registered kind of cluster is found by the type of its configuration, or else by its name.
pub fn custom_type(kind: &[u8], at: &mut At<'_>) {
    let (name, full_name) = (text(kind, custom::NAME), type_of(kind, custom::TYPED_CONFIG));
    if stock().read_as(&[CLUSTERS], full_name).is_some() {
        return;
    }
    if !stock().has_name(CLUSTERS, name) {
        let words = format!("is {name:?}, which stock Envoy does not have as a kind of cluster");
        return at.say(Rule::Extension, "name", words);
    }
    // Found by its name, it has the configuration of an empty message.
    if let Some(shape) = stock().type_of(CLUSTERS, name).and_then(shape_of) {
        for found in check(&shape, &[]) {
            at.say(found.rule, &format!("typed_config.{}", found.path), found.words);
        }
    }
}

/// Envoy takes the first policy that it has, and refuses the list if it has none.
pub fn load_balancing_policy(policy: &[u8], at: &mut At<'_>) {
    let known = messages(policy, balancing::POLICIES).any(|policy| {
        let extension = message(policy, balancing_policy::TYPED_EXTENSION_CONFIG).unwrap_or_default();
        let full_name = type_of(extension, typed_extension::TYPED_CONFIG);
        stock().read_as(&["envoy.load_balancing_policies"], full_name).is_some()
    });
    if !known {
        at.say(Rule::Extension, "policies", "has no policy that stock Envoy has".to_owned());
    }
}

fn health_checks(cluster: &[u8], at: &mut At<'_>) {
    if speaks_http2(cluster) {
        return;
    }
    for (index, check) in messages(cluster, c::HEALTH_CHECKS).enumerate() {
        if message(check, health_check::GRPC_HEALTH_CHECK).is_some() {
            let words = "is by gRPC, but the cluster does not speak HTTP/2";
            at.say(Rule::Structure, &format!("health_checks[{index}]"), words.to_owned());
        }
    }
}

/// The typed HTTP options of a cluster.
fn options(cluster: &[u8]) -> Option<&[u8]> {
    let mut entries = messages(cluster, c::TYPED_EXTENSION_PROTOCOL_OPTIONS);
    let any = entries.find_map(|entry| {
        let any = message(entry, 2)?;
        (name_in(text(any, 1)) == HTTP_OPTIONS).then_some(any)
    })?;
    Some(message(any, 2).unwrap_or_default())
}

fn has_http_options(cluster: &[u8]) -> bool {
    options(cluster).is_some()
}

fn speaks_http2(cluster: &[u8]) -> bool {
    let Some(options) = options(cluster) else {
        return message(cluster, c::HTTP2_PROTOCOL_OPTIONS).is_some();
    };
    let explicit = message(options, http_options::EXPLICIT_HTTP_CONFIG);
    explicit.is_some_and(|explicit| message(explicit, explicit_http::HTTP2_PROTOCOL_OPTIONS).is_some())
        || message(options, http_options::USE_DOWNSTREAM_PROTOCOL_CONFIG).is_some()
        || message(options, http_options::AUTO_CONFIG).is_some()
}

fn automatic(cluster: &[u8]) -> bool {
    options(cluster).is_some_and(|options| message(options, http_options::AUTO_CONFIG).is_some())
}

/// The type of the cluster's transport socket.
fn socket(cluster: &[u8]) -> &str {
    let socket = message(cluster, c::TRANSPORT_SOCKET).unwrap_or_default();
    type_of(socket, transport_socket::TYPED_CONFIG)
}

pub fn http_health_check(check: &[u8], at: &mut At<'_>) {
    route::headers(
        check,
        &[("request_headers_to_add", http::REQUEST_HEADERS_TO_ADD)],
        &[("request_headers_to_remove", http::REQUEST_HEADERS_TO_REMOVE)],
        at,
    );
    for (index, range) in messages(check, http::EXPECTED_STATUSES).enumerate() {
        let bound = |number| last(range, number).and_then(Value::varint).unwrap_or_default() as i64;
        let (start, end) = (bound(int64_range::START), bound(int64_range::END));
        let place = format!("expected_statuses[{index}]");
        if start >= end {
            at.say(
                Rule::Structure,
                &place,
                format!("has the start {start}, which is not before the end {end}"),
            );
        } else if start < 100 || end > 600 {
            at.say(Rule::Structure, &place, format!("is {start} to {end}, but statuses are 100 to 599"));
        }
    }
}

/// The addresses of endpoints that are sent on their own are numbers, whatever they are in a cluster.
pub fn assignment(assignment: &[u8], at: &mut At<'_>) {
    if at.is_whole() {
        addresses(assignment, "", at);
    }
}

fn addresses(assignment: &[u8], prefix: &str, at: &mut At<'_>) {
    for (index, locality) in messages(assignment, a::ENDPOINTS).enumerate() {
        for (inner, one) in endpoints(locality).enumerate() {
            let place = format!("{prefix}endpoints[{index}].lb_endpoints[{inner}]");
            let one = message(one, lb_endpoint::ENDPOINT).unwrap_or_default();
            let Some(address) = message(one, endpoint::ADDRESS) else {
                at.say(Rule::Structure, &format!("{place}.endpoint.address"), "is missing".to_owned());
                continue;
            };
            if let Some(words) = content::address_problem(address) {
                at.say(Rule::Content, &format!("{place}.endpoint.address"), words);
            }
        }
    }
}

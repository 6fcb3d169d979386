//! Chains of filters end with a filter that ends them, and only there.

use std::collections::BTreeSet;

use super::{name_in, numbers, type_of};
use crate::extensions::stock;
use crate::violation::Rule;
use crate::walk::{At, nanoseconds};
use crate::wire::{Value, last, message, messages, text};

/// Network filters that end their chain.
const TERMINAL_NETWORK: &[&str] = &[
    "envoy.extensions.filters.network.direct_response.v3.Config",
    "envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy",
    "envoy.extensions.filters.network.echo.v3.Echo",
    "envoy.extensions.filters.network.generic_proxy.v3.GenericProxy",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
    "envoy.extensions.filters.network.reverse_tunnel.v3.DrainAwareHttpConnectionManager",
    "envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.filters.network.thrift_proxy.v3.ThriftProxy",
];

/// HTTP filters that end the chain of a connection manager.
const TERMINAL_HTTP: &[&str] = &[
    "envoy.extensions.filters.http.mcp_router.v3.McpRouter",
    "envoy.extensions.filters.http.router.v3.Router",
];

/// The HTTP filter that ends the chain of a cluster.
const TERMINAL_UPSTREAM: &[&str] = &["envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"];

/// Filters that end their chain or not as their own configuration says, which only they understand.
const UNDECIDED: &[&str] = &[
    "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
    "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
];

/// The network filters of a filter chain.
pub fn network(chain: &[u8], at: &mut At<'_>) {
    use numbers::filter::{NAME, TYPED_CONFIG};
    let filters = messages(chain, numbers::filter_chain::FILTERS).map(|filter| Link {
        name: text(filter, NAME),
        ends: ends(type_of(filter, TYPED_CONFIG), "envoy.filters.network", TERMINAL_NETWORK),
        disabled: false,
    });
    check(filters, "filters", at);
}

pub fn connection_manager(manager: &[u8], at: &mut At<'_>) {
    let filters = messages(manager, numbers::connection_manager::HTTP_FILTERS);
    http(filters, "http_filters", "envoy.filters.http", TERMINAL_HTTP, at);
    exclusive(manager, at);
}

/// Settings of a connection manager that exclude each other.
fn exclusive(manager: &[u8], at: &mut At<'_>) {
    use numbers::connection_manager as m;
    if is_set(manager, m::STRIP_MATCHING_HOST_PORT) && is_set(manager, m::STRIP_ANY_HOST_PORT) {
        let words = "is set beside `strip_matching_host_port`, and only one of them may be";
        at.say(Rule::Structure, "strip_any_host_port", words.to_owned());
    }
    let detection = message(manager, m::ORIGINAL_IP_DETECTION_EXTENSIONS).is_some();
    if detection && wrapped(manager, m::USE_REMOTE_ADDRESS) == Some(1) {
        let words = "is set beside `use_remote_address`, and only one of them may be";
        at.say(Rule::Structure, "original_ip_detection_extensions", words.to_owned());
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, upgrade) in messages(manager, m::UPGRADE_CONFIGS).enumerate() {
        let kind = text(upgrade, numbers::upgrade::UPGRADE_TYPE);
        if !seen.insert(kind.to_ascii_lowercase()) {
            let place = format!("upgrade_configs[{index}].upgrade_type");
            at.say(Rule::Structure, &place, format!("is {kind:?}, which is there already"));
        }
    }
}

/// Nanoseconds between two fills of a bucket of a local rate limit.
const FILL_MIN: i128 = 50_000_000;

pub fn http_local_limit(limit: &[u8], at: &mut At<'_>) {
    fill(message(limit, numbers::http_local_limit::TOKEN_BUCKET), at);
}

pub fn network_local_limit(limit: &[u8], at: &mut At<'_>) {
    fill(message(limit, numbers::network_local_limit::TOKEN_BUCKET), at);
}

fn fill(bucket: Option<&[u8]>, at: &mut At<'_>) {
    let interval = bucket.and_then(|bucket| message(bucket, numbers::token_bucket::FILL_INTERVAL));
    if interval.is_some_and(|interval| nanoseconds(interval) < FILL_MIN) {
        at.say(Rule::Structure, "token_bucket.fill_interval", "is shorter than 50 ms".to_owned());
    }
}

pub fn lua(lua: &[u8], at: &mut At<'_>) {
    let inline = !text(lua, numbers::lua::INLINE_CODE).is_empty();
    if inline && message(lua, numbers::lua::DEFAULT_SOURCE_CODE).is_some() {
        let words = "is set beside `inline_code`, and only one of them may be";
        at.say(Rule::Structure, "default_source_code", words.to_owned());
    }
}

/// Envoy takes a filter that says nowhere whom to ask, and ends with "panic: unset oneof" at the first call.
pub fn ext_authz(filter: &[u8], at: &mut At<'_>) {
    use numbers::ext_authz::{GRPC_SERVICE, HTTP_SERVICE};
    if message(filter, GRPC_SERVICE).is_none() && message(filter, HTTP_SERVICE).is_none() {
        let words = "is missing, and so is `http_service`: Envoy ends at the first call";
        at.say(Rule::Structure, "grpc_service", words.to_owned());
    }
}

/// Scripts are read when a filter is made.
pub fn lua_code(lua: &[u8], at: &mut At<'_>) {
    script("inline_code", text(lua, numbers::lua::INLINE_CODE), at);
    source(message(lua, numbers::lua::DEFAULT_SOURCE_CODE), "default_source_code", at);
    for entry in messages(lua, numbers::lua::SOURCE_CODES) {
        // Field 2 of the entries of a map are the values.
        source(message(entry, 2), "source_codes", at);
    }
}

pub fn lua_per_route(lua: &[u8], at: &mut At<'_>) {
    source(message(lua, numbers::lua_per_route::SOURCE_CODE), "source_code", at);
}

fn source(source: Option<&[u8]>, field: &str, at: &mut At<'_>) {
    let inline = source.map(|source| text(source, numbers::data_source::INLINE_STRING));
    script(&format!("{field}.inline_string"), inline.unwrap_or_default(), at);
}

fn script(field: &str, script: &str, at: &mut At<'_>) {
    if let Some(problem) = crate::lua::problem(script) {
        at.say(Rule::Content, field, format!("is not a Lua script: {problem}"));
    }
}

pub fn upgrade(upgrade: &[u8], at: &mut At<'_>) {
    let filters = messages(upgrade, numbers::upgrade::FILTERS);
    http(filters, "filters", "envoy.filters.http", TERMINAL_HTTP, at);
}

pub fn router(router: &[u8], at: &mut At<'_>) {
    let filters = messages(router, numbers::router::UPSTREAM_HTTP_FILTERS);
    http(filters, "upstream_http_filters", "envoy.filters.http.upstream", TERMINAL_UPSTREAM, at);
}

pub fn http_options(options: &[u8], at: &mut At<'_>) {
    let filters = messages(options, numbers::http_options::HTTP_FILTERS);
    http(filters, "http_filters", "envoy.filters.http.upstream", TERMINAL_UPSTREAM, at);
}

fn http<'a>(
    filters: impl Iterator<Item = &'a [u8]>,
    field: &str,
    category: &str,
    terminal: &[&str],
    at: &mut At<'_>,
) {
    use numbers::http_filter::{DISABLED, NAME, TYPED_CONFIG};
    let links = filters.map(|filter| Link {
        name: text(filter, NAME),
        ends: ends(type_of(filter, TYPED_CONFIG), category, terminal),
        disabled: is_set(filter, DISABLED),
    });
    check(links, field, at);
}

/// A filter as far as its place in the chain goes.
struct Link<'a> {
    name: &'a str,
    /// Whether it ends the chain, if that can be said.
    ends: Option<bool>,
    disabled: bool,
}

/// Whether a filter ends its chain. Nothing can be said of one that is discovered, or that Envoy does not
/// have.
fn ends(kind: &str, category: &str, terminal: &[&str]) -> Option<bool> {
    let known = stock().read_as(&[category], kind)?;
    (!UNDECIDED.contains(&known)).then(|| terminal.contains(&known))
}

fn check<'a>(filters: impl Iterator<Item = Link<'a>>, field: &str, at: &mut At<'_>) {
    let mut filters = filters.enumerate().peekable();
    while let Some((index, Link { name, ends, disabled })) = filters.next() {
        let place = format!("{field}[{index}]");
        match (ends, filters.peek().is_some()) {
            (Some(true), true) => {
                at.say(
                    Rule::Structure,
                    &place,
                    format!("is the filter `{name}`, which must be the last one"),
                );
            }
            (Some(false), false) => {
                let words = format!("is the filter `{name}`, which cannot be the last one");
                at.say(Rule::Structure, &place, words);
            }
            (_, false) if disabled => {
                at.say(
                    Rule::Structure,
                    &place,
                    format!("is the last filter, `{name}`, and cannot be disabled"),
                );
            }
            _ => {}
        }
    }
}

/// A filter that is discovered says which types it may have, and may have a configuration to begin with.
pub fn extension_source(source: &[u8], at: &mut At<'_>) {
    use numbers::extension_source as e;
    for (index, url) in messages(source, e::TYPE_URLS).enumerate() {
        let name = name_in(std::str::from_utf8(url).unwrap_or_default());
        if stock().categories_of(name).is_empty() {
            let words = format!("is `{name}`, which stock Envoy does not have as an extension");
            at.say(Rule::Extension, &format!("type_urls[{index}]"), words);
        }
    }
    if is_set(source, e::APPLY_DEFAULT_CONFIG_WITHOUT_WARMING) && message(source, e::DEFAULT_CONFIG).is_none()
    {
        let words = "is set, but there is no default configuration";
        at.say(Rule::Structure, "apply_default_config_without_warming", words.to_owned());
    }
}

/// Whether a field of type `bool` is true.
pub fn is_set(outer: &[u8], number: u32) -> bool {
    last(outer, number).and_then(Value::varint).is_some_and(|value| value != 0)
}

/// The number in a wrapper like `google.protobuf.UInt32Value`, if that is there.
pub fn wrapped(outer: &[u8], number: u32) -> Option<u64> {
    let wrapper = message(outer, number)?;
    Some(last(wrapper, 1).and_then(Value::varint).unwrap_or_default())
}

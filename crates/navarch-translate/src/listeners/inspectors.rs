//! Listener filters: what is found out about a connection before a filter chain is chosen.

use std::collections::BTreeMap;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::listener::v3::{
    FilterChain, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
    listener_filter_chain_match_predicate as predicate,
};
use navarch_envoy::proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use navarch_envoy::proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use navarch_envoy::proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use navarch_envoy::proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use navarch_envoy::proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use navarch_envoy::proto::envoy::r#type::v3::Int32Range;
use prost::{Message, Name};

/// First read of the TLS inspector; it reads more if needed, most handshakes do not.
const TLS_INITIAL_READ: u32 = 512;
/// Packets with this mark are not intercepted again.
const TPROXY_MARK: u32 = 1337;

/// Detects TLS, its server name and application protocols.
pub fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: Some(TLS_INITIAL_READ), ..TlsInspector::default() };
    filter("envoy.filters.listener.tls_inspector", &config)
}

/// Detects HTTP and its version.
pub fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

/// Restores the address that a redirected connection was for.
pub fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", &OriginalDst::default())
}

/// Keeps the client's address on connections to the workload.
pub fn original_source() -> ListenerFilter {
    let config = OriginalSrc { mark: TPROXY_MARK, ..OriginalSrc::default() };
    filter("envoy.filters.listener.original_src", &config)
}

/// Reads the PROXY protocol header of a load balancer.
pub fn proxy_protocol() -> ListenerFilter {
    filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default())
}

/// A listener filter.
pub(super) fn filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))),
        ..ListenerFilter::default()
    }
}

/// The inspectors that the matches of inbound chains need, switched off on ports whose chains do not:
/// inspection waits for the client's first bytes, which never come if the server speaks first.
pub fn for_chains(chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let needs = needs_by_port(chains);
    let mut filters = Vec::new();
    if needs.values().any(|need| need.tls) {
        filters.push(ListenerFilter { filter_disabled: tls_disabled(&needs), ..tls_inspector() });
    }
    // After the TLS inspector, so that it leaves TLS connections alone.
    if needs.values().any(|need| need.http) {
        let off = needs.iter().filter(|(_, need)| !need.http).map(|(port, _)| *port);
        filters.push(ListenerFilter { filter_disabled: on_ports(off), ..http_inspector() });
    }
    filters
}

#[derive(Clone, Copy, Default)]
struct Need {
    tls: bool,
    http: bool,
}

/// By destination port; port 0 stands for chains that match any port.
fn needs_by_port(chains: &[FilterChain]) -> BTreeMap<u32, Need> {
    let mut needs: BTreeMap<u32, Need> = BTreeMap::new();
    for chain in chains {
        let Some(matched) = &chain.filter_chain_match else {
            needs.entry(0).or_default();
            continue;
        };
        let need = needs.entry(matched.destination_port.unwrap_or_default()).or_default();
        need.tls |= matched.transport_protocol == "tls";
        need.http |=
            matched.application_protocols.iter().any(|protocol| protocol == "http/1.1" || protocol == "h2c");
    }
    needs
}

fn tls_disabled(needs: &BTreeMap<u32, Need>) -> Option<ListenerFilterChainMatchPredicate> {
    let ports = |wanted: bool| {
        needs.iter().filter(move |(port, need)| **port != 0 && need.tls == wanted).map(|(port, _)| *port)
    };
    if needs.get(&0).is_some_and(|need| need.tls) {
        on_ports(ports(false))
    } else {
        // Off for unknown ports: on only where a chain asks for it.
        on_ports(ports(true)).map(|rule| ListenerFilterChainMatchPredicate {
            rule: Some(predicate::Rule::NotMatch(Box::new(rule))),
        })
    }
}

/// A predicate that is true on these ports; nothing if there are none.
fn on_ports(ports: impl Iterator<Item = u32>) -> Option<ListenerFilterChainMatchPredicate> {
    let mut rules: Vec<_> = ports
        .filter_map(|port| i32::try_from(port).ok())
        .map(|port| ListenerFilterChainMatchPredicate {
            rule: Some(predicate::Rule::DestinationPortRange(Int32Range { start: port, end: port + 1 })),
        })
        .collect();
    if rules.len() > 1 {
        return Some(ListenerFilterChainMatchPredicate {
            rule: Some(predicate::Rule::OrMatch(predicate::MatchSet { rules })),
        });
    }
    rules.pop()
}

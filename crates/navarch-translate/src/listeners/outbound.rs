//! Outbound listeners: one per address and port that the workload may dial.

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3::TrafficDirection;
use navarch_envoy::proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use navarch_envoy::wkt;
use navarch_model::{Hashed, Name};

use crate::filters::network::http_chain;
use crate::http_connection_manager::{self as hcm, Options, Routes};
use crate::listeners::contribution::Contribution;
use crate::listeners::merge::{Chain, Entry, merge};
use crate::listeners::patch::{PatchedListener, encode_patched};
use crate::listeners::settings::ListenerSettings;
use crate::listeners::tcp::{DnsCache, TcpRoute};
use crate::listeners::{CONNECTIONS_PER_SOCKET_EVENT, address, balance, chain_metadata, inspectors};
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// Application protocols by which the HTTP inspector marks plaintext HTTP.
pub const PLAINTEXT_HTTP: &[&str] = &["http/1.1", "h2c"];
/// Transport protocol of what is not TLS.
pub const RAW_BUFFER: &str = "raw_buffer";
/// How long a TLS handshake may take before the connection is dropped, against clients that open connections
/// and stop.
const HANDSHAKE_TIMEOUT_SECONDS: u32 = 15;

/// Everything a listener is made of.
#[derive(Clone, Debug, Hash)]
pub struct OutboundInput {
    pub settings: Arc<Hashed<OutboundSettings>>,
    /// The oldest contribution, which decides.
    pub first: Arc<Hashed<Contribution>>,
    /// The others, in the order of precedence.
    pub later: Vec<Arc<Hashed<Contribution>>>,
}

/// What all outbound listeners of a sidecar have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundSettings {
    pub listener: ListenerSettings,
    /// Cluster for what no service is known for.
    pub catch_all: Name,
    /// HTTP to unknown hosts is resolved by name (`ALLOW_ANY_DYNAMIC_DNS`). The filter that does it is among
    /// the configured ones.
    pub resolves_unknown_hosts: bool,
}

/// Makes an outbound listener from the contributions for its address.
pub struct OutboundListener;

impl Sealed for OutboundListener {}

impl Pure for OutboundListener {
    const NAME: &'static str = "listeners.outbound";
    type Input = OutboundInput;
    type Output = PatchedListener;

    fn run(input: &OutboundInput) -> PatchedListener {
        let merged = merge(&input.first, input.later.iter().map(|contribution| &***contribution));
        encode_patched(listener(&input.settings, &merged.entry), &input.settings.listener.patches)
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// The listener of merged contributions.
pub fn listener(settings: &OutboundSettings, entry: &Entry<'_>) -> Listener {
    let primary = entry.binds.first().map_or("", |bind| bind);
    let name = address::listener_name(primary, entry.port);
    let mut listener = Listener {
        address: Some(address::address(primary, entry.port)),
        additional_addresses: address::additional(entry.binds.get(1..).unwrap_or_default(), entry.port),
        traffic_direction: TrafficDirection::Outbound as i32,
        // A client that sends nothing may wait for a server that speaks first.
        continue_on_listener_filters_timeout: true,
        connection_balance_config: balance(settings.listener.exact_balance),
        max_connections_to_accept_per_socket_event: entry
            .bind_to_port
            .then_some(CONNECTIONS_PER_SOCKET_EVENT),
        bind_to_port: (!entry.bind_to_port).then_some(false),
        ..Listener::default()
    };
    add_inspectors(&mut listener, settings, entry);
    for chain in &entry.chains {
        let filter_chain = filter_chain(settings, entry.port, &name, chain);
        match chain_match(chain) {
            // The chain that takes everything is the default chain, so that a connection for which a chain
            // matches only in part is not dropped (istio/istio#26079).
            None => listener.default_filter_chain = Some(filter_chain),
            matched => {
                listener.filter_chains.push(FilterChain { filter_chain_match: matched, ..filter_chain });
            }
        }
    }
    match listener.default_filter_chain.take() {
        Some(only) if listener.filter_chains.is_empty() => listener.filter_chains.push(only),
        Some(default) => listener.default_filter_chain = Some(default),
        None => listener.default_filter_chain = Some(fall_through(settings)),
    }
    listener.name = name;
    listener
}

fn add_inspectors(listener: &mut Listener, settings: &OutboundSettings, entry: &Entry<'_>) {
    let looks_at_tls = |chain: &Chain<'_>| match chain {
        Chain::Tcp(chain) => !chain.server_names.is_empty() || chain.route.sni_dns_cache.is_some(),
        Chain::Http(_) => false,
    };
    if entry.chains.iter().any(looks_at_tls) {
        listener.listener_filters.push(inspectors::tls_inspector());
    }
    if entry.chains.iter().any(|chain| matches!(chain, Chain::Http(http) if http.detect)) {
        listener.listener_filters.push(inspectors::http_inspector());
        listener.listener_filters_timeout = settings.listener.protocol_detection_timeout.map(wkt::duration);
    } else {
        listener.listener_filters_timeout = Some(wkt::duration_secs(0));
    }
}

fn filter_chain(settings: &OutboundSettings, port: u16, name: &str, chain: &Chain<'_>) -> FilterChain {
    let listener = &settings.listener;
    let (filters, origin) = match chain {
        Chain::Tcp(chain) => {
            (chain.route.filters(listener, port), chain.origin.as_ref().filter(|_| chain.names_origin))
        }
        Chain::Http(chain) => {
            let mut options = Options::new(
                &listener.http,
                format!("outbound_{name};"),
                Routes::Rds(chain.routes.to_string()),
            );
            options.port = port;
            options.protocol = chain.protocol;
            options.allow_absolute_url = chain.absolute_urls;
            options.mesh_alpn = chain.mesh_alpn;
            options.dns_cache = chain.dns_cache.as_ref().map(DnsCache::config);
            (http_chain(&listener.network_filters, port, hcm::filter(options)), None)
        }
    };
    FilterChain {
        filters,
        metadata: origin.map(|origin| chain_metadata(&origin.key)),
        transport_socket_connect_timeout: Some(wkt::duration_secs(HANDSHAKE_TIMEOUT_SECONDS)),
        ..FilterChain::default()
    }
}

/// Which connections a chain takes; nothing if it takes all.
fn chain_match(chain: &Chain<'_>) -> Option<FilterChainMatch> {
    if chain.takes_everything() {
        return None;
    }
    Some(match chain {
        Chain::Http(_) => FilterChainMatch {
            application_protocols: PLAINTEXT_HTTP.iter().map(|protocol| (*protocol).to_owned()).collect(),
            transport_protocol: RAW_BUFFER.to_owned(),
            ..FilterChainMatch::default()
        },
        Chain::Tcp(chain) => {
            let mut server_names: Vec<String> =
                chain.server_names.iter().map(|name| name.to_string()).collect();
            server_names.sort();
            if server_names.iter().any(|name| name == "*") {
                server_names.clear();
            }
            FilterChainMatch {
                server_names,
                prefix_ranges: address::prefix_ranges(&chain.destination_blocks),
                ..FilterChainMatch::default()
            }
        }
    })
}

/// The chain for what no other chain takes.
fn fall_through(settings: &OutboundSettings) -> FilterChain {
    FilterChain {
        name: "PassthroughFilterChain".to_owned(),
        filter_chain_match: Some(FilterChainMatch::default()),
        filters: catch_all_filters(settings),
        ..FilterChain::default()
    }
}

/// Filters that send connections to the catch-all cluster.
pub fn catch_all_filters(
    settings: &OutboundSettings,
) -> Vec<navarch_envoy::proto::envoy::config::listener::v3::Filter> {
    TcpRoute::to(&settings.catch_all).bare_filters(&settings.listener)
}

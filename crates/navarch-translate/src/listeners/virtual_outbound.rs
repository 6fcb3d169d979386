//! The listener that takes every intercepted outbound connection.

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3::TrafficDirection;
use navarch_envoy::proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use navarch_envoy::proto::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use navarch_envoy::wkt;
use navarch_model::Hashed;
use navarch_model::proxy::InterceptionMode;

use crate::encoded::messages;
use crate::http_connection_manager::{self as hcm, Options, Routes};
use crate::listeners::outbound::{OutboundSettings, PLAINTEXT_HTTP, catch_all_filters};
use crate::listeners::patch::{PatchedListener, encode_patched};
use crate::listeners::{CONNECTIONS_PER_SOCKET_EVENT, VIRTUAL_OUTBOUND, address, inspectors, tcp};
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// Limit of the body of a direct response.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;
use crate::names;

/// Makes the virtual outbound listener: it hands connections to the listener of their original destination,
/// and takes those that have none.
pub struct VirtualOutbound;

impl Sealed for VirtualOutbound {}

impl Pure for VirtualOutbound {
    const NAME: &'static str = "listeners.virtual_outbound";
    type Input = Arc<Hashed<OutboundSettings>>;
    type Output = PatchedListener;

    fn run(settings: &Self::Input) -> PatchedListener {
        encode_patched(listener(settings), &settings.listener.patches)
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// The listener.
pub fn listener(settings: &OutboundSettings) -> Listener {
    let common = &settings.listener;
    let wildcards = address::names(address::wildcards(common.ip_mode));
    Listener {
        name: VIRTUAL_OUTBOUND.to_owned(),
        address: wildcards.first().map(|wildcard| address::address(wildcard, common.listen_port)),
        additional_addresses: address::additional(wildcards.get(1..).unwrap_or_default(), common.listen_port),
        transparent: (common.interception == InterceptionMode::Tproxy).then_some(true),
        use_original_dst: Some(true),
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(CONNECTIONS_PER_SOCKET_EVENT),
        filter_chains: chains(settings),
        listener_filters: if settings.resolves_unknown_hosts {
            vec![inspectors::http_inspector()]
        } else {
            Vec::new()
        },
        access_log: messages(&common.listener_access_log),
        ..Listener::default()
    }
}

fn chains(settings: &OutboundSettings) -> Vec<FilterChain> {
    let unknown_hosts = settings.resolves_unknown_hosts.then(|| unknown_hosts(settings));
    std::iter::once(black_hole(settings)).chain(unknown_hosts).chain([catch_all(settings)]).collect()
}

/// Connections to the listener's own port were not redirected; passing them on would come back here forever.
fn black_hole(settings: &OutboundSettings) -> FilterChain {
    FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(u32::from(settings.listener.listen_port)),
            ..FilterChainMatch::default()
        }),
        filters: tcp::refuse(&settings.listener, names::BLACK_HOLE),
        ..FilterChain::default()
    }
}

fn catch_all(settings: &OutboundSettings) -> FilterChain {
    FilterChain {
        name: "virtualOutbound-catchall-tcp".to_owned(),
        filters: catch_all_filters(settings),
        ..FilterChain::default()
    }
}

/// HTTP whose host no service has goes where its host resolves to.
fn unknown_hosts(settings: &OutboundSettings) -> FilterChain {
    const NAME: &str = "allow_any_dynamic_dns";
    let common = &settings.listener;
    let zero = Some(wkt::duration_secs(0));
    let action = RouteAction {
        timeout: zero,
        max_grpc_timeout: zero,
        append_x_forwarded_host: common.http.headers.append_x_forwarded_host,
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(
            names::ALLOW_ANY_DYNAMIC_DNS.to_owned(),
        )),
        ..RouteAction::default()
    };
    let route = Route {
        name: NAME.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    let routes = RouteConfiguration {
        name: NAME.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: NAME.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            include_request_attempt_count: common.http.headers.include_request_attempt_count,
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE_BYTES),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    };
    let stat_prefix = format!("outbound_{VIRTUAL_OUTBOUND}_{NAME};");
    let options = Options::new(&common.http, stat_prefix, Routes::Inline(Box::new(routes)));
    FilterChain {
        name: "virtualOutbound-catchall-tcp-http".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: PLAINTEXT_HTTP.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..FilterChainMatch::default()
        }),
        filters: vec![hcm::filter(options)],
        ..FilterChain::default()
    }
}

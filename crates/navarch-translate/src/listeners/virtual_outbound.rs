//! The listener that takes every intercepted outbound connection.

use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_envoy::proto::envoy::config::core::v3::TrafficDirection;
use navarch_envoy::proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use navarch_model::Hashed;
use navarch_model::proxy::InterceptionMode;

use crate::Pure;
use crate::encoded::messages;
use crate::listeners::outbound::{OutboundSettings, catch_all_filters};
use crate::listeners::{CONNECTIONS_PER_SOCKET_EVENT, VIRTUAL_OUTBOUND, address, encode, tcp};
use crate::names;

/// Makes the virtual outbound listener: it hands connections to the listener of their original destination, and takes those
/// that have none.
pub struct VirtualOutbound;

impl Pure for VirtualOutbound {
    const NAME: &'static str = "virtual outbound listener";
    type Input = Arc<Hashed<OutboundSettings>>;
    type Output = Resource;

    fn run(settings: &Self::Input) -> Resource {
        encode(&listener(settings))
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
        filter_chains: vec![black_hole(settings), catch_all(settings)],
        access_log: messages(&common.listener_access_log),
        ..Listener::default()
    }
}

/// Connections to the listener's own port were not redirected; passing them on would come back here for ever.
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

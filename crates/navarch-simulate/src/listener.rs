//! Which listener takes a connection. Listeners are found by address (Envoy: "Listeners",
//! `use_original_dst`): the exact address, then the wildcard address of the port.

use std::net::{IpAddr, SocketAddr};

use navarch_envoy::ProxyResources;
use navarch_envoy::proto::envoy::config::core::v3::{
    Address, address::Address as AddressKind, socket_address::PortSpecifier,
};
use navarch_envoy::proto::envoy::config::listener::v3::Listener;

use crate::outcome::{Action, Outcome, Stage};
use crate::{Call, Direction, decode, filter_chain, terminal};

/// `TrafficDirection.INBOUND`.
const INBOUND: i32 = 1;

/// Finds the listener and follows the call through it.
pub fn accept(resources: &ProxyResources, call: &Call, outcome: &mut Outcome) -> Result<Action, Action> {
    let listeners = decode::listeners(resources);
    let listener = find(&listeners, call).ok_or_else(|| {
        Action::blocked(Stage::Listener, None, format!("no listener takes {}", call.destination))
    })?;
    outcome.listener = Some(listener.name.clone());
    let (chain, name) = filter_chain::find(listener, call)?;
    outcome.filter_chain = Some(name);
    terminal::run(resources, call, chain, outcome)
}

/// The listener that a connection ends up at.
///
/// Outbound calls from behind a sidecar are redirected to the listener that restores the original destination
/// and hands the connection to the listener of that address, if there is one. The inbound listener restores
/// the destination too, but keeps the connection. Without redirection, a connection reaches whatever is
/// bound.
fn find<'a>(listeners: &'a [Listener], call: &Call) -> Option<&'a Listener> {
    let redirected = match call.direction {
        Direction::Outbound => listeners.iter().find(|listener| {
            listener.use_original_dst == Some(true) && listener.traffic_direction != INBOUND
        }),
        Direction::Inbound => listeners.iter().find(|listener| {
            listener.traffic_direction == INBOUND
                && bound(listener)
                && listener
                    .listener_filters
                    .iter()
                    .any(|filter| filter.name == "envoy.filters.listener.original_dst")
        }),
    };
    let Some(redirected) = redirected else {
        return by_address(listeners.iter().filter(|listener| bound(listener)), call.destination);
    };
    if redirected.use_original_dst != Some(true) {
        return Some(redirected);
    }
    let others = listeners.iter().filter(|listener| listener.name != redirected.name);
    Some(by_address(others, call.destination).unwrap_or(redirected))
}

fn bound(listener: &Listener) -> bool {
    listener.bind_to_port != Some(false)
}

fn by_address<'a>(
    listeners: impl Iterator<Item = &'a Listener> + Clone,
    destination: SocketAddr,
) -> Option<&'a Listener> {
    let exact = |address: SocketAddr| address == destination;
    let wildcard = |address: SocketAddr| {
        address.port() == destination.port()
            && address.ip().is_unspecified()
            && (address.is_ipv6() || destination.is_ipv4())
    };
    let at =
        |test: &dyn Fn(SocketAddr) -> bool| listeners.clone().find(|listener| addresses(listener).any(test));
    at(&exact).or_else(|| at(&wildcard))
}

fn addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let more = listener.additional_addresses.iter().map(|additional| additional.address.as_ref());
    std::iter::once(listener.address.as_ref()).chain(more).flatten().filter_map(tcp_address)
}

fn tcp_address(address: &Address) -> Option<SocketAddr> {
    // Protocol 1 is UDP, for QUIC.
    let Some(AddressKind::SocketAddress(socket)) = address.address.as_ref().filter(|_| !is_udp(address))
    else {
        return None;
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse::<IpAddr>().ok()?, u16::try_from(port).ok()?))
}

fn is_udp(address: &Address) -> bool {
    matches!(&address.address, Some(AddressKind::SocketAddress(socket)) if socket.protocol == 1)
}

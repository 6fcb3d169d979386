//! Route configurations of sidecars, and what asks for them.

use navarch_model::Name;
use navarch_model::service::{Protocol, Service, ServicePort};
use navarch_snapshot::scope::EgressListener;

use crate::gather::shared::routes::RouteClient;

/// Name of the route configuration for requests with absolute URLs.
pub const HTTP_PROXY: &str = "http_proxy";

/// A route configuration that is being put together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigKey {
    pub name: Name,
    /// It serves requests to all ports.
    pub all_ports: bool,
}

/// What asks for a route configuration: a listener and the port it serves.
#[derive(Clone, Debug)]
pub struct Target<'s> {
    pub listener: &'s EgressListener,
    pub name: Name,
    /// `None`: all ports.
    pub port: Option<u16>,
}

impl<'s> Target<'s> {
    pub fn of_port(listener: &'s EgressListener, port: u16) -> Self {
        Target { listener, name: port.to_string().into(), port: Some(port) }
    }

    pub fn key(&self) -> ConfigKey {
        ConfigKey { name: self.name.clone(), all_ports: self.port.is_none() }
    }

    /// The ports of a service that the target serves.
    pub fn ports<'a>(
        &self,
        service: &'a Service,
    ) -> impl Iterator<Item = (usize, &'a ServicePort)> + use<'a> {
        let wanted = self.port;
        service
            .ports
            .iter()
            .enumerate()
            .filter(move |(_, port)| wanted.is_none_or(|wanted| wanted == port.port))
    }
}

/// Ports whose traffic is, or may turn out to be, HTTP.
pub fn may_be_http(protocol: Protocol) -> bool {
    protocol.is_http() || protocol.is_sniffed()
}

/// The targets that a listener states, whatever services there are. The listener for everything else has a
/// target per port of its services besides.
pub fn stated_target<'s>(client: &RouteClient, listener: &'s EgressListener) -> Option<Target<'s>> {
    let Some(port) = &listener.port else {
        return client.http_proxy.then(|| Target { listener, name: HTTP_PROXY.into(), port: None });
    };
    let number = u16::try_from(port.number).ok()?;
    if number == 0 {
        return Some(Target { listener, name: listener.bind.as_str().into(), port: None });
    }
    match Protocol::parse(&port.protocol) {
        Protocol::HttpProxy => Some(Target { port: None, ..Target::of_port(listener, number) }),
        protocol if may_be_http(protocol) => Some(Target::of_port(listener, number)),
        _ => None,
    }
}

/// The target for a port on the listener for everything else, unless another listener has the port.
pub fn port_target<'s>(client: &RouteClient, listener: &'s EgressListener, port: u16) -> Option<Target<'s>> {
    if listener.port.is_some() {
        return None;
    }
    let asked = client.scope.egress_listener_for(u32::from(port), "")?;
    std::ptr::eq(asked, listener).then(|| Target::of_port(listener, port))
}

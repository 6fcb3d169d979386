//! Addresses of services, and whether a listener may use them.

use std::net::IpAddr;

use navarch_model::Name;
use navarch_model::proxy::IpMode;
use navarch_model::service::{Protocol, Registry, Service};
use navarch_translate::listeners::address::wildcards;

use super::view::CommonView;

/// What a service has for an address if it has none.
const NO_ADDRESS: &str = "0.0.0.0";
const NO_ADDRESS_V6: &str = "::";

/// Addresses under which a client dials a service: one listener each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub primary: Name,
    /// Addresses of the other family.
    pub extra: Vec<Name>,
}

impl ServiceAddress {
    fn only(primary: &str) -> Self {
        ServiceAddress { primary: Name::from(primary), extra: Vec::new() }
    }

    /// Whether the service has no address, so that its listeners listen for any.
    pub fn is_none(&self) -> bool {
        &*self.primary == NO_ADDRESS
    }
}

/// The addresses of a service.
///
/// A Kubernetes Service has one address per family. Every address of a ServiceEntry is a destination of its
/// own, whatever its family: the client may reach it through its network.
pub fn of_service(service: &Service, view: &CommonView) -> Vec<ServiceAddress> {
    match service.registry {
        Registry::Kubernetes => vec![of_kubernetes(service, view)],
        Registry::ServiceEntry if service.addresses.is_empty() => vec![allocated(service, view)],
        Registry::ServiceEntry => service
            .addresses
            .iter()
            .filter_map(|address| normal(address))
            .map(|a| ServiceAddress::only(&a))
            .collect(),
    }
}

fn of_kubernetes(service: &Service, view: &CommonView) -> ServiceAddress {
    let usable: Vec<&Name> =
        service.addresses.iter().filter(|address| supports(view.ip_mode, address)).collect();
    match usable.split_first() {
        Some((primary, extra)) => ServiceAddress {
            primary: (*primary).clone(),
            extra: extra.iter().map(|name| (*name).clone()).collect(),
        },
        None => ServiceAddress::only(service.addresses.first().map_or(NO_ADDRESS, |address| address)),
    }
}

fn allocated(service: &Service, view: &CommonView) -> ServiceAddress {
    let own: Vec<&Name> = service
        .auto_allocated_addresses
        .iter()
        .filter(|address| view.dns_capture && supports(view.ip_mode, address))
        .collect();
    let v4 = own.iter().position(|address| !address.contains(':')).unwrap_or(0);
    match own.get(v4) {
        Some(primary) => ServiceAddress {
            primary: (*primary).clone(),
            extra: own
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != v4)
                .map(|(_, name)| (*name).clone())
                .collect(),
        },
        None => ServiceAddress::only(NO_ADDRESS),
    }
}

fn supports(mode: IpMode, address: &str) -> bool {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => mode != IpMode::V6,
        Ok(IpAddr::V6(_)) => mode != IpMode::V4,
        Err(_) => false,
    }
}

/// The address as listeners use it: a block of one address is that address. Nothing if it is neither address
/// nor block.
fn normal(address: &str) -> Option<String> {
    if address.parse::<IpAddr>().is_ok() {
        return Some(address.to_owned());
    }
    let (prefix, length) = address.split_once('/')?;
    let ip: IpAddr = prefix.parse().ok()?;
    let full = if ip.is_ipv4() { 32 } else { 128 };
    match length.parse::<u8>().ok()? {
        bits if bits == full => Some(ip.to_string()),
        bits if bits < full => Some(address.to_owned()),
        _ => None,
    }
}

/// Where a listener listens, and which destinations it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Primary first; empty until it is known.
    pub addresses: Vec<Name>,
    /// Destination blocks, if the listener listens for any address.
    pub blocks: Vec<Name>,
    pub to_port: bool,
}

impl Binding {
    /// The primary address; empty if none is chosen yet.
    pub fn primary(&self) -> &str {
        self.addresses.first().map_or("", |address| address)
    }

    /// Fills in the addresses of a listener for bytes: those of the service, or any address for a block.
    pub fn for_bytes(
        mut self,
        service: &Service,
        service_address: &ServiceAddress,
        view: &CommonView,
    ) -> Self {
        if !self.addresses.is_empty() {
            return self;
        }
        let mut primary = service_address.primary.clone();
        let mut extra = service_address.extra.clone();
        if service.registry == Registry::ServiceEntry && service_address.is_none() {
            match view.ip_mode {
                IpMode::V6 => primary = Name::from(NO_ADDRESS_V6),
                IpMode::Dual => extra.push(Name::from(NO_ADDRESS_V6)),
                IpMode::V4 => {}
            }
        }
        let all: Vec<Name> = std::iter::once(primary).chain(extra).collect();
        if service_address.primary.contains('/') {
            self.addresses = any_address(view);
            self.blocks = all;
        } else {
            self.addresses = all;
        }
        self
    }

    /// Fills in the addresses of a listener for HTTP, which all services share.
    pub fn for_http(mut self, view: &CommonView) -> Self {
        if self.addresses.is_empty() {
            self.addresses = any_address(view);
        }
        self
    }

    /// Whether the proxy can listen there: not on privileged ports unless it may, and not where its own
    /// listeners are.
    pub fn is_possible(&self, port: u16, protocol: Protocol, view: &CommonView) -> bool {
        if self.to_port && view.unprivileged && (1..1024).contains(&port) {
            return false;
        }
        let wildcard = wildcards(view.ip_mode).first().copied().unwrap_or_default();
        let any =
            if self.addresses.is_empty() { is_plain_http(protocol) } else { self.primary() == wildcard };
        !(any && view.own_ports.contains(&port))
    }
}

fn is_plain_http(protocol: Protocol) -> bool {
    protocol.is_http() && protocol != Protocol::Http3
}

/// The wildcard addresses of the proxy.
pub fn any_address(view: &CommonView) -> Vec<Name> {
    navarch_translate::listeners::address::names(wildcards(view.ip_mode))
}

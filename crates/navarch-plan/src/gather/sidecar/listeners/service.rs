//! What one service asks of listeners.

use navarch_model::Name;
use navarch_model::endpoint::{Address, Endpoint};
use navarch_model::service::{Protocol, Registry, Resolution};
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::contribution::{
    Contribution, HttpChain, ListenerProtocol, listener_protocol,
};

use super::addresses::{Binding, ServiceAddress, of_service};
use super::port::{ListenPort, ListenerRequest, PortOf};
use super::view::BucketView;
use super::{mesh_alpn, tcp_routes};

/// Everything a service asks for, in the order that decides conflicts.
pub fn contributions(service: &PortOf<'_, '_>) -> Vec<Contribution> {
    // Another name for another service: that one has the listeners.
    if service.service.resolution == Resolution::Alias {
        return Vec::new();
    }
    let view = service.view();
    let binding = service.binding();
    let mut out = Vec::new();
    for service_address in of_service(service.service, view) {
        if let Some(stated) = &service.listener.port {
            let port = ListenPort {
                number: u16::try_from(stated.number).unwrap_or_default(),
                name: Name::from(stated.name.as_str()),
                protocol: Protocol::parse(&stated.protocol),
            };
            if binding.is_possible(port.number, port.protocol, view) {
                let request = ListenerRequest {
                    port: &port,
                    service_address: &service_address,
                    binding: binding.clone(),
                };
                out.extend(contribution(service, request));
            }
            continue;
        }
        for port in &service.service.ports {
            let port = ListenPort { number: port.port, name: port.name.clone(), protocol: port.protocol };
            if !binding.is_possible(port.number, port.protocol, view) {
                continue;
            }
            for binding in bindings(service, &service_address, &port, &binding) {
                out.extend(contribution(
                    service,
                    ListenerRequest { port: &port, service_address: &service_address, binding },
                ));
            }
        }
    }
    out
}

/// Where to listen for a port: as the egress listener says, or on every endpoint of a headless service, whose
/// clients dial endpoints directly.
fn bindings(
    service: &PortOf<'_, '_>,
    service_address: &ServiceAddress,
    port: &ListenPort,
    binding: &Binding,
) -> Vec<Binding> {
    let per_endpoint = binding.addresses.is_empty()
        && service.service.resolution == Resolution::Passthrough
        && service_address.is_none()
        && (port.protocol.is_tcp() || port.protocol.is_sniffed());
    if !per_endpoint {
        return vec![binding.clone()];
    }
    let view = service.cx.view();
    let endpoints = view.endpoints(&service.service.hostname, &service.service.namespace);
    let endpoints: Vec<&Endpoint> = endpoints
        .iter()
        .flat_map(|set| &set.endpoints)
        .filter(|endpoint| endpoint.service_port_name == port.name)
        .collect();
    // A Kubernetes Service or a selector may get endpoints later. A ServiceEntry without either never will:
    // its clients dial whatever they like.
    let open = service.service.registry == Registry::ServiceEntry
        && endpoints.is_empty()
        && service.service.selector.is_empty();
    if open {
        return vec![binding.clone()];
    }
    endpoints.into_iter().filter_map(|endpoint| of_endpoint(endpoint, service.proxy)).collect()
}

fn of_endpoint(endpoint: &Endpoint, proxy: &BucketView) -> Option<Binding> {
    let Address::Ip(address) = &endpoint.address else { return None };
    // Traffic to itself does not pass an outbound listener.
    if proxy.own_address.as_ref() == Some(address) {
        return None;
    }
    let all = std::iter::once(address).chain(&endpoint.additional_addresses);
    Some(Binding {
        addresses: all.map(|address| Name::from(address.to_string())).collect(),
        ..Binding::default()
    })
}

/// What one port asks of one listener; nothing for protocols without listeners.
fn contribution(service: &PortOf<'_, '_>, request: ListenerRequest<'_>) -> Option<Contribution> {
    let view = service.view();
    let protocol = request.port.protocol;
    let listener_protocol = listener_protocol(protocol)?;
    let binding = match listener_protocol {
        ListenerProtocol::Http => request.binding.for_http(view),
        ListenerProtocol::Tcp | ListenerProtocol::Detect => {
            request.binding.for_bytes(service.service, request.service_address, view)
        }
    };
    let request = ListenerRequest { binding, ..request };
    let tcp = if listener_protocol == ListenerProtocol::Http {
        Vec::new()
    } else {
        tcp_routes::chains(service, &request)
    };
    let http = match listener_protocol {
        ListenerProtocol::Tcp => None,
        ListenerProtocol::Http | ListenerProtocol::Detect => {
            Some(http_chain(service, &request, listener_protocol))
        }
    };
    Some(Contribution {
        binds: request.binding.addresses,
        bind_to_port: request.binding.to_port,
        port: request.port.number,
        protocol,
        tcp,
        http,
    })
}

fn http_chain(
    service: &PortOf<'_, '_>,
    request: &ListenerRequest<'_>,
    listener_protocol: ListenerProtocol,
) -> HttpChain {
    let port = request.port;
    let bind = request.binding.primary();
    let any_address = wildcards(service.view().ip_mode).first() == Some(&bind);
    let own_listener = port.number != 0 && listener_protocol == ListenerProtocol::Detect && !any_address;
    let routes = match port.number {
        0 => bind.to_owned(),
        number if own_listener => {
            format!("{}:{number}", service.service.hostname)
        }
        number => number.to_string(),
    };
    HttpChain {
        routes: Name::from(routes),
        protocol: port.protocol,
        detect: listener_protocol == ListenerProtocol::Detect
            || (any_address && port.protocol != Protocol::HttpProxy),
        absolute_urls: false,
        mesh_alpn: own_listener && mesh_alpn::applies(service),
        dns_cache: service.dynamic_dns(),
    }
}

//! Kubernetes Services become services (Istio: "Kubernetes Services", protocol selection, service
//! annotations).

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::kinds::Kind;
use navarch_model::kubernetes as kube;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service::{
    PersistentSession, Protocol, Registry, Resolution, Service, ServicePort, TargetPort, TrafficDistribution,
    Visibility,
};
use navarch_model::{Labels, Name, TrustDomains};

use super::store::{Input, Reader, node_external_address};
use crate::bound::{NetworkGateway, selects};

/// The service that a Kubernetes Service declares.
pub(super) fn service(reader: &Reader<'_>, object: &Object, service: &kube::Service) -> Service {
    let spec = &service.spec;
    let annotation = |key: &str| object.metadata.annotations.get(key).map_or("", |value| value);
    let is_alias = spec.type_ == "ExternalName" && !spec.external_name.is_empty();
    let headless = spec.cluster_ip == "None";
    let resolution = if headless {
        Resolution::Passthrough
    } else if is_alias {
        Resolution::Alias
    } else {
        Resolution::ClientSide
    };
    let stated = annotation("networking.istio.io/exportTo");
    let stated = stated.split(',').map(str::trim).filter(|namespace| !namespace.is_empty());
    let defaults = &reader.mesh().config.default_service_export_to;
    Service {
        hostname: Name::from(hostname(&object.key.name, &object.key.namespace, reader.domain())),
        name: object.key.name.clone(),
        namespace: object.key.namespace.clone(),
        registry: Registry::Kubernetes,
        created_at: object.metadata.creation_timestamp,
        addresses: cluster_addresses(spec),
        auto_allocated_addresses: Vec::new(),
        ports: exact(spec.ports.iter().filter_map(port).collect()),
        resolution,
        mesh_external: is_alias,
        export_to: visibility(stated, defaults, &object.key.namespace),
        labels: object.metadata.labels.clone(),
        selector: spec.selector.clone(),
        subject_alt_names: subject_alt_names(reader, object),
        aliases: Vec::new(),
        external_name: is_alias.then(|| Name::from(spec.external_name.as_str())),
        headless,
        publish_not_ready_addresses: spec.publish_not_ready_addresses,
        node_local: spec.internal_traffic_policy == "Local",
        traffic_distribution: traffic_distribution(reader, object, &spec.traffic_distribution),
        persistent_session: persistent_session(&object.metadata.labels),
        dns_race_first_tcp_connect: false,
    }
}

/// Without room for more.
fn exact<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

/// The host of a Kubernetes Service.
pub(crate) fn hostname(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

fn cluster_addresses(spec: &kube::ServiceSpec) -> Vec<Name> {
    if spec.cluster_ip.is_empty() || spec.cluster_ip == "None" {
        return Vec::new();
    }
    if spec.cluster_ips.len() > 1 {
        return spec.cluster_ips.iter().map(|address| Name::from(address.as_str())).collect();
    }
    vec![Name::from(spec.cluster_ip.as_str())]
}

fn port(port: &kube::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target_port = port.target_port.as_ref().and_then(|target| match target {
        kube::IntOrString::Int(0) => None,
        kube::IntOrString::Int(number) => u16::try_from(*number).ok().map(TargetPort::Number),
        kube::IntOrString::String(name) => Some(match name.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_) => TargetPort::Name(Name::from(name.as_str())),
        }),
    });
    Some(ServicePort {
        name: Name::from(port.name.as_str()),
        port: number,
        protocol: protocol(number, &port.name, &port.protocol, &port.app_protocol),
        target_port,
    })
}

/// Ports on which servers speak first: detecting the protocol would wait for the client.
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// The protocol of a port: `appProtocol`, or else the port's name up to the first `-` (Istio: "Protocol
/// Selection").
fn protocol(number: u16, name: &str, transport: &str, app_protocol: &str) -> Protocol {
    if transport == "UDP" {
        return Protocol::Udp;
    }
    let name = if app_protocol.is_empty() { name } else { app_protocol };
    match name {
        "kubernetes.io/h2c" if !app_protocol.is_empty() => return Protocol::Http2,
        "kubernetes.io/ws" if !app_protocol.is_empty() => return Protocol::Http,
        "kubernetes.io/wss" if !app_protocol.is_empty() => return Protocol::Https,
        _ => {}
    }
    if name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("grpc-web")) {
        return Protocol::GrpcWeb;
    }
    let prefix = name.split('-').next().unwrap_or(name);
    match Protocol::parse(prefix) {
        Protocol::Unsupported if SERVER_FIRST_PORTS.contains(&number) => Protocol::Tcp,
        protocol => protocol,
    }
}

/// Who sees an object: what `exportTo` states, or else the mesh's default.
pub(crate) fn visibility<'a>(
    stated: impl Iterator<Item = &'a str>,
    defaults: &'a [String],
    namespace: &Name,
) -> Visibility {
    let mut names: BTreeSet<&str> = stated.collect();
    if names.is_empty() {
        names = defaults.iter().map(String::as_str).collect();
    }
    if names.contains("*") || names.is_empty() {
        Visibility::Public
    } else if names.contains("~") {
        Visibility::Nobody
    } else {
        let resolve = |name: &str| if name == "." { namespace.clone() } else { Name::from(name) };
        Visibility::Namespaces(names.into_iter().map(resolve).collect())
    }
}

/// Identities that annotations of the Service name.
fn subject_alt_names(reader: &Reader<'_>, object: &Object) -> BTreeSet<Name> {
    let list = |key: &str| {
        let text = object.metadata.annotations.get(key).map_or("", |value| value);
        text.split(',').map(str::trim).filter(|name| !name.is_empty())
    };
    let canonical = list("alpha.istio.io/canonical-serviceaccounts").map(Name::from);
    let trust_domains = TrustDomains::of(&reader.mesh().config);
    let own = list("alpha.istio.io/kubernetes-serviceaccounts")
        .map(|account| trust_domains.expected(&object.key.namespace, account));
    canonical.chain(own).collect()
}

/// `spec.trafficDistribution`, else the annotation of the object, else that of its namespace.
pub(super) fn traffic_distribution(
    reader: &Reader<'_>,
    object: &Object,
    stated: &str,
) -> TrafficDistribution {
    const ANNOTATION: &str = "networking.istio.io/traffic-distribution";
    match stated {
        "PreferClose" | "PreferSameZone" => return TrafficDistribution::PreferSameZone,
        "PreferSameNode" => return TrafficDistribution::PreferSameNode,
        _ => {}
    }
    let parse = |value: &str| match value.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => TrafficDistribution::PreferSameZone,
        "prefersamenode" => TrafficDistribution::PreferSameNode,
        _ => TrafficDistribution::Any,
    };
    if let Some(value) = object.metadata.annotations.get(ANNOTATION).filter(|value| !value.is_empty()) {
        return parse(value);
    }
    let namespace =
        reader.object(&ObjectKey::of(object.key.cluster, Kind::Namespace, "", &object.key.namespace));
    let value = namespace.and_then(|namespace| namespace.metadata.annotations.get(ANNOTATION));
    value.map_or(TrafficDistribution::Any, |value| parse(value))
}

/// Labels `istio.io/persistent-session: <cookie>[:<path>]` and `istio.io/persistent-session-header:
/// <header>`.
pub(super) fn persistent_session(labels: &Labels) -> Option<PersistentSession> {
    let stated = |key: &str| labels.get(key).filter(|value| !value.is_empty());
    if let Some(cookie) = stated("istio.io/persistent-session") {
        let (name, path) = cookie.split_once(':').unwrap_or((cookie, "/"));
        return Some(PersistentSession::Cookie { name: Name::from(name), path: Name::from(path), ttl: None });
    }
    stated("istio.io/persistent-session-header").map(|header| PersistentSession::Header(header.clone()))
}

/// Port for traffic between networks that a gateway service has unless its label says otherwise.
const NETWORK_GATEWAY_PORT: u16 = 15443;
const NETWORK_GATEWAY_HBONE_PORT: u16 = 15008;

/// The gateways to this network that a Service is: by the label `topology.istio.io/network`, or because
/// MeshNetworks names it.
pub(super) fn network_gateways(
    reader: &Reader<'_>,
    object: &Object,
    service: &kube::Service,
    derived: &Service,
) -> Vec<NetworkGateway> {
    let cluster_id = reader.cluster_name(object.key.cluster);
    // Network, port and HBONE port, without the address.
    let gateways: Vec<(Name, u16, u16)> = match object.metadata.labels.get("topology.istio.io/network") {
        Some(network) if !network.is_empty() => {
            let stated = object.metadata.labels.get("networking.istio.io/gatewayPort");
            let port = stated.and_then(|port| port.parse().ok()).unwrap_or(NETWORK_GATEWAY_PORT);
            let listens = |number: u16| derived.ports.iter().any(|port| port.port == number);
            let port = if listens(port) { port } else { 0 };
            let hbone = if listens(NETWORK_GATEWAY_HBONE_PORT) { NETWORK_GATEWAY_HBONE_PORT } else { 0 };
            if port == 0 && hbone == 0 { Vec::new() } else { vec![(network.clone(), port, hbone)] }
        }
        _ => {
            let of_service = reader.networks().of_service(&cluster_id, &derived.hostname);
            of_service.map(|(network, port)| (network.clone(), port, 0)).collect()
        }
    };
    if gateways.is_empty() {
        return Vec::new();
    }
    let (addresses, node_ports) = external_addresses(reader, object, service);
    let mut out = Vec::new();
    for address in addresses {
        for (network, port, hbone_port) in &gateways {
            out.push(NetworkGateway {
                address: address.clone(),
                port: node_ports.get(port).copied().unwrap_or(*port),
                hbone_port: *hbone_port,
                network: network.clone(),
                cluster_id: cluster_id.clone(),
            });
        }
    }
    out.sort();
    out.dedup();
    out
}

/// Addresses under which a Service is reached from outside, and the node ports that stand for its ports.
fn external_addresses(
    reader: &Reader<'_>,
    object: &Object,
    service: &kube::Service,
) -> (BTreeSet<Name>, BTreeMap<u16, u16>) {
    let spec = &service.spec;
    let mut addresses: BTreeSet<Name> = spec.external_ips.iter().map(|ip| Name::from(ip.as_str())).collect();
    let mut node_ports = BTreeMap::new();
    match spec.type_.as_str() {
        "LoadBalancer" => {
            for ingress in &service.status.load_balancer.ingress {
                let address = if ingress.ip.is_empty() { &ingress.hostname } else { &ingress.ip };
                if !address.is_empty() {
                    addresses.insert(Name::from(address.as_str()));
                }
            }
        }
        "NodePort" => {
            let Some(selector) = object.metadata.annotations.get("traffic.istio.io/nodeSelector") else {
                return (addresses, node_ports);
            };
            let selector: BTreeMap<String, String> = serde_json::from_str(selector).unwrap_or_default();
            let ports = spec.ports.iter();
            node_ports = ports
                .filter_map(|port| {
                    Some((u16::try_from(port.port).ok()?, u16::try_from(port.node_port).ok()?))
                })
                .collect();
            if addresses.is_empty() {
                let nodes = reader.members(&Input::ExternalNodes(object.key.cluster));
                addresses = nodes
                    .filter(|node| selects(&selector, &node.metadata.labels))
                    .filter_map(|node| node.spec::<kube::Node>().and_then(|node| node_external_address(node)))
                    .map(Name::from)
                    .collect();
            }
        }
        _ => {}
    }
    (addresses, node_ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_come_from_the_app_protocol_or_the_port_name() {
        let check = |name: &str, app_protocol: &str, number: u16, expected: Protocol| {
            assert_eq!(
                protocol(number, name, "TCP", app_protocol),
                expected,
                "{name} {app_protocol} {number}"
            );
        };
        check("http", "", 80, Protocol::Http);
        check("http-web", "", 80, Protocol::Http);
        check("HTTP2-x", "", 80, Protocol::Http2);
        check("grpc-web-x", "", 80, Protocol::GrpcWeb);
        check("grpc-x", "", 80, Protocol::Grpc);
        check("web", "", 80, Protocol::Unsupported);
        check("", "", 3306, Protocol::Tcp);
        check("mongo", "", 27017, Protocol::Mongo);
        check("tcp", "https", 443, Protocol::Https);
        check("tcp", "kubernetes.io/h2c", 443, Protocol::Http2);
        check("tcp", "kubernetes.io/ws", 443, Protocol::Http);
        check("tcp", "kubernetes.io/wss", 443, Protocol::Https);
        check("http", "unknown", 80, Protocol::Unsupported);
        assert_eq!(protocol(53, "dns", "UDP", ""), Protocol::Udp);
    }

    #[test]
    fn visibility_is_resolved() {
        let shop = Name::from("shop");
        let check = |stated: &[&str], defaults: &[&str], expected: Visibility| {
            let defaults: Vec<String> = defaults.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(
                visibility(stated.iter().copied(), &defaults, &shop),
                expected,
                "{stated:?} {defaults:?}"
            );
        };
        let only = |names: &[&str]| Visibility::Namespaces(names.iter().copied().map(Name::from).collect());
        check(&[], &["*"], Visibility::Public);
        check(&[], &["."], only(&["shop"]));
        check(&["."], &["*"], only(&["shop"]));
        check(&["a", "."], &["*"], only(&["a", "shop"]));
        check(&["a", "*"], &["."], Visibility::Public);
        check(&["~"], &["*"], Visibility::Nobody);
        check(&[], &["~"], Visibility::Nobody);
        check(&[], &[], Visibility::Public);
    }
}

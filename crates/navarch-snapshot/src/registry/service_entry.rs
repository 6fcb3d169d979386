//! ServiceEntries become services, one per host.

use std::net::IpAddr;

use ipnet::IpNet;

use navarch_model::networking::{
    Location, Resolution as EntryResolution, ServiceEntry, ServicePort as EntryPort,
};
use navarch_model::object::Object;
use navarch_model::service::{Protocol, Registry, Resolution, Service, ServicePort, TargetPort};
use navarch_model::{Labels, Name};

use super::allocation;
use super::kubernetes::{persistent_session, traffic_distribution, visibility};
use super::store::Reader;

/// The services that a ServiceEntry declares: one per host. A host that is stated twice counts once.
pub(super) fn services(reader: &Reader<'_>, object: &Object, entry: &ServiceEntry) -> Vec<Service> {
    let mut hosts: Vec<&String> = Vec::new();
    for host in &entry.hosts {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.into_iter().map(|host| service(reader, object, entry, host)).collect()
}

fn service(reader: &Reader<'_>, object: &Object, entry: &ServiceEntry, host: &str) -> Service {
    let namespace = &object.key.namespace;
    let defaults = &reader.mesh().config.default_service_export_to;
    Service {
        hostname: Name::from(host),
        name: object.key.name.clone(),
        namespace: namespace.clone(),
        registry: Registry::ServiceEntry,
        created_at: object.metadata.creation_timestamp,
        addresses: entry.addresses.iter().filter_map(|address| canonical_address(address)).collect(),
        auto_allocated_addresses: auto_allocated(reader, object, entry, host),
        ports: entry.ports.iter().filter_map(port).collect(),
        resolution: resolution(entry),
        mesh_external: entry.location == Location::MeshExternal,
        export_to: visibility(entry.export_to.iter().map(String::as_str), defaults, namespace),
        labels: object.metadata.labels.clone(),
        selector: selector(entry),
        subject_alt_names: entry.subject_alt_names.iter().map(|name| Name::from(name.as_str())).collect(),
        aliases: Vec::new(),
        external_name: None,
        headless: false,
        publish_not_ready_addresses: false,
        node_local: false,
        traffic_distribution: traffic_distribution(reader, object, ""),
        persistent_session: persistent_session(&object.metadata.labels),
        dns_race_first_tcp_connect: object
            .metadata
            .annotations
            .get("istio.io/connect-strategy")
            .is_some_and(|strategy| strategy.eq_ignore_ascii_case("RACE_FIRST_TCP_CONNECT")),
    }
}

fn selector(entry: &ServiceEntry) -> Labels {
    let labels = entry.workload_selector.iter().flat_map(|selector| &selector.labels);
    labels.map(|(key, value)| (Name::from(key.as_str()), Name::from(value.as_str()))).collect()
}

pub(super) fn resolution(entry: &ServiceEntry) -> Resolution {
    match entry.resolution {
        EntryResolution::None => Resolution::Passthrough,
        EntryResolution::Static => Resolution::ClientSide,
        EntryResolution::Dns => Resolution::Dns,
        EntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        EntryResolution::DynamicDns => Resolution::DynamicDns,
    }
}

fn port(port: &EntryPort) -> Option<ServicePort> {
    Some(ServicePort {
        name: Name::from(port.name.as_str()),
        port: u16::try_from(port.number).ok()?,
        protocol: Protocol::parse(&port.protocol),
        target_port: u16::try_from(port.target_port).ok().filter(|port| *port != 0).map(TargetPort::Number),
    })
}

/// An address or range as it is dialled; a range of one address is that address.
fn canonical_address(address: &str) -> Option<Name> {
    if address.parse::<IpAddr>().is_ok() {
        return Some(Name::from(address));
    }
    let range: IpNet = address.parse().ok()?;
    let single = range.prefix_len() == range.max_prefix_len();
    Some(if single { Name::from(range.addr().to_string()) } else { Name::from(address) })
}

/// Addresses that are allocated for a host, one per family: those that the entry states, or those that
/// follow from the host.
fn auto_allocated(reader: &Reader<'_>, object: &Object, entry: &ServiceEntry, host: &str) -> Vec<Name> {
    if !allocation::is_wanted(object, entry) {
        return Vec::new();
    }
    let (mut v4, mut v6) = allocation::stated(entry, host);
    if v4.is_none() && v6.is_none() && !host.contains('*') {
        v4 = reader.allocated(&object.key.namespace, host);
        v6 = Some(allocation::v6_of(&object.key.namespace, host));
    }
    let (v4, v6) = (v4.map(|address| address.to_string()), v6.map(|address| address.to_string()));
    v4.into_iter().chain(v6).map(Name::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_canonical() {
        let check = |address: &str, expected: Option<&str>| {
            assert_eq!(canonical_address(address).as_deref(), expected, "{address}");
        };
        check("10.0.0.1", Some("10.0.0.1"));
        check("10.0.0.1/32", Some("10.0.0.1"));
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("fd00::1/128", Some("fd00::1"));
        check("nonsense", None);
    }
}

//! From an endpoint of the registry to Envoy's.

use std::net::IpAddr;

use navarch_envoy::proto::envoy::config::core::v3 as core;
use navarch_envoy::proto::envoy::config::core::v3::{Address, HealthStatus, Metadata};
use navarch_envoy::proto::envoy::config::endpoint::v3::endpoint::AdditionalAddress;
use navarch_envoy::proto::envoy::config::endpoint::v3::{
    Endpoint as Upstream, LbEndpoint, lb_endpoint::HostIdentifier,
};
use navarch_envoy::wkt;
use navarch_model::Name;
use navarch_model::endpoint::{Address as Target, Endpoint, Health, TlsMode};

/// Envoy compares this metadata with `transport_socket_matches` of the cluster.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
const TLS_MODE: &str = "tlsMode";
/// Metadata for telemetry.
const ISTIO: &str = "istio";

/// A pod with this label is being drained.
const DRAINING_LABEL: &str = "istio.io/draining";

/// `mtls`: whether the client may use mutual TLS with this endpoint.
pub(super) fn endpoint(endpoint: &Endpoint, mtls: bool) -> LbEndpoint {
    let mtls = mtls && endpoint.tls_mode == TlsMode::Istio;
    let mut metadata = workload_metadata(endpoint);
    if mtls {
        metadata.filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), mtls_match());
    }
    let additional_addresses = endpoint
        .additional_addresses
        .iter()
        .map(|address| AdditionalAddress { address: Some(socket(address.to_string(), endpoint.port.into())) })
        .collect();
    LbEndpoint {
        health_status: health(endpoint) as i32,
        metadata: Some(metadata),
        load_balancing_weight: Some(endpoint.weight.max(1)),
        host_identifier: Some(HostIdentifier::Endpoint(Upstream {
            address: Some(address(endpoint)),
            additional_addresses,
            ..Upstream::default()
        })),
    }
}

/// The gateway of another network, standing in for the endpoints behind it. It takes mesh TLS only.
pub(super) fn gateway(address: &str, port: u32, weight: u32, cluster_id: &str) -> LbEndpoint {
    let mut metadata =
        wkt::metadata(ISTIO, wkt::structure([("workload", wkt::string(format!(";;;;{cluster_id}")))]));
    metadata.filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), mtls_match());
    LbEndpoint {
        metadata: Some(metadata),
        load_balancing_weight: Some(weight),
        host_identifier: Some(HostIdentifier::Endpoint(Upstream {
            address: Some(socket(address.to_owned(), port)),
            ..Upstream::default()
        })),
        ..LbEndpoint::default()
    }
}

/// Whether the endpoint carries the mark of mutual TLS.
pub(super) fn is_mtls(endpoint: &LbEndpoint) -> bool {
    endpoint
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.filter_metadata.get(TRANSPORT_SOCKET_MATCH))
        .is_some_and(|fields| fields.fields.contains_key(TLS_MODE))
}

pub(super) fn is_draining(endpoint: &Endpoint) -> bool {
    endpoint.health == Health::Draining || has_draining_label(endpoint)
}

/// The match of `transport_socket_matches` that selects mutual TLS, and what an endpoint says to be matched
/// by it.
pub(crate) fn mtls_match() -> navarch_envoy::wkt::Struct {
    wkt::structure([(TLS_MODE, wkt::string(ISTIO))])
}

fn health(endpoint: &Endpoint) -> HealthStatus {
    if is_draining(endpoint) {
        return HealthStatus::Draining;
    }
    match endpoint.health {
        Health::Unknown => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining | Health::Terminating => HealthStatus::Draining,
    }
}

/// `istio.workload`: workload, namespace, canonical service, revision and cluster, for the client's telemetry
/// (`%UPSTREAM_METADATA(istio:workload)%`).
fn workload_metadata(endpoint: &Endpoint) -> Metadata {
    let label = |keys: &[&str]| -> Option<&Name> { keys.iter().find_map(|key| endpoint.labels.get(*key)) };
    let name = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
        .unwrap_or(&endpoint.workload_name);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
        .map_or("", |revision| if &**revision == "latest" { "" } else { revision });
    let workload = format!(
        "{};{};{name};{revision};{}",
        endpoint.workload_name, endpoint.namespace, endpoint.cluster_id
    );
    wkt::metadata(ISTIO, wkt::structure([("workload", wkt::string(workload))]))
}

fn address(endpoint: &Endpoint) -> Address {
    match &endpoint.address {
        Target::Ip(address) => socket(address.to_string(), endpoint.port.into()),
        Target::Dns(name) => socket(name.to_string(), endpoint.port.into()),
        Target::Unix(path) => pipe(path),
    }
}

/// A TCP address.
pub(crate) fn socket(address: String, port: u32) -> Address {
    Address { address: Some(core::address::Address::SocketAddress(socket_address(address, port))) }
}

/// A TCP address, in messages that allow nothing else.
pub(crate) fn socket_address(address: String, port: u32) -> core::SocketAddress {
    core::SocketAddress {
        address,
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..core::SocketAddress::default()
    }
}

/// A Unix domain socket.
pub(crate) fn pipe(path: &str) -> Address {
    let path = path.strip_prefix("unix://").unwrap_or(path).to_owned();
    Address { address: Some(core::address::Address::Pipe(core::Pipe { path, ..core::Pipe::default() })) }
}

/// Whether `text` is an address of a family that a client has.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn has_draining_label(endpoint: &Endpoint) -> bool {
    endpoint.labels.get(DRAINING_LABEL).is_some_and(|value| !value.is_empty())
}

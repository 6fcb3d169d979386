//! What is behind a cluster.

use navarch_envoy::any::unpack;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use navarch_envoy::proto::envoy::config::cluster::v3::{Cluster, cluster::DiscoveryType};
use navarch_envoy::proto::envoy::config::core::v3::{
    Address, Locality, TransportSocket, address::Address as AddressKind, socket_address::PortSpecifier,
    transport_socket::ConfigType,
};
use navarch_envoy::proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use navarch_envoy::{Any, ProxyResources};

use crate::decode;
use crate::outcome::{Action, ClusterShare, Endpoint, Health, Stage, Transport, Upstream};

/// The namespace of endpoint metadata that chooses a transport socket.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Forwards to clusters by weight. `not_found` is the HTTP status for a cluster that does not exist.
pub fn forward(
    resources: &ProxyResources,
    shares: Vec<(String, u32)>,
    not_found: Option<u16>,
) -> Result<Action, Action> {
    let shares: Vec<ClusterShare> = shares
        .into_iter()
        .map(|(name, weight)| ClusterShare { upstream: upstream(resources, &name), name, weight })
        .collect();
    if let [only] = shares.as_slice() {
        if only.upstream == Upstream::Missing {
            let reason = format!("cluster {} does not exist", only.name);
            return Err(Action::blocked(Stage::Cluster, not_found, reason));
        }
        // Static and empty: Istio's way to say no. An empty EDS cluster may have endpoints a moment later.
        let is_static = decode::cluster(resources, &only.name).is_some_and(|cluster| {
            cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32))
                || cluster.cluster_discovery_type.is_none()
        });
        if is_static && only.upstream == Upstream::Endpoints(Vec::new()) {
            let reason = format!("cluster {} has no endpoints and never will", only.name);
            return Err(Action::blocked(Stage::Cluster, not_found, reason));
        }
    }
    Ok(Action::Forward(shares))
}

fn upstream(resources: &ProxyResources, name: &str) -> Upstream {
    let Some(cluster) = decode::cluster(resources, name) else { return Upstream::Missing };
    let assignment = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(ty)) if *ty == DiscoveryType::OriginalDst as i32 => {
            return Upstream::OriginalDestination;
        }
        Some(ClusterDiscoveryType::Type(ty)) if *ty == DiscoveryType::Eds as i32 => {
            let eds = cluster.eds_cluster_config.as_ref().map_or("", |config| &config.service_name);
            decode::load_assignment(resources, if eds.is_empty() { name } else { eds })
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) if custom.name.contains("dynamic_forward_proxy") => {
            return Upstream::RequestHost;
        }
        _ => cluster.load_assignment.clone(),
    };
    Upstream::Endpoints(assignment.map(|found| list(&cluster, &found)).unwrap_or_default())
}

fn list(cluster: &Cluster, assignment: &ClusterLoadAssignment) -> Vec<Endpoint> {
    let mut list: Vec<Endpoint> = Vec::new();
    for group in &assignment.endpoints {
        let locality = group.locality.as_ref().map(locality).unwrap_or_default();
        for endpoint in &group.lb_endpoints {
            list.push(Endpoint {
                address: address(endpoint),
                priority: group.priority,
                locality: locality.clone(),
                health: health(endpoint.health_status),
                weight: endpoint.load_balancing_weight.unwrap_or(1),
                transport: transport(cluster, endpoint),
            });
        }
    }
    list.sort_by(|a, b| (a.priority, &a.locality, &a.address).cmp(&(b.priority, &b.locality, &b.address)));
    list
}

fn locality(locality: &Locality) -> String {
    let parts = [locality.region.as_str(), &locality.zone, &locality.sub_zone];
    parts.join("/").trim_end_matches('/').to_owned()
}

/// `HealthStatus`: 0 and 1 are usable, 3 drains, 5 is degraded.
const fn health(status: i32) -> Health {
    match status {
        0 | 1 => Health::Usable,
        3 => Health::Draining,
        5 => Health::Degraded,
        _ => Health::Unhealthy,
    }
}

fn address(endpoint: &LbEndpoint) -> String {
    match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref().map(text).unwrap_or_default(),
        Some(HostIdentifier::EndpointName(name)) => name.clone(),
        None => String::new(),
    }
}

fn text(address: &Address) -> String {
    match &address.address {
        Some(AddressKind::SocketAddress(socket)) => {
            let port = match &socket.port_specifier {
                Some(PortSpecifier::PortValue(port)) => port.to_string(),
                Some(PortSpecifier::NamedPort(name)) => name.clone(),
                None => "0".to_owned(),
            };
            if socket.address.contains(':') {
                format!("[{}]:{port}", socket.address)
            } else {
                format!("{}:{port}", socket.address)
            }
        }
        Some(AddressKind::Pipe(pipe)) => pipe.path.clone(),
        Some(AddressKind::EnvoyInternalAddress(_)) => "internal".to_owned(),
        None => String::new(),
    }
}

/// The first socket match whose values the endpoint's metadata has, else the socket of the cluster.
fn transport(cluster: &Cluster, endpoint: &LbEndpoint) -> Transport {
    let labels = endpoint.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(SOCKET_MATCH));
    let matches = cluster.transport_socket_matches.iter().find(|candidate| {
        candidate.r#match.as_ref().is_none_or(|wanted| {
            wanted
                .fields
                .iter()
                .all(|(key, value)| labels.is_some_and(|labels| labels.fields.get(key) == Some(value)))
        })
    });
    let socket = match matches {
        Some(found) => found.transport_socket.as_ref(),
        None => cluster.transport_socket.as_ref(),
    };
    socket.map(socket_kind).unwrap_or_default()
}

fn socket_kind(socket: &TransportSocket) -> Transport {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return match socket.name.as_str() {
            "" | "envoy.transport_sockets.raw_buffer" => Transport::Plain,
            name => Transport::Other(name.to_owned()),
        };
    };
    if config.message_name().ends_with(".RawBuffer") {
        return Transport::Plain;
    }
    tls(config).unwrap_or_else(|| Transport::Other(socket.name.clone()))
}

fn tls(config: &Any) -> Option<Transport> {
    let context: UpstreamTlsContext = unpack(config).ok()?;
    let client_certificate = context.common_tls_context.as_ref().is_some_and(|common| {
        !common.tls_certificate_sds_secret_configs.is_empty() || !common.tls_certificates.is_empty()
    });
    Some(Transport::Tls { sni: context.sni, client_certificate })
}

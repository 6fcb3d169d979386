//! What the world derives from configuration objects and translation reads: rules bound to hosts, workloads,
//! gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::Locality;
use navarch_model::networking::DestinationRule;
use navarch_model::service::{Protocol, Registry, Service, Visibility};
use navarch_model::{Config, Hashed, Labels, Name, ObjectKey, Precedence, SmallMap};

/// A DestinationRule with its host fully qualified and its visibility resolved, or a policy of a backend as
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BoundRule {
    /// The object that it was made from.
    pub key: ObjectKey,
    /// What other rules say of the host comes before it, field by field. (Policies of backends.)
    pub beneath: bool,
    pub config: Config<DestinationRule>,
    /// Fully qualified; may be a wildcard.
    pub host: Name,
    /// Who may use the rule: `exportTo`, the mesh's default without one, the own namespace for a rule with a
    /// selector.
    pub export_to: Visibility,
}

/// That routes of the mesh send traffic to a host: a Sidecar that imports the routes imports the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DestinationUse {
    /// The host that traffic is sent to.
    pub host: Name,
    /// Ports that are named; zero stands for "no port stated", which means all.
    pub ports: BTreeSet<u16>,
    /// Only clients in these namespaces send traffic there, if the route says so.
    pub source_namespaces: Option<BTreeSet<Name>>,
    /// Identity of the routes, and what decides whether a client imports them.
    pub precedence: Precedence,
    pub route_hosts: Vec<Name>,
    pub export_to: Visibility,
}

impl DestinationUse {
    /// The namespace of the object that has the routes.
    pub fn namespace(&self) -> &Name {
        &self.precedence.key.namespace
    }
}

/// A workload that the registry knows: a Pod, a WorkloadEntry or an endpoint written in a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadFacts {
    pub kind: WorkloadKind,
    pub namespace: Name,
    pub name: Name,
    /// Its first address is the one it was looked up by.
    pub addresses: Vec<IpAddr>,
    /// Labels of the workload and of its topology (region, zone, sub-zone, cluster, network, node).
    pub labels: Labels,
    pub locality: Locality,
    pub service_account: Name,
    pub node_name: Name,
    pub network: Name,
    /// What the workload serves, in the order that decides conflicts: oldest service first, then by host,
    /// then as declared.
    pub instances: Vec<Instance>,
}

/// What a workload is declared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    Pod,
    WorkloadEntry,
    /// An endpoint in a ServiceEntry; it has no labels as a workload.
    Endpoint,
}

/// A service port that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    pub service: Arc<Hashed<Service>>,
    /// Name, number and protocol of the service port.
    pub port_name: Name,
    pub port: u16,
    pub protocol: Protocol,
    /// The port that the workload listens on.
    pub target_port: u16,
}

impl Instance {
    /// Oldest service first, ties by host (Istio sorts a proxy's service targets so).
    pub fn order(&self) -> (i64, &str) {
        (self.service.created_at, &self.service.hostname)
    }
}

/// What clusters need to know of a service's endpoints. It changes when a new identity or mode appears, not
/// with every endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointSummary {
    /// SPIFFE identities that the endpoints and the service itself declare, sorted, including those of
    /// trust-domain aliases.
    pub identities: Vec<Name>,
    /// By name of the service port.
    pub ports: SmallMap<Name, PortSummary>,
}

/// The endpoints of one port. A port without endpoints has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortSummary {
    /// Every endpoint accepts mesh mutual TLS.
    pub all_mutual_tls: bool,
}

/// A gateway to another network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkGateway {
    /// An IP address or a host name.
    pub address: Name,
    /// Port for mutual TLS with server names that name the destination; zero if it has none.
    pub port: u16,
    /// Port for HBONE; zero if it has none.
    pub hbone_port: u16,
    pub network: Name,
    /// Cluster that declares it; empty for MeshNetworks.
    pub cluster_id: Name,
}

/// All gateways between networks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkGateways {
    /// Gateways with an IP address, sorted by address and port.
    pub by_network: BTreeMap<Name, Vec<NetworkGateway>>,
    /// The same by network and cluster.
    pub by_network_and_cluster: BTreeMap<(Name, Name), Vec<NetworkGateway>>,
    /// Least common multiple of the numbers of gateways per network: endpoint weights are multiplied with it,
    /// so that they can be split evenly among the gateways.
    pub weight_scale: u32,
}

impl Default for NetworkGateways {
    fn default() -> Self {
        NetworkGateways {
            by_network: BTreeMap::new(),
            by_network_and_cluster: BTreeMap::new(),
            weight_scale: 1,
        }
    }
}

impl NetworkGateways {
    /// Gateways of a network; empty if there are none.
    pub fn of(&self, network: &str) -> &[NetworkGateway] {
        self.by_network.get(network).map_or(&[], Vec::as_slice)
    }

    /// Gateways of a network that belong to a cluster.
    pub fn of_cluster(&self, network: &str, cluster_id: &str) -> &[NetworkGateway] {
        self.by_network_and_cluster
            .get(&(Name::from(network), Name::from(cluster_id)))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether endpoints may be on several networks.
    pub fn is_multi_network(&self) -> bool {
        !self.by_network.is_empty()
    }
}

/// A namespace's labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceFacts {
    pub labels: Labels,
    pub annotations: Labels,
}

/// The order in which services decide conflicts: oldest first, ties by name and namespace.
///
/// As in Istio, a service that a ServiceEntry declares goes by its host, since one entry may declare several.
pub fn service_order(service: &Service) -> (i64, &str, &str) {
    let name = match service.registry {
        Registry::Kubernetes => &service.name,
        Registry::ServiceEntry => &service.hostname,
    };
    (service.created_at, name, &service.namespace)
}

/// Whether all labels of `selector` are among `labels`. An empty selector selects everything.
pub fn selects<'a, K, V>(selector: impl IntoIterator<Item = (&'a K, &'a V)>, labels: &Labels) -> bool
where
    K: AsRef<str> + 'a + ?Sized,
    V: AsRef<str> + 'a + ?Sized,
{
    selector
        .into_iter()
        .all(|(key, value)| labels.get(key.as_ref()).is_some_and(|label| &**label == value.as_ref()))
}

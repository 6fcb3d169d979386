//! Endpoints (EDS): the addresses behind a port of a service, as one client should see them.
//!
//! Which endpoints a client gets depends on its network, cluster, locality and node; the narrow
//! [`EndpointView`] holds only what matters for the service at hand, so that most clients share one answer.

mod build;
pub mod locality;
mod network;
mod select;

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3 as core;
use navarch_envoy::proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
};
use navarch_envoy::{Resource, XdsType};
use navarch_model::endpoint::{Endpoint, EndpointSet, Locality};
use navarch_model::mesh::MeshConfig;
use navarch_model::networking::{DestinationRule, LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting};
use navarch_model::proxy::{IpMode, ProxyKind};
use navarch_model::service::{Service, ServicePort, TrafficDistribution};
use navarch_model::{EffectiveRule, Hashed, Labels, Name};
use prost::Message;

use crate::clusters::policy;
use crate::names;
use crate::pure::{Pure, Sealed};

pub(crate) use self::build::{mtls_match, pipe, socket, socket_address};
pub use self::network::{NetworkGateway, NetworkGateways};
pub use self::select::{keeps_sessions, topology};

/// What endpoints take from the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointView {
    pub kind: ProxyKind,
    pub ip_mode: IpMode,
    pub cluster_id: Name,
    pub network: Name,
    /// Networks that the client asked to see; empty: all.
    pub network_view: Vec<Name>,
    /// Where the client runs; unknown if nothing depends on it.
    pub locality: Locality,
    /// Those labels of the client that priorities are made of.
    pub labels: Labels,
    /// The client's node, if the service is node-local or prefers the same node.
    pub node_name: Name,
}

/// What endpoints take from MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointMesh {
    pub locality_lb: Option<LocalityLoadBalancerSetting>,
    pub zone_aware_lb: Option<ZoneAwareLoadBalancerSetting>,
    /// The mesh-wide default policy detects outliers, which makes failover possible for addresses that
    /// clusters carry.
    pub outlier_detection: bool,
}

/// Whether the answer for a service depends on the client's node.
pub fn needs_node(service: &Service) -> bool {
    service.node_local || service.traffic_distribution == TrafficDistribution::PreferSameNode
}

impl EndpointMesh {
    /// Cuts the settings out of MeshConfig.
    pub fn of(mesh: &MeshConfig) -> Self {
        EndpointMesh {
            locality_lb: mesh.locality_lb_setting.clone(),
            zone_aware_lb: mesh.zone_aware_lb_setting.clone(),
            outlier_detection: mesh
                .default_traffic_policy
                .as_ref()
                .is_some_and(|policy| policy.outlier_detection.is_some()),
        }
    }
}

/// Where the endpoints of a service come from, and who looks at them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSources {
    pub endpoints: Arc<Hashed<EndpointSet>>,
    /// Positions in `endpoints` of those whose PeerAuthentication switches mutual TLS off, ascending.
    pub plaintext: Vec<u32>,
    /// Only endpoints in the client's cluster count (`serviceSettings.clusterLocal`).
    pub cluster_local: bool,
    pub gateways: Arc<Hashed<NetworkGateways>>,
    pub mesh: Arc<Hashed<EndpointMesh>>,
    pub view: EndpointView,
}

/// A port of a service for which endpoints are wanted: of the port itself and of every subset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointsInput {
    pub service: Arc<Hashed<Service>>,
    pub port: u16,
    pub rule: Option<Arc<Hashed<EffectiveRule>>>,
    pub sources: EndpointSources,
    /// Also for the clusters to which a gateway forwards mesh TLS without terminating it.
    pub sni_clusters: bool,
}

/// Endpoints of a port of a service and of its subsets, an assignment for each cluster that asks for one over
/// EDS.
pub struct Endpoints;

impl Sealed for Endpoints {}

impl Pure for Endpoints {
    const NAME: &'static str = "endpoints.assignments";
    type Input = EndpointsInput;
    type Output = Vec<Arc<Resource>>;

    fn run(input: &EndpointsInput) -> Vec<Arc<Resource>> {
        let mut encoded: Vec<_> = assignments(input)
            .into_iter()
            .map(|(name, assignment)| {
                Arc::new(Resource::of(XdsType::Eds, name.as_str(), &assignment.encode_to_vec()))
            })
            .collect();
        // Collecting reuses the memory of the messages, many times what the result needs.
        encoded.shrink_to_fit();
        encoded
    }
}

/// The assignments by cluster name, before they are encoded.
pub fn assignments(input: &EndpointsInput) -> Vec<(String, ClusterLoadAssignment)> {
    let Some(port) = input.service.ports.iter().find(|port| port.port == input.port) else {
        return Vec::new();
    };
    let rule = input.rule.as_ref().map(|rule| &rule.spec);
    if !uses_eds(&input.service, input.sources.view.kind, rule, input.port, "") {
        return Vec::new();
    }
    let subsets: Vec<&str> = std::iter::once("")
        .chain(rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str()))
        .filter(|subset| uses_eds(&input.service, input.sources.view.kind, rule, input.port, subset))
        .collect();
    let mut modes = vec![Mode::Outbound];
    if input.sni_clusters {
        modes.push(Mode::Sni);
    }
    let mut out = Vec::new();
    for mode in modes {
        for subset in &subsets {
            let name = mode.cluster_name(input.port, subset, &input.service.hostname);
            let groups = Selection {
                service: &input.service,
                port,
                rule: input.rule.as_deref().map(|rule| &**rule),
                subset,
                mode,
                dns: false,
                sources: &input.sources,
            }
            .groups();
            out.push((name.clone(), assignment(name, groups)));
        }
    }
    out
}

/// Whether a cluster gets its endpoints over EDS. Subsets are of the type that the rule gives to the service
/// as a whole.
fn uses_eds(
    service: &Service,
    kind: ProxyKind,
    rule: Option<&DestinationRule>,
    port: u16,
    subset: &str,
) -> bool {
    crate::clusters::discovery(service, kind) == crate::clusters::Discovery::Eds
        && !policy::of_subset(rule, port, subset).is_passthrough()
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Calls to a service.
    Outbound,
    /// Connections of mesh TLS that are forwarded by server name and not terminated (`AUTO_PASSTHROUGH`).
    Sni,
}

impl Mode {
    /// The name of the cluster.
    pub fn cluster_name(self, port: u16, subset: &str, host: &str) -> String {
        match self {
            Mode::Outbound => names::outbound(port, subset, host),
            Mode::Sni => names::sni(port, subset, host),
        }
    }
}

/// The endpoints of one cluster.
pub(crate) struct Selection<'a> {
    pub service: &'a Service,
    pub port: &'a ServicePort,
    pub rule: Option<&'a EffectiveRule>,
    pub subset: &'a str,
    pub mode: Mode,
    /// The cluster resolves names itself, so names are welcome.
    pub dns: bool,
    pub sources: &'a EndpointSources,
}

impl<'a> Selection<'a> {
    /// Endpoints by locality, with priorities and weights as this client should see them.
    pub fn groups(&self) -> Vec<Group<'a>> {
        let groups = self.unprioritised();
        let rule = self.rule.map(|rule| &rule.spec);
        let policy = policy::of_subset(rule, self.port.port, self.subset);
        // The mesh-wide default policy has no say here: only a DestinationRule's outlier detection enables
        // failover in EDS.
        match locality::effective(&self.sources.mesh, policy.load_balancer, self.service) {
            Some(setting) => setting.apply(groups, &self.sources.view, policy.outlier_detection.is_some()),
            None => groups,
        }
    }

    /// Endpoints by locality, before priorities and weights are set.
    pub fn unprioritised(&self) -> Vec<Group<'a>> {
        let groups = self.by_locality();
        let groups = self.through_gateways(groups);
        match self.mode {
            Mode::Outbound => groups,
            // A gateway that does not terminate TLS cannot tell mesh TLS from other traffic; sending it only
            // to endpoints that insist on a certificate keeps everything else out.
            Mode::Sni => groups.into_iter().map(Group::only_mtls).collect(),
        }
    }
}

/// Endpoints of one locality and one priority.
#[derive(Clone, Debug)]
pub(crate) struct Group<'a> {
    pub locality: Locality,
    pub priority: u32,
    pub weight: Option<u32>,
    pub members: Vec<Member<'a>>,
}

/// An endpoint as Envoy will see it, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub endpoint: LbEndpoint,
    pub source: Source<'a>,
}

/// What an endpoint stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Workload(&'a Endpoint),
    /// The workloads of another network.
    Gateway(&'a NetworkGateway),
}

impl Member<'_> {
    fn weight(&self) -> u32 {
        self.endpoint.load_balancing_weight.unwrap_or(0)
    }
}

impl Group<'_> {
    /// The weight of a locality is the sum of its members'; a locality without members has none.
    fn sum_weights(&mut self) {
        self.weight = (!self.members.is_empty())
            .then(|| self.members.iter().fold(0, |sum: u32, member| sum.saturating_add(member.weight())));
    }

    fn only_mtls(mut self) -> Self {
        self.members.retain(|member| build::is_mtls(&member.endpoint));
        self.sum_weights();
        self
    }

    /// As Envoy wants it.
    pub fn into_proto(self) -> LocalityLbEndpoints {
        LocalityLbEndpoints {
            locality: Some(core::Locality {
                region: self.locality.region.to_string(),
                zone: self.locality.zone.to_string(),
                sub_zone: self.locality.sub_zone.to_string(),
            }),
            lb_endpoints: self.members.into_iter().map(|member| member.endpoint).collect(),
            load_balancing_weight: self.weight,
            priority: self.priority,
            ..LocalityLbEndpoints::default()
        }
    }
}

/// An assignment; without endpoints it is empty but still there, because Envoy waits for one.
pub(crate) fn assignment(cluster_name: String, groups: Vec<Group<'_>>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name,
        endpoints: groups.into_iter().map(Group::into_proto).collect(),
        ..ClusterLoadAssignment::default()
    }
}

#[cfg(test)]
mod tests;

//! Endpoints (EDS): the addresses behind a port of a service, as one client should see them.
//!
//! Which endpoints a client gets depends on its network, cluster, locality and node; the narrow
//! [`EndpointView`] holds only what matters for the service at hand, so that most clients share one answer.

mod build;
mod gateways;
pub mod locality;
mod network;
mod select;
mod selection;
mod view;

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use navarch_envoy::{Resource, XdsType};
use navarch_model::networking::DestinationRule;
use navarch_model::proxy::ProxyKind;
use navarch_model::service::Service;
use navarch_model::{EffectiveRule, Hashed};
use prost::Message;

use crate::clusters::policy;
use crate::pure::{Pure, Sealed};

pub(crate) use self::build::{mtls_match, pipe, socket, socket_address};
pub use self::gateways::{NetworkGateway, NetworkGateways};
pub use self::select::{keeps_sessions, topology};
pub use self::selection::{EndpointSources, Mode};
pub(crate) use self::selection::{Group, Selection};
pub use self::view::{EndpointMesh, EndpointView, needs_node};

/// A port of a service for which endpoints are wanted: of the port itself and of every subset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointsInput {
    pub service: Arc<Hashed<Service>>,
    pub port: u16,
    pub rule: Option<Arc<Hashed<EffectiveRule>>>,
    pub sources: EndpointSources,
    /// Also for the clusters to which a gateway forwards mesh TLS without terminating it.
    pub sni_clusters: bool,
    /// The port is one for datagrams (UDP).
    pub datagrams: bool,
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
    let Some(port) = input.service.port(input.port, input.datagrams) else { return Vec::new() };
    let rule = input.rule.as_ref().map(|rule| &rule.spec);
    if !uses_eds(&input.service, input.sources.view.kind, rule, input.port, "") {
        return Vec::new();
    }
    let subsets: Vec<&str> = std::iter::once("")
        .chain(rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str()))
        .filter(|subset| uses_eds(&input.service, input.sources.view.kind, rule, input.port, subset))
        .collect();
    let modes: &[Mode] = match (input.datagrams, input.sni_clusters) {
        (true, _) => &[Mode::Datagrams],
        (false, true) => &[Mode::Outbound, Mode::Sni],
        (false, false) => &[Mode::Outbound],
    };
    let subsets = if input.datagrams { vec![""] } else { subsets };
    let mut out = Vec::new();
    for mode in modes.iter().copied() {
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
        if self.mode == Mode::Datagrams {
            // Gateways between networks pass on mesh TLS only.
            return groups;
        }
        let groups = self.through_gateways(groups);
        match self.mode {
            Mode::Outbound | Mode::Datagrams => groups,
            // A gateway that does not terminate TLS cannot tell mesh TLS from other traffic; sending it only
            // to endpoints that insist on a certificate keeps everything else out.
            Mode::Sni => groups.into_iter().map(Group::only_mtls).collect(),
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

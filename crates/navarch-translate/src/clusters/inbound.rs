//! The cluster of a port of the proxy's own workload.

use std::net::IpAddr;
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use navarch_envoy::proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress};
use navarch_envoy::proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use navarch_envoy::proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use navarch_envoy::wkt;
use navarch_model::networking::{ConnectionPoolSettings, PatchContext};
use navarch_model::proxy::IpMode;
use navarch_model::service::{Protocol, Service};
use navarch_model::{EffectiveRule, Hashed, Name};

use super::policy::Policy;
use super::{
    ClusterMesh, ClusterPatches, ClusterView, Clusters, Draft, encode, metadata, pool, stat_name_of,
};
use crate::endpoints::{pipe, socket, socket_address};
use crate::names;
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// Addresses of the loopback interface from which the proxy calls its own workload: rules that redirect
/// traffic to the proxy leave connections from them alone.
const SOURCE_V4: &str = "127.0.0.6";
const SOURCE_V6: &str = "::6";

/// The longest interval that Envoy accepts, about 292 years: connections to the own workload are never
/// cleaned up.
const NEVER_SECONDS: i64 = 9_223_372_035;

/// A port of the workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundInput {
    /// The port that the cluster is named after.
    pub port: u32,
    pub target: InboundTarget,
    /// Port of the first service behind the port of the workload, or of the Sidecar's listener.
    pub service_port: u32,
    pub service_port_name: String,
    pub protocol: Protocol,
    /// Services that the port of the workload backs, oldest first, with their port; none for a listener that
    /// only a Sidecar declares.
    pub services: Vec<(Arc<Hashed<Service>>, u32)>,
    /// The rule for the first service: servers need the limits that clients have.
    pub rule: Option<Arc<Hashed<EffectiveRule>>>,
    /// Connection pool of the Sidecar, which wins over the rule's.
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub mesh: Arc<Hashed<ClusterMesh>>,
    pub view: ClusterView,
    pub patches: ClusterPatches,
}

/// Where inbound traffic is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InboundTarget {
    /// The address that the client dialled.
    OriginalDestination,
    Address(IpAddr, u32),
    /// The path of a Unix domain socket.
    Unix(String),
}

/// The cluster of a port of the workload; nothing if an EnvoyFilter removes it.
pub struct Inbound;

impl Sealed for Inbound {}

impl Pure for Inbound {
    const NAME: &'static str = "clusters.inbound";
    type Input = InboundInput;
    type Output = Clusters;

    fn run(input: &InboundInput) -> Clusters {
        let hosts: Vec<Name> = input.services.iter().map(|(service, _)| service.hostname.clone()).collect();
        encode(vec![inbound_cluster(input)], &input.patches, PatchContext::SidecarInbound, &hosts)
    }

    fn fates(output: &Clusters) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// The cluster before it is encoded.
pub fn inbound_cluster(input: &InboundInput) -> Cluster {
    let name = names::inbound(input.port);
    let mut draft = match &input.target {
        InboundTarget::OriginalDestination => original_destination(name),
        InboundTarget::Address(address, port) => to_address(name, socket(address.to_string(), *port)),
        InboundTarget::Unix(path) => to_address(name, pipe(path)),
    };
    pool::protocol(&mut draft, input.protocol, &input.view);
    describe(&mut draft, input);
    // Of a rule, only the connection pool makes sense on the receiving side.
    let mut policy = Policy::default();
    let traffic_policy = input.rule.as_ref().and_then(|rule| rule.spec.traffic_policy.as_ref());
    if let Some(port) = u16::try_from(input.service_port).ok().filter(|_| traffic_policy.is_some()) {
        policy = Policy::of_port(traffic_policy, port);
        let source = input.rule.as_ref().and_then(|rule| rule.sources.first());
        if let (Some(source), true) = (source, draft.cluster.metadata.is_some()) {
            metadata::rule(&mut draft, source);
        }
    }
    let policy = policy.with_defaults(&input.mesh);
    let connection_pool = input.connection_pool.as_ref().or(policy.connection_pool);
    pool::apply(&mut draft, &input.mesh, connection_pool, policy.retry_budget);
    if draft.is_original_dst() {
        draft.cluster.lb_policy = LbPolicy::ClusterProvided as i32;
    }
    if !is_loopback(&input.target) {
        draft.cluster.upstream_bind_config = Some(source_addresses(input.view.ip_mode));
    }
    draft.finish()
}

fn original_destination(name: String) -> Draft {
    let mut draft = Draft::new(name, DiscoveryType::OriginalDst);
    draft.cluster.cleanup_interval = Some(never());
    draft
}

fn to_address(name: String, address: navarch_envoy::proto::envoy::config::core::v3::Address) -> Draft {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let mut draft = Draft::new(name, DiscoveryType::Static);
    draft.cluster.load_assignment = Some(ClusterLoadAssignment {
        cluster_name: draft.cluster.name.clone(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    });
    draft
}

/// Metadata and the name in statistics.
fn describe(draft: &mut Draft, input: &InboundInput) {
    let Some((first, _)) = input.services.first() else { return };
    if !first.mesh_external {
        let mut seen = std::collections::BTreeSet::new();
        let services: Vec<&Service> = input
            .services
            .iter()
            .filter(|(service, port)| *port == input.service_port && seen.insert(&*service.hostname))
            .map(|(service, _)| &***service)
            .collect();
        metadata::services(draft, services);
    }
    let pattern = &input.mesh.inbound_stat_name;
    if !pattern.is_empty() {
        draft.cluster.alt_stat_name =
            stat_name_of(pattern, first, "", input.service_port, &input.service_port_name, input.port);
    }
}

fn is_loopback(target: &InboundTarget) -> bool {
    matches!(target, InboundTarget::Address(address, _) if address.is_loopback())
}

fn never() -> wkt::Duration {
    wkt::Duration { seconds: NEVER_SECONDS, nanos: 0 }
}

/// Source addresses for calls to the own workload, one per family: Envoy picks the one of the destination's.
pub(super) fn source_addresses(mode: IpMode) -> BindConfig {
    let (first, second) = match mode {
        IpMode::V4 => (SOURCE_V4, None),
        IpMode::V6 => (SOURCE_V6, None),
        IpMode::Dual => (SOURCE_V4, Some(SOURCE_V6)),
    };
    BindConfig {
        source_address: Some(socket_address(first.to_owned(), 0)),
        extra_source_addresses: second
            .into_iter()
            .map(|address| ExtraSourceAddress {
                address: Some(socket_address(address.to_owned(), 0)),
                ..ExtraSourceAddress::default()
            })
            .collect(),
        ..BindConfig::default()
    }
}

//! Clusters (CDS): what a proxy knows of each upstream.
//!
//! [`Outbound`] makes the clusters of one port of a service (itself and its subsets), [`Inbound`] the one of
//! a port of the proxy's own workload, [`Fixed`] those that every proxy of a kind has.

mod balancer;
mod draft;
mod fixed;
mod inbound;
mod metadata;
mod outbound;
mod outlier;
mod patch;
pub mod policy;
mod pool;
mod transport;
mod view;

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use navarch_envoy::{Resource, XdsType};
use navarch_model::networking::{
    DestinationRule, LoadBalancerSettings, PatchContext, SimpleLb, TrafficPolicy,
};
use navarch_model::proxy::{IpMode, ProxyKind};
use navarch_model::service::{Resolution, Service};
use navarch_model::{Hashed, Name};
use prost::Message;

use crate::patching::{Fates, Patched};

pub use self::draft::stat_pattern;
use self::draft::{Draft, stat_name, stat_name_of};
pub use self::fixed::{Fixed, FixedInput, NameServer, unknown_hosts_cache};
pub use self::inbound::{Inbound, InboundInput, InboundTarget};
pub use self::outbound::{Outbound, OutboundInput, ServiceIdentity, outbound_clusters};
pub use self::patch::ClusterPatch;
pub use self::view::{ClusterMesh, ClusterView};

/// Changes that EnvoyFilters make to the clusters of a client, in the order in which they are made.
pub type ClusterPatches = Arc<Hashed<Vec<ClusterPatch>>>;

/// How Envoy finds the addresses of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    Eds,
    StrictDns,
    LogicalDns,
    OriginalDst,
    /// Resolves the name of each request.
    DynamicForwardProxy,
    /// No cluster: the host is another name for another service.
    Alias,
}

/// How Envoy finds the addresses of a service. A policy with the PASSTHROUGH load balancer overrides it.
pub fn discovery(service: &Service, kind: ProxyKind) -> Discovery {
    match service.resolution {
        Resolution::ClientSide => Discovery::Eds,
        Resolution::Dns if service.dns_race_first_tcp_connect => Discovery::LogicalDns,
        Resolution::Dns => Discovery::StrictDns,
        Resolution::DnsRoundRobin => Discovery::LogicalDns,
        // Nobody has dialled an address at a gateway.
        Resolution::Passthrough if kind == ProxyKind::Router => Discovery::Eds,
        Resolution::Passthrough => Discovery::OriginalDst,
        Resolution::DynamicDns if service.hostname.starts_with('*') => Discovery::DynamicForwardProxy,
        Resolution::DynamicDns => Discovery::Eds,
        Resolution::Alias => Discovery::Alias,
    }
}

/// Whether some cluster of the service may send to the address that the application dialled, without knowing
/// the endpoints.
pub fn takes_dialled_address(service: &Service, rule: Option<&DestinationRule>) -> bool {
    let passthrough = |balancer: &Option<LoadBalancerSettings>| {
        balancer.as_ref().is_some_and(|balancer| policy::simple(balancer) == SimpleLb::Passthrough)
    };
    let in_policy = |policy: &TrafficPolicy| {
        passthrough(&policy.load_balancer)
            || policy.port_level_settings.iter().any(|port| passthrough(&port.load_balancer))
    };
    service.resolution == Resolution::Passthrough
        || rule.is_some_and(|rule| {
            let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
            rule.traffic_policy.iter().chain(subsets).any(in_policy)
        })
}

/// Which families names are resolved to.
pub(crate) fn lookup_family(mode: IpMode) -> DnsLookupFamily {
    match mode {
        IpMode::V4 => DnsLookupFamily::V4Only,
        IpMode::V6 => DnsLookupFamily::V6Only,
        IpMode::Dual => DnsLookupFamily::All,
    }
}

/// Encoded clusters, and what became of the patches.
pub type Clusters = Patched<Vec<Arc<Resource>>>;

/// Patched, if there are patches, and encoded.
fn encode(
    clusters: Vec<Cluster>,
    patches: &[ClusterPatch],
    context: PatchContext,
    hosts: &[Name],
) -> Clusters {
    encoded(clusters.into_iter().map(|cluster| patch::apply(cluster, patches, context, hosts)))
}

/// Encoded, with what became of the patches of each.
fn encoded(clusters: impl Iterator<Item = (Option<Cluster>, Fates)>) -> Clusters {
    let mut fates = Fates::default();
    let mut encoded = Vec::new();
    for (cluster, of_cluster) in clusters {
        fates.extend(of_cluster);
        let resource = |cluster: Cluster| {
            Arc::new(Resource::of(XdsType::Cds, cluster.name.as_str(), &cluster.encode_to_vec()))
        };
        encoded.extend(cluster.map(resource));
    }
    encoded.shrink_to_fit();
    Patched::new(encoded, fates)
}

/// The context of EnvoyFilters for calls that a proxy makes.
fn outbound_context(kind: ProxyKind) -> PatchContext {
    match kind {
        ProxyKind::Router => PatchContext::Gateway,
        _ => PatchContext::SidecarOutbound,
    }
}

#[cfg(test)]
mod tests;

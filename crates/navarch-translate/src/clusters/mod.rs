//! Clusters (CDS): what a proxy knows of each upstream.
//!
//! [`Outbound`] makes the clusters of one port of a service (itself and its subsets), [`Inbound`] the one of a port of the
//! proxy's own workload, [`Fixed`] those that every proxy of a kind has.

mod balancer;
mod fixed;
mod inbound;
mod metadata;
mod outbound;
mod outlier;
mod patch;
pub mod policy;
mod pool;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily,
};
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use navarch_envoy::{Resource, XdsType, any::any};
use navarch_model::mesh::{H2UpgradePolicy, InboundTrafficPolicyMode, MeshConfig, TlsConfig};
use navarch_model::networking::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection,
    PatchContext, SimpleLb, TcpKeepalive, TrafficPolicy,
};
use navarch_model::proxy::{CertificateFiles, IpMode, ProxyKind};
use navarch_model::service::{Registry, Resolution, Service};
use navarch_model::{Hashed, Name};
use prost::Message;

pub use self::fixed::{Fixed, FixedInput, NameServer, unknown_hosts_cache};
pub use self::inbound::{Inbound, InboundInput, InboundTarget};
pub use self::outbound::{Outbound, OutboundInput, ServiceIdentity, outbound_clusters};
pub use self::patch::ClusterPatch;

/// What clusters take from MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterMesh {
    pub connect_timeout: Option<Duration>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub dns_refresh_rate: Option<Duration>,
    /// Ports declared as HTTP are spoken to in HTTP/2.
    pub h2_upgrade: bool,
    pub auto_mtls: bool,
    pub default_connection_pool: Option<ConnectionPoolSettings>,
    pub default_outlier_detection: Option<OutlierDetection>,
    pub inbound_stat_name: String,
    pub outbound_stat_name: String,
    pub tls_defaults: Option<TlsConfig>,
    /// Inbound traffic goes to the loopback address instead of the address that the client dialled.
    pub inbound_to_localhost: bool,
    /// TLS to destinations of which nothing is known (`outboundTrafficPolicy.tls`).
    pub unknown_destination_tls: Option<ClientTlsSettings>,
}

impl ClusterMesh {
    /// Cuts the settings out of MeshConfig.
    pub fn of(mesh: &MeshConfig) -> Self {
        let default_policy = mesh.default_traffic_policy.as_ref();
        ClusterMesh {
            connect_timeout: mesh.connect_timeout,
            tcp_keepalive: mesh.tcp_keepalive.clone(),
            dns_refresh_rate: mesh.dns_refresh_rate,
            h2_upgrade: mesh.h2_upgrade_policy == H2UpgradePolicy::Upgrade,
            auto_mtls: mesh.enable_auto_mtls == Some(true),
            default_connection_pool: default_policy.and_then(|policy| policy.connection_pool.clone()),
            default_outlier_detection: default_policy.and_then(|policy| policy.outlier_detection.clone()),
            inbound_stat_name: mesh.inbound_cluster_stat_name.clone(),
            outbound_stat_name: mesh.outbound_cluster_stat_name.clone(),
            tls_defaults: mesh.tls_defaults.clone(),
            inbound_to_localhost: mesh
                .inbound_traffic_policy
                .as_ref()
                .is_some_and(|policy| policy.mode == InboundTrafficPolicyMode::Localhost),
            unknown_destination_tls: mesh
                .outbound_traffic_policy
                .as_ref()
                .and_then(|policy| policy.tls.clone()),
        }
    }
}

/// What clusters take from the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterView {
    pub kind: ProxyKind,
    pub ip_mode: IpMode,
    /// `proxyHeaders.preserveHttp1HeaderCase` of the proxy's own configuration.
    pub preserve_header_case: bool,
    /// Certificates that the proxy was started with, in place of mesh certificates.
    pub client_certificates: Option<CertificateFiles>,
}

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

/// Whether some cluster of the service may send to the address that the application dialled, without knowing the endpoints.
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

/// A cluster being made, with the HTTP options that Envoy wants packed inside.
#[derive(Clone, Debug, Default)]
struct Draft {
    cluster: Cluster,
    http: Option<HttpProtocolOptions>,
    /// Resolves the name of each request.
    dynamic: bool,
}

impl Draft {
    fn new(name: String, discovery: DiscoveryType) -> Self {
        Draft {
            cluster: Cluster {
                alt_stat_name: stat_name(&name),
                name,
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery as i32)),
                common_lb_config: Some(CommonLbConfig::default()),
                ..Cluster::default()
            },
            ..Draft::default()
        }
    }

    fn http(&mut self) -> &mut HttpProtocolOptions {
        self.http.get_or_insert_with(HttpProtocolOptions::default)
    }

    fn common_lb(&mut self) -> &mut CommonLbConfig {
        self.cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default)
    }

    fn discovery_type(&self) -> Option<DiscoveryType> {
        match self.cluster.cluster_discovery_type {
            Some(ClusterDiscoveryType::Type(discovery)) => DiscoveryType::try_from(discovery).ok(),
            _ => None,
        }
    }

    fn is_original_dst(&self) -> bool {
        self.discovery_type() == Some(DiscoveryType::OriginalDst)
    }

    fn finish(self) -> Cluster {
        let Draft { mut cluster, http, .. } = self;
        if let Some(http) = http {
            cluster
                .typed_extension_protocol_options
                .insert(pool::HTTP_OPTIONS.to_owned(), any(&pool::with_version(http)));
        }
        cluster
    }
}

/// The name of a cluster in statistics. The delimiter ends it, so that tags can be extracted from names with dots.
fn stat_name(name: &str) -> String {
    format!("{name};")
}

/// A pattern of `outboundClusterStatName` or `inboundClusterStatName`, filled in.
fn stat_name_of(
    pattern: &str,
    service: &Service,
    subset: &str,
    port: u32,
    port_name: &str,
    target_port: u32,
) -> String {
    stat_name(&stat_pattern(pattern, service, subset, port, port_name, target_port))
}

/// A pattern for names of statistics (`outboundClusterStatName`, `inboundClusterStatName`), filled in.
pub fn stat_pattern(
    pattern: &str,
    service: &Service,
    subset: &str,
    port: u32,
    port_name: &str,
    target_port: u32,
) -> String {
    let kubernetes = service.registry == Registry::Kubernetes;
    let short = if kubernetes {
        format!("{}.{}", service.name, service.namespace)
    } else {
        service.hostname.to_string()
    };
    let name = if kubernetes { &service.name } else { &service.hostname };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", name)
        .replace("%SERVICE_FQDN%", &service.hostname)
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target_port.to_string())
        .replace("%SERVICE_PORT%", &port.to_string())
        .replace("%SERVICE_PORT_NAME%", port_name)
}

/// Which families names are resolved to.
pub(crate) fn lookup_family(mode: IpMode) -> DnsLookupFamily {
    match mode {
        IpMode::V4 => DnsLookupFamily::V4Only,
        IpMode::V6 => DnsLookupFamily::V6Only,
        IpMode::Dual => DnsLookupFamily::All,
    }
}

/// Patched, if there are patches, and encoded.
fn encode(
    clusters: Vec<Cluster>,
    patches: &[ClusterPatch],
    context: PatchContext,
    hosts: &[Name],
) -> Vec<Arc<Resource>> {
    let clusters = clusters.into_iter().filter_map(|cluster| patch::apply(cluster, patches, context, hosts));
    let mut encoded: Vec<_> = clusters
        .map(|cluster| Arc::new(Resource::of(XdsType::Cds, cluster.name.as_str(), &cluster.encode_to_vec())))
        .collect();
    // Collecting reuses the memory of the messages, a hundred times what the result needs.
    encoded.shrink_to_fit();
    encoded
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

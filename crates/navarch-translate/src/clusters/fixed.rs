//! Clusters that every proxy of a kind has.

use std::net::SocketAddr;
use std::sync::Arc;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbPolicy,
};
use navarch_envoy::proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use navarch_envoy::proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use navarch_envoy::proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use navarch_envoy::proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use navarch_envoy::wkt;
use navarch_model::Hashed;
use navarch_model::networking::{ClientTlsMode, PatchContext};
use navarch_model::proxy::{IpMode, ProxyKind};

use super::draft::HTTP_OPTIONS;
use super::inbound::source_addresses;
use super::outbound::{dynamic_draft, resolver};
use super::{
    ClusterMesh, ClusterPatches, ClusterView, Clusters, Draft, encoded, lookup_family, outbound_context,
    patch, pool, stat_name, transport,
};
use crate::endpoints::{pipe, socket};
use crate::names;
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// Hosts that the cache of resolved names holds for unknown destinations: Envoy's default,
/// made visible.
const UNKNOWN_HOSTS_MAX: u32 = 1024;
/// Where a server of secrets on the proxy's machine listens.
const CREDENTIAL_SOCKET: &str = "./var/run/secrets/credential-uds/socket";

/// What the fixed clusters depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FixedInput {
    pub mesh: Arc<Hashed<ClusterMesh>>,
    pub view: ClusterView,
    /// HTTP to unknown destinations is resolved by name (`ALLOW_ANY_DYNAMIC_DNS`), by this name server if one
    /// is stated.
    pub dynamic_dns: Option<NameServer>,
    /// A server of secrets runs beside the proxy.
    pub external_secrets: bool,
    pub patches: ClusterPatches,
}

/// Who resolves names of unknown destinations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameServer {
    /// Envoy's own choice.
    Default,
    /// The name server of the mesh that runs beside the proxy.
    Local(SocketAddr),
}

/// Clusters for unknown destinations, and for secrets.
pub struct Fixed;

impl Sealed for Fixed {}

impl Pure for Fixed {
    const NAME: &'static str = "clusters.fixed";
    type Input = FixedInput;
    type Output = Clusters;

    fn run(input: &FixedInput) -> Clusters {
        let patches = &input.patches;
        let outbound = outbound_context(input.view.kind);
        let patched = |cluster, context| patch::apply(cluster, patches, context, &[]);
        let mut clusters: Vec<_> =
            outbound_clusters(input).into_iter().map(|cluster| patched(cluster, outbound)).collect();
        clusters.extend(patch::added(patches, outbound));
        if input.view.kind == ProxyKind::Sidecar {
            let inbound = PatchContext::SidecarInbound;
            clusters.push(patched(inbound_passthrough(input), inbound));
            clusters.extend(patch::added(patches, inbound));
        }
        if input.external_secrets {
            clusters.push((Some(external_secrets(&input.mesh)), Fates::default()));
        }
        encoded(clusters.into_iter())
    }

    fn fates(output: &Clusters) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// Where calls to unknown destinations go.
fn outbound_clusters(input: &FixedInput) -> Vec<Cluster> {
    let mut clusters = vec![black_hole(&input.mesh)];
    if input.view.kind == ProxyKind::Sidecar {
        clusters.push(passthrough(input).finish());
        clusters.extend(input.dynamic_dns.as_ref().map(|server| by_name(input, server)));
    }
    clusters
}

/// Has no endpoints, so whatever is sent to it fails.
fn black_hole(mesh: &ClusterMesh) -> Cluster {
    Cluster {
        name: names::BLACK_HOLE.to_owned(),
        alt_stat_name: stat_name(names::BLACK_HOLE),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: mesh.connect_timeout.map(wkt::duration),
        lb_policy: LbPolicy::RoundRobin as i32,
        ..Cluster::default()
    }
}

/// Sends to the address that the application dialled. Of the mesh-wide default policy only the connection
/// pool counts: there are no endpoints to choose from that could be ejected.
fn passthrough(input: &FixedInput) -> Draft {
    let mut draft = Draft {
        cluster: Cluster {
            name: names::PASSTHROUGH.to_owned(),
            alt_stat_name: stat_name(names::PASSTHROUGH),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
            lb_policy: LbPolicy::ClusterProvided as i32,
            ..Cluster::default()
        },
        http: Some(pool::unknown_destination(&input.view)),
        dynamic: false,
    };
    let mesh = &**input.mesh;
    let mut limits = draft.clone();
    pool::apply(&mut limits, mesh, mesh.default_connection_pool.as_ref(), None);
    // Timeouts of HTTP stay what they are for unknown destinations; limits and TCP settings are the pool's.
    draft.cluster = limits.cluster;
    draft
}

/// The same for inbound traffic to ports that no service declares.
fn inbound_passthrough(input: &FixedInput) -> Cluster {
    let mut draft = passthrough(input);
    draft.cluster.name = names::INBOUND_PASSTHROUGH.to_owned();
    draft.cluster.upstream_bind_config = Some(source_addresses(input.view.ip_mode));
    draft.finish()
}

/// Resolves the name in each request, with TLS if the mesh originates it for unknown destinations.
fn by_name(input: &FixedInput, server: &NameServer) -> Cluster {
    let mesh = &**input.mesh;
    let tls = mesh.unknown_destination_tls.as_ref().filter(|tls| tls.mode != ClientTlsMode::Disable);
    let cache = unknown_hosts_cache(input.view.ip_mode, server);
    let mut draft = dynamic_draft(names::ALLOW_ANY_DYNAMIC_DNS.to_owned(), cache, tls.is_none());
    draft.http = Some(pool::unknown_destination(&input.view));
    pool::apply(&mut draft, mesh, None, None);
    transport::originate(&mut draft, tls, mesh);
    draft.finish()
}

/// The cache that the HTTP filter and the cluster for unknown destinations share; both must configure it
/// alike.
pub fn unknown_hosts_cache(ip_mode: IpMode, server: &NameServer) -> DnsCacheConfig {
    let resolver = match server {
        NameServer::Default => None,
        NameServer::Local(address) => Some(resolver(CaresDnsResolverConfig {
            resolvers: vec![socket(address.ip().to_string(), address.port().into())],
            ..CaresDnsResolverConfig::default()
        })),
    };
    DnsCacheConfig {
        name: names::ALLOW_ANY_DNS_CACHE.to_owned(),
        dns_lookup_family: lookup_family(ip_mode) as i32,
        max_hosts: Some(UNKNOWN_HOSTS_MAX),
        typed_dns_resolver_config: resolver,
        ..DnsCacheConfig::default()
    }
}

/// A server of secrets on the proxy's machine.
fn external_secrets(mesh: &ClusterMesh) -> Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(pipe(CREDENTIAL_SOCKET)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let mut cluster = Cluster {
        name: names::SDS_EXTERNAL.to_owned(),
        alt_stat_name: stat_name(names::SDS_EXTERNAL),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: mesh.connect_timeout.map(wkt::duration),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: names::SDS_EXTERNAL.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any(&pool::only_http2()));
    cluster
}

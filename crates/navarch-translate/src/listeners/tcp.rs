//! Chains that pass on bytes.

use std::time::Duration;

use navarch_envoy::proto::envoy::config::listener::v3::Filter;
use navarch_envoy::proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use navarch_envoy::proto::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use navarch_envoy::proto::envoy::extensions::filters::network::redis_proxy::v3::{RedisProxy, redis_proxy};
use navarch_envoy::proto::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni_forward_proxy;
use navarch_envoy::proto::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, UpstreamConnectMode, tcp_proxy,
};
use navarch_envoy::proto::envoy::r#type::v3::{HashPolicy, hash_policy};
use navarch_envoy::wkt;
use navarch_model::Name;
use navarch_model::proxy::IpMode;
use navarch_model::service::Protocol;

use crate::clusters::lookup_family;
use crate::encoded::messages;
use crate::filters::NetworkPhase;
use crate::filters::network::{network_filter, stats_chain, tcp_chain};
use crate::http_connection_manager::Direction;
use crate::listeners::settings::ListenerSettings;

/// Name of the filter.
pub const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// How long Envoy's Redis proxy waits for an answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a connection goes and how it is treated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpRoute {
    pub stat_prefix: Name,
    pub destination: Destination,
    /// Idle timeout of the destination, over that of the proxy.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// Connections of one source address go to one endpoint.
    pub hash_source_ip: bool,
    pub tunnel: Option<Tunnel>,
    pub protocol: Protocol,
    /// The upstream is found by server name through this cache.
    pub sni_dns_cache: Option<DnsCache>,
}

/// Clusters that connections go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Cluster(Name),
    /// Shares of connections; weights are positive.
    Weighted(Vec<(Name, u32)>),
}

impl Destination {
    /// The only or first cluster.
    pub fn first(&self) -> &str {
        match self {
            Destination::Cluster(name) => name,
            Destination::Weighted(clusters) => clusters.first().map_or("", |(name, _)| name),
        }
    }
}

/// Bytes are wrapped in an HTTP request to the upstream (DestinationRule `tunnel`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// `<host>:<port>` of the target.
    pub hostname: Name,
    /// POST instead of CONNECT.
    pub use_post: bool,
}

/// A DNS cache that a filter shares with a dynamic forward proxy cluster; both must state it equally.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsCache {
    pub name: Name,
    /// The families that names are resolved to are those of the proxy.
    pub ip_mode: IpMode,
}

impl DnsCache {
    /// As Envoy's message.
    pub fn config(&self) -> DnsCacheConfig {
        DnsCacheConfig {
            name: self.name.to_string(),
            dns_lookup_family: lookup_family(self.ip_mode) as i32,
            ..DnsCacheConfig::default()
        }
    }
}

impl TcpRoute {
    /// A plain connection to a cluster, with the cluster's name for statistics.
    pub fn to(cluster: &str) -> Self {
        TcpRoute {
            stat_prefix: Name::from(cluster),
            destination: Destination::Cluster(Name::from(cluster)),
            idle_timeout: None,
            max_connection_duration: None,
            hash_source_ip: false,
            tunnel: None,
            protocol: Protocol::Tcp,
            sni_dns_cache: None,
        }
    }

    /// The filters of a chain on `port`.
    pub fn filters(&self, settings: &ListenerSettings, port: u16) -> Vec<Filter> {
        tcp_chain(&settings.network_filters, port, self.terminal(settings, port))
    }

    /// The filters of a chain that only metrics apply to: what no service or policy is responsible for.
    pub fn bare_filters(&self, settings: &ListenerSettings) -> Vec<Filter> {
        stats_chain(&settings.network_filters, [(NetworkPhase::Terminal, self.tcp_proxy(settings))])
    }

    fn terminal(&self, settings: &ListenerSettings, port: u16) -> Vec<(NetworkPhase, Filter)> {
        let mut filters = Vec::new();
        if let Some(cache) = &self.sni_dns_cache {
            filters.push((NetworkPhase::SniForwardProxy, sni_forward_proxy(cache, port)));
        }
        let enabled = settings.protocol_filters;
        match self.protocol {
            Protocol::Redis if enabled.redis => {
                filters.push((NetworkPhase::Terminal, self.redis_proxy()));
                return filters;
            }
            Protocol::Mongo if enabled.mongo => {
                filters.push((NetworkPhase::Protocol, self.mongo_proxy()));
            }
            _ => {}
        }
        filters.push((NetworkPhase::Terminal, self.tcp_proxy(settings)));
        filters
    }

    fn tcp_proxy(&self, settings: &ListenerSettings) -> Filter {
        let cluster = match &self.destination {
            Destination::Cluster(name) => tcp_proxy::ClusterSpecifier::Cluster(name.to_string()),
            Destination::Weighted(clusters) => {
                let clusters =
                    clusters.iter().map(|(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight {
                        name: name.to_string(),
                        weight: *weight,
                        ..tcp_proxy::weighted_cluster::ClusterWeight::default()
                    });
                tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
                    clusters: clusters.collect(),
                })
            }
        };
        let mut config = TcpProxy {
            stat_prefix: self.stat_prefix.to_string(),
            idle_timeout: self.idle_timeout.or(settings.idle_timeout).map(wkt::duration),
            max_downstream_connection_duration: self.max_connection_duration.map(wkt::duration),
            hash_policy: if self.hash_source_ip { vec![source_ip_hash()] } else { Vec::new() },
            tunneling_config: self.tunnel.as_ref().map(|tunnel| tcp_proxy::TunnelingConfig {
                hostname: tunnel.hostname.to_string(),
                use_post: tunnel.use_post,
                ..tcp_proxy::TunnelingConfig::default()
            }),
            access_log: messages(&settings.tcp_access_log),
            cluster_specifier: Some(cluster),
            ..TcpProxy::default()
        };
        if settings.counts_connections {
            count_connections(&mut config, settings.http.direction);
        }
        network_filter(TCP_PROXY, &config)
    }

    fn mongo_proxy(&self) -> Filter {
        let config = MongoProxy { stat_prefix: self.stat_prefix.to_string(), ..MongoProxy::default() };
        network_filter("envoy.filters.network.mongo_proxy", &config)
    }

    fn redis_proxy(&self) -> Filter {
        let config = RedisProxy {
            stat_prefix: self.stat_prefix.to_string(),
            latency_in_micros: true,
            settings: Some(redis_proxy::ConnPoolSettings {
                op_timeout: Some(wkt::duration(REDIS_TIMEOUT)),
                ..redis_proxy::ConnPoolSettings::default()
            }),
            // One cluster only: Redis commands cannot be split by weight.
            prefix_routes: Some(redis_proxy::PrefixRoutes {
                catch_all_route: Some(redis_proxy::prefix_routes::Route {
                    cluster: self.destination.first().to_owned(),
                    ..redis_proxy::prefix_routes::Route::default()
                }),
                ..redis_proxy::PrefixRoutes::default()
            }),
            ..RedisProxy::default()
        };
        network_filter("envoy.filters.network.redis_proxy", &config)
    }
}

/// A chain to a cluster without access log: connections that never reach a service.
pub fn refuse(settings: &ListenerSettings, cluster: &str) -> Vec<Filter> {
    let config = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    };
    stats_chain(&settings.network_filters, [(NetworkPhase::Terminal, network_filter(TCP_PROXY, &config))])
}

/// Has a log written when a connection is made. In-bound the server is reached only then when it is known who
/// the client is: Envoy does not wait for the end of a handshake by itself, and would count for nobody.
/// Connections without TLS do not wait for one.
fn count_connections(config: &mut TcpProxy, direction: Direction) {
    config.access_log_options = Some(tcp_proxy::TcpAccessLogOptions {
        flush_access_log_on_connected: true,
        ..tcp_proxy::TcpAccessLogOptions::default()
    });
    if direction == Direction::Inbound {
        config.upstream_connect_mode = UpstreamConnectMode::OnDownstreamTlsHandshake as i32;
        // Envoy demands it to be stated in this mode; nothing is read before.
        config.max_early_data_bytes = Some(0);
    }
}

fn source_ip_hash() -> HashPolicy {
    HashPolicy {
        policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp::default())),
    }
}

fn sni_forward_proxy(cache: &DnsCache, port: u16) -> Filter {
    let config = sni_forward_proxy::FilterConfig {
        dns_cache_config: Some(cache.config()),
        port_specifier: Some(sni_forward_proxy::filter_config::PortSpecifier::PortValue(u32::from(port))),
        ..sni_forward_proxy::FilterConfig::default()
    };
    network_filter("envoy.filters.network.sni_dynamic_forward_proxy", &config)
}

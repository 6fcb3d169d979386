//! What the listeners of a sidecar have in common.

use std::time::Duration;

use navarch_envoy::proto::envoy::config::accesslog::v3::AccessLog;
use navarch_model::Name;
use navarch_model::mesh::{MeshConfig, ProxyConfig};
use navarch_model::proxy::{InterceptionMode, IpMode, ProxyFacts};

use crate::access_log::{Place, from_mesh};
use crate::encoded::Encoded;
use crate::filters::NetworkFilters;
use crate::http_connection_manager::{Direction, HttpSettings};
use crate::listeners::patch::ListenerPatches;
use crate::tracing;

/// What the listeners of a sidecar have in common in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerSettings {
    pub ip_mode: IpMode,
    pub interception: InterceptionMode,
    /// Port of the virtual listener.
    pub listen_port: u16,
    /// How long to wait for the first bytes where a protocol is detected; zero means without limit.
    pub protocol_detection_timeout: Option<Duration>,
    pub exact_balance: bool,
    /// Idle timeout of TCP connections that the proxy itself states (`IDLE_TIMEOUT`).
    pub idle_timeout: Option<Duration>,
    pub http: HttpSettings,
    /// Network filters that configuration adds.
    pub network_filters: NetworkFilters,
    pub tcp_access_log: Vec<Encoded<AccessLog>>,
    pub listener_access_log: Vec<Encoded<AccessLog>>,
    /// Logs are written when a connection is made, too: they count.
    pub counts_connections: bool,
    /// Pattern of names of statistics; empty: Istio's own.
    pub stat_name: Name,
    /// Which protocols get a filter of their own.
    pub protocol_filters: ProtocolFilters,
    /// Changes that EnvoyFilters make.
    pub patches: ListenerPatches,
}

/// Which protocols get a filter of their own instead of a plain TCP proxy. (MySQL's is not part of Envoy's
/// default image.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtocolFilters {
    pub mongo: bool,
    /// Envoy's Redis proxy changes semantics (it hashes keys over the endpoints), so it is off by default.
    pub redis: bool,
}

impl Default for ProtocolFilters {
    fn default() -> Self {
        ProtocolFilters { mongo: true, redis: false }
    }
}

impl ListenerSettings {
    /// Settings as mesh and proxy state them, with the access logs and tracing of the mesh's own settings;
    /// whoever knows of policies, telemetry and extensions adds theirs.
    pub fn new(direction: Direction, mesh: &MeshConfig, proxy: &ProxyConfig, facts: &ProxyFacts) -> Self {
        let identity = tracing::Identity::of(facts, &facts.labels);
        let logs = |place| from_mesh(mesh, place).into_iter().map(Encoded::new).collect();
        let mut http = HttpSettings::new(direction, mesh, proxy);
        http.idle_timeout = facts.idle_timeout;
        http.accept_http_10 = facts.http_10;
        http.access_log = logs(Place::Http);
        http.tracing = tracing::from_mesh(mesh, proxy, &identity).map(Encoded::new);
        let inbound = direction == Direction::Inbound;
        let (port, exact_balance, stat_name) = if inbound {
            (mesh.proxy_inbound_listen_port, facts.exact_balance_inbound, &mesh.inbound_cluster_stat_name)
        } else {
            (mesh.proxy_listen_port, facts.exact_balance_outbound, &mesh.outbound_cluster_stat_name)
        };
        ListenerSettings {
            ip_mode: facts.ip_mode(),
            interception: facts.interception,
            listen_port: u16::try_from(port).unwrap_or_default(),
            protocol_detection_timeout: mesh.protocol_detection_timeout,
            exact_balance,
            idle_timeout: facts.idle_timeout,
            http,
            network_filters: NetworkFilters::default(),
            tcp_access_log: logs(Place::Tcp),
            listener_access_log: logs(Place::Listener),
            counts_connections: false,
            stat_name: Name::from(stat_name.as_str()),
            protocol_filters: ProtocolFilters::default(),
            patches: ListenerPatches::default(),
        }
    }
}

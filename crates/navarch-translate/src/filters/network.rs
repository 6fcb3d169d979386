//! Network filters in the order in which Istio runs them.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::listener::v3::{Filter, filter};
use prost::{Message, Name};

use crate::encoded::Encoded;

/// Where in the chain a network filter runs; the order of the variants is the order on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkPhase {
    /// CUSTOM authorization: a shadow RBAC filter and ext_authz.
    CustomAuthorization,
    /// Extensions of phase AUTHN.
    AuthenticationExtension,
    /// Extensions of phase AUTHZ.
    AuthorizationExtension,
    /// RBAC filters: AUDIT, DENY, ALLOW.
    Authorization,
    /// Extensions of phase STATS.
    StatsExtension,
    /// Extensions without a phase.
    Extension,
    /// Metrics.
    Stats,
    /// Finds the upstream by server name.
    SniForwardProxy,
    /// Observes a protocol (MongoDB, MySQL).
    Protocol,
    /// Terminal: tcp_proxy, redis_proxy, the HTTP connection manager.
    Terminal,
}

impl NetworkPhase {
    /// Whether filters of this phase also run before an HTTP connection manager: of the configured ones only
    /// extensions do, because policies and metrics have HTTP filters of their own.
    pub fn precedes_http(self) -> bool {
        matches!(
            self,
            NetworkPhase::AuthenticationExtension
                | NetworkPhase::AuthorizationExtension
                | NetworkPhase::StatsExtension
                | NetworkPhase::Extension
                | NetworkPhase::Terminal
        )
    }
}

/// A network filter that configuration adds to the chains of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PhasedNetworkFilter {
    pub phase: NetworkPhase,
    pub filter: Encoded<Filter>,
    /// Ports that it applies to; empty means every port.
    pub ports: Vec<u16>,
}

/// The network filters that configuration adds to the chains of one proxy in one direction. Within a phase
/// the given order is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkFilters {
    pub filters: Vec<PhasedNetworkFilter>,
}

impl NetworkFilters {
    /// Adds a filter for every port.
    pub fn push(&mut self, phase: NetworkPhase, filter: Filter) {
        self.push_for(phase, filter, Vec::new());
    }

    /// Adds a filter for some ports; no ports means every port.
    pub fn push_for(&mut self, phase: NetworkPhase, filter: Filter, ports: Vec<u16>) {
        self.filters.push(PhasedNetworkFilter { phase, filter: Encoded::new(filter), ports });
    }
}

/// The complete chain of a TCP proxy on `port`.
pub fn tcp_chain(
    configured: &NetworkFilters,
    port: u16,
    terminal: impl IntoIterator<Item = (NetworkPhase, Filter)>,
) -> Vec<Filter> {
    assemble(configured, port, |_| true, terminal)
}

/// The complete chain of an HTTP connection manager on `port`.
pub fn http_chain(configured: &NetworkFilters, port: u16, connection_manager: Filter) -> Vec<Filter> {
    assemble(configured, port, NetworkPhase::precedes_http, [(NetworkPhase::Terminal, connection_manager)])
}

/// Metrics filters only, for chains that no policy or extension applies to (black holes, fall-through
/// chains).
pub fn stats_chain(
    configured: &NetworkFilters,
    terminal: impl IntoIterator<Item = (NetworkPhase, Filter)>,
) -> Vec<Filter> {
    assemble(configured, 0, |phase| phase == NetworkPhase::Stats, terminal)
}

fn assemble(
    configured: &NetworkFilters,
    port: u16,
    wanted: impl Fn(NetworkPhase) -> bool,
    terminal: impl IntoIterator<Item = (NetworkPhase, Filter)>,
) -> Vec<Filter> {
    let mut all: Vec<(NetworkPhase, Filter)> = configured
        .filters
        .iter()
        .filter(|entry| wanted(entry.phase))
        .filter(|entry| entry.ports.is_empty() || entry.ports.contains(&port))
        .map(|entry| (entry.phase, Filter::clone(&entry.filter)))
        .chain(terminal)
        .collect();
    all.sort_by_key(|(phase, _)| *phase);
    all.into_iter().map(|(_, filter)| filter).collect()
}

/// A network filter with its configuration packed.
pub fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) }
}

//! `Endpoint`: one address and port that serves one port of a service.

use crate::service::{self, Labels, Name};

/// The annotation of a WorkloadEntry whose workload has registered itself and says how it is: `unhealthy`.
pub const HEALTH: &str = "navarch/health";

/// All endpoints of a service: the unit in which endpoint changes travel.
///
/// They live apart from services, so that starting and stopping pods leaves clusters, listeners and routes
/// untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointSet {
    /// In a deterministic order: by namespace and name of the origin, then as declared.
    pub endpoints: Vec<Endpoint>,
}

/// One address and port that serves one port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: Address,
    /// Addresses of other families of the same workload, tried as in RFC 8305 ("happy eyeballs").
    pub additional_addresses: Vec<std::net::IpAddr>,
    /// The port on the workload. Zero for Unix sockets.
    pub port: u16,
    /// Name of the service port that this endpoint serves.
    pub service_port_name: Name,
    /// Labels of the workload, for subsets and failover priority.
    pub labels: Labels,
    pub locality: Locality,
    /// Load-balancing weight; zero means unset (1).
    pub weight: u32,
    /// Network the endpoint is on; empty if there is one network only.
    pub network: Name,
    /// Cluster (registry) it was found in.
    pub cluster_id: Name,
    pub health: Health,
    /// `security.istio.io/tlsMode`: the workload has a proxy that accepts mesh mutual TLS.
    pub tls_mode: TlsMode,
    /// Name of the service account, without namespace; empty if unknown.
    pub service_account: Name,
    /// Namespace and name of the workload, for metadata and for policies.
    pub namespace: Name,
    pub workload_name: Name,
    /// Pod host name and sub-domain (StatefulSets).
    pub host_name: Name,
    pub sub_domain: Name,
    pub node_name: Name,
    /// The workload accepts HBONE.
    pub hbone: bool,
    /// Only clients in the same cluster or network may use it (discoverability policies of multi-cluster
    /// services).
    pub cluster_local: bool,
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address in canonical form.
    Ip(std::net::IpAddr),
    /// A name to be resolved by the proxy (DNS clusters only).
    Dns(Name),
    /// The path of a Unix domain socket.
    Unix(Name),
}

/// Region, zone and sub-zone; empty strings where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    pub region: Name,
    pub zone: Name,
    pub sub_zone: Name,
}

impl Locality {
    /// Parses Istio's `region/zone/subzone` form; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(service::name);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), sub_zone: next() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }
}

/// Health as the registry sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Nobody checks it: addresses that a ServiceEntry or WorkloadEntry lists.
    #[default]
    Unknown,
    Healthy,
    /// Not ready; sent to Envoy as UNHEALTHY so that it sees the real ratio.
    Unhealthy,
    /// Shutting down; kept only for persistent sessions.
    Draining,
    /// Terminating: left out.
    Terminating,
}

/// Whether the workload behind an endpoint accepts mesh mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    #[default]
    Disabled,
    Istio,
}

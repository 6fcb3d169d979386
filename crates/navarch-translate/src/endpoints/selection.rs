//! Endpoints of one cluster while they are selected.

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3 as core;
use navarch_envoy::proto::envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};
use navarch_model::endpoint::{Endpoint, EndpointSet, Locality};
use navarch_model::service::{Service, ServicePort};
use navarch_model::{EffectiveRule, Hashed};

use super::build;
use super::gateways::{NetworkGateway, NetworkGateways};
use super::view::{EndpointMesh, EndpointView};
use crate::names;

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

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Calls to a service.
    Outbound,
    /// Connections of mesh TLS that are forwarded by server name and not terminated (`AUTO_PASSTHROUGH`).
    Sni,
    /// Datagrams that a gateway passes on (UDPRoute).
    Datagrams,
}

impl Mode {
    /// The name of the cluster.
    pub fn cluster_name(self, port: u16, subset: &str, host: &str) -> String {
        match self {
            Mode::Outbound => names::outbound(port, subset, host),
            Mode::Sni => names::sni(port, subset, host),
            Mode::Datagrams => names::datagrams(port, host),
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
    /// Its share of the requests.
    pub fn weight(&self) -> u32 {
        self.endpoint.load_balancing_weight.unwrap_or(0)
    }
}

impl Group<'_> {
    /// The weight of a locality is the sum of its members'; a locality without members has none.
    pub fn sum_weights(&mut self) {
        self.weight = (!self.members.is_empty())
            .then(|| self.members.iter().fold(0, |sum: u32, member| sum.saturating_add(member.weight())));
    }

    /// Those of its members that take mutual TLS.
    pub fn only_mtls(mut self) -> Self {
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

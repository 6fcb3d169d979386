//! Which endpoints a client sees.

use std::collections::BTreeMap;

use navarch_model::endpoint::{Address, Endpoint, Health, Locality, TlsMode};
use navarch_model::networking::ClientTlsMode;
use navarch_model::service::{Service, TrafficDistribution};
use navarch_model::{Labels, Name};

use super::build;
use super::selection::{Group, Member, Selection, Source};
use super::view::EndpointView;
use crate::clusters::policy;

/// Services with this label keep sessions; a value means cookies.
const PERSISTENT_SESSION_LABEL: &str = "istio.io/persistent-session";

impl<'a> Selection<'a> {
    /// The visible endpoints, one group per locality in the order of their names.
    pub(super) fn by_locality(&self) -> Vec<Group<'a>> {
        let mut groups: BTreeMap<&Locality, Group<'a>> = BTreeMap::new();
        for (position, endpoint) in self.sources.endpoints.endpoints.iter().enumerate() {
            if !self.includes(endpoint) {
                continue;
            }
            let member = Member {
                endpoint: build::endpoint(endpoint, self.accepts_mtls(position, endpoint)),
                source: Source::Workload(endpoint),
            };
            groups
                .entry(&endpoint.locality)
                .or_insert_with(|| Group {
                    locality: endpoint.locality.clone(),
                    priority: 0,
                    weight: None,
                    members: Vec::new(),
                })
                .members
                .push(member);
        }
        let mut groups: Vec<Group<'a>> = groups.into_values().collect();
        groups.iter_mut().for_each(Group::sum_weights);
        groups
    }

    fn includes(&self, endpoint: &Endpoint) -> bool {
        endpoint.service_port_name == self.port.name
            && self.has_usable_address(endpoint)
            && self.is_in_subset(endpoint)
            && self.is_visible(endpoint)
            && self.is_fit(endpoint)
    }

    /// EDS knows addresses only; names are for clusters that resolve them. An endpoint without any address
    /// can still be reached through a gateway of its network.
    fn has_usable_address(&self, endpoint: &Endpoint) -> bool {
        match &endpoint.address {
            Address::Ip(_) | Address::Unix(_) => true,
            Address::Dns(name) if name.is_empty() => {
                !self.sources.gateways.is_empty(self.dns)
                    && !in_network(&self.sources.view.network, &endpoint.network)
            }
            Address::Dns(_) => self.dns,
        }
    }

    fn is_in_subset(&self, endpoint: &Endpoint) -> bool {
        if self.subset.is_empty() {
            return true;
        }
        let subsets = self.rule.map(|rule| rule.spec.subsets.as_slice()).unwrap_or_default();
        subsets.iter().find(|subset| subset.name == self.subset).is_none_or(|subset| {
            subset.labels.iter().all(|(key, value)| Source::Workload(endpoint).label(key) == value)
        })
    }

    fn is_visible(&self, endpoint: &Endpoint) -> bool {
        let view = &self.sources.view;
        let same_cluster = view.cluster_id == endpoint.cluster_id;
        if self.service.node_local && (endpoint.node_name != view.node_name || !same_cluster) {
            return false;
        }
        if !is_network_visible(&view.network_view, &endpoint.network) {
            return false;
        }
        same_cluster || !(self.sources.cluster_local || endpoint.cluster_local)
    }

    /// Terminating endpoints are never sent: they would make a service look half dead during every rollout.
    /// Draining ones only serve existing sessions.
    fn is_fit(&self, endpoint: &Endpoint) -> bool {
        match endpoint.health {
            Health::Terminating => return false,
            Health::Unhealthy if !self.sends_unhealthy() => return false,
            _ => {}
        }
        !build::is_draining(endpoint)
            || self.service.labels.get(PERSISTENT_SESSION_LABEL).is_some_and(|value| !value.is_empty())
    }

    /// Unhealthy endpoints are sent so that Envoy knows the real ratio, unless a minimum of healthy ones
    /// makes Envoy fall back to sending traffic to all of them.
    fn sends_unhealthy(&self) -> bool {
        if self.service.traffic_distribution != TrafficDistribution::Any {
            return true;
        }
        let rule = self.rule.map(|rule| &rule.spec);
        policy::of_subset(rule, self.port.port, self.subset)
            .outlier_detection
            .is_none_or(|outlier| outlier.min_health_percent <= 0)
    }

    /// A rule's TLS mode decides; otherwise the workload must have a proxy, and its PeerAuthentication must
    /// not forbid mutual TLS.
    fn accepts_mtls(&self, position: usize, endpoint: &Endpoint) -> bool {
        let rule = self.rule.map(|rule| &rule.spec);
        if let Some(mode) = policy::tls_mode(rule, self.port.port, self.subset) {
            return mode == ClientTlsMode::IstioMutual;
        }
        endpoint.tls_mode == TlsMode::Istio
            && !u32::try_from(position)
                .is_ok_and(|position| self.sources.plaintext.binary_search(&position).is_ok())
    }
}

/// `REQUESTED_NETWORK_VIEW`: endpoints without a network are always visible.
pub(super) fn is_network_visible(network_view: &[Name], network: &str) -> bool {
    network_view.is_empty() || network.is_empty() || network_view.iter().any(|name| &**name == network)
}

/// Networks are the same if either is unknown.
pub(super) fn in_network(ours: &str, theirs: &str) -> bool {
    ours.is_empty() || theirs.is_empty() || ours == theirs
}

/// Labels that say where a workload runs.
pub mod topology {
    pub const REGION: &str = "topology.kubernetes.io/region";
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    pub const SUB_ZONE: &str = "topology.istio.io/subzone";
    pub const CLUSTER: &str = "topology.istio.io/cluster";
    pub const NETWORK: &str = "topology.istio.io/network";
    pub const HOSTNAME: &str = "kubernetes.io/hostname";
}

/// One of the labels a workload has or would have if it were labelled with where it runs. Where it runs wins
/// over what its labels say, but for the network.
pub(super) fn label<'a>(
    labels: &'a Labels,
    locality: &'a Locality,
    cluster_id: &'a Name,
    node_name: &'a Name,
    network: &'a Name,
    key: &str,
) -> &'a str {
    let own = labels.get(key).map_or("", |value| value);
    let derived: &str = match key {
        topology::REGION => &locality.region,
        topology::ZONE => &locality.zone,
        topology::SUB_ZONE => &locality.sub_zone,
        topology::CLUSTER => cluster_id,
        topology::HOSTNAME => node_name,
        topology::NETWORK => return if own.is_empty() { network } else { own },
        _ => return own,
    };
    if derived.is_empty() { own } else { derived }
}

impl Source<'_> {
    pub(super) fn label(&self, key: &str) -> &str {
        match self {
            Source::Workload(endpoint) => label(
                &endpoint.labels,
                &endpoint.locality,
                &endpoint.cluster_id,
                &endpoint.node_name,
                &endpoint.network,
                key,
            ),
            Source::Gateway(gateway) => match key {
                topology::CLUSTER => &gateway.cluster_id,
                topology::NETWORK => &gateway.network,
                _ => "",
            },
        }
    }
}

impl EndpointView {
    /// A label of the client.
    pub(super) fn label(&self, key: &str) -> &str {
        label(&self.labels, &self.locality, &self.cluster_id, &self.node_name, &self.network, key)
    }
}

/// Whether a service keeps sending to draining endpoints for existing sessions.
pub fn keeps_sessions(service: &Service) -> bool {
    [PERSISTENT_SESSION_LABEL, "istio.io/persistent-session-header"]
        .iter()
        .any(|label| service.labels.get(*label).is_some_and(|value| !value.is_empty()))
}

//! Several networks: endpoints of another network are replaced by the gateways that lead to it.

use std::collections::BTreeMap;

use navarch_model::Name;
use navarch_model::endpoint::{Address, Endpoint};
use navarch_model::proxy::{IpMode, ProxyKind};

use super::select::{in_network, is_network_visible};
use super::{Group, Member, Selection, Source, build};

/// A gateway through which a network can be entered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkGateway {
    /// An IP address, or a name that only clusters which resolve names can use.
    pub address: Name,
    /// The port that takes mesh TLS; zero if there is none.
    pub port: u32,
    pub network: Name,
    /// The cluster it runs in; empty if it was configured by hand.
    pub cluster_id: Name,
}

/// All gateways between networks, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkGateways {
    gateways: Vec<NetworkGateway>,
}

impl NetworkGateways {
    /// Sorts and deduplicates.
    pub fn new(gateways: impl IntoIterator<Item = NetworkGateway>) -> Self {
        let mut gateways: Vec<_> = gateways.into_iter().collect();
        gateways.sort();
        gateways.dedup();
        NetworkGateways { gateways }
    }

    /// Without gateways all networks are taken for one.
    pub(super) fn is_empty(&self, dns: bool) -> bool {
        self.usable(dns).next().is_none()
    }

    fn usable(&self, dns: bool) -> impl Iterator<Item = &NetworkGateway> {
        self.gateways.iter().filter(move |gateway| dns || build::parse_ip(&gateway.address).is_some())
    }

    /// The least common multiple of the numbers of gateways per network and per network and cluster: weights are multiplied by
    /// it, so that they can be divided evenly among the gateways.
    fn scale(&self, dns: bool) -> u32 {
        let mut by_network: BTreeMap<&str, u32> = BTreeMap::new();
        let mut by_cluster: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for gateway in self.usable(dns) {
            *by_network.entry(&gateway.network).or_default() += 1;
            *by_cluster.entry((&gateway.network, &gateway.cluster_id)).or_default() += 1;
        }
        by_network.values().chain(by_cluster.values()).fold(1, |scale, count| lcm(scale, *count))
    }

    /// The gateways to a network: those in the cluster of the endpoint, or else all of them.
    fn to(&self, network: &str, cluster_id: &str, dns: bool) -> Vec<&NetworkGateway> {
        let (near, all): (Vec<_>, Vec<_>) = self
            .usable(dns)
            .filter(|gateway| &*gateway.network == network)
            .partition(|gateway| &*gateway.cluster_id == cluster_id);
        if near.is_empty() { all } else { near }
    }
}

fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x).map_or(1, |part| part.saturating_mul(b).max(1))
}

impl<'a> Selection<'a> {
    /// Replaces endpoints of other networks by gateways, which get the weight of what they stand for.
    ///
    /// The connection through a gateway is mutual TLS all the way to the endpoint (the gateway sees the server name only), so an
    /// endpoint that does not accept mutual TLS is out of reach.
    pub(super) fn through_gateways(&self, groups: Vec<Group<'a>>) -> Vec<Group<'a>> {
        if self.sources.gateways.is_empty(self.dns) {
            return groups;
        }
        let scale = self.sources.gateways.scale(self.dns);
        groups.into_iter().map(|group| self.split(group, scale)).collect()
    }

    fn split(&self, group: Group<'a>, scale: u32) -> Group<'a> {
        let view = &self.sources.view;
        let mut out =
            Group { locality: group.locality, priority: group.priority, weight: None, members: Vec::new() };
        let mut weights: BTreeMap<&'a NetworkGateway, u32> = BTreeMap::new();
        for mut member in group.members {
            let Source::Workload(origin) = member.source else { continue };
            if !is_network_visible(&view.network_view, &origin.network) {
                continue;
            }
            let weight = match member.weight() {
                0 => scale,
                weight => weight.saturating_mul(scale),
            };
            member.endpoint.load_balancing_weight = Some(weight);
            let gateways = self.gateways_to(&origin.network, &origin.cluster_id);
            // A client that does not know its own network goes through the gateway rather than guess.
            let unknown = view.network.is_empty() && !origin.network.is_empty() && !gateways.is_empty();
            if !unknown && (in_network(&view.network, &origin.network) || gateways.is_empty()) {
                if has_address(origin) {
                    out.members.push(member);
                }
                continue;
            }
            let reachable: Vec<_> =
                gateways.into_iter().filter(|gateway| is_reachable(view.ip_mode, &gateway.address)).collect();
            let count = u32::try_from(reachable.len()).unwrap_or(u32::MAX);
            if count == 0 || !build::is_mtls(&member.endpoint) {
                continue;
            }
            for gateway in reachable {
                let sum = weights.entry(gateway).or_default();
                *sum = sum.saturating_add(weight / count);
            }
        }
        for (gateway, weight) in weights {
            out.members.push(gateway_member(gateway, weight.max(1)));
        }
        out.sum_weights();
        out
    }

    /// Sidecars need the port for mesh TLS.
    fn gateways_to(&self, network: &str, cluster_id: &str) -> Vec<&'a NetworkGateway> {
        let mut gateways = self.sources.gateways.to(network, cluster_id, self.dns);
        if self.sources.view.kind == ProxyKind::Sidecar {
            gateways.retain(|gateway| gateway.port != 0);
        }
        gateways
    }
}

fn gateway_member(gateway: &NetworkGateway, weight: u32) -> Member<'_> {
    Member {
        endpoint: build::gateway(&gateway.address, gateway.port, weight, &gateway.cluster_id),
        source: Source::Gateway(gateway),
    }
}

fn has_address(endpoint: &Endpoint) -> bool {
    !matches!(&endpoint.address, Address::Dns(name) if name.is_empty())
}

/// A client of one address family reaches gateways of that family only.
fn is_reachable(mode: IpMode, address: &str) -> bool {
    match (mode, build::parse_ip(address)) {
        (IpMode::Dual, _) => true,
        (IpMode::V4, Some(address)) => address.is_ipv4(),
        (IpMode::V6, Some(address)) => address.is_ipv6(),
        (_, None) => false,
    }
}

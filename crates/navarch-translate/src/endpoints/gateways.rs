//! Gateways between networks.

use std::collections::BTreeMap;

use navarch_model::Name;

use super::build;

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

    /// Those that can be used: ones with a name only by clusters that resolve names.
    pub(super) fn usable(&self, dns: bool) -> impl Iterator<Item = &NetworkGateway> {
        self.gateways.iter().filter(move |gateway| dns || build::parse_ip(&gateway.address).is_some())
    }

    /// The least common multiple of the numbers of gateways per network and per network and cluster: weights
    /// are multiplied by it, so that they can be divided evenly among the gateways.
    pub(super) fn scale(&self, dns: bool) -> u32 {
        let mut by_network: BTreeMap<&str, u32> = BTreeMap::new();
        let mut by_cluster: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for gateway in self.usable(dns) {
            *by_network.entry(&gateway.network).or_default() += 1;
            *by_cluster.entry((&gateway.network, &gateway.cluster_id)).or_default() += 1;
        }
        by_network.values().chain(by_cluster.values()).fold(1, |scale, count| lcm(scale, *count))
    }

    /// The gateways to a network: those in the cluster of the endpoint, or else all of them.
    pub(super) fn to(&self, network: &str, cluster_id: &str, dns: bool) -> Vec<&NetworkGateway> {
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

//! Several networks: endpoints of another network are replaced by the gateways that lead to it.

use std::collections::BTreeMap;

use navarch_model::endpoint::{Address, Endpoint};
use navarch_model::proxy::{IpMode, ProxyKind};

use super::build;
use super::gateways::NetworkGateway;
use super::select::{in_network, is_network_visible};
use super::selection::{Group, Member, Selection, Source};

impl<'a> Selection<'a> {
    /// Replaces endpoints of other networks by gateways, which get the weight of what they stand for.
    ///
    /// The connection through a gateway is mutual TLS all the way to the endpoint (the gateway sees the
    /// server name only), so an endpoint that does not accept mutual TLS is out of reach.
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

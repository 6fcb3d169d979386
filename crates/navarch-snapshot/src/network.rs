//! Networks: which one an address is on, and the gateways between them (Istio: MeshNetworks, multi-network).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use navarch_model::Name;
use navarch_model::mesh::{MeshNetworks, NetworkEndpoints, NetworkGatewayAddress};

use crate::bound::{NetworkGateway, NetworkGateways};

/// MeshNetworks, prepared for look-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    /// Networks by the clusters that they name as their registries. The first network that names one has it.
    of_registry: BTreeMap<Name, Name>,
    ranges: Vec<(IpNet, Name)>,
    /// Gateways by cluster and host of the service that they run as: network and port.
    by_service: BTreeMap<(Name, Name), Vec<(Name, u16)>>,
    /// Gateways with a fixed address.
    fixed: Vec<NetworkGateway>,
}

impl Networks {
    pub fn new(networks: &MeshNetworks) -> Self {
        let mut out = Networks::default();
        for (id, network) in &networks.networks {
            let id = Name::from(id.as_str());
            let mut registries = BTreeSet::new();
            for endpoints in &network.endpoints {
                match endpoints {
                    NetworkEndpoints::FromCidr(range) => {
                        // Validation reports ranges that cannot be read.
                        if let Ok(range) = range.parse::<IpNet>() {
                            out.ranges.push((range.trunc(), id.clone()));
                        }
                    }
                    NetworkEndpoints::FromRegistry(registry) => {
                        registries.insert(Name::from(registry.as_str()));
                    }
                }
            }
            for registry in &registries {
                out.of_registry.entry(registry.clone()).or_insert_with(|| id.clone());
            }
            for gateway in &network.gateways {
                let port = u16::try_from(gateway.port).unwrap_or(0);
                match &gateway.gw {
                    Some(NetworkGatewayAddress::Address(address)) if !address.is_empty() => {
                        out.fixed.push(NetworkGateway {
                            address: Name::from(address.as_str()),
                            port,
                            hbone_port: 0,
                            network: id.clone(),
                            cluster_id: Name::from(""),
                        });
                    }
                    Some(NetworkGatewayAddress::RegistryServiceName(host)) => {
                        for registry in &registries {
                            let service = (registry.clone(), Name::from(host.as_str()));
                            out.by_service.entry(service).or_default().push((id.clone(), port));
                        }
                    }
                    _ => {}
                }
            }
        }
        // The longest prefix decides; equal ones fall to the network's name.
        out.ranges.sort_by(|a, b| b.0.prefix_len().cmp(&a.0.prefix_len()).then_with(|| a.1.cmp(&b.1)));
        out
    }

    /// The network of an address in a cluster that states none itself.
    pub fn of_address(&self, cluster: &str, address: Option<IpAddr>) -> Option<&Name> {
        if let Some(network) = self.of_registry.get(cluster) {
            return Some(network);
        }
        let address = address?;
        self.ranges.iter().find(|(range, _)| range.contains(&address)).map(|(_, network)| network)
    }

    /// Network and port of the gateways that a service of a cluster is by MeshNetworks.
    pub fn of_service(&self, cluster: &Name, host: &Name) -> impl Iterator<Item = (Name, u16)> {
        self.by_service.get(&(cluster.clone(), host.clone())).into_iter().flatten().cloned()
    }

    /// The index of all gateways: those with a fixed address and those found among the services.
    ///
    /// Gateways whose address is a host name are left out, as in istiod: resolving names is off by default
    /// there.
    pub fn gateways<'a>(
        &'a self,
        of_services: impl IntoIterator<Item = &'a NetworkGateway>,
    ) -> NetworkGateways {
        let all: BTreeSet<&NetworkGateway> = self
            .fixed
            .iter()
            .chain(of_services)
            .filter(|gateway| gateway.address.parse::<IpAddr>().is_ok())
            .collect();
        let mut index = NetworkGateways::default();
        for gateway in all {
            index.by_network.entry(gateway.network.clone()).or_default().push(gateway.clone());
            let key = (gateway.network.clone(), gateway.cluster_id.clone());
            index.by_network_and_cluster.entry(key).or_default().push(gateway.clone());
        }
        let sizes = index.by_network.values().map(Vec::len);
        let sizes = sizes.chain(index.by_network_and_cluster.values().map(Vec::len));
        index.weight_scale = sizes.fold(1, |scale, size| {
            u32::try_from(size).ok().and_then(|size| least_common_multiple(scale, size)).unwrap_or(scale)
        });
        index
    }
}

/// `None` on overflow.
fn least_common_multiple(a: u32, b: u32) -> Option<u32> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x)?.checked_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::mesh::{IstioNetworkGateway, Network};

    fn networks() -> MeshNetworks {
        let network = |endpoints, gateways| Network { endpoints, gateways };
        let gateway = |address| IstioNetworkGateway { port: 15443, gw: Some(address), ..Default::default() };
        MeshNetworks {
            networks: BTreeMap::from([
                (
                    "east".to_owned(),
                    network(
                        vec![NetworkEndpoints::FromCidr("10.0.0.0/8".into())],
                        vec![gateway(NetworkGatewayAddress::Address("1.1.1.1".into()))],
                    ),
                ),
                (
                    "west".to_owned(),
                    network(
                        vec![
                            NetworkEndpoints::FromCidr("10.1.0.0/16".into()),
                            NetworkEndpoints::FromRegistry("w".into()),
                        ],
                        vec![
                            gateway(NetworkGatewayAddress::Address("2.2.2.2".into())),
                            gateway(NetworkGatewayAddress::Address("2.2.2.1".into())),
                            gateway(NetworkGatewayAddress::Address("gateway.example.com".into())),
                            gateway(NetworkGatewayAddress::RegistryServiceName(
                                "gw.istio-system.svc.cluster.local".into(),
                            )),
                        ],
                    ),
                ),
            ]),
        }
    }

    #[test]
    fn an_address_is_on_the_network_of_its_registry_or_of_the_longest_range() {
        let check = |cluster: &str, address: &str, expected: Option<&str>| {
            let networks = Networks::new(&networks());
            let found = networks.of_address(cluster, address.parse().ok()).map(|network| &**network);
            assert_eq!(found, expected, "{cluster} {address}");
        };
        check("Kubernetes", "10.2.0.1", Some("east"));
        check("Kubernetes", "10.1.0.1", Some("west"));
        check("Kubernetes", "11.0.0.1", None);
        check("Kubernetes", "db.example.com", None);
        check("w", "10.2.0.1", Some("west"));
        check("w", "db.example.com", Some("west"));
    }

    #[test]
    fn gateways_are_indexed_and_weights_can_be_split() {
        let prepared = Networks::new(&networks());
        let gateway = Name::from("gw.istio-system.svc.cluster.local");
        assert_eq!(prepared.of_service(&Name::from("w"), &gateway).count(), 1);
        assert_eq!(prepared.of_service(&Name::from("Kubernetes"), &gateway).count(), 0);
        let index = prepared.gateways([]);
        let addresses: Vec<&str> = index.of("west").iter().map(|gateway| &*gateway.address).collect();
        assert_eq!(addresses, ["2.2.2.1", "2.2.2.2"]);
        assert_eq!(index.of_cluster("east", "").len(), 1);
        assert!(index.of("north").is_empty());
        assert_eq!(index.weight_scale, 2);
        assert!(index.is_multi_network() && !Networks::default().gateways([]).is_multi_network());
    }
}

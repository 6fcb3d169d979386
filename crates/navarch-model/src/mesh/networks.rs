//! MeshNetworks: which endpoints are in which network, and the gateways between networks.

use std::collections::BTreeMap;

use crate::yaml::{message, oneof, union_message};

message! {
    /// Istio: `Network`.
    pub struct Network {
        endpoints: Vec<NetworkEndpoints>,
        gateways: Vec<IstioNetworkGateway>,
    }
}

union_message! {
    /// Istio: `Network.NetworkEndpoints`.
    pub enum NetworkEndpoints {
        from_cidr => FromCidr(String),
        from_registry => FromRegistry(String),
    }
}

message! {
    /// Istio: `Network.IstioNetworkGateway`.
    pub struct IstioNetworkGateway {
        port: u32,
        locality: String,
        ;
        oneof gw: NetworkGatewayAddress,
    }
}

oneof! {
    /// Istio: the `oneof gw` of `Network.IstioNetworkGateway`.
    pub enum NetworkGatewayAddress {
        registry_service_name => RegistryServiceName(String),
        address => Address(String),
    }
}

message! {
    /// Istio: `MeshNetworks`.
    pub struct MeshNetworks {
        networks: BTreeMap<String, Network>,
    }
}

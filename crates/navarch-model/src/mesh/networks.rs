//! MeshNetworks: which endpoints are in which network, and the gateways between networks.

use std::collections::BTreeMap;

use crate::yaml::{message, oneof, union_message};

message! {
    /// Endpoints that reach each other directly.
    pub struct Network {
        endpoints: Vec<NetworkEndpoints>,
        gateways: Vec<IstioNetworkGateway>,
    }
}

union_message! {
    /// Which endpoints are in the network. Istio: `Network.NetworkEndpoints`.
    pub enum NetworkEndpoints {
        from_cidr => FromCidr(String),
        from_registry => FromRegistry(String),
    }
}

message! {
    /// A gateway through which the network is reached. Istio: `Network.IstioNetworkGateway`.
    pub struct IstioNetworkGateway {
        port: u32,
        locality: String,
        ;
        oneof gw: NetworkGatewayAddress,
    }
}

oneof! {
    /// The gateway's address, or the service that has it.
    pub enum NetworkGatewayAddress {
        registry_service_name => RegistryServiceName(String),
        address => Address(String),
    }
}

message! {
    /// All networks by name.
    pub struct MeshNetworks {
        networks: BTreeMap<String, Network>,
    }
}

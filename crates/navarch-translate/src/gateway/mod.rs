//! Gateways: what their listeners and route configurations are in Envoy's terms.

pub mod listener;
pub mod routes;

pub use listener::{GatewayChain, GatewayPort, GatewayPortInput, GatewaySettings, Transport};
pub use routes::{
    GatewayHost, GatewayHostResource, GatewayHostResourceInput, GatewayRouteConfiguration,
    GatewayRouteConfigurationInput, hosts_with_routes, other_hosts,
};

//! Gateways: the servers of all Gateways of one workload, and the listeners that serve them.

pub mod listener;
pub mod merge;
pub mod routes;

pub use listener::{GatewayChain, GatewayListener, GatewayListenerInput, GatewaySettings};
pub use merge::{MergedGateways, MergedServer, Transport, merge};
pub use routes::{GatewayHost, GatewayRouteConfiguration, GatewayRouteConfigurationInput};

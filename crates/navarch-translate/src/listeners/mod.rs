//! Listeners of sidecars, and the parts of listeners that gateways share.
//!
//! Outbound, every port of every visible service contributes filter chains for an address; contributions for
//! the same address are merged, oldest service first ([`outbound`]). Inbound, one listener takes all
//! redirected connections and tells ports apart by filter chain ([`inbound`]).

pub mod address;
pub mod contribution;
pub mod inbound;
pub mod inspectors;
pub mod merge;
pub mod outbound;
pub mod patch;
pub mod settings;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod virtual_outbound;

use navarch_envoy::proto::envoy::config::core::v3::Metadata;
use navarch_envoy::proto::envoy::config::listener::v3::{Listener, listener};
use navarch_envoy::{Resource, XdsType};
use navarch_model::ObjectKey;
use prost::Message;

use crate::origin;

/// Name of the listener that takes all intercepted outbound connections.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// Name of the listener that takes all intercepted inbound connections.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
/// Connections accepted per event of a socket: one, so that connections are spread evenly over the worker
/// threads.
const CONNECTIONS_PER_SOCKET_EVENT: u32 = 1;

/// The version of the API by which istiod names the objects that filter chains stem from.
const CONFIG_VERSION: &str = "v1alpha3";

/// Metadata of a filter chain that names the object it stems from.
fn chain_metadata(key: &ObjectKey) -> Metadata {
    origin::metadata(CONFIG_VERSION, key)
}

/// Encodes a listener under its own name.
pub fn encode(listener: &Listener) -> Resource {
    Resource::of(XdsType::Lds, listener.name.as_str(), &listener.encode_to_vec())
}

/// Spreads connections exactly evenly over worker threads, if asked to.
pub(crate) fn balance(exact: bool) -> Option<listener::ConnectionBalanceConfig> {
    use listener::connection_balance_config::{BalanceType, ExactBalance};
    exact.then(|| listener::ConnectionBalanceConfig {
        balance_type: Some(BalanceType::ExactBalance(ExactBalance::default())),
    })
}

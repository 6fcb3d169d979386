//! Listeners of sidecars, and the parts of listeners that gateways share.
//!
//! Outbound, every port of every visible service contributes filter chains for an address; contributions for the same address
//! are merged, oldest service first ([`outbound`]). Inbound, one listener takes all redirected connections and tells
//! ports apart by filter chain ([`inbound`]).

pub mod address;
pub mod inbound;
pub mod inspectors;
pub mod merge;
pub mod outbound;
pub mod patch;
pub mod settings;
pub mod tcp;
pub mod tls;
pub mod virtual_outbound;

use navarch_envoy::proto::envoy::config::core::v3::Metadata;
use navarch_envoy::proto::envoy::config::listener::v3::{Listener, listener};
use navarch_envoy::{Resource, XdsType, wkt};
use navarch_model::Name;
use prost::Message;

/// Name of the listener that takes all intercepted outbound connections.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// Name of the listener that takes all intercepted inbound connections.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
/// Connections accepted per event of a socket: one, so that connections are spread evenly over the worker threads.
const CONNECTIONS_PER_SOCKET_EVENT: u32 = 1;

/// A configuration object that a filter chain stems from; it is named in the chain's metadata.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigRef {
    /// For example `networking.istio.io/v1alpha3`.
    pub api_version: Name,
    /// For example `virtual-service`.
    pub kind: Name,
    pub namespace: Name,
    pub name: Name,
}

impl ConfigRef {
    /// A VirtualService.
    pub fn virtual_service(namespace: &Name, name: &Name) -> Self {
        Self::networking("virtual-service", namespace, name)
    }

    /// A Sidecar.
    pub fn sidecar(namespace: &Name, name: &Name) -> Self {
        Self::networking("sidecar", namespace, name)
    }

    fn networking(kind: &str, namespace: &Name, name: &Name) -> Self {
        ConfigRef {
            api_version: Name::from("networking.istio.io/v1alpha3"),
            kind: Name::from(kind),
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }

    fn metadata(&self) -> Metadata {
        let path =
            format!("/apis/{}/namespaces/{}/{}/{}", self.api_version, self.namespace, self.kind, self.name);
        wkt::metadata("istio", wkt::structure([("config", wkt::string(path))]))
    }
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

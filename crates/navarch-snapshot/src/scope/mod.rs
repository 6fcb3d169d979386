//! `Scope`: what a client may see and how it is told to reach it (Istio: Sidecar, exportTo).
//!
//! A scope is resolved once per client and is a value: clients with equal scopes share everything. It holds
//! no services itself; they are looked up bucket by bucket, so that a change of one service concerns one
//! bucket.

mod elsewhere;
mod hosts;
mod resolve;
mod routes;
mod rules;
mod services;

use std::sync::Arc;

use navarch_model::mesh::OutboundTrafficPolicyMode as MeshOutboundMode;
use navarch_model::networking::{
    CaptureMode, ConnectionPoolSettings, Destination, IstioIngressListener, OutboundTrafficPolicyMode,
    Sidecar, SidecarPort,
};
use navarch_model::{Config, Hashed, Labels, Name};

pub use hosts::HostFilter;

/// What a client may see: that of its namespace, cut by its role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    namespace: Name,
    /// The mesh's root namespace, whose DestinationRules apply to everybody.
    root_namespace: Name,
    role: RoleScope,
}

/// What the role of a client makes of what its namespace may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RoleScope {
    /// What the Sidecar that applies to it imports.
    Sidecar(SidecarScope),
    /// Everything: gateways and waypoints ignore Sidecars.
    Gateway,
}

/// What the proxy of a workload may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SidecarScope {
    sidecar: Option<Arc<Hashed<Config<Sidecar>>>>,
    egress: Vec<EgressListener>,
    outbound: Option<OutboundPolicy>,
}

/// A listener for outgoing traffic and what it imports. Without a Sidecar there is one, which imports
/// everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressListener {
    /// `None` for the listener that takes all traffic that no other one takes.
    pub port: Option<SidecarPort>,
    /// An address or the path of a Unix domain socket; empty if not stated.
    pub bind: String,
    pub capture_mode: CaptureMode,
    /// Hosts that are imported.
    pub hosts: HostFilter,
    /// Only service ports with the listener's port number are imported.
    match_port: bool,
}

/// What happens to traffic whose destination is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundPolicy {
    pub mode: OutboundMode,
    /// Where it is sent instead of its destination (Sidecar only).
    pub egress_proxy: Option<Destination>,
}

/// `outboundTrafficPolicy.mode` of a Sidecar or of MeshConfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutboundMode {
    RegistryOnly,
    AllowAny,
    /// HTTP requests to unknown hosts are resolved by name (MeshConfig only).
    AllowAnyDynamicDns,
}

impl From<OutboundTrafficPolicyMode> for OutboundMode {
    fn from(mode: OutboundTrafficPolicyMode) -> Self {
        match mode {
            OutboundTrafficPolicyMode::RegistryOnly => OutboundMode::RegistryOnly,
            OutboundTrafficPolicyMode::AllowAny => OutboundMode::AllowAny,
        }
    }
}

impl From<MeshOutboundMode> for OutboundMode {
    fn from(mode: MeshOutboundMode) -> Self {
        match mode {
            MeshOutboundMode::RegistryOnly => OutboundMode::RegistryOnly,
            MeshOutboundMode::AllowAny => OutboundMode::AllowAny,
            MeshOutboundMode::AllowAnyDynamicDns => OutboundMode::AllowAnyDynamicDns,
        }
    }
}

impl Scope {
    /// Namespace of the client; empty for a client elsewhere, which is asked with [`Scope::is_in`].
    pub fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// The Sidecar that applies to the client, if there is one. Its own namespace may be the root namespace.
    pub fn sidecar(&self) -> Option<&Arc<Hashed<Config<Sidecar>>>> {
        self.of_sidecar()?.sidecar.as_ref()
    }

    /// Listeners for outgoing traffic, in the order in which they are tried; empty for gateways, which see
    /// everything.
    pub fn egress_listeners(&self) -> &[EgressListener] {
        self.of_sidecar().map_or(&[], |imports| &imports.egress)
    }

    /// Listeners for incoming traffic that replace those of the services; empty if the Sidecar states none.
    pub fn ingress(&self) -> &[IstioIngressListener] {
        self.sidecar().map_or(&[], |sidecar| sidecar.spec.ingress.as_slice())
    }

    /// What happens to traffic whose destination is unknown; `None` for gateways.
    pub fn outbound_traffic_policy(&self) -> Option<&OutboundPolicy> {
        self.of_sidecar()?.outbound.as_ref()
    }

    /// Connection pool for incoming connections to a port: that of the ingress listener, else that of the
    /// Sidecar.
    pub fn inbound_connection_pool(&self, port: u32) -> Option<&ConnectionPoolSettings> {
        let sidecar = &self.sidecar()?.spec;
        let of_listener = sidecar
            .ingress
            .iter()
            .filter(|listener| listener.port.as_ref().is_some_and(|p| p.number == port))
            .find_map(|listener| listener.connection_pool.as_ref());
        of_listener.or(sidecar.inbound_connection_pool.as_ref())
    }

    /// The listener whose route configuration is asked for by port, or by the path of a socket if the port is
    /// zero.
    pub fn egress_listener_for(&self, port: u32, bind: &str) -> Option<&EgressListener> {
        self.egress_listeners().iter().find(|listener| match &listener.port {
            None => true,
            Some(own) => own.number == port && (port != 0 || listener.bind == bind),
        })
    }

    /// What is imported; `None` for clients that see everything.
    fn of_sidecar(&self) -> Option<&SidecarScope> {
        match &self.role {
            RoleScope::Sidecar(scope) => Some(scope),
            RoleScope::Gateway => None,
        }
    }
}

impl EgressListener {
    /// Whether the listener imports this host of this namespace (before visibility and port are considered).
    pub fn includes(&self, host: &str, namespace: &str) -> bool {
        self.hosts.includes(host, namespace)
    }
}

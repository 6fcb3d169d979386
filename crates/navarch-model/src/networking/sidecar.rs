//! Sidecar: what a sidecar accepts and what it may reach.

use std::collections::BTreeMap;

use super::{ConnectionPoolSettings, Destination, ServerTlsSettings};
use crate::yaml::{closed_enum, message};

message! {
    /// Istio: `Sidecar`.
    pub struct Sidecar {
        workload_selector: Option<WorkloadSelector>,
        ingress: Vec<IstioIngressListener>,
        egress: Vec<IstioEgressListener>,
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// Istio: `IstioIngressListener`.
    pub struct IstioIngressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        default_endpoint: String,
        tls: Option<ServerTlsSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// Istio: `IstioEgressListener`.
    pub struct IstioEgressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        hosts: Vec<String>,
    }
}

message! {
    /// Istio: `WorkloadSelector`.
    pub struct WorkloadSelector {
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// Istio: `OutboundTrafficPolicy`.
    pub struct OutboundTrafficPolicy {
        mode: OutboundTrafficPolicyMode,
        egress_proxy: Option<Destination>,
    }
}

closed_enum! {
    /// Istio: `OutboundTrafficPolicy.Mode`.
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
    }
}

closed_enum! {
    /// Istio: `CaptureMode`.
    pub enum CaptureMode {
        Default = 0 "DEFAULT",
        Iptables = 1 "IPTABLES",
        None = 2 "NONE",
    }
}

message! {
    /// Istio: `SidecarPort`.
    pub struct SidecarPort {
        number: u32,
        protocol: String,
        name: String,
        target_port: u32,
    }
}

//! Sidecar: what a sidecar accepts and what it may reach.

use std::collections::BTreeMap;

use super::{ConnectionPoolSettings, Destination, ServerTlsSettings};
use crate::yaml::{closed_enum, message};

message! {
    /// What the sidecars of a namespace, or of selected workloads, accept and reach.
    pub struct Sidecar {
        workload_selector: Option<WorkloadSelector>,
        ingress: Vec<IstioIngressListener>,
        egress: Vec<IstioEgressListener>,
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// A port on which the workload accepts traffic. If there is one, nothing is taken from its services.
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
    /// What the workload may reach, through one port or through all.
    pub struct IstioEgressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        hosts: Vec<String>,
    }
}

message! {
    /// Workloads that have all these labels. No labels means all.
    pub struct WorkloadSelector {
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// What happens to traffic for hosts that nobody knows.
    pub struct OutboundTrafficPolicy {
        mode: OutboundTrafficPolicyMode,
        egress_proxy: Option<Destination>,
    }
}

closed_enum! {
    /// Whether unknown hosts may be reached. Istio: `OutboundTrafficPolicy.Mode`.
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
    }
}

closed_enum! {
    /// How traffic comes to the listener.
    pub enum CaptureMode {
        Default = 0 "DEFAULT",
        Iptables = 1 "IPTABLES",
        None = 2 "NONE",
    }
}

message! {
    /// A port of a Sidecar's listener.
    pub struct SidecarPort {
        number: u32,
        protocol: String,
        name: String,
        target_port: u32,
    }
}

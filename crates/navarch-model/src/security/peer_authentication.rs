//! PeerAuthentication: mutual TLS on the accepting side.

use std::collections::BTreeMap;

use crate::types::WorkloadSelector;
use crate::yaml::{closed_enum, message};

message! {
    /// Whether connections to workloads must be mutual TLS.
    pub struct PeerAuthentication {
        selector: Option<WorkloadSelector>,
        mtls: Option<MutualTls>,
        port_level_mtls: BTreeMap<u32, MutualTls>,
    }
}

message! {
    /// The mode; unset means that of the wider policy. Istio: `PeerAuthentication.MutualTLS`.
    pub struct MutualTls {
        mode: MutualTlsMode,
    }
}

closed_enum! {
    /// What a workload accepts. Istio: `PeerAuthentication.MutualTLS.Mode`.
    pub enum MutualTlsMode {
        Unset = 0 "UNSET",
        Disable = 1 "DISABLE",
        Permissive = 2 "PERMISSIVE",
        Strict = 3 "STRICT",
    }
}

//! Selectors and references that several areas share.

use std::collections::BTreeMap;

use crate::yaml::{closed_enum, message};

message! {
    /// Istio: `WorkloadSelector`.
    pub struct WorkloadSelector {
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// Istio: `PortSelector`.
    pub struct PortSelector {
        number: u32,
    }
}

closed_enum! {
    /// Istio: `WorkloadMode`.
    pub enum WorkloadMode {
        Undefined = 0 "UNDEFINED",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
        ClientAndServer = 3 "CLIENT_AND_SERVER",
    }
}

message! {
    /// Istio: `PolicyTargetReference`.
    pub struct PolicyTargetReference {
        group: String,
        kind: String,
        name: String,
        namespace: String,
    }
}

//! Selectors and references that several areas share.

use std::collections::BTreeMap;

use crate::yaml::{closed_enum, message};

message! {
    /// Workloads that have all these labels. No labels means all.
    pub struct WorkloadSelector {
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// A port by number.
    pub struct PortSelector {
        number: u32,
    }
}

closed_enum! {
    /// The direction of traffic: as client, as server, or both.
    pub enum WorkloadMode {
        Undefined = 0 "UNDEFINED",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
        ClientAndServer = 3 "CLIENT_AND_SERVER",
    }
}

message! {
    /// An object that a policy applies to.
    pub struct PolicyTargetReference {
        group: String,
        kind: String,
        name: String,
        namespace: String,
    }
}

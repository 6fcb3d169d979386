//! WorkloadEntry: one workload that runs outside of Kubernetes.

use std::collections::BTreeMap;

use crate::yaml::message;

message! {
    /// Istio: `WorkloadEntry`.
    pub struct WorkloadEntry {
        address: String,
        ports: BTreeMap<String, u32>,
        labels: BTreeMap<String, String>,
        network: String,
        locality: String,
        weight: u32,
        service_account: String,
    }
}

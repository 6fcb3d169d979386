//! WorkloadEntry: one workload that runs outside of Kubernetes.

use std::collections::BTreeMap;

use crate::yaml::message;

message! {
    /// One workload that runs outside of Kubernetes.
    pub struct WorkloadEntry {
        address: String,
        ports: BTreeMap<String, u32>,
        labels: BTreeMap<String, String>,
        network: String,
        locality: String,
        /// 0 means the default, 1.
        weight: u32,
        service_account: String,
    }
}

//! ProxyConfig: proxy settings for a set of workloads.

use std::collections::BTreeMap;

use crate::types::WorkloadSelector;
use crate::yaml::message;

message! {
    /// Istio: `ProxyConfig`.
    pub struct ProxyConfig {
        selector: Option<WorkloadSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<String, String>,
        image: Option<ProxyImage>,
    }
}

message! {
    /// Istio: `ProxyImage`.
    pub struct ProxyImage {
        image_type: String,
    }
}

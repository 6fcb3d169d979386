//! ProxyConfig: proxy settings for a set of workloads.

use std::collections::BTreeMap;

use crate::types::WorkloadSelector;
use crate::yaml::message;

message! {
    /// Settings of proxies that need a restart of the proxy.
    pub struct ProxyConfig {
        selector: Option<WorkloadSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<String, String>,
        image: Option<ProxyImage>,
    }
}

message! {
    /// Which variant of the proxy's image is used.
    pub struct ProxyImage {
        image_type: String,
    }
}

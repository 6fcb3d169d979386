//! Services of several clusters (Kubernetes: Multi-Cluster Services API, KEP-1645).

use std::collections::BTreeMap;

use crate::service::Name;
use crate::values::Json;
use crate::yaml::{closed_enum, message};

/// The API group.
pub const GROUP: &str = "multicluster.x-k8s.io";

message! {
    /// A service that some clusters export. MCS: `ServiceImportSpec`.
    pub struct ServiceImport {
        type_: ServiceImportType,
        ports: Vec<ServiceImportPort>,
        ips: Vec<String>,
        ip_families: Vec<String>,
        session_affinity: String,
        session_affinity_config: Option<Json>,
        internal_traffic_policy: Option<String>,
        traffic_distribution: Option<String>,
    }
}

message! {
    /// A port of it.
    pub struct ServiceImportPort {
        name: Name,
        protocol: String,
        app_protocol: Option<String>,
        port: i32,
    }
}

closed_enum! {
    /// Whether it has an address of its own. MCS: `ServiceImportType`.
    pub enum ServiceImportType {
        ClusterSetIp = 0 "ClusterSetIP",
        Headless = 1 "Headless",
    }
}

message! {
    /// The Service of the same name is for other clusters, too. MCS: `ServiceExportSpec`.
    pub struct ServiceExport {
        exported_labels: BTreeMap<String, String>,
        exported_annotations: BTreeMap<String, String>,
    }
}

//! The identity a proxy states when it connects.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A node as it stands in a bootstrap (`envoy.config.core.v3.Node`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `type~ip~name.namespace~namespace.svc.suffix`; type is `sidecar` or `router`.
    pub id: String,
    /// Name of the workload's service, for telemetry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// What Istio's agents state: NAMESPACE, LABELS, INTERCEPTION_MODE, CLUSTER_ID, INSTANCE_IPS...
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// Where the proxy runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    #[serde(alias = "subZone", skip_serializing_if = "String::is_empty")]
    pub sub_zone: String,
}

impl Locality {
    /// Parses `region/zone/sub-zone`; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), sub_zone: next() }
    }
}

//! Servers of models (Gateway API Inference Extension).

use std::collections::BTreeMap;

use crate::service::Name;
use crate::yaml::{closed_enum, message};

/// The API group.
pub const GROUP: &str = "inference.networking.k8s.io";

message! {
    /// Servers of one model, and who picks one of them for each request. `InferencePoolSpec`.
    pub struct InferencePool {
        selector: PoolSelector,
        target_ports: Vec<PoolPort>,
        endpoint_picker_ref: Option<EndpointPickerRef>,
    }
}

message! {
    /// The pods of a pool.
    pub struct PoolSelector {
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// A port of the pods.
    pub struct PoolPort {
        number: i32,
    }
}

message! {
    /// The service that picks: it is asked as Envoy asks external processors.
    pub struct EndpointPickerRef {
        group: Option<String>,
        kind: Option<String>,
        name: Name,
        port: Option<PoolPort>,
        failure_mode: PickerFailureMode,
    }
}

closed_enum! {
    /// What becomes of requests while nobody picks.
    pub enum PickerFailureMode {
        FailClose = 0 "FailClose",
        FailOpen = 1 "FailOpen",
    }
}

//! What is counted, and the loggers that count.

use std::collections::BTreeMap;

use navarch_envoy::proto::envoy::config::accesslog::v3::AccessLog;
use navarch_model::telemetry::IstioMetric;

use crate::encoded::Encoded;
use crate::http_connection_manager::Direction;

/// What is counted in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricsInput {
    pub direction: Direction,
    /// What differs from the standard.
    pub changes: MetricChanges,
}

/// Changes of metrics, by metric.
pub type MetricChanges = BTreeMap<IstioMetric, MetricChange>;

/// What is different about a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MetricChange {
    pub disabled: bool,
    /// By name of the label.
    pub labels: BTreeMap<String, LabelChange>,
}

/// What is different about a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LabelChange {
    Removed,
    /// A CEL expression, as the user wrote it.
    Expression(String),
}

/// The loggers that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricLogs {
    pub http: Vec<Encoded<AccessLog>>,
    pub tcp: Vec<Encoded<AccessLog>>,
}

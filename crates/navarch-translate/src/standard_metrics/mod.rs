//! Istio's standard metrics (`istio_requests_total` and its like), counted by stock Envoy.
//!
//! Istio's proxy has a filter for them, `istio.stats`. Stock Envoy has an access logger that counts
//! (`envoy.access_loggers.stats`), which says what this proxy alone knows: of a request, its outcome, the
//! service and the peer. The agent beside the proxy makes Istio's labels of that, adds those of its own
//! workload, and answers for both on its page of metrics; so what is here is the same for all workloads, and
//! listeners stay shared. The agent's half is `navarch_agent::status::standard`.

mod expression;
mod labels;
mod loggers;
mod peer;

use std::collections::BTreeMap;

use navarch_envoy::proto::envoy::config::accesslog::v3::AccessLog;
use navarch_model::telemetry::IstioMetric;

pub use self::expression::{Unusable, for_envoy};
pub use self::loggers::at_end;
pub use self::peer::add_filters;
use crate::encoded::Encoded;
use crate::http_connection_manager::Direction;
use crate::pure::{Pure, Sealed};

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

/// Makes the loggers of one direction.
pub struct StandardMetrics;

impl Sealed for StandardMetrics {}

impl Pure for StandardMetrics {
    const NAME: &'static str = "listeners.standard_metrics";
    type Input = MetricsInput;
    type Output = MetricLogs;

    fn run(input: &MetricsInput) -> MetricLogs {
        loggers::of(input)
    }
}

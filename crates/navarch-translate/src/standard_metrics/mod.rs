//! Istio's standard metrics (`istio_requests_total` and its like), counted by stock Envoy.
//!
//! Istio's proxy has a filter for them, `istio.stats`. Stock Envoy has an access logger that counts
//! (`envoy.access_loggers.stats`), which says what this proxy alone knows: of a request, its outcome, the
//! service and the peer. The agent beside the proxy makes Istio's labels of that, adds those of its own
//! workload, and answers for both on its page of metrics; so what is here is the same for all workloads, and
//! listeners stay shared. The agent's half is `navarch_agent::status::standard`.

mod expression;
mod input;
mod labels;
mod loggers;
mod peer;

pub use self::expression::{Unusable, for_envoy};
pub use self::input::{LabelChange, MetricChange, MetricChanges, MetricLogs, MetricsInput};
pub use self::loggers::at_end;
pub use self::peer::add_filters;
pub(crate) use self::peer::removal;
use crate::pure::{Pure, Sealed};

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

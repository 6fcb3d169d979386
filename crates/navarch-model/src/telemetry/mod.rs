//! Traces, metrics and access logs.

#[expect(clippy::module_inception, reason = "one file per kind, also where the area has one kind")]
pub mod telemetry;

pub use telemetry::*;

pub use crate::types::{PolicyTargetReference, WorkloadSelector};

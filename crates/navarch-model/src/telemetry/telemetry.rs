//! Telemetry: traces, metrics and access logs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::values::Percent;
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// Istio: `Telemetry`.
    pub struct Telemetry {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }
}

message! {
    /// Istio: `Tracing`.
    pub struct Tracing {
        match_: Option<TracingSelector>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<Percent>,
        disable_span_reporting: Option<bool>,
        custom_tags: BTreeMap<String, CustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
        disable_context_propagation: Option<bool>,
    }
}

message! {
    /// Istio: `Tracing.TracingSelector`.
    pub struct TracingSelector {
        mode: WorkloadMode,
    }
}

union_message! {
    /// Istio: `Tracing.CustomTag`.
    pub enum CustomTag {
        literal => Literal(Literal),
        environment => Environment(Environment),
        header => Header(RequestHeader),
        formatter => Formatter(Formatter),
    }
}

message! {
    /// Istio: `Tracing.Literal`.
    pub struct Literal {
        value: String,
    }
}

message! {
    /// Istio: `Tracing.Environment`.
    pub struct Environment {
        name: String,
        default_value: String,
    }
}

message! {
    /// Istio: `Tracing.RequestHeader`.
    pub struct RequestHeader {
        name: String,
        default_value: String,
    }
}

message! {
    /// Istio: `Tracing.Formatter`.
    pub struct Formatter {
        value: String,
    }
}

message! {
    /// Istio: `ProviderRef`.
    pub struct ProviderRef {
        name: String,
    }
}

message! {
    /// Istio: `Metrics`.
    pub struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverrides>,
        reporting_interval: Option<Duration>,
    }
}

closed_enum! {
    /// Istio: `WorkloadMode`.
    pub enum WorkloadMode {
        ClientAndServer = 0 "CLIENT_AND_SERVER",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
    }
}

message! {
    /// Istio: `MetricSelector`.
    pub struct MetricSelector {
        mode: WorkloadMode,
        ;
        oneof metric_match: MetricMatch,
    }
}

oneof! {
    /// Istio: the `oneof metric_match` of `MetricSelector`.
    pub enum MetricMatch {
        metric => Metric(IstioMetric),
        custom_metric => CustomMetric(String),
    }
}

closed_enum! {
    /// Istio: `MetricSelector.IstioMetric`.
    pub enum IstioMetric {
        AllMetrics = 0 "ALL_METRICS",
        RequestCount = 1 "REQUEST_COUNT",
        RequestDuration = 2 "REQUEST_DURATION",
        RequestSize = 3 "REQUEST_SIZE",
        ResponseSize = 4 "RESPONSE_SIZE",
        TcpOpenedConnections = 5 "TCP_OPENED_CONNECTIONS",
        TcpClosedConnections = 6 "TCP_CLOSED_CONNECTIONS",
        TcpSentBytes = 7 "TCP_SENT_BYTES",
        TcpReceivedBytes = 8 "TCP_RECEIVED_BYTES",
        GrpcRequestMessages = 9 "GRPC_REQUEST_MESSAGES",
        GrpcResponseMessages = 10 "GRPC_RESPONSE_MESSAGES",
    }
}

message! {
    /// Istio: `MetricsOverrides`.
    pub struct MetricsOverrides {
        match_: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// Istio: `MetricsOverrides.TagOverride`.
    pub struct TagOverride {
        operation: TagOverrideOperation,
        value: String,
    }
}

closed_enum! {
    /// Istio: `MetricsOverrides.TagOverride.Operation`.
    pub enum TagOverrideOperation {
        Upsert = 0 "UPSERT",
        Remove = 1 "REMOVE",
    }
}

message! {
    /// Istio: `AccessLogging`.
    pub struct AccessLogging {
        match_: Option<AccessLoggingSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<AccessLoggingFilter>,
    }
}

message! {
    /// Istio: `AccessLogging.LogSelector`.
    pub struct AccessLoggingSelector {
        mode: WorkloadMode,
    }
}

message! {
    /// Istio: `AccessLogging.Filter`.
    pub struct AccessLoggingFilter {
        expression: String,
    }
}

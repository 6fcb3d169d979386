//! Telemetry: traces, metrics and access logs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::values::Percent;
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// Traces, metrics and access logs of workloads.
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
    /// How requests are traced.
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
    /// For which direction the settings are. Istio: `Tracing.TracingSelector`.
    pub struct TracingSelector {
        mode: WorkloadMode,
    }
}

union_message! {
    /// The value of a tag on traces. Istio: `Tracing.CustomTag`.
    pub enum CustomTag {
        literal => Literal(Literal),
        environment => Environment(Environment),
        header => Header(RequestHeader),
        formatter => Formatter(Formatter),
    }
}

message! {
    /// A tag with a fixed value. Istio: `Tracing.Literal`.
    pub struct Literal {
        value: String,
    }
}

message! {
    /// A tag from the proxy's environment. Istio: `Tracing.Environment`.
    pub struct Environment {
        name: String,
        default_value: String,
    }
}

message! {
    /// A tag from a request's header. Istio: `Tracing.RequestHeader`.
    pub struct RequestHeader {
        name: String,
        default_value: String,
    }
}

message! {
    /// A tag whose value is an Envoy format string. Istio: `Tracing.Formatter`.
    pub struct Formatter {
        value: String,
    }
}

message! {
    /// An extension provider of the mesh settings, by name.
    pub struct ProviderRef {
        name: String,
    }
}

message! {
    /// What is measured, and for whom.
    pub struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverrides>,
        reporting_interval: Option<Duration>,
    }
}

closed_enum! {
    /// The direction of traffic: as client, as server, or both.
    pub enum WorkloadMode {
        ClientAndServer = 0 "CLIENT_AND_SERVER",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
    }
}

message! {
    /// Which metric, for which direction.
    pub struct MetricSelector {
        mode: WorkloadMode,
        ;
        oneof metric_match: MetricMatch,
    }
}

oneof! {
    /// The metric; unset means all.
    pub enum MetricMatch {
        metric => Metric(IstioMetric),
        custom_metric => CustomMetric(String),
    }
}

closed_enum! {
    /// A standard metric. Istio: `MetricSelector.IstioMetric`.
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
    /// Changes to metrics.
    pub struct MetricsOverrides {
        match_: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// A change to a label of a metric. Istio: `MetricsOverrides.TagOverride`.
    pub struct TagOverride {
        operation: TagOverrideOperation,
        value: String,
    }
}

closed_enum! {
    /// Whether the label is set or removed. Istio: `MetricsOverrides.TagOverride.Operation`.
    pub enum TagOverrideOperation {
        Upsert = 0 "UPSERT",
        Remove = 1 "REMOVE",
    }
}

message! {
    /// What is logged, and where to.
    pub struct AccessLogging {
        match_: Option<AccessLoggingSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<AccessLoggingFilter>,
    }
}

message! {
    /// For which direction the settings are. Istio: `AccessLogging.LogSelector`.
    pub struct AccessLoggingSelector {
        mode: WorkloadMode,
    }
}

message! {
    /// A CEL expression that a request must fulfil to be logged. Istio: `AccessLogging.Filter`.
    pub struct AccessLoggingFilter {
        expression: String,
    }
}

//! Extension providers: external services that policies refer to by name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::values::Json;
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// An external service that policies refer to by name. Istio: `MeshConfig.ExtensionProvider`.
    pub struct ExtensionProvider {
        name: String,
        ;
        oneof provider: Provider,
    }
}

oneof! {
    /// What the service is.
    pub enum Provider {
        envoy_ext_authz_http => EnvoyExtAuthzHttp(EnvoyExternalAuthorizationHttpProvider),
        envoy_ext_authz_grpc => EnvoyExtAuthzGrpc(EnvoyExternalAuthorizationGrpcProvider),
        zipkin => Zipkin(ZipkinTracingProvider),
        lightstep => Lightstep(LightstepTracingProvider),
        datadog => Datadog(DatadogTracingProvider),
        stackdriver => Stackdriver(StackdriverProvider),
        opencensus => Opencensus(OpenCensusAgentTracingProvider),
        skywalking => Skywalking(SkyWalkingTracingProvider),
        opentelemetry => Opentelemetry(OpenTelemetryTracingProvider),
        prometheus => Prometheus(PrometheusMetricsProvider),
        envoy_file_access_log => EnvoyFileAccessLog(EnvoyFileAccessLogProvider),
        envoy_http_als => EnvoyHttpAls(EnvoyHttpGrpcV3LogProvider),
        envoy_tcp_als => EnvoyTcpAls(EnvoyTcpGrpcV3LogProvider),
        envoy_otel_als => EnvoyOtelAls(EnvoyOpenTelemetryLogProvider),
        sds => Sds(SdsProvider),
    }
}

message! {
    /// How much of a request's body the authoriser sees.
    ///
    /// Istio: `MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationRequestBody`.
    pub struct EnvoyExternalAuthorizationRequestBody {
        max_request_bytes: u32,
        allow_partial_message: bool,
        pack_as_bytes: bool,
    }
}

message! {
    /// An authoriser that is asked over HTTP. Istio:
    /// `MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationHttpProvider`.
    pub struct EnvoyExternalAuthorizationHttpProvider {
        service: String,
        port: u32,
        timeout: Option<Duration>,
        path_prefix: String,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: String,
        include_headers_in_check: Vec<String>,
        include_request_headers_in_check: Vec<String>,
        include_additional_headers_in_check: BTreeMap<String, String>,
        include_request_body_in_check: Option<EnvoyExternalAuthorizationRequestBody>,
        headers_to_upstream_on_allow: Vec<String>,
        headers_to_downstream_on_deny: Vec<String>,
        headers_to_downstream_on_allow: Vec<String>,
    }
}

message! {
    /// An authoriser that is asked over gRPC. Istio:
    /// `MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationGrpcProvider`.
    pub struct EnvoyExternalAuthorizationGrpcProvider {
        service: String,
        port: u32,
        timeout: Option<Duration>,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: String,
        include_request_body_in_check: Option<EnvoyExternalAuthorizationRequestBody>,
    }
}

message! {
    /// Traces in Zipkin's format. Istio: `MeshConfig.ExtensionProvider.ZipkinTracingProvider`.
    pub struct ZipkinTracingProvider {
        service: String,
        port: u32,
        max_tag_length: u32,
        enable_64bit_trace_id: bool,
        path: String,
        trace_context_option: TraceContextOption,
        timeout: Option<Duration>,
        headers: Vec<HttpHeader>,
    }
}

closed_enum! {
    /// Which headers carry the context. Istio:
    /// `MeshConfig.ExtensionProvider.ZipkinTracingProvider.TraceContextOption`.
    pub enum TraceContextOption {
        UseB3 = 0 "USE_B3",
        UseB3WithW3cPropagation = 1 "USE_B3_WITH_W3C_PROPAGATION",
    }
}

message! {
    /// Traces for Lightstep; sent as OpenTelemetry. Istio:
    /// `MeshConfig.ExtensionProvider.LightstepTracingProvider`.
    pub struct LightstepTracingProvider {
        service: String,
        port: u32,
        access_token: String,
        max_tag_length: u32,
    }
}

message! {
    /// Traces for Datadog. Istio: `MeshConfig.ExtensionProvider.DatadogTracingProvider`.
    pub struct DatadogTracingProvider {
        service: String,
        port: u32,
        max_tag_length: u32,
    }
}

message! {
    /// Traces for SkyWalking. Istio: `MeshConfig.ExtensionProvider.SkyWalkingTracingProvider`.
    pub struct SkyWalkingTracingProvider {
        service: String,
        port: u32,
        access_token: String,
    }
}

message! {
    /// Google's Cloud operations. Istio: `MeshConfig.ExtensionProvider.StackdriverProvider`.
    pub struct StackdriverProvider {
        debug: bool,
        max_number_of_attributes: Option<i64>,
        max_number_of_annotations: Option<i64>,
        max_number_of_message_events: Option<i64>,
        max_tag_length: u32,
        logging: Option<StackdriverLogging>,
    }
}

message! {
    /// Labels of the logs. Istio: `MeshConfig.ExtensionProvider.StackdriverProvider.Logging`.
    pub struct StackdriverLogging {
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// Traces for OpenCensus, which Envoy no longer supports.
    ///
    /// Istio: `MeshConfig.ExtensionProvider.OpenCensusAgentTracingProvider`.
    pub struct OpenCensusAgentTracingProvider {
        service: String,
        port: u32,
        context: Vec<TraceContext>,
        max_tag_length: u32,
    }
}

closed_enum! {
    /// Which headers carry the context. Istio:
    /// `MeshConfig.ExtensionProvider.OpenCensusAgentTracingProvider.TraceContext`.
    pub enum TraceContext {
        Unspecified = 0 "UNSPECIFIED",
        W3cTraceContext = 1 "W3C_TRACE_CONTEXT",
        GrpcBin = 2 "GRPC_BIN",
        CloudTraceContext = 3 "CLOUD_TRACE_CONTEXT",
        B3 = 4 "B3",
    }
}

message! {
    /// Metrics that Prometheus scrapes. Istio: `MeshConfig.ExtensionProvider.PrometheusMetricsProvider`.
    pub struct PrometheusMetricsProvider {
    }
}

message! {
    /// Access logs in a file of the proxy. Istio: `MeshConfig.ExtensionProvider.EnvoyFileAccessLogProvider`.
    pub struct EnvoyFileAccessLogProvider {
        path: String,
        log_format: Option<FileLogFormat>,
        omit_empty_values: bool,
    }
}

union_message! {
    /// How a line looks. Istio: `MeshConfig.ExtensionProvider.EnvoyFileAccessLogProvider.LogFormat`.
    pub enum FileLogFormat {
        text => Text(String),
        labels => Labels(Json),
    }
}

message! {
    /// Access logs of HTTP for Envoy's gRPC log service. Istio:
    /// `MeshConfig.ExtensionProvider.EnvoyHttpGrpcV3LogProvider`.
    pub struct EnvoyHttpGrpcV3LogProvider {
        service: String,
        port: u32,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
        additional_request_headers_to_log: Vec<String>,
        additional_response_headers_to_log: Vec<String>,
        additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    /// Access logs of TCP for Envoy's gRPC log service. Istio:
    /// `MeshConfig.ExtensionProvider.EnvoyTcpGrpcV3LogProvider`.
    pub struct EnvoyTcpGrpcV3LogProvider {
        service: String,
        port: u32,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    /// Access logs in OpenTelemetry's format. Istio:
    /// `MeshConfig.ExtensionProvider.EnvoyOpenTelemetryLogProvider`.
    pub struct EnvoyOpenTelemetryLogProvider {
        service: String,
        port: u32,
        log_name: String,
        log_format: Option<OpenTelemetryLogFormat>,
    }
}

message! {
    /// How an entry looks. Istio: `MeshConfig.ExtensionProvider.EnvoyOpenTelemetryLogProvider.LogFormat`.
    pub struct OpenTelemetryLogFormat {
        text: String,
        labels: Option<Json>,
    }
}

closed_enum! {
    /// Which attributes name the service. Istio: `MeshConfig.ExtensionProvider.ServiceAttributeEnrichment`.
    pub enum ServiceAttributeEnrichment {
        IstioCanonical = 0 "ISTIO_CANONICAL",
        OtelSemanticConventions = 1 "OTEL_SEMANTIC_CONVENTIONS",
    }
}

message! {
    /// Traces in OpenTelemetry's format, over gRPC, or HTTP if `http` is set.
    ///
    /// Istio: `MeshConfig.ExtensionProvider.OpenTelemetryTracingProvider`.
    pub struct OpenTelemetryTracingProvider {
        service: String,
        port: u32,
        max_tag_length: u32,
        http: Option<HttpService>,
        grpc: Option<GrpcService>,
        resource_detectors: Option<ResourceDetectors>,
        service_attribute_enrichment: ServiceAttributeEnrichment,
        ;
        oneof sampling: OpenTelemetrySampling,
    }
}

oneof! {
    /// Who decides which requests are traced.
    pub enum OpenTelemetrySampling {
        dynatrace_sampler => DynatraceSampler(DynatraceSampler),
    }
}

message! {
    /// Sampling as Dynatrace wants it. Istio:
    /// `MeshConfig.ExtensionProvider.OpenTelemetryTracingProvider.DynatraceSampler`.
    pub struct DynatraceSampler {
        tenant: String,
        cluster_id: i32,
        root_spans_per_minute: u32,
        http_service: Option<DynatraceApi>,
    }
}

message! {
    /// Where the sampler's configuration comes from.
    ///
    /// Istio: `MeshConfig.ExtensionProvider.OpenTelemetryTracingProvider.DynatraceSampler.DynatraceApi`.
    pub struct DynatraceApi {
        service: String,
        port: u32,
        http: Option<HttpService>,
    }
}

message! {
    /// A service that hands out certificates. Istio: `MeshConfig.ExtensionProvider.SDSProvider`.
    pub struct SdsProvider {
        name: String,
        service: String,
        port: u32,
    }
}

message! {
    /// How the service is reached over HTTP. Istio: `MeshConfig.ExtensionProvider.HttpService`.
    pub struct HttpService {
        path: String,
        timeout: Option<Duration>,
        headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header that is added. Istio: `MeshConfig.ExtensionProvider.HttpHeader`.
    pub struct HttpHeader {
        name: String,
        ;
        oneof header_value: HeaderValue,
    }
}

oneof! {
    /// The value, or the variable of the proxy's environment that has it.
    pub enum HeaderValue {
        value => Value(String),
        env_name => EnvName(String),
    }
}

message! {
    /// What describes the proxy in traces. Istio: `MeshConfig.ExtensionProvider.ResourceDetectors`.
    pub struct ResourceDetectors {
        environment: Option<EnvironmentResourceDetector>,
        dynatrace: Option<DynatraceResourceDetector>,
    }
}

message! {
    /// Attributes from `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// Istio: `MeshConfig.ExtensionProvider.ResourceDetectors.EnvironmentResourceDetector`.
    pub struct EnvironmentResourceDetector {
    }
}

message! {
    /// Attributes from Dynatrace's files. Istio:
    /// `MeshConfig.ExtensionProvider.ResourceDetectors.DynatraceResourceDetector`.
    pub struct DynatraceResourceDetector {
    }
}

message! {
    /// How the service is reached over gRPC. Istio: `MeshConfig.ExtensionProvider.GrpcService`.
    pub struct GrpcService {
        timeout: Option<Duration>,
        initial_metadata: Vec<HttpHeader>,
    }
}

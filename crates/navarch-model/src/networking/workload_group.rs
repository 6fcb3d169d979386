//! WorkloadGroup: a template for workload entries.

use std::collections::BTreeMap;

use super::WorkloadEntry;
use crate::yaml::{message, oneof};

message! {
    /// Istio: `WorkloadGroup`.
    pub struct WorkloadGroup {
        metadata: Option<WorkloadGroupMetadata>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Istio: `WorkloadGroup.ObjectMeta`.
    pub struct WorkloadGroupMetadata {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

message! {
    /// Istio: `ReadinessProbe`.
    pub struct ReadinessProbe {
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        ;
        oneof health_check_method: HealthCheckMethod,
    }
}

oneof! {
    /// Istio: the `oneof health_check_method` of `ReadinessProbe`.
    pub enum HealthCheckMethod {
        http_get => HttpGet(HttpHealthCheckConfig),
        tcp_socket => TcpSocket(TcpHealthCheckConfig),
        exec => Exec(ExecHealthCheckConfig),
        grpc => Grpc(GrpcHealthCheckConfig),
    }
}

message! {
    /// Istio: `HTTPHealthCheckConfig`.
    pub struct HttpHealthCheckConfig {
        path: String,
        port: u32,
        host: String,
        scheme: String,
        http_headers: Vec<ProbeHttpHeader>,
    }
}

message! {
    /// Istio: `GrpcHealthCheckConfig`.
    pub struct GrpcHealthCheckConfig {
        port: u32,
        service: String,
    }
}

message! {
    /// Istio: `HTTPHeader`.
    pub struct ProbeHttpHeader {
        name: String,
        value: String,
    }
}

message! {
    /// Istio: `TCPHealthCheckConfig`.
    pub struct TcpHealthCheckConfig {
        host: String,
        port: u32,
    }
}

message! {
    /// Istio: `ExecHealthCheckConfig`.
    pub struct ExecHealthCheckConfig {
        command: Vec<String>,
    }
}

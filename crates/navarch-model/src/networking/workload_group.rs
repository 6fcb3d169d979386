//! WorkloadGroup: a template for workload entries.

use std::collections::BTreeMap;

use super::WorkloadEntry;
use crate::yaml::{message, oneof};

message! {
    /// A template for the entries of workloads that register themselves.
    pub struct WorkloadGroup {
        metadata: Option<WorkloadGroupMetadata>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations of the entries. Istio: `WorkloadGroup.ObjectMeta`.
    pub struct WorkloadGroupMetadata {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

message! {
    /// When a workload counts as ready. 0 means the default of Kubernetes.
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
    /// What is probed.
    pub enum HealthCheckMethod {
        http_get => HttpGet(HttpHealthCheckConfig),
        tcp_socket => TcpSocket(TcpHealthCheckConfig),
        exec => Exec(ExecHealthCheckConfig),
        grpc => Grpc(GrpcHealthCheckConfig),
    }
}

message! {
    /// An HTTP request that must be answered with success. Istio: `HTTPHealthCheckConfig`.
    pub struct HttpHealthCheckConfig {
        path: String,
        port: u32,
        host: String,
        scheme: String,
        http_headers: Vec<ProbeHttpHeader>,
    }
}

message! {
    /// A call of gRPC's health service.
    pub struct GrpcHealthCheckConfig {
        port: u32,
        service: String,
    }
}

message! {
    /// A header of the probe. Istio: `HTTPHeader`.
    pub struct ProbeHttpHeader {
        name: String,
        value: String,
    }
}

message! {
    /// A port that must accept connections. Istio: `TCPHealthCheckConfig`.
    pub struct TcpHealthCheckConfig {
        host: String,
        port: u32,
    }
}

message! {
    /// A command that must succeed.
    pub struct ExecHealthCheckConfig {
        command: Vec<String>,
    }
}

//! What the control plane and the agent agree on for Istio's standard metrics: one has Envoy count by tags
//! that hold several things each, the other makes labels of them. Either may be older than the other, so what
//! is here may be added to, and not changed.

/// What the names of tags begin with that are not labels.
pub const OWN_TAGS: &str = "navarch_";
/// Whose the numbers are: `source` or `destination`.
pub const REPORTER: &str = "navarch_reporter";
/// The workload on the other side.
pub const PEER: &str = "navarch_peer";
/// The services of the cluster.
pub const SERVICE: &str = "navarch_service";
/// The host that was asked for, where no service is known.
pub const HOST: &str = "navarch_host";
/// The identities of this side and of the other, with a space between them.
pub const PRINCIPALS: &str = "navarch_principals";
/// Labels that are left out, with commas between them.
pub const REMOVED: &str = "navarch_removed";

/// The label that is there for gRPC alone, and so tells the protocol.
pub const GRPC_STATUS: &str = "grpc_response_status";
pub const REQUEST_PROTOCOL: &str = "request_protocol";

/// Labels of the workload that calls: workload, namespace, app, version, canonical service, canonical
/// revision, cluster.
pub const SOURCE: [&str; 7] = [
    "source_workload",
    "source_workload_namespace",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
];

/// Labels of the workload that is called, in the same order.
pub const DESTINATION: [&str; 7] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];

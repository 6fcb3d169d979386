//! What ztunnel subscribes to: addresses (workloads and services) and authorization policies.

use prost_types::FileDescriptorProto;

use super::table::Holds::{
    Bool, ByteStrings, Bytes, Enum, Enums, Message, MessageMap, Messages, Text, Texts, Uint32, Uint32s,
};
use super::table::{Field, file, message, numbered, one_of, optional, with_enums};

const EXTENSION: &str = ".istio.workload.Extension";
const GATEWAY: &str = ".istio.workload.GatewayAddress";
const NETWORK_ADDRESS: &str = ".istio.workload.NetworkAddress";

/// The package `istio.workload`.
pub fn workload() -> FileDescriptorProto {
    let package = "istio.workload";
    let address: &[Field] = &[
        ("workload", 1, Message(".istio.workload.Workload")),
        ("service", 2, Message(".istio.workload.Service")),
    ];
    let service: &[Field] = &[
        ("name", 1, Text),
        ("namespace", 2, Text),
        ("hostname", 3, Text),
        ("addresses", 4, Messages(NETWORK_ADDRESS)),
        ("ports", 5, Messages(".istio.workload.Port")),
        ("subject_alt_names", 6, Texts),
        ("waypoint", 7, Message(GATEWAY)),
        ("load_balancing", 8, Message(".istio.workload.LoadBalancing")),
        ("ip_families", 9, Enum(".istio.workload.IPFamilies")),
        ("extensions", 10, Messages(EXTENSION)),
        ("canonical", 11, Bool),
        ("ingress_use_waypoint", 12, Bool),
        ("weighted_waypoints", 13, Messages(".istio.workload.WeightedWaypoint")),
        ("visibility", 14, Enum(".istio.workload.Service.Visibility")),
    ];
    let workload: &[Field] = &[
        ("name", 1, Text),
        ("namespace", 2, Text),
        ("addresses", 3, ByteStrings),
        ("network", 4, Text),
        ("tunnel_protocol", 5, Enum(".istio.workload.TunnelProtocol")),
        ("trust_domain", 6, Text),
        ("service_account", 7, Text),
        ("waypoint", 8, Message(GATEWAY)),
        ("node", 9, Text),
        ("canonical_name", 10, Text),
        ("canonical_revision", 11, Text),
        ("workload_type", 12, Enum(".istio.workload.WorkloadType")),
        ("workload_name", 13, Text),
        ("native_tunnel", 14, Bool),
        ("authorization_policies", 16, Texts),
        ("status", 17, Enum(".istio.workload.WorkloadStatus")),
        ("cluster_id", 18, Text),
        ("network_gateway", 19, Message(GATEWAY)),
        ("uid", 20, Text),
        ("hostname", 21, Text),
        ("services", 22, MessageMap(".istio.workload.PortList")),
        ("application_tunnel", 23, Message(".istio.workload.ApplicationTunnel")),
        ("locality", 24, Message(".istio.workload.Locality")),
        ("network_mode", 25, Enum(".istio.workload.NetworkMode")),
        ("extensions", 26, Messages(EXTENSION)),
        ("capacity", 27, Message(".google.protobuf.UInt32Value")),
    ];
    let load_balancing: &[Field] = &[
        ("routing_preference", 1, Enums(".istio.workload.LoadBalancing.Scope")),
        ("mode", 2, Enum(".istio.workload.LoadBalancing.Mode")),
        ("health_policy", 3, Enum(".istio.workload.LoadBalancing.HealthPolicy")),
    ];
    let port: &[Field] = &[
        ("service_port", 1, Uint32),
        ("target_port", 2, Uint32),
        ("app_protocol", 3, Enum(".istio.workload.AppProtocol")),
    ];
    let gateway: &[Field] = &[
        ("hostname", 1, Message(".istio.workload.NamespacedHostname")),
        ("address", 2, Message(NETWORK_ADDRESS)),
        ("hbone_mtls_port", 3, Uint32),
    ];
    let tunnel: &[Field] =
        &[("protocol", 1, Enum(".istio.workload.ApplicationTunnel.Protocol")), ("port", 2, Uint32)];
    let network_address: &[Field] = &[("network", 1, Text), ("address", 2, Bytes), ("length", 3, Uint32)];
    let messages = vec![
        one_of(message(package, "Address", address), "type", &["workload", "service"]),
        with_enums(
            message(package, "Service", service),
            vec![numbered("Visibility", &["PUBLIC", "NAMESPACE"])],
        ),
        with_enums(
            message(package, "LoadBalancing", load_balancing),
            vec![
                numbered(
                    "Scope",
                    &["UNSPECIFIED_SCOPE", "REGION", "ZONE", "SUBZONE", "NODE", "CLUSTER", "NETWORK"],
                ),
                numbered("Mode", &["UNSPECIFIED_MODE", "STRICT", "FAILOVER", "PASSTHROUGH"]),
                numbered("HealthPolicy", &["ONLY_HEALTHY", "ALLOW_ALL"]),
            ],
        ),
        message(package, "Workload", workload),
        message(package, "Locality", &[("region", 1, Text), ("zone", 2, Text), ("subzone", 3, Text)]),
        message(package, "PortList", &[("ports", 1, Messages(".istio.workload.Port"))]),
        message(package, "Port", port),
        with_enums(
            message(package, "ApplicationTunnel", tunnel),
            vec![numbered("Protocol", &["NONE", "PROXY"])],
        ),
        one_of(message(package, "GatewayAddress", gateway), "destination", &["hostname", "address"]),
        message(package, "WeightedWaypoint", &[("destination", 1, Message(GATEWAY)), ("weight", 2, Uint32)]),
        optional(message(package, "NetworkAddress", network_address), "length"),
        message(package, "NamespacedHostname", &[("namespace", 1, Text), ("hostname", 2, Text)]),
        message(package, "Extension", &[("name", 1, Text), ("config", 2, Message(".google.protobuf.Any"))]),
    ];
    let enums = vec![
        numbered("IPFamilies", &["AUTOMATIC", "IPV4_ONLY", "IPV6_ONLY", "DUAL"]),
        numbered("NetworkMode", &["STANDARD", "HOST_NETWORK"]),
        numbered("WorkloadStatus", &["HEALTHY", "UNHEALTHY"]),
        numbered("WorkloadType", &["DEPLOYMENT", "CRONJOB", "POD", "JOB"]),
        numbered("AppProtocol", &["UNKNOWN", "HTTP11", "HTTP2", "GRPC", "TCP", "TLS"]),
        numbered("TunnelProtocol", &["NONE", "HBONE", "LEGACY_ISTIO_MTLS"]),
    ];
    let imports = ["google/protobuf/wrappers.proto", "google/protobuf/any.proto"];
    file("workloadapi/workload.proto", package, &imports, messages, enums)
}

/// The package `istio.security`.
pub fn authorization() -> FileDescriptorProto {
    const TEXT: &str = ".istio.security.StringMatch";
    const ACCOUNT: &str = ".istio.security.ServiceAccountMatch";
    const ADDRESS: &str = ".istio.security.Address";
    let package = "istio.security";
    let authorization: &[Field] = &[
        ("name", 1, Text),
        ("namespace", 2, Text),
        ("scope", 3, Enum(".istio.security.Scope")),
        ("action", 4, Enum(".istio.security.Action")),
        ("rules", 5, Messages(".istio.security.Rule")),
        ("dry_run", 6, Bool),
        ("extensions", 7, Messages(EXTENSION)),
    ];
    let matches: &[Field] = &[
        ("namespaces", 1, Messages(TEXT)),
        ("not_namespaces", 2, Messages(TEXT)),
        ("principals", 3, Messages(TEXT)),
        ("not_principals", 4, Messages(TEXT)),
        ("source_ips", 5, Messages(ADDRESS)),
        ("not_source_ips", 6, Messages(ADDRESS)),
        ("destination_ips", 7, Messages(ADDRESS)),
        ("not_destination_ips", 8, Messages(ADDRESS)),
        ("destination_ports", 9, Uint32s),
        ("not_destination_ports", 10, Uint32s),
        ("service_accounts", 11, Messages(ACCOUNT)),
        ("not_service_accounts", 12, Messages(ACCOUNT)),
        ("extensions", 13, Messages(EXTENSION)),
    ];
    let text: &[Field] = &[
        ("exact", 1, Text),
        ("prefix", 2, Text),
        ("suffix", 3, Text),
        ("presence", 4, Message(".google.protobuf.Empty")),
    ];
    let messages = vec![
        message(package, "Authorization", authorization),
        message(package, "Rule", &[("clauses", 1, Messages(".istio.security.Clause"))]),
        message(package, "Clause", &[("matches", 2, Messages(".istio.security.Match"))]),
        message(package, "Match", matches),
        message(package, "Address", &[("address", 1, Bytes), ("length", 2, Uint32)]),
        message(package, "ServiceAccountMatch", &[("namespace", 1, Text), ("serviceAccount", 2, Text)]),
        one_of(
            message(package, "StringMatch", text),
            "match_type",
            &["exact", "prefix", "suffix", "presence"],
        ),
    ];
    let enums = vec![
        numbered("Scope", &["GLOBAL", "NAMESPACE", "WORKLOAD_SELECTOR"]),
        numbered("Action", &["ALLOW", "DENY"]),
    ];
    let imports = ["google/protobuf/empty.proto", "workloadapi/workload.proto"];
    file("workloadapi/security/authorization.proto", package, &imports, messages, enums)
}

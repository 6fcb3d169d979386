//! Service: a name with ports, and how to reach it.

use super::IntOrString;
use crate::service::Labels;
use crate::yaml::message;

message! {
    pub struct Service {
        spec: ServiceSpec,
        status: ServiceStatus,
    }
}

message! {
    pub struct ServiceSpec {
        /// `ClusterIP` (also if empty), `NodePort`, `LoadBalancer`, `ExternalName`.
        type_: String,
        /// `None` (the text) for a headless service.
        cluster_ip as "clusterIP": String,
        cluster_ips as "clusterIPs": Vec<String>,
        external_ips as "externalIPs": Vec<String>,
        external_name: String,
        selector: Labels,
        ports: Vec<ServicePort>,
        session_affinity: String,
        /// `Cluster` or `Local`.
        internal_traffic_policy: String,
        external_traffic_policy: String,
        publish_not_ready_addresses: bool,
        /// `PreferClose`, `PreferSameZone`, `PreferSameNode`.
        traffic_distribution: String,
        ip_families: Vec<String>,
        ip_family_policy: String,
        load_balancer_ip as "loadBalancerIP": String,
    }
}

message! {
    pub struct ServicePort {
        name: String,
        /// `TCP` if empty.
        protocol: String,
        app_protocol: String,
        port: i32,
        target_port: Option<IntOrString>,
        node_port: i32,
    }
}

message! {
    pub struct ServiceStatus {
        load_balancer: LoadBalancerStatus,
    }
}

message! {
    pub struct LoadBalancerStatus {
        ingress: Vec<LoadBalancerIngress>,
    }
}

message! {
    pub struct LoadBalancerIngress {
        ip: String,
        hostname: String,
    }
}

//! Pod: the workload behind an address.

use crate::yaml::message;

message! {
    pub struct Pod {
        spec: PodSpec,
        status: PodStatus,
    }
}

message! {
    pub struct PodSpec {
        service_account_name: String,
        node_name: String,
        host_network: bool,
        hostname: String,
        subdomain: String,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
    }
}

message! {
    pub struct Container {
        name: String,
        ports: Vec<ContainerPort>,
    }
}

message! {
    pub struct ContainerPort {
        name: String,
        container_port: i32,
        /// `TCP` if empty.
        protocol: String,
    }
}

message! {
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
        phase: String,
        pod_ip as "podIP": String,
        pod_ips as "podIPs": Vec<PodIp>,
        host_ip as "hostIP": String,
        conditions: Vec<PodCondition>,
    }
}

message! {
    pub struct PodIp {
        ip: String,
    }
}

message! {
    pub struct PodCondition {
        /// `Ready`, `PodScheduled`, …
        type_: String,
        /// `True`, `False`, `Unknown`.
        status: String,
    }
}

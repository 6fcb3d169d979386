//! Pod: the workload behind an address.

use crate::yaml::{Decode, Decoder, Fields, Node, message};

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
        /// From its conditions.
        readiness as "conditions": Readiness,
    }
}

message! {
    pub struct PodIp {
        ip: String,
    }
}

/// Whether a pod is ready, if its conditions say so. Nothing else is kept of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Readiness(pub Option<bool>);

message! {
    pub struct PodCondition {
        /// `Ready`, `PodScheduled`, …
        type_: String,
        /// `True`, `False`, `Unknown`.
        status: String,
    }
}

impl Decode for Readiness {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let conditions = Vec::<PodCondition>::decode(node, decoder)?;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Some(Readiness(ready.map(|condition| condition.status == "True")))
    }

    fn fields() -> Fields {
        PodCondition::fields()
    }
}

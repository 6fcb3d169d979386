//! EndpointSlice: some of the addresses behind a service, named by the label `kubernetes.io/service-name`.

use super::ObjectReference;
use crate::yaml::message;

message! {
    pub struct EndpointSlice {
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointSlicePort>,
    }
}

message! {
    pub struct Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: String,
        node_name: String,
        zone: String,
        target_ref: Option<ObjectReference>,
    }
}

message! {
    /// Unset means ready, serving and not terminating.
    pub struct EndpointConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
}

message! {
    pub struct EndpointSlicePort {
        name: String,
        /// `TCP` if empty.
        protocol: String,
        app_protocol: String,
        port: Option<i32>,
    }
}

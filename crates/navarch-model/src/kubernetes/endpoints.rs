//! Endpoints: the older form of EndpointSlice, still written by hand for services without a selector.

use super::ObjectReference;
use crate::yaml::message;

message! {
    pub struct Endpoints {
        subsets: Vec<EndpointSubset>,
    }
}

message! {
    pub struct EndpointSubset {
        addresses: Vec<EndpointAddress>,
        not_ready_addresses: Vec<EndpointAddress>,
        ports: Vec<EndpointPort>,
    }
}

message! {
    pub struct EndpointAddress {
        ip: String,
        hostname: String,
        node_name: String,
        target_ref: Option<ObjectReference>,
    }
}

message! {
    pub struct EndpointPort {
        name: String,
        /// `TCP` if empty.
        protocol: String,
        app_protocol: String,
        port: i32,
    }
}

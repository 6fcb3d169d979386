//! What all parts of a bootstrap are made of.

use std::net::IpAddr;

use serde_json::{Value, json};

/// Name of the static cluster that leads to the control plane, as in Istio's bootstrap.
pub const XDS_CLUSTER: &str = "xds-grpc";

/// A TCP address.
pub(super) fn socket_address(ip: IpAddr, port: u16) -> Value {
    json!({ "socket_address": { "address": ip.to_string(), "port_value": port } })
}

//! Node: its addresses, and its locality by labels.

use crate::yaml::message;

message! {
    pub struct Node {
        status: NodeStatus,
    }
}

message! {
    pub struct NodeStatus {
        addresses: Vec<NodeAddress>,
    }
}

message! {
    pub struct NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname`, …
        type_: String,
        address: String,
    }
}

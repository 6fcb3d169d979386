//! TCPRoute, TLSRoute and UDPRoute: where connections and datagrams go.

use super::reference::{BackendRef, ParentReference};
use super::values::UseDefaultGateways;
use crate::yaml::message;

message! {
    /// Where connections go that come in at a listener or, with services as parents, that are made to a
    /// service.
    pub struct TcpRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: UseDefaultGateways,
        rules: Vec<StreamRouteRule>,
    }
}

message! {
    /// Where TLS connections go by server name.
    pub struct TlsRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: UseDefaultGateways,
        /// Server names.
        hostnames: Vec<String>,
        rules: Vec<StreamRouteRule>,
    }
}

message! {
    /// Where datagrams go that come in at a listener.
    pub struct UdpRoute {
        parent_refs: Vec<ParentReference>,
        use_default_gateways: UseDefaultGateways,
        rules: Vec<StreamRouteRule>,
    }
}

message! {
    /// The backends of connections or datagrams.
    pub struct StreamRouteRule {
        name: Option<String>,
        backend_refs: Vec<BackendRef>,
    }
}

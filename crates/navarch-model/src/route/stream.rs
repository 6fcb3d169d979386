//! Rules for connections: TLS that is passed through, and plain bytes.

use super::backend::StreamBackend;
use super::client::ClientMatch;
use crate::origin::Origin;
use crate::service::Name;

/// Where TLS connections go by server name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsRule {
    pub origin: Origin,
    /// One of them has to hold.
    pub matches: Vec<TlsMatch>,
    pub backends: Vec<StreamBackend>,
}

/// Conditions on a TLS connection that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsMatch {
    pub client: ClientMatch,
    /// Server names, maybe wildcards.
    pub server_names: Vec<Name>,
    /// Addresses or CIDR blocks; empty means any.
    pub destination_blocks: Vec<Name>,
}

/// Where connections go by address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpRule {
    pub origin: Origin,
    /// One of them has to hold; empty means every connection.
    pub matches: Vec<TcpMatch>,
    pub backends: Vec<StreamBackend>,
}

/// Conditions on a connection that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpMatch {
    pub client: ClientMatch,
    /// Addresses or CIDR blocks; empty means any.
    pub destination_blocks: Vec<Name>,
}

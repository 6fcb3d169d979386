//! Rules for connections: TLS that is passed through, and plain bytes.

use super::{ClientMatch, Destination, StreamBackend};
use crate::object::ObjectKey;
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

impl TlsRule {
    /// The services that connections are sent to.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let TlsRule { origin, matches: _, backends } = self;
        of_backends(&origin.key, backends)
    }
}

impl TcpRule {
    /// The services that connections are sent to.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let TcpRule { origin, matches: _, backends } = self;
        of_backends(&origin.key, backends)
    }
}

fn of_backends<'a>(
    key: &'a ObjectKey,
    backends: &'a [StreamBackend],
) -> impl Iterator<Item = Destination<'a>> {
    backends.iter().filter_map(move |to| {
        let StreamBackend { backend, weight: _, field } = to;
        Some(Destination { to: backend.service()?, key, field, http: None })
    })
}

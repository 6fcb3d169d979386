//! Merging of what several services ask of one address.
//!
//! The oldest service decides; later ones add chains that take other connections. HTTP and bytes on one
//! address are told apart by looking at the first bytes, except for protocols in which the server speaks
//! first.

use std::collections::BTreeSet;

use navarch_model::Name;
use navarch_model::service::Protocol;

use crate::listeners::address::parse_block;
use crate::listeners::contribution::{
    Contribution, HttpChain, ListenerProtocol, TcpChain, listener_protocol,
};

/// A listener in the making.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub binds: &'a [Name],
    pub bind_to_port: bool,
    pub port: u16,
    /// Protocol of the listener; `Unsupported` once HTTP and bytes are told apart.
    pub protocol: Protocol,
    pub chains: Vec<Chain<'a>>,
}

/// A filter chain of a listener in the making.
#[derive(Clone, Copy, Debug)]
pub enum Chain<'a> {
    Tcp(&'a TcpChain),
    Http(&'a HttpChain),
}

/// The outcome of merging.
#[derive(Clone, Debug)]
pub struct Merged<'a> {
    pub entry: Entry<'a>,
    /// Positions of later contributions that lack something, because an older one takes the same
    /// connections.
    pub conflicts: Vec<usize>,
}

/// Merges contributions for one address, in the order of precedence.
pub fn merge<'a>(first: &'a Contribution, later: impl Iterator<Item = &'a Contribution>) -> Merged<'a> {
    let mut merged = Merged { entry: Entry::of(first), conflicts: Vec::new() };
    for (position, contribution) in later.enumerate() {
        let complete = listener_protocol(contribution.protocol)
            .is_none_or(|listener_protocol| merged.entry.add(contribution, listener_protocol));
        if !complete {
            merged.conflicts.push(position);
        }
    }
    merged
}

impl<'a> Entry<'a> {
    fn of(contribution: &'a Contribution) -> Self {
        let detects = contribution.http.as_ref().is_some_and(|http| http.detect);
        Entry {
            binds: &contribution.binds,
            bind_to_port: contribution.bind_to_port,
            port: contribution.port,
            protocol: if detects { Protocol::Unsupported } else { contribution.protocol },
            chains: chains(contribution),
        }
    }

    /// Adds what a later contribution asks for. False if something had to be left out.
    fn add(&mut self, contribution: &'a Contribution, listener_protocol: ListenerProtocol) -> bool {
        if contribution.protocol == Protocol::HttpProxy {
            *self = Entry::of(contribution);
            return true;
        }
        let current = self.protocol;
        if listener_protocol == ListenerProtocol::Http && !current.is_tcp() {
            // Another service on a shared HTTP listener: its hosts arrive with the routes.
            return true;
        }
        if speaks_first(contribution.protocol, current) {
            return false;
        }
        match listener_protocol {
            ListenerProtocol::Http => {
                self.protocol = Protocol::Unsupported;
                self.add_chains(chains(contribution))
            }
            ListenerProtocol::Tcp => {
                if current.is_http() {
                    self.protocol = Protocol::Unsupported;
                }
                self.add_chains(chains(contribution))
            }
            ListenerProtocol::Detect if current.is_http() => {
                *self = Entry::of(contribution);
                true
            }
            ListenerProtocol::Detect if current.is_tcp() => {
                self.protocol = Protocol::Unsupported;
                self.add_chains(chains(contribution))
            }
            ListenerProtocol::Detect => self.add_chains(contribution.tcp.iter().map(Chain::Tcp).collect()),
        }
    }

    fn add_chains(&mut self, added: Vec<Chain<'a>>) -> bool {
        let mut complete = true;
        for chain in added {
            if self.chains.iter().any(|existing| existing.takes_the_same(&chain)) {
                complete = false;
            } else {
                self.chains.push(chain);
            }
        }
        complete
    }
}

fn chains(contribution: &Contribution) -> Vec<Chain<'_>> {
    contribution.tcp.iter().map(Chain::Tcp).chain(contribution.http.iter().map(Chain::Http)).collect()
}

/// Whether one of two different protocols has a server that speaks first (MongoDB and MySQL clients wait):
/// looking at the client's first bytes would block such connections forever.
fn speaks_first(incoming: Protocol, current: Protocol) -> bool {
    let waits = |protocol| matches!(protocol, Protocol::Mongo | Protocol::Mysql);
    incoming != current && (waits(incoming) || waits(current))
}

impl Chain<'_> {
    /// Whether the chain takes every connection.
    pub fn takes_everything(&self) -> bool {
        match self {
            Chain::Http(http) => !http.detect,
            Chain::Tcp(tcp) => {
                (tcp.server_names.is_empty() || tcp.server_names.iter().any(|name| &**name == "*"))
                    && tcp.destination_blocks.is_empty()
            }
        }
    }

    /// Whether both chains take exactly the same connections, which Envoy would reject.
    fn takes_the_same(&self, other: &Chain<'_>) -> bool {
        match (self, other) {
            (Chain::Tcp(a), Chain::Tcp(b)) => {
                names(a) == names(b) && blocks(&a.destination_blocks) == blocks(&b.destination_blocks)
            }
            (Chain::Http(a), Chain::Http(b)) => a.detect == b.detect,
            (Chain::Http(http), Chain::Tcp(_)) => !http.detect && other.takes_everything(),
            (Chain::Tcp(_), Chain::Http(http)) => !http.detect && self.takes_everything(),
        }
    }
}

fn names(chain: &TcpChain) -> BTreeSet<&str> {
    chain.server_names.iter().map(|name| &**name).filter(|name| *name != "*").collect()
}

/// Blocks as sets of addresses: `10.1.2.3/8` and `10.0.0.0/8` are the same; all of IPv4 restricts nothing.
fn blocks(blocks: &[Name]) -> BTreeSet<ipnet::IpNet> {
    blocks
        .iter()
        .filter_map(|block| parse_block(block))
        .filter(|block| !block.addr().is_unspecified() || block.addr().is_ipv6())
        .map(|block| block.trunc())
        .collect()
}

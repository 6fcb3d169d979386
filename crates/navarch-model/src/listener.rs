//! `GatewayListener`: a port that gateway proxies open, whatever API says so.
//!
//! As routes are lowered to [`crate::route::RouteSet`], so are the ports of gateways to this noun: Istio's
//! `Server` is one producer. It is an input of translation: it can be compared and hashed, and it names no
//! file and no line.

use std::fmt;
use std::sync::Arc;

use crate::hashed::Hashed;
use crate::networking::ServerTlsSettings;
use crate::object::ObjectKey;
use crate::origin::{Origin, Precedence};
use crate::service::{Labels, Name, Protocol};

/// The listeners of one gateway, and the proxies that open them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerSet {
    /// Identity of the gateway, and its place where several claim a port.
    pub precedence: Precedence,
    pub proxies: GatewayProxies,
    /// Proxies were made for this gateway. They take no listeners from other namespaces, whose hosts and
    /// credentials are not to be mixed with its own, unless those are `admitted`.
    pub provisioned: bool,
    /// May be served by proxies that were made for a gateway of another namespace. (Gateway API: listeners
    /// name their proxies' Service, so they get there only if it is meant.)
    pub admitted: bool,
    pub listeners: Vec<Arc<Hashed<GatewayListener>>>,
}

/// Which proxies open the listeners of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayProxies {
    /// Gateway proxies with these labels; without labels all of them.
    Labelled(Labels),
    /// Those behind one of these services.
    Behind {
        namespace: Name,
        /// Fully qualified hosts.
        services: Vec<Name>,
    },
}

/// One port of a gateway with the hosts that are served on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayListener {
    /// The gateway and the field that states the listener, for example `spec.servers[0]`.
    pub origin: Origin,
    /// Names statistics; may be empty.
    pub name: Name,
    /// The port as the gateway states it. Proxies listen on the one that their Service makes of it.
    pub port: u16,
    pub port_name: Name,
    /// As the gateway writes it: listeners share a port only if they write the same.
    /// [`GatewayListener::protocol`] reads it.
    pub protocol: Name,
    /// Address to listen on; empty for all.
    pub bind: Name,
    pub hosts: Vec<ListenerHost>,
    pub tls: Option<ServerTlsSettings>,
}

/// A host that is served on a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerHost {
    /// May be a wildcard.
    pub name: Name,
    /// Only routes of this namespace count for it; `None` for those of all.
    pub routes_of: Option<Name>,
}

impl ListenerSet {
    /// The gateway.
    pub fn key(&self) -> &ObjectKey {
        &self.precedence.key
    }
}

impl GatewayListener {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.protocol)
    }

    /// Hosts for which routes of a namespace count.
    pub fn hosts_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Name> {
        let counts =
            move |host: &&ListenerHost| host.routes_of.as_ref().is_none_or(|own| **own == *namespace);
        self.hosts.iter().filter(counts).map(|host| &host.name)
    }
}

/// As Istio writes it: `<namespace>/<host>`, or the host alone for the routes of all namespaces.
impl fmt::Display for ListenerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.routes_of {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

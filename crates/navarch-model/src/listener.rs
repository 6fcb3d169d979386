//! `GatewayListener`: a port that gateway proxies open, whatever API says so.
//!
//! As routes are lowered to [`crate::route::RouteSet`], so are the ports of gateways to this noun: Istio's
//! `Server` and the `Listener` of the Gateway API are its producers. It is an input of translation: it can be
//! compared and hashed, and it names no file and no line.

use std::fmt;
use std::sync::Arc;

use crate::gateway_api::RouteKind;
use crate::hashed::Hashed;
use crate::kinds::Kind;
use crate::networking::ServerTlsSettings;
use crate::object::ObjectKey;
use crate::origin::{Origin, Precedence};
use crate::route::Parent;
use crate::service::{Labels, Name, Protocol};

/// The listeners that one object states, and the proxies that open them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerSet {
    /// The gateway that the listeners are for: the object itself, or that which a ListenerSet adds to.
    pub gateway: ObjectKey,
    /// Identity of the object, and its place where several claim a port.
    pub precedence: Precedence,
    pub proxies: GatewayProxies,
    /// Proxies were made for this gateway. They take no listeners from other namespaces, whose hosts and
    /// credentials are not to be mixed with its own, unless those are `admitted`.
    pub provisioned: bool,
    /// May be served by proxies that were made for a gateway of another namespace. (Gateway API: listeners
    /// name their proxies' Service, so they get there only if it is meant.)
    pub admitted: bool,
    /// The credential that proxies present to backends which they speak TLS to.
    /// (Gateway API: `tls.backend.clientCertificateRef`.)
    pub backend_certificate: Option<Name>,
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
    /// The object and the field that state the listener, for example `spec.servers[0]`.
    pub origin: Origin,
    /// What routes name to be attached to it.
    pub parent: Parent,
    /// Kinds of routes of the Gateway API that may be attached to it.
    pub kinds: Vec<RouteKind>,
    /// Proxies open it. Routes may be attached to a listener that cannot be opened, and wait.
    pub served: bool,
    /// What the gateway is called in names of route configurations.
    pub gateway_name: Name,
    /// Where the gateway is in names of route configurations.
    pub gateway_namespace: Name,
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
    /// Only routes of this namespace count for it; `None` for those of all, [`NO_NAMESPACE`] for none.
    pub routes_of: Option<Name>,
}

/// In place of a namespace: there is none whose routes count. (Istio writes it like this, too.)
pub const NO_NAMESPACE: &str = "~";

impl ListenerSet {
    /// The object that states the listeners.
    pub fn key(&self) -> &ObjectKey {
        &self.precedence.key
    }

    /// Whether it is an object of the Gateway API.
    pub fn is_of_gateway_api(&self) -> bool {
        self.gateway.kind == Kind::KubernetesGateway
    }
}

impl GatewayListener {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.protocol)
    }

    /// The section that routes name, if they name one.
    pub fn section(&self) -> Option<&Name> {
        match &self.parent {
            Parent::Listener { section, .. } => Some(section),
            Parent::Mesh | Parent::Gateway(_) => None,
        }
    }

    /// The host of a listener that has one; `*` for all.
    pub fn hostname(&self) -> &str {
        self.hosts.first().map_or("*", |host| &host.name)
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

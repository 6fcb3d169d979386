//! To which of the parents that a route names it is attached, and where it is not, why.

use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::gateway_api::{GROUP, ParentReference};
use navarch_model::listener::{GatewayListener, ListenerSet};
use navarch_model::networking::ServiceEntry;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::Parent;
use navarch_model::status::{Condition, ConditionType};
use navarch_model::{ClusterId, Hashed, Kind, Name};

use crate::host::{covers, is_wildcard, overlap};
use crate::registry::kubernetes_host;
use crate::registry::store::Reader;

/// A parent that a route names.
pub(super) struct Attachment<'a> {
    /// Position of the reference.
    pub index: usize,
    pub reference: &'a ParentReference,
    pub key: ObjectKey,
    /// Where the route is attached; nowhere if it is denied.
    pub places: Vec<Place>,
    pub denied: Option<Denied>,
    /// Somebody may be told of it: the parent is there.
    pub has_status: bool,
}

/// Something that a route is attached to.
pub(super) enum Place {
    /// The clients of a service, on one of its ports if it is stated.
    Mesh { hosts: Vec<Name>, port: Option<u16> },
    Listener {
        listener: Arc<Hashed<GatewayListener>>,
        /// Hosts of the other listeners of the object on the same port.
        others: Vec<Name>,
    },
}

/// Why a route is not attached.
pub(super) struct Denied {
    pub reason: Reason,
    pub message: String,
    pub hint: &'static str,
}

/// The reason of the condition `Accepted`. Of several the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    NotAllowedByListeners,
    NoMatchingListenerHostname,
    NoMatchingParent,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowedByListeners => "NotAllowedByListeners",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::NoMatchingParent => "NoMatchingParent",
        }
    }
}

impl Attachment<'_> {
    pub fn is_mesh(&self) -> bool {
        matches!(self.key.kind, Kind::Service | Kind::ServiceEntry)
    }

    /// Whether the parent takes the route.
    pub fn accepted(&self) -> Condition {
        match &self.denied {
            Some(Denied { reason, message, .. }) => {
                Condition::new(ConditionType::Accepted, false, reason.as_str(), message.clone())
            }
            None => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
        }
    }

    pub fn finding(&self) -> Option<Finding> {
        let Denied { reason: _, message, hint } = self.denied.as_ref()?;
        let path = format!("spec.parentRefs[{}]", self.index);
        Some(Finding::warning(Code::InvalidReference, message.clone()).hint(*hint).path(path))
    }
}

impl Place {
    /// The listener that it is; nothing for the mesh.
    pub fn parent(&self) -> Option<Parent> {
        match self {
            Place::Mesh { .. } => None,
            Place::Listener { listener, .. } => Some(listener.parent.clone()),
        }
    }

    /// The name of the routes for a host in traces, as istiod makes it.
    pub fn operation(&self, namespace: &str, host: &str) -> Name {
        Name::from(match self {
            Place::Mesh { port: Some(port), .. } => format!("{namespace}~{port}~{host}"),
            Place::Mesh { port: None, .. } => format!("{namespace}~{host}"),
            Place::Listener { listener, .. } => {
                format!("{}~{}~{host}", listener.origin.key.namespace, listener.gateway_name)
            }
        })
    }
}

/// The parents of a route that this program looks after, in order. Others are somebody else's.
pub(super) fn attachments<'a>(
    reader: &Reader<'_>,
    route: &Object,
    references: &'a [ParentReference],
    hosts: &[Name],
) -> Vec<Attachment<'a>> {
    let attachments = references.iter().enumerate().filter_map(|(index, reference)| {
        let kind = parent_kind(reference)?;
        let key = ObjectKey::new(kind, reference.namespace(&route.key.namespace), &reference.name);
        let mut has_status = true;
        let found = if matches!(kind, Kind::Service | Kind::ServiceEntry) {
            of_service(reader, route, reference, &key).map(|place| vec![place])
        } else if let Some(set) = reader.listeners(&key) {
            of_listeners(route, reference, hosts, set)
        } else if reader.exists(&key) {
            return None;
        } else {
            has_status = false;
            Err(missing(&key))
        };
        let (places, denied) = match found {
            Ok(places) => (places, None),
            Err(denied) => (Vec::new(), Some(denied)),
        };
        Some(Attachment { index, reference, key, places, denied, has_status })
    });
    attachments.collect()
}

fn missing(key: &ObjectKey) -> Denied {
    Denied {
        reason: Reason::NoMatchingParent,
        message: format!("there is no {key}"),
        hint: "create it, or correct the reference",
    }
}

/// The listeners that take a route; if there are none, why.
fn of_listeners(
    route: &Object,
    reference: &ParentReference,
    hosts: &[Name],
    set: &ListenerSet,
) -> Result<Vec<Place>, Denied> {
    let mut places = Vec::new();
    let mut denied: Option<Denied> = None;
    for listener in &set.listeners {
        match admission(route, reference, hosts, listener) {
            Ok(()) => {
                let same_port = set.listeners.iter().filter(|other| {
                    other.port == listener.port
                        && other.protocol == listener.protocol
                        && other.hostname() != listener.hostname()
                });
                let others = same_port.map(|other| Name::from(other.hostname())).collect();
                places.push(Place::Listener { listener: listener.clone(), others });
            }
            Err(why) if denied.as_ref().is_none_or(|known| why.reason < known.reason) => denied = Some(why),
            Err(_) => {}
        }
    }
    match denied {
        _ if !places.is_empty() => Ok(places),
        Some(denied) => Err(denied),
        None => Err(Denied {
            reason: Reason::NoMatchingParent,
            message: format!("{} has no listener", set.key()),
            hint: "add a listener",
        }),
    }
}

/// Whether a listener takes a route: the reference means it, they have a host in common, and the route's
/// namespace and kind are allowed.
fn admission(
    route: &Object,
    reference: &ParentReference,
    hosts: &[Name],
    listener: &GatewayListener,
) -> Result<(), Denied> {
    let GatewayListener { origin, port, kinds, .. } = listener;
    let section = listener.section().map_or("", |section| section);
    if let Some(stated) = reference.port.filter(|stated| *stated != u32::from(*port)) {
        return Err(Denied {
            reason: Reason::NoMatchingParent,
            message: format!("{} has no listener on port {stated}", origin.key),
            hint: "correct the port",
        });
    }
    if let Some(stated) = reference.section_name.as_deref().filter(|stated| *stated != section) {
        return Err(Denied {
            reason: Reason::NoMatchingParent,
            message: format!("{} has no listener {stated:?}", origin.key),
            hint: "correct sectionName",
        });
    }
    let every = [Name::from("*")];
    let hosts = if hosts.is_empty() { &every } else { hosts };
    let in_common = |name: &Name| hosts.iter().any(|host| overlap(name, host));
    if !listener.hosts_for(&route.key.namespace).any(in_common) {
        if listener.hosts.iter().any(|host| in_common(&host.name)) {
            return Err(Denied {
                reason: Reason::NotAllowedByListeners,
                message: format!(
                    "listener {section:?} of {} takes no routes of namespace {}",
                    origin.key, route.key.namespace
                ),
                hint: "allow the namespace in allowedRoutes of the listener",
            });
        }
        return Err(Denied {
            reason: Reason::NoMatchingListenerHostname,
            message: format!("no host of the route is one of listener {section:?} of {}", origin.key),
            hint: "state a host that the listener has",
        });
    }
    if !kinds.iter().any(|kind| kind.as_str() == route.key.kind.as_str()) {
        return Err(Denied {
            reason: Reason::NotAllowedByListeners,
            message: format!("listener {section:?} of {} takes no {}", origin.key, route.key.kind.as_str()),
            hint: "attach the route to another listener, or allow its kind there",
        });
    }
    Ok(())
}

/// Whether requests for a host of a route come in at a listener: not if another listener on the port has a
/// more specific host for them. (Gateway API, "listener isolation".)
pub(super) fn is_isolated(host: &str, listener: &GatewayListener, others: &[Name]) -> bool {
    let own = listener.hostname();
    if !is_wildcard(own) {
        return true;
    }
    overlap(own, host) && !others.iter().any(|other| own.len() <= other.len() && covers(other, host))
}

/// What both stand for: the more specific of two hosts that overlap.
pub(super) fn common_host(listener: &str, host: &Name) -> Option<Name> {
    if covers(listener, host) {
        Some(host.clone())
    } else if covers(host, listener) {
        Some(Name::from(listener))
    } else {
        None
    }
}

fn parent_kind(reference: &ParentReference) -> Option<Kind> {
    match (reference.group(), reference.kind()) {
        ("" | "core", "Service") => Some(Kind::Service),
        ("networking.istio.io", "ServiceEntry") => Some(Kind::ServiceEntry),
        (GROUP, "Gateway") => Some(Kind::KubernetesGateway),
        (GROUP, "ListenerSet") => Some(Kind::ListenerSet),
        _ => None,
    }
}

/// The place of a route for the clients of a service.
fn of_service(
    reader: &Reader<'_>,
    route: &Object,
    reference: &ParentReference,
    key: &ObjectKey,
) -> Result<Place, Denied> {
    if route.key.kind == Kind::UdpRoute {
        return Err(Denied {
            reason: Reason::NotAllowedByListeners,
            message: "sidecars do not handle UDP".to_owned(),
            hint: "attach the route to a gateway",
        });
    }
    let hosts = if key.kind == Kind::Service {
        if !reader.exists(key) {
            return Err(missing(key));
        }
        vec![Name::from(kubernetes_host(&key.name, &key.namespace, reader.domain()))]
    } else {
        let entry = reader.get::<ServiceEntry>(ClusterId::LOCAL, &key.namespace, &key.name);
        let (_, entry) = entry.ok_or_else(|| missing(key))?;
        entry.hosts.iter().map(|host| Name::from(host.as_str())).collect()
    };
    Ok(Place::Mesh { hosts, port: reference.port.and_then(|port| u16::try_from(port).ok()) })
}

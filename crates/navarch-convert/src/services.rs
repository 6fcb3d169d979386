//! The Services that routes and gateways mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::route::ServiceBackend;
use navarch_model::service::{Protocol, Registry, Service};
use navarch_model::{Hashed, Kind, Labels, Name, ObjectKey, Origin};
use navarch_snapshot::Snapshot;

use crate::manifest::{BackendRef, GrantFrom, GrantTo, Manifest, ReferenceGrant, Spec};
use crate::report::Report;

const GROUP: &str = "gateway.networking.k8s.io";
const GRANT_TARGETS_MAX: usize = 16;

/// Kubernetes Services by host, and the grants that references to them need.
pub struct Services {
    by_host: BTreeMap<Name, Arc<Hashed<Service>>>,
    /// By namespace of the Service.
    grants: BTreeMap<String, BTreeMap<GrantFrom, BTreeSet<GrantTo>>>,
}

impl Services {
    pub fn of(snapshot: &Snapshot) -> Self {
        let services = snapshot.services().filter(|service| service.registry == Registry::Kubernetes);
        let by_host = services.map(|service| (service.hostname.clone(), service.clone())).collect();
        Services { by_host, grants: BTreeMap::new() }
    }

    /// The Service with a host.
    pub fn get(&self, host: &str) -> Option<&Arc<Hashed<Service>>> {
        self.by_host.get(host)
    }

    /// The Services of a namespace that select exactly these labels.
    pub fn selecting(&self, namespace: &str, labels: &Labels) -> Vec<Arc<Hashed<Service>>> {
        let services = self.by_host.values();
        let same = services.filter(|service| *service.namespace == *namespace && service.selector == *labels);
        same.cloned().collect()
    }

    /// A reference from a route, which may need a grant. `kind` is that of the route.
    pub fn reference(
        &mut self,
        to: &ServiceBackend,
        from: &ObjectKey,
        kind: &'static str,
        origin: &Origin,
        report: &mut Report<'_>,
    ) -> Option<BackendRef> {
        let ServiceBackend { host, port, subset } = to;
        if !subset.is_empty() {
            let message = format!("the subset {subset} of {host} has no counterpart");
            report.lost(origin, message, "make a Service that selects the pods of the subset, and name it");
            return None;
        }
        let Some(service) = self.by_host.get(host) else {
            let message = format!("{host} is not a Service of what was read");
            report.lost(origin, message, "add the Service to what is converted");
            return None;
        };
        let Some(port) = port.or(service.only_port()) else {
            let message = format!("the port of {host} is not stated, and it has several");
            report.lost(origin, message, "state the port of the destination");
            return None;
        };
        if service.port(port, false).is_none() {
            let message = format!("{host} has no port {port}");
            report.differs(origin, message, "correct the port");
        }
        let namespace = (service.namespace != from.namespace).then(|| service.namespace.to_string());
        if let Some(namespace) = &namespace {
            let from = GrantFrom { group: GROUP, kind, namespace: from.namespace.to_string() };
            let to = GrantTo { group: "", kind: "Service", name: service.name.to_string() };
            self.grants.entry(namespace.clone()).or_default().entry(from).or_default().insert(to);
        }
        Some(BackendRef {
            name: service.name.to_string(),
            namespace,
            port,
            weight: None,
            filters: Vec::new(),
        })
    }

    /// The grants that the references need: one object for each kind of route and namespace that refers,
    /// several if it refers to very many Services.
    pub fn grants(self) -> impl Iterator<Item = Manifest> {
        self.grants.into_iter().flat_map(|(namespace, grants)| {
            grants.into_iter().flat_map(move |(from, to)| granted(&namespace, &from, to))
        })
    }
}

/// The grants of a namespace for references from another: objects with as many targets as one may have.
fn granted(namespace: &str, from: &GrantFrom, to: BTreeSet<GrantTo>) -> Vec<Manifest> {
    let to: Vec<GrantTo> = to.into_iter().collect();
    let name = format!("{}-from-{}", from.kind.to_ascii_lowercase(), from.namespace);
    let made = to.chunks(GRANT_TARGETS_MAX).enumerate().map(|(index, to)| {
        // No namespace has a dot in its name: this is the name of no other grant.
        let name = if index == 0 { name.clone() } else { format!("{name}.{}", index + 1) };
        let grant = ReferenceGrant { from: vec![from.clone()], to: to.to_vec() };
        Manifest::new(namespace, &name, Spec::ReferenceGrant(grant))
    });
    made.collect()
}

/// The object that a service stands for.
pub fn object_key(service: &Service) -> ObjectKey {
    ObjectKey::new(Kind::Service, &service.namespace, &service.name)
}

/// Whether a Service has a port for connections with this number.
pub fn has_port(services: &[Arc<Hashed<Service>>], number: u16) -> bool {
    let has = |service: &Arc<Hashed<Service>>| {
        service.ports.iter().any(|port| port.port == number && port.protocol != Protocol::Udp)
    };
    services.iter().any(has)
}

//! Routes of connections at gateways.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::route::{ClientMatch, Parent, RouteSet, StreamBackend};
use navarch_model::{Name, Origin};
use navarch_snapshot::host::overlap;

use crate::gateway::{MadeGateway, MadeListener};
use crate::http::Routes;
use crate::manifest::{BackendRef, Manifest, ParentRef, Spec, StreamRoute, StreamRule};
use crate::report::below;

const HOSTS_MAX: usize = 16;

impl Routes<'_, '_> {
    /// The routes of a set for connections: one for each rule by address, and one for each condition by
    /// server name.
    pub fn convert_streams(&mut self, set: &RouteSet, name: &str) -> Vec<Manifest> {
        let mut manifests = Vec::new();
        let listeners = self.listeners_of(set);
        let mut taken: BTreeSet<ParentRef> = BTreeSet::new();
        for (index, rule) in set.tcp.iter().enumerate() {
            let clients: Vec<&ClientMatch> = rule.matches.iter().map(|matched| &matched.client).collect();
            let blocks = rule.matches.iter().any(|matched| !matched.destination_blocks.is_empty());
            if !self.fits(set, &rule.origin, &clients, blocks) {
                continue;
            }
            // The first rule for a listener counts.
            let here = listeners.iter().filter(|listener| listener.protocol == "TCP" || ends_tls(listener));
            let here = here.filter(|listener| on_port(&clients, listener.port));
            let references = here.map(|listener| listener.reference(set.namespace()));
            let references: Vec<ParentRef> = references.filter(|at| taken.insert(at.clone())).collect();
            let Some(backends) = self.stream_backends(set, "TCPRoute", &rule.backends, &rule.origin) else {
                continue;
            };
            let route = StreamRoute {
                parent_refs: references,
                hostnames: Vec::new(),
                rules: vec![StreamRule { backend_refs: backends }],
            };
            manifests.extend(made(set, format!("{name}-tcp-{index}"), Spec::TcpRoute(route.clone()), &route));
        }
        for (index, rule) in set.tls.iter().enumerate() {
            for (position, matched) in rule.matches.iter().enumerate() {
                let origin = below(&rule.origin, &format!("match[{position}]"));
                let clients = [&matched.client];
                if !self.fits(set, &origin, &clients, !matched.destination_blocks.is_empty()) {
                    continue;
                }
                if matched.server_names.len() > HOSTS_MAX {
                    self.report.lost(&origin, "a route has at most 16 server names", "split the condition");
                    continue;
                }
                let here = listeners.iter().filter(|listener| listener.passes_through);
                let here = here.filter(|listener| on_port(&clients, listener.port));
                let here = here.filter(|listener| has_host(listener, &matched.server_names));
                let parent_refs = here.map(|listener| listener.reference(set.namespace())).collect();
                let Some(backends) = self.stream_backends(set, "TLSRoute", &rule.backends, &rule.origin)
                else {
                    continue;
                };
                let named = matched.server_names.iter().filter(|name| &***name != "*");
                let route = StreamRoute {
                    parent_refs,
                    hostnames: named.map(|name| name.to_string()).collect(),
                    rules: vec![StreamRule { backend_refs: backends }],
                };
                let name = format!("{name}-tls-{index}-{position}");
                manifests.extend(made(set, name, Spec::TlsRoute(route.clone()), &route));
            }
        }
        manifests
    }

    /// The listeners that a set is attached to.
    fn listeners_of(&self, set: &RouteSet) -> Vec<MadeListener> {
        let gateways: &BTreeMap<Parent, MadeGateway> = self.gateways;
        let made = set.parents.iter().filter_map(|parent| gateways.get(parent));
        made.flat_map(|gateway| gateway.listeners.iter().cloned()).collect()
    }

    /// Whether conditions on connections have a counterpart: only a port has.
    fn fits(&mut self, set: &RouteSet, origin: &Origin, clients: &[&ClientMatch], blocks: bool) -> bool {
        let mesh = set.for_mesh();
        let odd = |client: &&ClientMatch| {
            !client.labels.is_empty() || client.namespace.is_some() || !client.parents.is_empty()
        };
        if mesh || blocks || clients.iter().any(odd) {
            let message = "connections of sidecars, and conditions on addresses and clients, are not converted; \
                           the rule is left out";
            self.report.lost(origin, message, "write a route with the Service as parent");
            return false;
        }
        true
    }

    fn stream_backends(
        &mut self,
        set: &RouteSet,
        kind: &'static str,
        backends: &[StreamBackend],
        origin: &Origin,
    ) -> Option<Vec<BackendRef>> {
        self.report.limit_backends(backends.len(), origin)?;
        let mut refs = Vec::new();
        for StreamBackend { backend, weight, field } in backends {
            let origin = Origin::field(origin.key.clone(), field);
            let to = backend.service()?;
            let mut reference = self.services.reference(to, set.key(), kind, &origin, self.report)?;
            reference.weight = (backends.len() > 1).then_some(*weight);
            refs.push(reference);
        }
        Some(refs)
    }
}

/// An object, if it is attached anywhere.
fn made(set: &RouteSet, name: String, spec: Spec, route: &StreamRoute) -> Option<Manifest> {
    (!route.parent_refs.is_empty()).then(|| Manifest::new(set.namespace(), &name, spec))
}

fn ends_tls(listener: &MadeListener) -> bool {
    listener.protocol == "TLS" && !listener.passes_through
}

/// Whether one of the conditions holds on a port; without conditions all do.
fn on_port(clients: &[&ClientMatch], port: u16) -> bool {
    clients.is_empty() || clients.iter().any(|client| client.holds_on(port))
}

fn has_host(listener: &MadeListener, names: &[Name]) -> bool {
    let own = listener.hostname.as_deref().unwrap_or("*");
    names.iter().any(|name| overlap(own, name))
}

//! Which services a client sees, and which one it gets where several have one host.

use std::cmp::Ordering;
use std::sync::Arc;

use navarch_model::service::{Registry, Service, Visibility};
use navarch_model::{Hashed, Name};

use super::{EgressListener, Scope};
use crate::bound::{DestinationUse, service_order};
use crate::footprint::BucketSet;
use crate::part::{Bucket, bucket_of};
use crate::view::View;

type SharedService = Arc<Hashed<Service>>;

impl Scope {
    /// The services the client sees in a bucket, one per host, oldest first: what it needs clusters for.
    ///
    /// Includes the destinations of imported routes. A service may be cut down to the ports that are
    /// imported.
    pub fn services_in(&self, view: &View<'_>, bucket: Bucket) -> Vec<SharedService> {
        let hosts = view.services_in(bucket);
        let destinations = if self.needs_destinations() { Some(view.destinations_in(bucket)) } else { None };
        let mut services: Vec<SharedService> = hosts
            .iter()
            .filter_map(|(host, candidates)| {
                let uses = destinations.and_then(|map| map.get(host)).map_or(&[][..], Vec::as_slice);
                self.service_among(view, candidates, uses)
            })
            .collect();
        services.sort_by(|a, b| service_order(a).cmp(&service_order(b)));
        services
    }

    /// The buckets in which the client may see something; it sees nothing in the others. Counted are
    /// services, hosts of routes, and services that imported routes send traffic to.
    pub fn buckets(&self, view: &View<'_>) -> BucketSet {
        let Some(imports) = self.of_sidecar() else { return BucketSet::ALL };
        let mut found = BucketSet::default();
        for listener in &imports.egress {
            match listener.hosts.namespaces() {
                None => return BucketSet::ALL,
                Some(names) => found = names.fold(found, |found, name| found | view.footprint(name)),
            }
        }
        found
    }

    /// The service the client gets for a host, as in [`Scope::services_in`].
    pub fn service(&self, view: &View<'_>, host: &str) -> Option<SharedService> {
        let candidates = view.services(host);
        if candidates.is_empty() {
            return None;
        }
        let uses = if self.needs_destinations() {
            view.destinations_in(bucket_of(host)).get(host).map_or(&[][..], Vec::as_slice)
        } else {
            &[]
        };
        self.service_among(view, candidates, uses)
    }

    /// The services that one egress listener imports from a bucket: what it needs listeners and virtual hosts
    /// for. Sorted by [`Scope::listener_order`]. For gateways, which have no egress listeners, everything.
    pub fn listener_services_in(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        bucket: Bucket,
    ) -> Vec<SharedService> {
        let hosts = view.services_in(bucket);
        let mut services: Vec<SharedService> =
            hosts.values().flat_map(|candidates| self.imported(view, listener, candidates)).collect();
        services.sort_by(|a, b| self.listener_order(listener, a, b));
        services
    }

    /// The services with this host that one egress listener imports, as in [`Scope::listener_services_in`].
    pub fn listener_services(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        host: &str,
    ) -> Vec<SharedService> {
        let mut services = self.imported(view, listener, view.services(host));
        services.sort_by(|a, b| self.listener_order(listener, a, b));
        services
    }

    /// The order in which services of one listener decide conflicts: those that are not public first, then
    /// oldest first. Listeners that name each host go by age only. (Both as istiod does.)
    pub fn listener_order(&self, listener: &EgressListener, a: &Service, b: &Service) -> Ordering {
        let by_age = || service_order(a).cmp(&service_order(b));
        if listener.hosts.is_exact() {
            return by_age();
        }
        is_public(a).cmp(&is_public(b)).then_with(by_age)
    }

    /// Whether destinations of routes can add to what the listeners import. They cannot if everything is
    /// imported.
    fn needs_destinations(&self) -> bool {
        let everything = |listener: &EgressListener| !listener.match_port && listener.hosts.is_everything();
        self.of_sidecar().is_some_and(|imports| !imports.egress.iter().any(everything))
    }

    fn service_among(
        &self,
        view: &View<'_>,
        candidates: &[SharedService],
        uses: &[Arc<Hashed<DestinationUse>>],
    ) -> Option<SharedService> {
        // By far the most common case: one service, visible, and nothing restricts the client.
        if let [only] = candidates
            && let [listener] = self.egress_listeners()
            && listener.port.is_none()
            && listener.hosts.is_everything()
        {
            return self.may_use(view, &only.export_to).then(|| only.clone());
        }
        let mut chosen = None;
        let Some(imports) = self.of_sidecar() else {
            for service in self.visible(view, candidates) {
                add(&mut chosen, service.clone());
            }
            return chosen;
        };
        for listener in &imports.egress {
            for service in self.imported(view, listener, candidates) {
                add(&mut chosen, service);
            }
            for used in uses {
                if self.imports(view, listener, used)
                    && let Some(service) = self.destination(view, candidates)
                    && let Some(service) = listener.cut_for_destination(service, used)
                {
                    add(&mut chosen, service);
                }
            }
        }
        chosen
    }

    /// The candidates the client may see: those not public first, each oldest first.
    fn visible<'a>(
        &'a self,
        view: &'a View<'_>,
        candidates: &'a [SharedService],
    ) -> impl Iterator<Item = &'a SharedService> {
        let private =
            candidates.iter().filter(|service| !is_public(service) && self.may_use(view, &service.export_to));
        private.chain(candidates.iter().filter(|service| is_public(service)))
    }

    /// The services of one host that a listener imports. There may be several of one namespace, whose ports
    /// will be merged.
    fn imported(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        candidates: &[SharedService],
    ) -> Vec<SharedService> {
        let mut services: Vec<SharedService> = if listener.hosts.is_exact() {
            first_per_namespace(candidates)
                .filter(|service| self.may_use(view, &service.export_to))
                .filter_map(|service| listener.import(service))
                .collect()
        } else {
            self.visible(view, candidates).filter_map(|service| listener.import(service)).collect()
        };
        if services.len() > 1
            && let Some(namespace) = self.preferred_namespace(view, &services)
        {
            services.retain(|service| service.namespace == namespace);
        }
        services
    }

    /// Where the same host is imported from several namespaces: the client's own, else the first with a
    /// Kubernetes Service, else the first.
    fn preferred_namespace(&self, view: &View<'_>, services: &[SharedService]) -> Option<Name> {
        let first = services.first()?;
        if services.iter().all(|service| service.namespace == first.namespace) {
            return None;
        }
        let own = services.iter().find(|service| self.is_in(view, &service.namespace));
        let kubernetes = || services.iter().find(|service| service.registry == Registry::Kubernetes);
        Some(own.or_else(kubernetes).unwrap_or(first).namespace.clone())
    }

    /// Whether a listener imports the routes that send traffic to a destination.
    fn imports(&self, view: &View<'_>, listener: &EgressListener, used: &DestinationUse) -> bool {
        self.may_use(view, &used.export_to)
            && used
                .source_namespaces
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| self.is_in(view, name)))
            && listener.hosts.includes_routes(&used.route_hosts, used.namespace())
    }

    /// The service that a destination host means: that of the client's namespace, else the best visible one.
    fn destination<'a>(&self, view: &View<'_>, candidates: &'a [SharedService]) -> Option<&'a SharedService> {
        let own = first_per_namespace(candidates).find(|service| self.is_in(view, &service.namespace));
        own.or_else(|| {
            let visible =
                || first_per_namespace(candidates).filter(|service| self.may_use(view, &service.export_to));
            visible().find(|service| service.registry == Registry::Kubernetes).or_else(|| visible().next())
        })
    }
}

impl EgressListener {
    /// The service as this listener imports it: maybe with fewer ports and aliases.
    fn import(&self, service: &SharedService) -> Option<SharedService> {
        if !self.hosts.includes(&service.hostname, &service.namespace) {
            return None;
        }
        let service = if self.match_port { self.cut_to_port(service)? } else { service.clone() };
        let aliases = self.hosts.aliases(&service.hostname, &service.namespace, &service.aliases);
        if aliases.len() == service.aliases.len() {
            return Some(service);
        }
        Some(Arc::new(Hashed::new(Service { aliases, ..(**service).clone() })))
    }

    fn cut_to_port(&self, service: &SharedService) -> Option<SharedService> {
        let number = self.port.as_ref()?.number;
        let port = service.ports.iter().find(|port| u32::from(port.port) == number)?;
        if service.ports.len() == 1 {
            return Some(service.clone());
        }
        Some(Arc::new(Hashed::new(Service { ports: vec![port.clone()], ..(***service).clone() })))
    }

    /// The service as destination of routes: with the ports that are named, or all of them.
    fn cut_for_destination(&self, service: &SharedService, used: &DestinationUse) -> Option<SharedService> {
        if self.match_port {
            return self.cut_to_port(service);
        }
        if used.ports.is_empty() || used.ports.contains(&0) {
            return Some(service.clone());
        }
        let ports: Vec<_> =
            service.ports.iter().filter(|port| used.ports.contains(&port.port)).cloned().collect();
        if ports.is_empty() {
            return None;
        }
        if ports.len() == service.ports.len() {
            return Some(service.clone());
        }
        Some(Arc::new(Hashed::new(Service { ports, ..(***service).clone() })))
    }
}

fn is_public(service: &Service) -> bool {
    service.export_to == Visibility::Public
}

/// One service per namespace: the Kubernetes Service, else the oldest. In the order of the candidates.
fn first_per_namespace(candidates: &[SharedService]) -> impl Iterator<Item = &SharedService> {
    candidates.iter().enumerate().filter_map(|(index, service)| {
        let rivals = candidates.iter().enumerate().filter(|(_, rival)| rival.namespace == service.namespace);
        let best = rivals.min_by_key(|(index, rival)| (rival.registry != Registry::Kubernetes, *index));
        best.filter(|(best, _)| *best == index).map(|_| service)
    })
}

/// Adds a service to what is there for its host.
///
/// A Kubernetes Service displaces anything else, so that nobody can take over its host; otherwise the first
/// one stays, and takes over further ports of an equal service of the same namespace.
fn add(chosen: &mut Option<SharedService>, service: SharedService) {
    let Some(existing) = chosen else {
        *chosen = Some(service);
        return;
    };
    match (existing.registry, service.registry) {
        (Registry::Kubernetes, Registry::ServiceEntry) => return,
        (Registry::ServiceEntry, Registry::Kubernetes) => {
            *chosen = Some(service);
            return;
        }
        _ => {}
    }
    if existing.ports == service.ports || !may_merge(existing, &service) {
        return;
    }
    let mut ports = existing.ports.clone();
    for port in &service.ports {
        if !ports.iter().any(|known| known.port == port.port) {
            ports.push(port.clone());
        }
    }
    if ports.len() != existing.ports.len() {
        *chosen = Some(Arc::new(Hashed::new(Service { ports, ..(***existing).clone() })));
    }
}

fn may_merge(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace
        && a.resolution == b.resolution
        && a.registry == b.registry
        && a.labels == b.labels
        && a.selector == b.selector
        && a.export_to == b.export_to
}

//! Virtual hosts of sidecars while they are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::route::{Audience, HostMeaning, RouteSet, RuleOrder};
use navarch_model::service::{Resolution, Service};
use navarch_model::{Hashed, Name};
use navarch_snapshot::host::{by_specificity, covers, is_wildcard};
use navarch_translate::routes::domains::{DomainView, short_name_namespaces};
use navarch_translate::routes::hash_policy;
use navarch_translate::routes::route_configuration::of_detected_port;
use navarch_translate::routes::{
    Contribution, Rank, Ranked, RouteContext, RouteSource, Routes, SidecarVirtualHost,
    SidecarVirtualHostInput,
};

use super::targets::{ConfigKey, Target, may_be_http};
use crate::composed::BucketResources;
use crate::engine::Cx;
use crate::gather::shared::routes::{
    RouteClient, SharedRoutes, SharedService, default_retries, destination_rule, destination_service,
    merged_routes, routes_of,
};

/// Virtual hosts of one bucket or of wildcard hosts, by route configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hosts {
    pub configs: BTreeMap<ConfigKey, Contribution>,
    /// Route configurations of single ports whose protocol is detected.
    pub detected: Arc<BucketResources>,
    /// Namespaces whose clients may have other virtual hosts.
    pub asked: BTreeSet<Name>,
    /// Namespaces whose clients have shorter domains for some host.
    pub short_names: BTreeSet<Name>,
}

/// Collects virtual hosts for one client.
pub struct Collector<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub client: &'a RouteClient,
    configs: BTreeMap<ConfigKey, Vec<Ranked>>,
    detected: BucketResources,
}

impl<'a, 'e> Collector<'a, 'e> {
    pub fn new(cx: &'a Cx<'e>, client: &'a RouteClient) -> Self {
        Collector { cx, client, configs: BTreeMap::new(), detected: Vec::new() }
    }

    pub fn finish(self) -> Hosts {
        let short_names = self.configs.values().flatten().flat_map(|ranked| &ranked.short_names);
        Hosts {
            short_names: short_names.map(|(namespace, _)| namespace.clone()).collect(),
            asked: self.cx.view().namespaces_asked(),
            configs: self
                .configs
                .into_iter()
                .map(|(key, mut hosts)| {
                    hosts.shrink_to_fit();
                    (key, Arc::new(Hashed::new(hosts)))
                })
                .collect(),
            detected: Arc::new(self.detected),
        }
    }

    /// The routes of a set for a target; nothing if none applies.
    pub fn routes(&mut self, target: &Target<'_>, set: &SharedRoutes) -> Option<Routes> {
        let context = RouteContext {
            port: target.port.unwrap_or(0),
            x_forwarded_host: self.client.x_forwarded_host,
            default_retries: default_retries(self.cx),
            ..RouteContext::default()
        };
        let routes = routes_of(self.cx, self.client, set, context, |host| {
            let services = self.client.scope.listener_services(self.cx.view(), target.listener, host);
            let service = services.iter().rev().find(|service| target.ports(service).next().is_some())?;
            let mut known = destination_service(service);
            if target.port.is_some() {
                // Only the listener's port of a service is looked at, so a stated port is all that can differ
                // from it.
                known.only_port = None;
            }
            Some(known)
        });
        if routes.is_empty() {
            return None;
        }
        Some(routes)
    }

    /// Adds the virtual hosts of a service.
    pub fn add_service(&mut self, target: &Target<'_>, service: &SharedService, wildcards: &[SharedRoutes]) {
        let routed = self.routed(target, service, wildcards);
        for (position, port) in target.ports(service).filter(|(_, port)| may_be_http(port.protocol)) {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let (rank, routes) = match &routed {
                Some((set, routes)) => (rank(set, true, position), RouteSource::Routes(routes.clone())),
                // Aliases have no virtual host of their own: they are domains of the service that they stand
                // for.
                None if service.resolution == Resolution::Alias => continue,
                None => (
                    Rank::Default { host: service.hostname.clone(), position },
                    self.default_source(service, port.port),
                ),
            };
            let ranked = self.ranked_service(target, service, port.port, rank, routes);
            if port.protocol.is_sniffed() && target.port.is_some() && target.listener.port.is_none() {
                let name = format!("{}:{}", service.hostname, port.port);
                self.detected.push(Arc::new(of_detected_port(name.into(), &ranked.host)));
            }
            self.push(target, ranked);
        }
    }

    /// Adds a host of a set of routes that is not a service on the target's port.
    pub fn add_host(
        &mut self,
        target: &Target<'_>,
        port: u16,
        set: &SharedRoutes,
        position: usize,
        routes: &Routes,
    ) {
        let Some(host) = set.hosts.get(position) else { return };
        let rank = rank(set, false, u32::try_from(position).unwrap_or(u32::MAX));
        let lower = Name::from(host.to_ascii_lowercase());
        let host = self.cx.get::<SidecarVirtualHost>(&SidecarVirtualHostInput {
            host: lower,
            port,
            service: None,
            domains: self.client.domains.without_service(),
            all_ports: target.port.is_none(),
            routes: RouteSource::Routes(routes.clone()),
            include_request_attempt_count: self.client.include_request_attempt_count,
        });
        self.push(target, Ranked { rank, host, short_names: Vec::new() });
    }

    fn push(&mut self, target: &Target<'_>, ranked: Ranked) {
        self.configs.entry(target.key()).or_default().push(ranked);
    }

    /// The virtual host of a service, and for a client elsewhere what clients have instead for whom the
    /// service has a short name.
    fn ranked_service(
        &self,
        target: &Target<'_>,
        service: &SharedService,
        port: u16,
        rank: Rank,
        routes: RouteSource,
    ) -> Ranked {
        let virtual_host = |domains: &DomainView| {
            self.cx.get::<SidecarVirtualHost>(&SidecarVirtualHostInput {
                host: service.hostname.clone(),
                port,
                service: Some(service.clone()),
                domains: domains.narrowed(service),
                all_ports: target.port.is_none(),
                routes: routes.clone(),
                include_request_attempt_count: self.client.include_request_attempt_count,
            })
        };
        let domains = &self.client.domains;
        let mut ranked = Ranked { rank, host: virtual_host(domains), short_names: Vec::new() };
        if self.client.scope.is_elsewhere() {
            let hosts = std::iter::once(&service.hostname).chain(&service.aliases);
            for namespace in hosts.flat_map(|host| short_name_namespaces(host)).collect::<BTreeSet<_>>() {
                let dns_domain = Name::from(format!("{namespace}{}", domains.dns_domain));
                let host = virtual_host(&DomainView { dns_domain, ..domains.clone() });
                if host != ranked.host {
                    ranked.short_names.push((Name::from(namespace), host));
                }
            }
        }
        ranked
    }

    fn default_source(&self, service: &Service, port: u16) -> RouteSource {
        let rule = destination_rule(self.cx, self.client, &service.hostname);
        RouteSource::Default {
            retries: default_retries(self.cx),
            hash: rule.as_ref().and_then(|rule| hash_policy::for_service(&rule.spec, port)).cloned(),
        }
    }

    /// The set that routes a service's requests, with its routes and those of sets that are merged with it:
    /// the first for exactly the host whose conditions can hold, else the one with the most specific
    /// wildcard.
    fn routed(
        &mut self,
        target: &Target<'_>,
        service: &SharedService,
        wildcards: &[SharedRoutes],
    ) -> Option<(SharedRoutes, Routes)> {
        let host = service.hostname.to_ascii_lowercase();
        let exact = self.client.scope.listener_routes(self.cx.view(), target.listener, &host);
        if exact.is_empty() {
            let set = most_specific(&host, wildcards)?;
            if set.host_meaning == HostMeaning::Services {
                return None;
            }
            let routes = self.routes(target, set)?;
            return Some((set.clone(), routes));
        }
        let applicable = exact.into_iter().filter(|set| may_route(self.cx, self.client, set, service));
        let mut found: Option<(SharedRoutes, Vec<Routes>)> = None;
        for set in applicable.collect::<Vec<_>>() {
            match &mut found {
                None => found = self.routes(target, &set).map(|routes| (set, vec![routes])),
                Some((first, all)) if are_merged(first, &set) => all.extend(self.routes(target, &set)),
                Some(_) => {}
            }
        }
        found.map(|(set, all)| (set, merged_routes(self.cx, vec![all])))
    }
}

/// Whether the rules of two sets for a host are put together: what one namespace says in an API that merges.
fn are_merged(first: &RouteSet, other: &RouteSet) -> bool {
    first.order == RuleOrder::BySpecificity
        && other.order == RuleOrder::BySpecificity
        && first.namespace() == other.namespace()
}

/// Whether a set routes the client's requests to a service.
pub fn may_route(cx: &Cx<'_>, client: &RouteClient, set: &RouteSet, service: &Service) -> bool {
    match set.audience {
        Audience::Everyone => true,
        Audience::ProducerOrConsumer => {
            *set.namespace() == service.namespace || client.scope.is_in(cx.view(), set.namespace())
        }
    }
}

/// The first set with the most specific wildcard that covers a host.
pub fn most_specific<'r>(host: &str, wildcards: &'r [SharedRoutes]) -> Option<&'r SharedRoutes> {
    let covering = wildcards.iter().flat_map(|set| {
        let hosts = set.hosts.iter().filter(|pattern| is_wildcard(pattern) && covers(pattern, host));
        hosts.map(move |pattern| (pattern, set))
    });
    covering.min_by(|(a, _), (b, _)| by_specificity(a, b)).map(|(_, set)| set)
}

fn rank(set: &RouteSet, is_service: bool, position: u32) -> Rank {
    Rank::Routes { precedence: set.precedence.clone(), is_service, position }
}

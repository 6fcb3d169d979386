//! Routes of connections, and what goes where without them.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::route::{Audience, ClientMatch, Parent, RouteSet, StreamBackend};
use navarch_model::service::{Service, Visibility};
use navarch_model::{Hashed, Name};
use navarch_snapshot::host::{is_wildcard, overlap};
use navarch_translate::clusters::stat_pattern;
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::contribution::TcpChain;
use navarch_translate::listeners::tcp::{Destination, TcpRoute};
use navarch_translate::names;
use navarch_translate::routes::domains::{alternative_hosts, short_name_namespaces};

use super::port::{ListenerRequest, PortOf};
use crate::gather::shared::streams::{Streams, Traffic};

/// The chains for bytes of one port.
pub fn chains(service: &PortOf<'_, '_>, request: &ListenerRequest<'_>) -> Vec<TcpChain> {
    let routes = Routes { service, request, sets: stream_routes(service) };
    if request.port.protocol.is_tls() { routes.tls() } else { routes.tcp() }
}

/// The sets with rules for connections to a host, in the order in which they decide.
fn stream_routes(service: &PortOf<'_, '_>) -> Vec<Arc<Hashed<RouteSet>>> {
    let PortOf { cx, scope, listener, .. } = service;
    let host = &*service.service.hostname;
    let view = cx.view();
    let mut sets = scope.listener_routes(view, listener, host);
    sets.extend(scope.listener_wildcard_routes(view, listener));
    if is_wildcard(host) {
        // A wildcard service also gets the routes of hosts below it.
        for bucket in scope.buckets(view).iter() {
            sets.extend(scope.listener_routes_in(view, listener, bucket).into_values().flatten());
        }
    }
    let routes_bytes = |set: &RouteSet| !set.tcp.is_empty() || !set.tls.is_empty();
    let may_route = |set: &RouteSet| match set.audience {
        Audience::Everyone => true,
        Audience::ProducerOrConsumer => {
            *set.namespace() == service.service.namespace || scope.is_in(view, set.namespace())
        }
    };
    sets.retain(|set| {
        routes_bytes(set) && set.hosts.iter().any(|pattern| overlap(pattern, host)) && may_route(set)
    });
    let consumes =
        |set: &RouteSet| set.audience == Audience::ProducerOrConsumer && scope.is_in(view, set.namespace());
    let class = |set: &RouteSet| match &set.export_to {
        Visibility::Public if consumes(set) => 2,
        Visibility::Public => 3,
        _ if scope.is_in(view, set.namespace()) => 0,
        _ => 1,
    };
    sets.sort_by(|a, b| class(a).cmp(&class(b)).then_with(|| a.precedence.cmp(&b.precedence)));
    // A set that has several of the hosts is found more than once.
    sets.dedup_by(|a, b| a.precedence == b.precedence);
    sets
}

struct Routes<'a, 'e> {
    service: &'a PortOf<'a, 'e>,
    request: &'a ListenerRequest<'a>,
    sets: Vec<Arc<Hashed<RouteSet>>>,
}

impl Routes<'_, '_> {
    /// Chains by server name. Of several conditions that differ only in what is known now (gateway, labels,
    /// port), the first that holds counts.
    fn tls(&self) -> Vec<TcpChain> {
        let mut chains = Vec::new();
        let mut seen: BTreeSet<(&[Name], &[Name])> = BTreeSet::new();
        let mut blocks = self.request.binding.blocks.clone();
        for (set, tls) in self.sets.iter().flat_map(|set| set.tls.iter().map(move |tls| (set, tls))) {
            for condition in tls.matches.iter().filter(|condition| self.holds(&condition.client)) {
                if !condition.destination_blocks.is_empty() && self.request.port.number > 0 {
                    blocks.clone_from(&condition.destination_blocks);
                }
                if seen.insert((&condition.server_names, &condition.destination_blocks)) {
                    chains.extend(self.route(&tls.backends, set).map(|route| TcpChain {
                        server_names: condition.server_names.clone(),
                        destination_blocks: blocks.clone(),
                        origin: Some(tls.origin.clone()),
                        names_origin: true,
                        route,
                    }));
                }
            }
        }
        if chains.is_empty() {
            chains.push(self.default_chain(self.server_names(&blocks), blocks));
        }
        chains
    }

    /// Chains by destination block. The first rule without blocks takes the rest.
    fn tcp(&self) -> Vec<TcpChain> {
        let own = &self.request.binding.blocks;
        let mut chains = Vec::new();
        let mut replaces_default = false;
        for (set, tcp) in self.sets.iter().flat_map(|set| set.tcp.iter().map(move |tcp| (set, tcp))) {
            let holding = || tcp.matches.iter().filter(|condition| self.holds(&condition.client));
            let takes_all = tcp.matches.is_empty()
                || holding().any(|condition| {
                    condition.destination_blocks.is_empty() || self.request.port.number == 0
                });
            let chain = |destination_blocks: Vec<Name>, route: TcpRoute| TcpChain {
                server_names: Vec::new(),
                destination_blocks,
                origin: Some(tcp.origin.clone()),
                names_origin: takes_all,
                route,
            };
            if takes_all {
                chains.extend(self.route(&tcp.backends, set).map(|route| chain(own.clone(), route)));
                return chains;
            }
            let blocks: Vec<Name> =
                holding().flat_map(|condition| condition.destination_blocks.iter().cloned()).collect();
            if blocks.is_empty() {
                continue;
            }
            // Two chains for the same blocks would be rejected by Envoy.
            replaces_default |= sorted(&blocks) == sorted(own);
            chains.extend(self.route(&tcp.backends, set).map(|route| chain(blocks, route)));
        }
        if !replaces_default {
            chains.push(self.default_chain(Vec::new(), own.clone()));
        }
        chains
    }

    fn default_chain(&self, server_names: Vec<Name>, destination_blocks: Vec<Name>) -> TcpChain {
        let route = self.default_route();
        TcpChain { server_names, destination_blocks, origin: None, names_origin: false, route }
    }

    /// Whether the conditions that are known now hold.
    fn holds(&self, client: &ClientMatch) -> bool {
        client.holds_at(&Parent::Mesh)
            && client.holds_on(self.request.port.number)
            && self.service.proxy.labels.are_selected(self.service.cx.view(), &client.labels)
            && client
                .namespace
                .as_ref()
                .is_none_or(|namespace| self.service.scope.is_in(self.service.cx.view(), namespace))
    }

    /// Server names that tell the service from others on the same address; none if the address does.
    fn server_names(&self, blocks: &[Name]) -> Vec<Name> {
        let service = self.service.service;
        let view = self.service.view();
        let any_address = wildcards(view.ip_mode).first().copied().unwrap_or_default();
        // Here only the first family counts.
        let listens_for_any =
            self.request.binding.primary() == any_address && self.request.service_address.is_none();
        let is_block = self.request.service_address.primary.contains('/');
        if blocks.is_empty() && !is_block && !listens_for_any && self.service.dynamic_dns().is_none() {
            return Vec::new();
        }
        let mut hosts = vec![service.hostname.clone()];
        for alias in &service.aliases {
            hosts.push(alias.clone());
            short_name_namespaces(alias)
                .for_each(|namespace| self.service.scope.ask(self.service.cx.view(), namespace));
            hosts.extend(
                alternative_hosts(alias, &view.dns_domain).iter().map(|host| Name::from(host.as_str())),
            );
        }
        hosts
    }

    /// Where a rule leads.
    fn route(&self, backends: &[StreamBackend], set: &RouteSet) -> Option<TcpRoute> {
        self.streams().route(backends, set, |service, to, cluster| {
            self.stat_prefix(service, &to.subset, self.request.port.number, cluster)
        })
    }

    fn streams(&self) -> Streams<'_, '_> {
        Streams {
            cx: self.service.cx,
            scope: self.service.scope,
            labels: &self.service.proxy.labels,
            port: self.request.port.number,
            protocol: self.request.port.protocol,
        }
    }

    /// Without a rule: the service itself.
    fn default_route(&self) -> TcpRoute {
        let service = self.service.service;
        // The port of an egress listener may differ from the service's; with several ports there is nothing
        // to go by.
        let port = service.only_port().unwrap_or(self.request.port.number);
        let cluster = names::outbound(port, "", &service.hostname);
        let stat_prefix = self.stat_prefix(service, "", port, &cluster);
        let streams = self.streams();
        let effective = streams.rule(service);
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        let destination = Destination::Cluster(Name::from(cluster));
        let mut route = traffic.route(destination, &stat_prefix, "", streams.protocol);
        route.sni_dns_cache = self.service.dynamic_dns();
        route
    }

    fn stat_prefix(&self, service: &Service, subset: &str, port: u16, cluster: &str) -> String {
        let pattern = &self.service.view().stat_name;
        if pattern.is_empty() {
            return cluster.to_owned();
        }
        stat_pattern(pattern, service, subset, u32::from(port), &self.request.port.name, 0)
    }
}

fn sorted(blocks: &[Name]) -> Vec<&Name> {
    let mut blocks: Vec<&Name> = blocks.iter().collect();
    blocks.sort();
    blocks
}

//! Routes of connections, and what goes where without them.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::networking::{
    DestinationRule, HashKey, LbPolicy, LoadBalancerSettings, TrafficPolicy, TunnelSettings,
};
use navarch_model::route::{Backend, ClientMatch, Parent, RouteSet, ServiceBackend, StreamBackend};
use navarch_model::service::{Protocol, Service, Visibility};
use navarch_model::{EffectiveRule, Hashed, Name, ObjectKey};
use navarch_snapshot::host::{is_wildcard, overlap};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::clusters::stat_pattern;
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::outbound::TcpChain;
use navarch_translate::listeners::tcp::{Destination, TcpRoute, Tunnel};
use navarch_translate::names;
use navarch_translate::routes::domains::{alternative_hosts, short_name_namespaces};

use super::service::{ListenerRequest, PortOf, dynamic_dns};
use crate::engine::Cx;

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
    sets.retain(|set| routes_bytes(set) && set.hosts.iter().any(|pattern| overlap(pattern, host)));
    let class = |set: &RouteSet| match &set.export_to {
        Visibility::Public => 2,
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
        if blocks.is_empty() && !is_block && !listens_for_any && dynamic_dns(self.service).is_none() {
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
        route.sni_dns_cache = dynamic_dns(self.service);
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

/// What the routes of connections on one port are made with, at sidecars and at gateways.
pub(crate) struct Streams<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub scope: &'a Scope,
    /// Labels of the client.
    pub labels: &'a ClientLabels,
    /// The port of the listener.
    pub port: u16,
    pub protocol: Protocol,
}

impl Streams<'_, '_> {
    /// Where a rule of a set leads; nothing if no backend gets a share. `stat_prefix` names the statistics of
    /// a single service.
    pub fn route(
        &self,
        backends: &[StreamBackend],
        set: &RouteSet,
        stat_prefix: impl Fn(&Service, &ServiceBackend, &str) -> String,
    ) -> Option<TcpRoute> {
        let first = backends.first()?;
        let (service, cluster) = self.resolve(&first.backend);
        let effective = service.as_ref().and_then(|service| self.rule(service));
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        if backends.len() == 1 {
            let to = first.backend.service();
            let stat = match (&service, to) {
                (Some(service), Some(to)) => stat_prefix(service, to, &cluster),
                _ => cluster.clone(),
            };
            let subset = to.map_or("", |to| &to.subset);
            let destination = Destination::Cluster(Name::from(cluster));
            return Some(traffic.route(destination, &stat, subset, self.protocol));
        }
        let shares = backends.iter().filter(|to| to.weight > 0);
        let clusters: Vec<(Name, u32)> =
            shares.map(|to| (Name::from(self.resolve(&to.backend).1), to.weight)).collect();
        if clusters.is_empty() {
            return None;
        }
        let ObjectKey { namespace, name, .. } = set.key();
        // A subset's settings cannot apply to a part of the connections.
        let destination = Destination::Weighted(clusters);
        Some(traffic.route(destination, &format!("{name}.{namespace}"), "", self.protocol))
    }

    /// The service that a backend means, if the client knows it, and its cluster.
    fn resolve(&self, backend: &Backend) -> (Option<Arc<Hashed<Service>>>, String) {
        let Some(to) = backend.service() else { return (None, names::UNKNOWN_SERVICE.to_owned()) };
        let service = self.scope.service(self.cx.view(), &to.host);
        let external = service.as_ref().and_then(|service| service.external_name.as_deref());
        let only_port = service.as_ref().and_then(|service| service.only_port());
        let cluster = names::backend(to, external, only_port, self.port);
        (service, cluster)
    }

    fn rule(&self, service: &Service) -> Option<Arc<Hashed<EffectiveRule>>> {
        self.scope.destination_rule(self.cx.view(), service, Some(self.labels))
    }
}

/// What a rule says about connections.
pub(crate) struct Traffic<'a> {
    rule: Option<&'a DestinationRule>,
    policy: Option<&'a TrafficPolicy>,
    tunnels: bool,
}

impl<'a> Traffic<'a> {
    /// What this rule says; without a rule, nothing.
    pub(crate) fn of(rule: Option<&'a DestinationRule>) -> Self {
        Traffic { rule, policy: rule.and_then(|rule| rule.traffic_policy.as_ref()), tunnels: true }
    }

    /// The same but for tunnels: for connections that are passed on as they are.
    pub(crate) fn without_tunnel(self) -> Self {
        Traffic { tunnels: false, ..self }
    }

    /// A route of connections of one protocol to a destination.
    pub(crate) fn route(
        &self,
        destination: Destination,
        stat_prefix: &str,
        subset: &str,
        protocol: Protocol,
    ) -> TcpRoute {
        let pool = self.policy.and_then(|policy| policy.connection_pool.as_ref());
        let tcp = pool.and_then(|pool| pool.tcp.as_ref());
        TcpRoute {
            stat_prefix: Name::from(stat_prefix),
            destination,
            idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout),
            max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration),
            hash_source_ip: self.hashes_source_ip(subset),
            tunnel: self.tunnel(subset).map(tunnel),
            protocol,
            sni_dns_cache: None,
        }
    }

    fn subset(&self, name: &str) -> Option<&'a TrafficPolicy> {
        self.rule?.subsets.iter().find(|subset| subset.name == name)?.traffic_policy.as_ref()
    }

    /// Whether connections of one client go to one endpoint: as the subset says if it says anything about
    /// load balancing.
    fn hashes_source_ip(&self, subset: &str) -> bool {
        let of_subset = self.subset(subset).and_then(|policy| policy.load_balancer.as_ref());
        let of_rule = self.policy.and_then(|policy| policy.load_balancer.as_ref());
        of_subset.or(of_rule).is_some_and(hashes_source_ip)
    }

    fn tunnel(&self, subset: &str) -> Option<&'a TunnelSettings> {
        let policy = if subset.is_empty() { self.policy } else { self.subset(subset) };
        policy.filter(|_| self.tunnels).and_then(|policy| policy.tunnel.as_ref())
    }
}

fn hashes_source_ip(settings: &LoadBalancerSettings) -> bool {
    matches!(
        &settings.lb_policy,
        Some(LbPolicy::ConsistentHash(hash)) if hash.hash_key == Some(HashKey::UseSourceIp(true))
    )
}

fn tunnel(settings: &TunnelSettings) -> Tunnel {
    let host = &settings.target_host;
    let port = settings.target_port;
    let hostname = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Tunnel { hostname: Name::from(hostname), use_post: settings.protocol == "POST" }
}

fn sorted(blocks: &[Name]) -> Vec<&Name> {
    let mut blocks: Vec<&Name> = blocks.iter().collect();
    blocks.sort();
    blocks
}

//! TCP and TLS routes of VirtualServices, and what goes where without them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::networking::{
    Destination as RouteTarget, DestinationRule, HashKey, LbPolicy, LoadBalancerSettings, RouteDestination,
    TrafficPolicy, TunnelSettings,
};
use navarch_model::service::{Protocol, Service, Visibility};
use navarch_model::{EffectiveRule, Hashed, Name};
use navarch_snapshot::bound::BoundVirtualService;
use navarch_snapshot::host::{is_wildcard, overlap};
use navarch_translate::clusters::stat_pattern;
use navarch_translate::listeners::ConfigRef;
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::outbound::TcpChain;
use navarch_translate::listeners::tcp::{Destination, TcpRoute, Tunnel};
use navarch_translate::names;
use navarch_translate::routes::domains::{alternative_hosts, near};

use super::service::{PortOf, Wanted, dynamic_dns};

/// The gateway that stands for sidecars.
const MESH: &str = "mesh";

/// The chains for bytes of one port.
pub fn chains(service: &PortOf<'_, '_>, wanted: &Wanted<'_>) -> Vec<TcpChain> {
    let rules = virtual_services(service);
    let routes = Routes { service, wanted, rules };
    if wanted.port.protocol.is_tls() { routes.tls() } else { routes.tcp() }
}

/// The VirtualServices with TCP or TLS routes for a host, in the order in which they decide.
fn virtual_services(service: &PortOf<'_, '_>) -> Vec<Arc<Hashed<BoundVirtualService>>> {
    let PortOf { cx, scope, listener, .. } = service;
    let host = &*service.service.hostname;
    let view = cx.view();
    let mut rules = scope.listener_virtual_services(view, listener, host);
    rules.extend(scope.listener_wildcard_virtual_services(view, listener));
    if is_wildcard(host) {
        // A wildcard service also gets the routes of hosts below it.
        for bucket in scope.buckets(view).iter() {
            rules.extend(scope.listener_virtual_services_in(view, listener, bucket).into_values().flatten());
        }
    }
    let routes_bytes =
        |rule: &BoundVirtualService| !rule.config.spec.tcp.is_empty() || !rule.config.spec.tls.is_empty();
    rules.retain(|rule| routes_bytes(rule) && rule.hosts.iter().any(|pattern| overlap(pattern, host)));
    let class = |rule: &BoundVirtualService| match &rule.export_to {
        Visibility::Public => 2,
        _ if scope.is_in(view, &rule.config.namespace) => 0,
        _ => 1,
    };
    rules.sort_by(|a, b| {
        class(a).cmp(&class(b)).then_with(|| a.config.age_order().cmp(&b.config.age_order()))
    });
    rules.dedup_by(|a, b| a.config.age_order() == b.config.age_order());
    rules
}

struct Routes<'a, 'e> {
    service: &'a PortOf<'a, 'e>,
    wanted: &'a Wanted<'a>,
    rules: Vec<Arc<Hashed<BoundVirtualService>>>,
}

impl Routes<'_, '_> {
    /// Chains by server name. Of several conditions that differ only in what is known now (gateway, labels, port), the first that
    /// holds counts.
    fn tls(&self) -> Vec<TcpChain> {
        let mut chains = Vec::new();
        let mut seen: BTreeSet<(&[String], &[String])> = BTreeSet::new();
        let mut blocks = self.wanted.binding.blocks.clone();
        for rule in &self.rules {
            for tls in rule.config.spec.tls.iter().filter(|tls| !tls.route.is_empty()) {
                for condition in &tls.match_ {
                    let holds = self.holds(
                        &condition.gateways,
                        &condition.source_labels,
                        condition.port,
                        &condition.source_namespace,
                    );
                    if !holds {
                        continue;
                    }
                    if !condition.destination_subnets.is_empty() && self.wanted.port.number > 0 {
                        blocks = shared(&condition.destination_subnets);
                    }
                    if seen.insert((&condition.sni_hosts, &condition.destination_subnets)) {
                        chains.extend(self.route(&tls.route, rule).map(|route| TcpChain {
                            server_names: shared(&condition.sni_hosts),
                            destination_blocks: blocks.clone(),
                            config: Some(origin(rule)),
                            route,
                        }));
                    }
                }
            }
        }
        if chains.is_empty() {
            chains.push(TcpChain {
                server_names: self.server_names(&blocks),
                destination_blocks: blocks,
                config: None,
                route: self.default_route(),
            });
        }
        chains
    }

    /// Chains by destination block. The first route without blocks takes the rest.
    fn tcp(&self) -> Vec<TcpChain> {
        let own = &self.wanted.binding.blocks;
        let mut chains = Vec::new();
        let mut replaces_default = false;
        for rule in &self.rules {
            for tcp in rule.config.spec.tcp.iter().filter(|tcp| !tcp.route.is_empty()) {
                let mut blocks: Vec<Name> = Vec::new();
                let mut takes_all = tcp.match_.is_empty();
                for condition in &tcp.match_ {
                    let holds = self.holds(
                        &condition.gateways,
                        &condition.source_labels,
                        condition.port,
                        &condition.source_namespace,
                    );
                    if !holds {
                        continue;
                    }
                    if condition.destination_subnets.is_empty() || self.wanted.port.number == 0 {
                        takes_all = true;
                        break;
                    }
                    blocks.extend(shared(&condition.destination_subnets));
                }
                if takes_all {
                    chains.extend(self.route(&tcp.route, rule).map(|route| TcpChain {
                        server_names: Vec::new(),
                        destination_blocks: own.clone(),
                        config: Some(origin(rule)),
                        route,
                    }));
                    return chains;
                }
                if blocks.is_empty() {
                    continue;
                }
                // Two chains for the same blocks would be rejected by Envoy.
                replaces_default |= sorted(&blocks) == sorted(own);
                chains.extend(self.route(&tcp.route, rule).map(|route| TcpChain {
                    server_names: Vec::new(),
                    destination_blocks: blocks,
                    config: None,
                    route,
                }));
            }
        }
        if !replaces_default {
            chains.push(TcpChain {
                server_names: Vec::new(),
                destination_blocks: own.clone(),
                config: None,
                route: self.default_route(),
            });
        }
        chains
    }

    /// Whether the conditions that are known now hold.
    fn holds(
        &self,
        gateways: &[String],
        labels: &BTreeMap<String, String>,
        port: u32,
        namespace: &str,
    ) -> bool {
        let own = &self.service.proxy.labels;
        (gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH))
            && labels.iter().all(|(key, value)| own.get(key.as_str()).is_some_and(|label| **label == **value))
            && (port == 0 || port == u32::from(self.wanted.port.number))
            && (namespace.is_empty()
                || self.service.scope.is_in(self.service.cx.view(), &Name::from(namespace)))
    }

    /// Server names that tell the service from others on the same address; none if the address does.
    fn server_names(&self, blocks: &[Name]) -> Vec<Name> {
        let service = self.service.service;
        let view = self.service.view();
        let any_address = wildcards(view.ip_mode).first().copied().unwrap_or_default();
        // Here only the first family counts.
        let listens_for_any = self.wanted.binding.primary() == any_address && self.wanted.dialled.is_none();
        let is_block = self.wanted.dialled.primary.contains('/');
        if blocks.is_empty() && !is_block && !listens_for_any && dynamic_dns(self.service).is_none() {
            return Vec::new();
        }
        let mut hosts = vec![service.hostname.clone()];
        for alias in &service.aliases {
            hosts.push(alias.clone());
            near(alias).for_each(|namespace| self.service.scope.ask(self.service.cx.view(), namespace));
            hosts.extend(
                alternative_hosts(alias, &view.dns_domain).iter().map(|host| Name::from(host.as_str())),
            );
        }
        hosts
    }

    /// Where the routes of a VirtualService lead.
    fn route(&self, targets: &[RouteDestination], rule: &BoundVirtualService) -> Option<TcpRoute> {
        let first = targets.first()?.destination.clone().unwrap_or_default();
        let service = self.lookup(&first.host);
        let effective = service.as_ref().and_then(|service| self.rule(service));
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        let (destination, stat_prefix, subset) = if targets.len() == 1 {
            let cluster = self.cluster(&first, service.as_deref().map(|service| &**service));
            let stat = match &service {
                Some(service) => self.stat_prefix(service, &first.subset, self.wanted.port.number, &cluster),
                None => cluster.clone(),
            };
            (Destination::Cluster(Name::from(cluster)), stat, first.subset.as_str())
        } else {
            let clusters: Vec<(Name, u32)> = targets
                .iter()
                .filter_map(|target| {
                    let weight = u32::try_from(target.weight).ok().filter(|weight| *weight > 0)?;
                    let destination = target.destination.clone().unwrap_or_default();
                    let service = self.lookup(&destination.host);
                    let cluster = self.cluster(&destination, service.as_deref().map(|service| &**service));
                    Some((Name::from(cluster), weight))
                })
                .collect();
            if clusters.is_empty() {
                return None;
            }
            let stat = format!("{}.{}", rule.config.name, rule.config.namespace);
            // A subset's settings cannot apply to a part of the connections.
            (Destination::Weighted(clusters), stat, "")
        };
        Some(self.tcp_route(destination, &stat_prefix, &traffic, subset))
    }

    /// Without a route of a VirtualService: the service itself.
    fn default_route(&self) -> TcpRoute {
        let service = self.service.service;
        // The port of an egress listener may differ from the service's; with several ports there is nothing to go by.
        let port = match service.ports.as_slice() {
            [only] => only.port,
            _ => self.wanted.port.number,
        };
        let cluster = names::outbound(port, "", &service.hostname);
        let stat_prefix = self.stat_prefix(service, "", port, &cluster);
        let effective = self.rule(service);
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        let mut route = self.tcp_route(Destination::Cluster(Name::from(cluster)), &stat_prefix, &traffic, "");
        route.sni_dns_cache = dynamic_dns(self.service);
        route
    }

    fn tcp_route(
        &self,
        destination: Destination,
        stat_prefix: &str,
        traffic: &Traffic<'_>,
        subset: &str,
    ) -> TcpRoute {
        traffic.route(destination, stat_prefix, subset, self.wanted.port.protocol)
    }

    fn lookup(&self, host: &str) -> Option<Arc<Hashed<Service>>> {
        self.service.scope.service(self.service.cx.view(), host)
    }

    fn rule(&self, service: &Service) -> Option<Arc<Hashed<EffectiveRule>>> {
        let labels = Some(&self.service.proxy.labels);
        self.service.scope.destination_rule(self.service.cx.view(), service, labels)
    }

    fn cluster(&self, destination: &RouteTarget, service: Option<&Service>) -> String {
        let external = service.and_then(|service| service.external_name.as_deref());
        let host = external.unwrap_or(&destination.host);
        let port = match (&destination.port, service.map(|service| service.ports.as_slice())) {
            (Some(port), _) => u16::try_from(port.number).unwrap_or_default(),
            (None, Some([only])) => only.port,
            (None, _) => self.wanted.port.number,
        };
        names::outbound(port, &destination.subset, host)
    }

    fn stat_prefix(&self, service: &Service, subset: &str, port: u16, cluster: &str) -> String {
        let pattern = &self.service.view().stat_name;
        if pattern.is_empty() {
            return cluster.to_owned();
        }
        stat_pattern(pattern, service, subset, u32::from(port), &self.wanted.port.name, 0)
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

    /// Whether connections of one client go to one endpoint: as the subset says if it says anything about load balancing.
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

fn origin(rule: &BoundVirtualService) -> ConfigRef {
    ConfigRef::virtual_service(&rule.config.namespace, &rule.config.name)
}

fn shared(texts: &[String]) -> Vec<Name> {
    texts.iter().map(|text| Name::from(text.as_str())).collect()
}

fn sorted(blocks: &[Name]) -> Vec<&Name> {
    let mut blocks: Vec<&Name> = blocks.iter().collect();
    blocks.sort();
    blocks
}

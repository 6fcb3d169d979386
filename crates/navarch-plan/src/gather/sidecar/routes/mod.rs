//! Routes of sidecars, bucket by bucket.

mod unregistered;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::route::{Audience, HostMeaning, RouteSet};
use navarch_model::service::{Protocol, Resolution, Service, ServicePort};
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::host::{by_specificity, covers, is_wildcard};
use navarch_snapshot::scope::{EgressListener, OutboundMode};
use navarch_snapshot::{BUCKETS, Bucket, ClientLabels};
use navarch_translate::names;
use navarch_translate::routes::domains::{DomainView, short_name_namespaces};
use navarch_translate::routes::hash_policy;
use navarch_translate::routes::patch::{PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches};
use navarch_translate::routes::route_configuration::of_detected_port;
use navarch_translate::routes::{
    CatchAll, CatchAllHost, Contribution, Rank, Ranked, RouteConfiguration, RouteConfigurationInput,
    RouteContext, RouteSource, Routes, SidecarVirtualHost, SidecarVirtualHostInput,
};

use self::unregistered::{UnregisteredWildcards, unregistered};
use crate::engine::{Cx, Gather, KeysByLabels};
use crate::gather::egress_proxy_cluster;
use crate::gather::shared::route_client::Client;
use crate::gather::shared::routes::{default_retries, destination_rule, destination_service, routes_of};
use crate::gather::shared::upstream::SeenBuckets;
use crate::parts::{Asked, BucketResources, Parts, Pieces, Seen, in_buckets};

/// Name of the route configuration for requests with absolute URLs.
const HTTP_PROXY: &str = "http_proxy";

/// Services and sets of routes shared with the snapshot.
pub(crate) type SharedService = Arc<Hashed<Service>>;
pub(crate) type SharedRoutes = Arc<Hashed<RouteSet>>;

/// The routes of a sidecar.
pub(crate) fn routes(cx: &Cx<'_>, client: &Arc<Hashed<Client>>, patches: &RoutePatches) -> Parts {
    let key = |labels: &ClientLabels| Arc::new(Hashed::new(client.with(labels)));
    let (labels, seen) = cx.narrow::<SidecarRoutes>(&client.labels, key);
    let seen = if patches.is_empty() {
        seen
    } else {
        cx.gather::<PatchedSidecarRoutes>(&(key(&labels), patches.clone()))
    };
    Parts::seen(&seen, BucketResources::new())
}

/// The rules behind the virtual hosts of a route configuration, by name of the virtual host. A configuration
/// for one port of a service has the virtual host that the service has among those of the port.
pub(crate) fn origins(
    cx: &Cx<'_>,
    client: &Arc<Hashed<Client>>,
    configuration: &str,
) -> BTreeMap<String, BTreeSet<Origin>> {
    let mut origins: BTreeMap<String, BTreeSet<Origin>> = BTreeMap::new();
    let of_one_service = configuration.contains(':');
    let seen = seen_hosts(cx, client);
    let configs = seen.all().flat_map(|hosts| &hosts.configs);
    for (_, contribution) in configs.filter(|(key, _)| of_one_service || *key.name == *configuration) {
        for host in contribution.iter().map(|ranked| ranked.host_for(&client.namespace)) {
            let routes = host.routes.iter().flat_map(|routes| routes.iter());
            origins
                .entry(host.name.clone())
                .or_default()
                .extend(routes.filter_map(|route| route.origin.clone()));
        }
    }
    origins
}

/// The same with what EnvoyFilters change.
struct PatchedSidecarRoutes;

impl Gather for PatchedSidecarRoutes {
    const NAME: &'static str = "patched_sidecar_routes";
    type Key = (Arc<Hashed<Client>>, RoutePatches);
    type Output = Seen;

    fn run((client, patches): &Self::Key, cx: &Cx<'_>) -> Seen {
        let target = PatchTarget { context: PatchContext::SidecarOutbound, server_ports: BTreeSet::new() };
        let patched = |resource: &Arc<Resource>| {
            let input = PatchedRoutesInput {
                resource: resource.clone(),
                target: target.clone(),
                patches: patches.clone(),
            };
            cx.get::<PatchedRoutes>(&input)
        };
        let seen = cx.gather::<SidecarRoutes>(client);
        let pieces = seen.pieces.iter().map(|piece| Arc::new(piece.iter().map(patched).collect())).collect();
        Seen { pieces, ..Seen::default() }
    }
}

/// A route configuration that is being put together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConfigKey {
    pub name: Name,
    /// It serves requests to all ports.
    pub all_ports: bool,
}

/// What asks for a route configuration: a listener and the port it serves.
#[derive(Clone, Debug)]
pub(crate) struct Target<'s> {
    pub listener: &'s EgressListener,
    pub name: Name,
    /// `None`: all ports.
    pub port: Option<u16>,
}

impl<'s> Target<'s> {
    fn of_port(listener: &'s EgressListener, port: u16) -> Self {
        Target { listener, name: port.to_string().into(), port: Some(port) }
    }

    pub fn key(&self) -> ConfigKey {
        ConfigKey { name: self.name.clone(), all_ports: self.port.is_none() }
    }

    /// The ports of a service that the target serves.
    pub fn ports<'a>(
        &self,
        service: &'a Service,
    ) -> impl Iterator<Item = (usize, &'a ServicePort)> + use<'a> {
        let wanted = self.port;
        service
            .ports
            .iter()
            .enumerate()
            .filter(move |(_, port)| wanted.is_none_or(|wanted| wanted == port.port))
    }
}

/// Ports whose traffic is, or may turn out to be, HTTP.
pub(crate) fn may_be_http(protocol: Protocol) -> bool {
    protocol.is_http() || protocol.is_sniffed()
}

/// The targets that a listener states, whatever services there are. The listener for everything else has a
/// target per port of its services besides.
pub(crate) fn stated_target<'s>(client: &Client, listener: &'s EgressListener) -> Option<Target<'s>> {
    let Some(port) = &listener.port else {
        return client.http_proxy.then(|| Target { listener, name: HTTP_PROXY.into(), port: None });
    };
    let number = u16::try_from(port.number).ok()?;
    if number == 0 {
        return Some(Target { listener, name: listener.bind.as_str().into(), port: None });
    }
    match Protocol::parse(&port.protocol) {
        Protocol::HttpProxy => Some(Target { port: None, ..Target::of_port(listener, number) }),
        protocol if may_be_http(protocol) => Some(Target::of_port(listener, number)),
        _ => None,
    }
}

/// The target for a port on the listener for everything else, unless another listener has the port.
pub(crate) fn port_target<'s>(
    client: &Client,
    listener: &'s EgressListener,
    port: u16,
) -> Option<Target<'s>> {
    if listener.port.is_some() {
        return None;
    }
    let asked = client.scope.egress_listener_for(u32::from(port), "")?;
    std::ptr::eq(asked, listener).then(|| Target::of_port(listener, port))
}

/// Virtual hosts of one bucket or of wildcard hosts, by route configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hosts {
    pub configs: BTreeMap<ConfigKey, Contribution>,
    /// Route configurations of single ports whose protocol is detected.
    pub detected: Arc<BucketResources>,
    /// Namespaces whose clients may have other virtual hosts.
    asked: BTreeSet<Name>,
    /// Namespaces whose clients have shorter domains for some host.
    short_names: BTreeSet<Name>,
}

/// Collects virtual hosts for one client.
pub(crate) struct Collector<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub client: &'a Client,
    configs: BTreeMap<ConfigKey, Vec<Ranked>>,
    detected: BucketResources,
}

impl<'a, 'e> Collector<'a, 'e> {
    pub fn new(cx: &'a Cx<'e>, client: &'a Client) -> Self {
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

    /// The set that routes a service's requests, with its routes: the first for exactly the host whose
    /// conditions can hold, else the one with the most specific wildcard.
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
        exact.into_iter().find_map(|set| {
            if !may_route(self.cx, self.client, &set, service) {
                return None;
            }
            let routes = self.routes(target, &set)?;
            Some((set, routes))
        })
    }
}

/// Whether a set routes the client's requests to a service.
pub(crate) fn may_route(cx: &Cx<'_>, client: &Client, set: &RouteSet, service: &Service) -> bool {
    match set.audience {
        Audience::Everyone => true,
        Audience::ProducerOrConsumer => {
            *set.namespace() == service.namespace || client.scope.is_in(cx.view(), set.namespace())
        }
    }
}

/// The first set with the most specific wildcard that covers a host.
pub(crate) fn most_specific<'r>(host: &str, wildcards: &'r [SharedRoutes]) -> Option<&'r SharedRoutes> {
    let covering = wildcards.iter().flat_map(|set| {
        let hosts = set.hosts.iter().filter(|pattern| is_wildcard(pattern) && covers(pattern, host));
        hosts.map(move |pattern| (pattern, set))
    });
    covering.min_by(|(a, _), (b, _)| by_specificity(a, b)).map(|(_, set)| set)
}

fn rank(set: &RouteSet, is_service: bool, position: u32) -> Rank {
    Rank::Routes { precedence: set.precedence.clone(), is_service, position }
}

/// The virtual hosts of the services and of the hosts of routes of one bucket.
struct BucketHosts;

impl Gather for BucketHosts {
    const NAME: &'static str = "bucket_virtual_hosts";
    type Key = (Arc<Hashed<Client>>, Bucket);
    type Output = Hosts;

    fn run((client, bucket): &Self::Key, cx: &Cx<'_>) -> Hosts {
        let mut collector = Collector::new(cx, client);
        for listener in client.scope.egress_listeners() {
            let wildcards = client.scope.listener_wildcard_routes(cx.view(), listener);
            let services = client.scope.listener_services_in(cx.view(), listener, *bucket);
            for target in targets(client, listener, &services) {
                for service in on_target(&target, &services) {
                    collector.add_service(&target, service, &wildcards);
                }
            }
            unregistered(&mut collector, listener, *bucket, &services);
        }
        collector.finish()
    }
}

/// What a listener serves, given the services it imports.
fn targets<'s>(client: &Client, listener: &'s EgressListener, services: &[SharedService]) -> Vec<Target<'s>> {
    let mut ports: Vec<u16> =
        services.iter().flat_map(|service| service.ports.iter().map(|port| port.port)).collect();
    ports.sort_unstable();
    ports.dedup();
    let by_port = ports.into_iter().filter_map(|port| port_target(client, listener, port));
    stated_target(client, listener).into_iter().chain(by_port).collect()
}

/// The services on a target, one per host: of several with the port the last one counts, as in istiod.
fn on_target<'a>(
    target: &Target<'_>,
    services: &'a [SharedService],
) -> impl Iterator<Item = &'a SharedService> + use<'a> {
    let mut by_host: BTreeMap<&str, &SharedService> = BTreeMap::new();
    for service in services.iter().filter(|service| target.ports(service).next().is_some()) {
        by_host.insert(&service.hostname, service);
    }
    by_host.into_values()
}

/// The virtual hosts of all buckets and of wildcard hosts.
#[derive(Clone, Debug)]
struct AllHosts {
    buckets: Vec<Arc<Hosts>>,
    wildcards: Arc<Hosts>,
    asked: Asked,
    /// Those of each bucket, and a place for route configurations that span buckets.
    detected: Pieces,
}

/// A change leaves most buckets what they are in memory.
impl PartialEq for AllHosts {
    fn eq(&self, other: &Self) -> bool {
        let mut pairs = self.all().zip(other.all());
        self.buckets.len() == other.buckets.len()
            && pairs.all(|(ours, theirs)| Arc::ptr_eq(ours, theirs) || ours == theirs)
    }
}

impl AllHosts {
    fn new(buckets: Vec<Arc<Hosts>>, wildcards: Arc<Hosts>) -> Self {
        let mut asked = Asked::default();
        for (bucket, hosts) in (0..BUCKETS).zip(&buckets) {
            asked.add(&hosts.asked, bucket);
        }
        let detected = buckets.iter().map(|hosts| hosts.detected.clone()).chain([Arc::default()]).collect();
        AllHosts { buckets, wildcards, asked, detected }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Hosts>> {
        self.buckets.iter().chain([&self.wildcards])
    }
}

/// The virtual hosts of a client.
fn seen_hosts(cx: &Cx<'_>, client: &Client) -> Arc<AllHosts> {
    cx.narrow::<SeenHosts>(&client.labels, |labels| Arc::new(Hashed::new(client.with(labels)))).1
}

/// The virtual hosts of a client, gathered bucket by bucket.
struct SeenHosts;

impl Gather for SeenHosts {
    const NAME: &'static str = "virtual_hosts";
    type Key = Arc<Hashed<Client>>;
    type Output = AllHosts;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> AllHosts {
        let keys = RefCell::new(KeysByLabels::default());
        let key = |labels: &ClientLabels| keys.borrow_mut().get(labels, || client.with(labels));
        let own = |bucket| cx.narrow::<BucketHosts>(&client.labels, |labels| (key(labels), bucket)).1;
        let own_wildcards = || cx.narrow::<UnregisteredWildcards>(&client.labels, key).1;
        let Some(common) = client.elsewhere(cx).map(|client| seen_hosts(cx, &client)) else {
            let seen = *cx.gather::<SeenBuckets>(&client.scope);
            return AllHosts::new(in_buckets(seen, &Arc::default(), own).collect(), own_wildcards());
        };
        let differs = common.asked.of(&client.namespace);
        let of_wildcards = common.wildcards.asked.contains(&client.namespace);
        if differs.is_empty() && !of_wildcards {
            return (*common).clone();
        }
        let buckets = (0..BUCKETS)
            .zip(&common.buckets)
            .map(|(bucket, known)| if differs.contains(bucket) { own(bucket) } else { known.clone() });
        let wildcards = if of_wildcards { own_wildcards() } else { common.wildcards.clone() };
        AllHosts::new(buckets.collect(), wildcards)
    }
}

/// All route configurations of a client: the resources of each bucket, then those that span buckets.
struct SidecarRoutes;

impl Gather for SidecarRoutes {
    const NAME: &'static str = "sidecar_routes";
    type Key = Arc<Hashed<Client>>;
    type Output = Seen;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> Seen {
        let mut configs: BTreeMap<ConfigKey, Vec<Contribution>> = BTreeMap::new();
        for target in
            client.scope.egress_listeners().iter().filter_map(|listener| stated_target(client, listener))
        {
            configs.entry(target.key()).or_default();
        }
        if client.http_proxy {
            // The listener of the HTTP proxy asks for its routes also where no egress listener serves all
            // ports: then no host is known.
            configs.entry(ConfigKey { name: HTTP_PROXY.into(), all_ports: true }).or_default();
        }
        let hosts = cx.gather::<SeenHosts>(client);
        for hosts in hosts.all() {
            for (key, contribution) in &hosts.configs {
                configs.entry(key.clone()).or_default().push(contribution.clone());
            }
        }
        let has_short_names = hosts.all().any(|hosts| hosts.short_names.contains(&client.namespace));
        let namespace = if has_short_names { client.namespace.clone() } else { Name::from("") };
        let catch_all = catch_all(client);
        let wide = configs.into_iter().map(|(key, contributions)| -> Arc<Resource> {
            cx.get::<RouteConfiguration>(&RouteConfigurationInput {
                name: key.name,
                contributions,
                namespace: namespace.clone(),
                catch_all: catch_all.clone(),
                all_ports: key.all_ports,
                ignore_port_in_host_matching: true,
            })
        });
        let wide = Arc::new(wide.collect());
        let detected = hosts.buckets.iter().map(|hosts| hosts.detected.clone());
        let common = client.elsewhere(cx).map(|client| seen_hosts(cx, &client).detected.clone());
        Seen { pieces: detected.chain([wide]).collect(), asked: Asked::default(), common }
    }
}

/// What becomes of requests to unknown hosts.
fn catch_all(client: &Client) -> Option<CatchAllHost> {
    let policy = client.scope.outbound_traffic_policy();
    let kind = match policy.map(|policy| policy.mode) {
        Some(OutboundMode::AllowAny) => {
            let proxy = policy.and_then(|policy| policy.egress_proxy.as_ref());
            CatchAll::Allow { cluster: proxy.map_or_else(|| names::PASSTHROUGH.into(), egress_proxy_cluster) }
        }
        Some(OutboundMode::AllowAnyDynamicDns) => {
            CatchAll::AllowDynamicDns { cluster: names::ALLOW_ANY_DYNAMIC_DNS.into() }
        }
        Some(OutboundMode::RegistryOnly) | None => CatchAll::Block,
    };
    Some(CatchAllHost {
        kind,
        include_request_attempt_count: client.include_request_attempt_count,
        append_x_forwarded_host: client.x_forwarded_host,
    })
}

//! Routes of sidecars, bucket by bucket.

mod hosts;
mod targets;
mod unregistered;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::scope::{EgressListener, OutboundMode};
use navarch_snapshot::{BUCKETS, Bucket, ClientLabels, Scope};
use navarch_translate::names;
use navarch_translate::routes::patch::{PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches};
use navarch_translate::routes::{
    CatchAll, CatchAllHost, Contribution, RouteConfiguration, RouteConfigurationInput,
};

use self::hosts::{Collector, Hosts};
use self::targets::{ConfigKey, HTTP_PROXY, Target, port_target, stated_target};
use self::unregistered::{UnregisteredWildcards, unregistered};
use super::egress_proxy_cluster;
use crate::class::Class;
use crate::composed::{BucketResources, Composed, DiffersFor, Pieces, Seen, in_buckets};
use crate::engine::{Cx, Gather, KeysByLabels};
use crate::gather::shared::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::gather::shared::routes::{RouteClient, SharedService};
use crate::gather::shared::upstream::SeenBuckets;

/// The routes of a sidecar.
pub fn routes(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let client = RouteClient::of(cx, class, scope);
    let patches = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let key = |labels: &ClientLabels| Arc::new(Hashed::new(client.with(labels)));
    let (labels, seen) = cx.narrow::<SidecarRoutes>(&client.labels, key);
    let seen = if patches.is_empty() {
        seen
    } else {
        cx.gather::<PatchedSidecarRoutes>(&(key(&labels), (*patches).clone()))
    };
    Composed::seen(&seen, BucketResources::new())
}

/// The rules behind the virtual hosts of a route configuration, by name of the virtual host. A configuration
/// for one port of a service has the virtual host that the service has among those of the port.
pub fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    configuration: &str,
) -> BTreeMap<String, BTreeSet<Origin>> {
    let client = &RouteClient::of(cx, class, scope);
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
    const NAME: &'static str = "routes.patched_seen";
    type Key = (Arc<Hashed<RouteClient>>, RoutePatches);
    type Output = Seen;

    fn run((client, patches): &Self::Key, cx: &Cx<'_>) -> Seen {
        let target = PatchTarget { context: PatchContext::SidecarOutbound, server_ports: BTreeSet::new() };
        let patched = |resource: &Arc<Resource>| {
            let input = PatchedRoutesInput {
                resource: resource.clone(),
                target: target.clone(),
                patches: patches.clone(),
            };
            cx.get::<PatchedRoutes>(&input).made.clone()
        };
        let seen = cx.gather::<SidecarRoutes>(client);
        let pieces = seen.pieces.iter().map(|piece| Arc::new(piece.iter().map(patched).collect())).collect();
        Seen { pieces, ..Seen::default() }
    }
}

/// The virtual hosts of the services and of the hosts of routes of one bucket.
struct BucketHosts;

impl Gather for BucketHosts {
    const NAME: &'static str = "routes.bucket_hosts";
    type Key = (Arc<Hashed<RouteClient>>, Bucket);
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
fn targets<'s>(
    client: &RouteClient,
    listener: &'s EgressListener,
    services: &[SharedService],
) -> Vec<Target<'s>> {
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
    asked: DiffersFor,
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
        let mut asked = DiffersFor::default();
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
fn seen_hosts(cx: &Cx<'_>, client: &RouteClient) -> Arc<AllHosts> {
    cx.narrow::<SeenHosts>(&client.labels, |labels| Arc::new(Hashed::new(client.with(labels)))).1
}

/// The virtual hosts of a client, gathered bucket by bucket.
struct SeenHosts;

impl Gather for SeenHosts {
    const NAME: &'static str = "routes.seen_hosts";
    type Key = Arc<Hashed<RouteClient>>;
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
    const NAME: &'static str = "routes.seen";
    type Key = Arc<Hashed<RouteClient>>;
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
        Seen { pieces: detected.chain([wide]).collect(), asked: DiffersFor::default(), common }
    }
}

/// What becomes of requests to unknown hosts.
fn catch_all(client: &RouteClient) -> Option<CatchAllHost> {
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

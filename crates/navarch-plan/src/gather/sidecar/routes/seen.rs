//! What a sidecar sees: the virtual hosts of all buckets, and the route configurations that they are for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::scope::{EgressListener, OutboundMode};
use navarch_snapshot::{BUCKETS, Bucket, ClientLabels};
use navarch_translate::names;
use navarch_translate::routes::{CatchAll, CatchAllHost, Contribution};

use super::hosts::{Collector, Hosts};
use super::targets::{ConfigKey, HTTP_PROXY, Target, port_target, stated_target};
use super::unregistered::{UnregisteredWildcards, unregistered};
use crate::composed::{DiffersFor, Pieces, in_buckets};
use crate::engine::{Cx, Gather, KeysByLabels};
use crate::gather::shared::routes::{RouteClient, SharedService};
use crate::gather::shared::upstream::SeenBuckets;
use crate::gather::sidecar::egress_proxy_cluster;

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
pub struct AllHosts {
    pub buckets: Vec<Arc<Hosts>>,
    pub wildcards: Arc<Hosts>,
    asked: DiffersFor,
    /// Those of each bucket, and a place for route configurations that span buckets.
    pub detected: Pieces,
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

    pub fn all(&self) -> impl Iterator<Item = &Arc<Hosts>> {
        self.buckets.iter().chain([&self.wildcards])
    }
}

/// The virtual hosts of a client.
pub fn seen_hosts(cx: &Cx<'_>, client: &RouteClient) -> Arc<AllHosts> {
    cx.narrow::<SeenHosts>(&client.labels, |labels| Arc::new(Hashed::new(client.with(labels)))).1
}

/// The virtual hosts of a client, gathered bucket by bucket.
pub struct SeenHosts;

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

/// The route configurations that span buckets, and what each bucket has for them.
pub fn configurations(client: &RouteClient, hosts: &AllHosts) -> BTreeMap<ConfigKey, Vec<Contribution>> {
    let mut configs: BTreeMap<ConfigKey, Vec<Contribution>> = BTreeMap::new();
    for target in
        client.scope.egress_listeners().iter().filter_map(|listener| stated_target(client, listener))
    {
        configs.entry(target.key()).or_default();
    }
    if client.http_proxy {
        // The listener of the HTTP proxy asks for its routes also where no egress listener serves all ports:
        // then no host is known.
        configs.entry(ConfigKey { name: HTTP_PROXY.into(), all_ports: true }).or_default();
    }
    for hosts in hosts.all() {
        for (key, contribution) in &hosts.configs {
            configs.entry(key.clone()).or_default().push(contribution.clone());
        }
    }
    configs
}

/// What becomes of requests to unknown hosts.
pub fn catch_all(client: &RouteClient) -> Option<CatchAllHost> {
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

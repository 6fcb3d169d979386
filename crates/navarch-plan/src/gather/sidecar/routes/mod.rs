//! Routes of sidecars, bucket by bucket.

mod claims;
mod hosts;
mod seen;
mod split;
mod targets;
mod unregistered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::{BUCKETS, ClientLabels, Scope};
use navarch_translate::routes::patch::{PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches};
use navarch_translate::routes::split::{Split, SplitRoutes, SplitRoutesInput};
use navarch_translate::routes::{RouteConfiguration, RouteConfigurationInput};

use self::seen::{SeenHosts, catch_all, configurations, seen_hosts};
use self::split::{RoutesAlone, SplitHosts};
use crate::class::Class;
use crate::composed::{BucketResources, Composed, DiffersFor, Pieces, Seen};
use crate::engine::{Cx, Gather};
use crate::gather::shared::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::gather::shared::routes::RouteClient;

/// The routes of a sidecar.
pub fn routes(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let client = RouteClient::of(cx, class, scope);
    let patches = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let key = |labels: &ClientLabels| Arc::new(Hashed::new(client.with(labels)));
    let is_split = class.facts.split_routes;
    if is_split && patches.is_empty() {
        let (_, seen) = cx.narrow::<RoutesAlone>(&client.labels, key);
        return Composed::seen(&seen, BucketResources::new());
    }
    let (labels, seen) = cx.narrow::<SidecarRoutes>(&client.labels, key);
    if patches.is_empty() {
        return Composed::seen(&seen, BucketResources::new());
    }
    let patched = cx.gather::<PatchedSidecarRoutes>(&(key(&labels), (*patches).clone()));
    if !is_split {
        return Composed::seen(&patched, BucketResources::new());
    }
    let (alone, wide) = split_patched(cx, &patched);
    Composed::seen(
        &Seen { pieces: alone, ..Seen::default() },
        wide.into_iter().map(|split| split.routes.clone()).collect(),
    )
}

/// The virtual hosts of a sidecar, if they are resources of their own.
pub fn hosts(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    if !class.facts.split_routes {
        return Composed::default();
    }
    let client = RouteClient::of(cx, class, scope);
    let patches = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let key = |labels: &ClientLabels| Arc::new(Hashed::new(client.with(labels)));
    if patches.is_empty() {
        let (_, made) = cx.narrow::<SplitHosts>(&client.labels, key);
        return Composed::seen(&made.seen, BucketResources::new());
    }
    let (labels, _) = cx.narrow::<SidecarRoutes>(&client.labels, key);
    let patched = cx.gather::<PatchedSidecarRoutes>(&(key(&labels), (*patches).clone()));
    let (_, wide) = split_patched(cx, &patched);
    Composed::shared(wide.iter().map(|split| split.hosts.clone()).collect())
}

/// Route configurations that EnvoyFilters were applied to as a whole: those of single ports, which stay
/// whole, and those that span buckets, taken apart.
fn split_patched(cx: &Cx<'_>, patched: &Seen) -> (Pieces, Vec<Arc<Split>>) {
    let count = usize::from(BUCKETS);
    let alone = patched.pieces.iter().take(count).cloned().collect();
    let wide = patched.pieces.iter().skip(count).flat_map(|piece| piece.iter());
    let split = wide.map(|resource| cx.get::<SplitRoutes>(&SplitRoutesInput { resource: resource.clone() }));
    (alone, split.collect())
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

/// All route configurations of a client: the resources of each bucket, then those that span buckets.
struct SidecarRoutes;

impl Gather for SidecarRoutes {
    const NAME: &'static str = "routes.seen";
    type Key = Arc<Hashed<RouteClient>>;
    type Output = Seen;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> Seen {
        let hosts = cx.gather::<SeenHosts>(client);
        let configs = configurations(client, &hosts);
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

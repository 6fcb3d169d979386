//! Routes of gateways: what sets of routes say about the hosts of listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::{BUCKETS, ClientLabels, HostBucket, Scope, host_bucket};
use navarch_translate::gateway::{
    GatewayHostResource, GatewayHostResourceInput, GatewayRouteConfiguration, other_hosts,
};
use navarch_translate::routes::patch::{
    PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches, gateway_port,
};
use navarch_translate::routes::split::{
    RoutesWithoutHosts, RoutesWithoutHostsInput, SplitRoutes, SplitRoutesInput,
};

use super::hosts::{Served, ServedTo, VirtualHostsIn, all_hosts, hosts_in, input_of, places};
use super::merge::{MergedGateways, MergedListener};
use super::selected::GatewaysOf;
use crate::class::Class;
use crate::composed::{BucketResources, Composed, Pieces};
use crate::engine::{Cx, Gather, KeysByLabels};
use crate::gather::shared::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::gather::shared::routes::RouteClient;

/// Up to as many buckets with hosts are one piece: most configurations of HTTPS listeners have one host, and
/// there may be thousands of them.
const ONE_PIECE: usize = 8;

/// The routes of a gateway: one route configuration for all plain HTTP servers of a port, one for each HTTPS
/// listener.
pub fn routes(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let made = cx.gather::<ConfigurationsOf>(&(class.clone(), scope.clone()));
    Composed::own(made.iter().map(|made| made.routes.clone()).collect())
}

/// The virtual hosts of a gateway, if they are resources of their own.
pub fn hosts(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    if !class.facts.split_routes {
        return Composed::default();
    }
    let made = cx.gather::<ConfigurationsOf>(&(class.clone(), scope.clone()));
    Composed::shared(made.iter().flat_map(|made| made.hosts.iter().cloned()).collect())
}

/// A route configuration, and its virtual hosts where they are resources of their own.
#[derive(Clone, Debug, PartialEq)]
struct MadeConfiguration {
    routes: Arc<Resource>,
    hosts: Pieces,
}

impl MadeConfiguration {
    fn whole(routes: Arc<Resource>) -> Self {
        MadeConfiguration { routes, hosts: Pieces::default() }
    }
}

/// The route configurations of a class: their routes and their hosts are asked for by two.
struct ConfigurationsOf;

impl Gather for ConfigurationsOf {
    const NAME: &'static str = "routes.gateway_configurations";
    type Key = (Arc<Hashed<Class>>, Arc<Hashed<Scope>>);
    type Output = Vec<MadeConfiguration>;

    fn run((class, scope): &Self::Key, cx: &Cx<'_>) -> Vec<MadeConfiguration> {
        configurations(cx, class, scope)
    }
}

/// The route configurations, with their hosts in them or beside them.
fn configurations(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
) -> Vec<MadeConfiguration> {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Vec::new() };
    let client = RouteClient::of(cx, class, scope);
    let patches = &*cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let is_split = class.facts.split_routes;
    let mut keys = KeysByLabels::default();
    let stated = cx.gather::<StatedConfigurations>(class);
    let made = stated.iter().map(|configuration| {
        let mut key = |labels: &ClientLabels| {
            let client = keys.get(labels, || client.with(labels));
            (client, configuration.clone())
        };
        if is_split && patches.is_empty() {
            return (*cx.narrow::<SplitConfigurationOf>(&client.labels, key).1).clone();
        }
        let whole = cx.narrow::<RouteConfigurationOf>(&client.labels, &mut key).1;
        let resource = if patches.is_empty() {
            (*whole).clone()
        } else {
            patched(cx, gateways, (*whole).clone(), patches)
        };
        if is_split {
            let split = cx.get::<SplitRoutes>(&SplitRoutesInput { resource });
            let hosts = [split.hosts.clone()].into_iter().collect();
            return MadeConfiguration { routes: split.routes.clone(), hosts };
        }
        MadeConfiguration::whole(resource)
    });
    made.collect()
}

/// The rules behind the virtual hosts of a route configuration, by domain.
pub fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    configuration: &str,
) -> BTreeMap<String, BTreeSet<Origin>> {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return BTreeMap::new() };
    let served = Arc::new(Hashed::new(Served::of(gateways, &Name::from(configuration))));
    let to = ServedTo { client: RouteClient::of(cx, class, scope), served };
    let hosts = all_hosts(cx, &to);
    let origins = hosts.iter().flat_map(|hosts| hosts.iter()).map(|(domain, host)| {
        let routes = host.routes().iter().flat_map(|routes| routes.iter());
        (domain.clone(), routes.filter_map(|route| route.origin.clone()).collect())
    });
    origins.collect()
}

/// A route configuration with what EnvoyFilters change.
fn patched(
    cx: &Cx<'_>,
    gateways: &MergedGateways,
    resource: Arc<Resource>,
    patches: &RoutePatches,
) -> Arc<Resource> {
    let number = gateway_port(resource.name());
    let behind = gateways.routes.iter().filter(|(name, _)| gateway_port(name) == number);
    let server_ports =
        behind.flat_map(|(_, listeners)| listeners.iter().map(|listener| listener.port())).collect();
    let target = PatchTarget { context: PatchContext::Gateway, server_ports };
    cx.get::<PatchedRoutes>(&PatchedRoutesInput { resource, target, patches: patches.clone() }).made.clone()
}

/// What one route configuration is made of on the side of the gateways. What other configurations are made of
/// is none of its business.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Configuration {
    served: Arc<Hashed<Served>>,
    /// Hosts of other listeners, whose requests are sent away.
    misdirected: BTreeSet<String>,
}

/// What the gateways of a class say about each route configuration: it stays when routes change.
struct StatedConfigurations;

impl Gather for StatedConfigurations {
    const NAME: &'static str = "routes.gateway_stated";
    type Key = Arc<Hashed<Class>>;
    type Output = Vec<Arc<Hashed<Configuration>>>;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Self::Output {
        let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Vec::new() };
        let mut misdirected = misdirected(gateways);
        let stated = gateways.routes.keys().map(|name| {
            let served = Arc::new(Hashed::new(Served::of(gateways, name)));
            let misdirected = misdirected.remove(name).unwrap_or_default();
            Arc::new(Hashed::new(Configuration { served, misdirected }))
        });
        stated.collect()
    }
}

type ConfigurationKey = (Arc<Hashed<RouteClient>>, Arc<Hashed<Configuration>>);

fn served_to((client, configuration): &ConfigurationKey) -> ServedTo {
    ServedTo { client: client.clone(), served: configuration.served.clone() }
}

/// One route configuration.
struct RouteConfigurationOf;

impl Gather for RouteConfigurationOf {
    const NAME: &'static str = "routes.gateway";
    type Key = ConfigurationKey;
    type Output = Arc<Resource>;

    fn run(key: &Self::Key, cx: &Cx<'_>) -> Arc<Resource> {
        let to = served_to(key);
        let hosts = all_hosts(cx, &to);
        let mut input = input_of(&to, hosts.iter().flat_map(|hosts| hosts.iter()));
        input.misdirected = key.1.misdirected.clone();
        cx.get::<GatewayRouteConfiguration>(&input)
    }
}

/// One route configuration, and its virtual hosts as resources of their own.
struct SplitConfigurationOf;

impl Gather for SplitConfigurationOf {
    const NAME: &'static str = "routes.gateway_split";
    type Key = ConfigurationKey;
    type Output = MadeConfiguration;

    fn run(key: &Self::Key, cx: &Cx<'_>) -> MadeConfiguration {
        let to = served_to(key);
        let name = to.served.name.clone();
        let routes = cx.get::<RoutesWithoutHosts>(&RoutesWithoutHostsInput {
            name: name.clone(),
            ignore_port_in_host_matching: true,
        });
        let places = places(cx, &to.served);
        let made = |place: HostBucket| cx.gather::<VirtualHostsIn>(&(to.clone(), place));
        let nothing: Arc<BucketResources> = Arc::default();
        let mut pieces: Vec<Arc<BucketResources>> = if places.len() <= ONE_PIECE {
            let all = places.iter().flat_map(|place| made(*place).iter().cloned().collect::<Vec<_>>());
            vec![Arc::new(all.collect())]
        } else {
            let all = (0..BUCKETS).map(Some).chain([None]);
            all.map(|place| if places.contains(&place) { made(place) } else { nothing.clone() }).collect()
        };
        let is_empty = pieces.iter().all(|piece| piece.is_empty());
        let is_served = |host: &&String| {
            let place = host_bucket(host);
            places.contains(&place) && hosts_in(cx, &to, place).contains_key(*host)
        };
        let misdirected: Vec<&String> = key.1.misdirected.iter().filter(|host| !is_served(host)).collect();
        let others = other_hosts(to.served.port(), is_empty, misdirected).into_iter().map(|host| {
            cx.get::<GatewayHostResource>(&GatewayHostResourceInput { routes: name.clone(), host })
        });
        pieces.push(Arc::new(others.collect()));
        MadeConfiguration { routes, hosts: pieces.into_iter().collect() }
    }
}

/// For the configurations of HTTPS listeners of the Gateway API, the hosts of other TLS listeners of the
/// port. A client may send requests for several hosts over one connection if the certificate covers them;
/// what comes by the wrong listener would get what that listener says.
fn misdirected(gateways: &MergedGateways) -> BTreeMap<&Name, BTreeSet<String>> {
    type Socket<'a> = (u16, &'a Name);
    let mut with_tls: BTreeMap<Socket<'_>, Vec<&MergedListener>> = BTreeMap::new();
    for port in &gateways.ports {
        let listeners = port.listeners.iter().map(|listener| &***listener);
        let listeners = listeners.filter(|listener| listener.tls().is_some());
        with_tls.entry((port.port.number, &port.port.bind)).or_default().extend(listeners);
    }
    let mut hosts: BTreeMap<&Name, BTreeSet<String>> = BTreeMap::new();
    for all in with_tls.values() {
        let is_own = |own: &&&MergedListener| own.terminates_https() && own.listener.section().is_some();
        for own in all.iter().filter(is_own) {
            let others = all.iter().filter(|other| other.parent() != own.parent());
            let names = others.flat_map(|other| &other.listener.hosts).map(|host| &host.name);
            let foreign = names.filter(|name| !own.listener.hosts.iter().any(|host| host.name == **name));
            let foreign = foreign.map(|name| name.to_ascii_lowercase());
            hosts.entry(&own.route_name).or_default().extend(foreign);
        }
    }
    hosts
}

//! Routes of gateways: what sets of routes say about the hosts of listeners.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::listener::ListenerHost;
use navarch_model::networking::PatchContext;
use navarch_model::route::{Parent, RouteSet, RuleOrder};
use navarch_model::service::{PersistentSession, Service};
use navarch_model::{Hashed, Name, Origin, Precedence};
use navarch_snapshot::host::{by_specificity, covers};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::gateway::{
    GatewayHost, GatewayHostResource, GatewayHostResourceInput, GatewayRouteConfiguration,
    GatewayRouteConfigurationInput, virtual_hosts,
};
use navarch_translate::routes::patch::{
    PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches, gateway_port,
};
use navarch_translate::routes::split::{
    RoutesWithoutHosts, RoutesWithoutHostsInput, Split, SplitRoutes, SplitRoutesInput,
};
use navarch_translate::routes::{RouteContext, Routes};

use super::merge::{MergedGateways, MergedListener};
use super::selected::GatewaysOf;
use super::sets::sets_at;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::{Cx, Gather, KeysByLabels};
use crate::gather::shared::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::gather::shared::routes::{
    RouteClient, SharedRoutes, SharedService, default_retries, destination_hosts, destination_service,
    merged_routes, routes_of,
};

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
    Composed::shared(made.iter().map(|made| made.hosts.clone()).collect())
}

/// The route configurations of a class: their routes and their hosts are asked for by two.
struct ConfigurationsOf;

impl Gather for ConfigurationsOf {
    const NAME: &'static str = "routes.gateway_configurations";
    type Key = (Arc<Hashed<Class>>, Arc<Hashed<Scope>>);
    type Output = Vec<Split>;

    fn run((class, scope): &Self::Key, cx: &Cx<'_>) -> Vec<Split> {
        configurations(cx, class, scope)
    }
}

/// The route configurations, with their hosts in them or beside them.
fn configurations(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Vec<Split> {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Vec::new() };
    let client = RouteClient::of(cx, class, scope);
    let patches = &*cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let is_split = class.facts.split_routes;
    let mut keys = KeysByLabels::default();
    let misdirected = misdirected(gateways);
    let made = gateways.routes.keys().map(|name| {
        let configuration = Arc::new(Hashed::new(Configuration::of(gateways, name, &misdirected)));
        let mut key = |labels: &ClientLabels| {
            let client = keys.get(labels, || client.with(labels));
            GatewayKey { client, configuration: configuration.clone() }
        };
        if is_split && patches.is_empty() {
            return cx.narrow::<SplitConfigurationOf>(&client.labels, key).1.made.clone();
        }
        let (_, made) = cx.narrow::<RouteConfigurationOf>(&client.labels, &mut key);
        let whole = made.made.routes.clone();
        let resource = if patches.is_empty() { whole } else { patched(cx, gateways, whole, patches) };
        if is_split {
            return (*cx.get::<SplitRoutes>(&SplitRoutesInput { resource })).clone();
        }
        Split { routes: resource, hosts: Arc::default() }
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
    let configuration = Configuration::of(gateways, &Name::from(configuration), &BTreeMap::new());
    let configuration = Arc::new(Hashed::new(configuration));
    let key = GatewayKey { client: RouteClient::of(cx, class, scope), configuration };
    let Collected { routes, hosts, .. } = Collected::of(cx, &key);
    let origins = hosts.into_iter().map(|(domain, host)| {
        let routes =
            host.routes.iter().filter_map(|index| routes.get(*index)).flat_map(|routes| routes.iter());
        (domain, routes.filter_map(|route| route.origin.clone()).collect())
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

#[derive(Clone, Debug, Hash)]
struct GatewayKey {
    client: Arc<Hashed<RouteClient>>,
    configuration: Arc<Hashed<Configuration>>,
}

/// What one route configuration is made of on the side of the gateways. What other configurations are made of
/// is none of its business.
#[derive(Clone, Debug, Hash)]
struct Configuration {
    name: Name,
    listeners: Vec<Arc<Hashed<MergedListener>>>,
    /// Responses offer HTTP/3.
    alt_svc: bool,
    /// Hosts of other listeners, whose requests are sent away.
    misdirected: BTreeSet<String>,
}

impl Configuration {
    fn of(gateways: &MergedGateways, name: &Name, misdirected: &BTreeMap<&Name, BTreeSet<String>>) -> Self {
        Configuration {
            name: name.clone(),
            listeners: gateways.routes.get(name).cloned().unwrap_or_default(),
            alt_svc: gateways.http3_routes.contains(name),
            misdirected: misdirected.get(name).cloned().unwrap_or_default(),
        }
    }
}

/// One route configuration.
struct RouteConfigurationOf;

#[derive(Clone)]
struct MadeConfiguration {
    made: Split,
    /// Keeps translations in the memo as long as they are used.
    _routes: Vec<Routes>,
}

impl PartialEq for MadeConfiguration {
    fn eq(&self, other: &Self) -> bool {
        self.made == other.made
    }
}

impl Gather for RouteConfigurationOf {
    const NAME: &'static str = "routes.gateway";
    type Key = GatewayKey;
    type Output = MadeConfiguration;

    fn run(key: &Self::Key, cx: &Cx<'_>) -> MadeConfiguration {
        let input = input(cx, key);
        let resource = cx.get::<GatewayRouteConfiguration>(&input);
        MadeConfiguration { made: Split { routes: resource, hosts: Arc::default() }, _routes: input.routes }
    }
}

/// One route configuration, and its virtual hosts as resources of their own.
struct SplitConfigurationOf;

impl Gather for SplitConfigurationOf {
    const NAME: &'static str = "routes.gateway_split";
    type Key = GatewayKey;
    type Output = MadeConfiguration;

    fn run(key: &Self::Key, cx: &Cx<'_>) -> MadeConfiguration {
        let input = input(cx, key);
        let name = &input.name;
        let routes = cx.get::<RoutesWithoutHosts>(&RoutesWithoutHostsInput {
            name: name.clone(),
            ignore_port_in_host_matching: input.ignore_port_in_host_matching,
        });
        let hosts = virtual_hosts(&input).into_iter().map(|host| {
            cx.get::<GatewayHostResource>(&GatewayHostResourceInput { routes: name.clone(), host })
        });
        let hosts = Arc::new(hosts.collect());
        MadeConfiguration { made: Split { routes, hosts }, _routes: input.routes }
    }
}

/// What a route configuration is made of.
fn input(cx: &Cx<'_>, key: &GatewayKey) -> GatewayRouteConfigurationInput {
    let Configuration { name, listeners, misdirected, alt_svc: _ } = &**key.configuration;
    let Collected { routes, hosts, .. } = Collected::of(cx, key);
    GatewayRouteConfigurationInput {
        name: name.clone(),
        port: listeners.first().map_or(0, |listener| listener.port()),
        routes,
        hosts,
        misdirected: misdirected.clone(),
        include_request_attempt_count: key.client.include_request_attempt_count,
        ignore_port_in_host_matching: true,
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

/// Hosts and routes of one route configuration while it is put together.
struct Collected<'a, 'e> {
    cx: &'a Cx<'e>,
    client: &'a Arc<Hashed<RouteClient>>,
    alt_svc: bool,
    routes: Vec<Routes>,
    /// Routes by gateway and set: those of the first listener count for all of the configuration.
    known: BTreeMap<(Parent, Precedence), (usize, Arc<RoutesOfSet>)>,
    hosts: BTreeMap<String, GatewayHost>,
    /// What listeners are attached to by, and their hosts.
    seen: BTreeSet<(&'a Parent, &'a Vec<ListenerHost>)>,
    /// By index of the routes, the sets whose rules are put together with those of others, and their place.
    by_specificity: BTreeMap<usize, Standing>,
}

/// The place of a set among those that are put together: its host, and what decides between rules that are as
/// specific. (Gateway API, HTTPRouteRule, matches: the oldest, then by namespace and name.)
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    host: Name,
    age: (i64, Name, Name),
}

impl Standing {
    fn of(set: &RouteSet) -> Self {
        let Precedence { created_at, key, position: _ } = &set.precedence;
        Standing {
            host: set.hosts.first().cloned().unwrap_or_default(),
            age: (*created_at, key.namespace.clone(), key.name.clone()),
        }
    }
}

impl Ord for Standing {
    fn cmp(&self, other: &Self) -> Ordering {
        by_specificity(&self.host, &other.host).then_with(|| self.age.cmp(&other.age))
    }
}

impl PartialOrd for Standing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a, 'e> Collected<'a, 'e> {
    /// What a route configuration is made of.
    fn of(cx: &'a Cx<'e>, key: &'a GatewayKey) -> Self {
        let Configuration { listeners, alt_svc, name: _, misdirected: _ } = &**key.configuration;
        let mut collected = Collected {
            cx,
            client: &key.client,
            alt_svc: *alt_svc,
            routes: Vec::new(),
            known: BTreeMap::new(),
            hosts: BTreeMap::new(),
            seen: BTreeSet::new(),
            by_specificity: BTreeMap::new(),
        };
        for listener in listeners {
            collected.add_listener(listener);
        }
        collected.merge();
        collected
    }

    fn add_listener(&mut self, listener: &'a MergedListener) {
        // Every Ingress opens the port for all hosts; what they say is said by the first.
        if !self.seen.insert((listener.parent(), &listener.listener.hosts)) && !listener.redirects_to_https()
        {
            return;
        }
        for set in sets_at(self.cx, &self.client.scope, &listener.listener) {
            let own: Vec<&Name> = listener.listener.hosts_for(set.namespace()).collect();
            let hosts = intersection(&own, &set.hosts);
            if hosts.is_empty() {
                continue;
            }
            let Some((index, found)) = self.routes_of(listener, &set) else { continue };
            for host in hosts {
                self.add_host(host.to_ascii_lowercase(), listener, index, &found);
            }
        }
        if listener.redirects_to_https() {
            for host in &listener.listener.hosts {
                // As istiod: with the namespace, if the host is for the routes of one.
                self.entry(host.to_string().to_ascii_lowercase(), listener).require_tls = true;
            }
        }
    }

    fn routes_of(
        &mut self,
        listener: &MergedListener,
        set: &SharedRoutes,
    ) -> Option<(usize, Arc<RoutesOfSet>)> {
        let id = (listener.parent().clone(), set.precedence.clone());
        if let Some(known) = self.known.get(&id) {
            return Some(known.clone());
        }
        let context = RouteContext {
            port: listener.port(),
            parent: listener.parent().clone(),
            tls: listener.tls().is_some(),
            alt_svc: self.alt_svc,
            x_forwarded_host: self.client.x_forwarded_host,
            proxyless: false,
            default_retries: default_retries(self.cx),
        };
        let key = SetKey { client: self.client.clone(), set: set.clone(), context };
        let found = self.cx.gather::<RoutesOfSet>(&key);
        if found.routes.is_empty() {
            return None;
        }
        let entry = (self.routes.len(), found);
        self.routes.push(entry.1.routes.clone());
        if set.order == RuleOrder::BySpecificity {
            self.by_specificity.insert(entry.0, Standing::of(set));
        }
        self.known.insert(id, entry.clone());
        Some(entry)
    }

    fn add_host(&mut self, host: String, listener: &MergedListener, index: usize, found: &RoutesOfSet) {
        let is_new = !self.hosts.contains_key(&host);
        let session = found.sessions.get(host.as_str()).cloned();
        let entry = self.entry(host, listener);
        entry.routes.push(index);
        if is_new {
            entry.session = session;
        }
        if listener.redirects_to_https() {
            entry.require_tls = true;
        }
    }

    /// Puts the rules of sets together whose order is by specificity, where a host has several of them. They
    /// take the place of the first.
    fn merge(&mut self) {
        let mut made: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for host in self.hosts.values_mut() {
            let mut merged: Vec<usize> =
                host.routes.iter().copied().filter(|index| self.by_specificity.contains_key(index)).collect();
            if merged.len() < 2 {
                continue;
            }
            merged.sort_by_key(|index| self.by_specificity.get(index));
            merged.dedup();
            let index = *made.entry(merged).or_insert_with_key(|merged| {
                let host = |index: &usize| self.by_specificity.get(index).map(|standing| &standing.host);
                let groups = merged
                    .chunk_by(|a, b| host(a) == host(b))
                    .map(|group| group.iter().filter_map(|index| self.routes.get(*index).cloned()).collect());
                self.routes.push(merged_routes(self.cx, groups.collect()));
                self.routes.len() - 1
            });
            let mut is_placed = false;
            host.routes.retain_mut(|known| {
                if !self.by_specificity.contains_key(known) {
                    return true;
                }
                *known = index;
                !std::mem::replace(&mut is_placed, true)
            });
        }
    }

    fn entry(&mut self, host: String, listener: &MergedListener) -> &mut GatewayHost {
        self.hosts.entry(host).or_insert_with(|| GatewayHost {
            port: listener.port(),
            routes: Vec::new(),
            require_tls: false,
            session: None,
        })
    }
}

/// What both lists stand for: of two hosts that overlap, the more specific one.
fn intersection<'a>(listener: &[&'a Name], routes: &'a [Name]) -> Vec<&'a Name> {
    let mut out: Vec<&'a Name> = Vec::new();
    for own in listener {
        for other in routes {
            let both = if covers(other, own) {
                *own
            } else if covers(own, other) {
                other
            } else {
                continue;
            };
            if !out.contains(&both) {
                out.push(both);
            }
        }
    }
    out
}

/// The routes of one set at one gateway.
#[derive(Clone, Debug, PartialEq)]
struct RoutesOfSet {
    routes: Routes,
    /// Sessions of the destinations, by host.
    sessions: BTreeMap<Name, PersistentSession>,
}

#[derive(Clone, Debug, Hash)]
struct SetKey {
    client: Arc<Hashed<RouteClient>>,
    set: SharedRoutes,
    context: RouteContext,
}

impl Gather for RoutesOfSet {
    const NAME: &'static str = "routes.gateway_set";
    type Key = SetKey;
    type Output = RoutesOfSet;

    fn run(key: &SetKey, cx: &Cx<'_>) -> RoutesOfSet {
        let namespace = key.set.namespace();
        let lookup = |host: &str| service_for(cx, &key.client, namespace, host);
        let routes = routes_of(cx, &key.client, &key.set, key.context.clone(), |host| {
            lookup(host).map(|service| destination_service(&service))
        });
        let sessions = destination_hosts(&key.set)
            .into_iter()
            .filter_map(|host| Some((host.clone(), lookup(host)?.persistent_session.clone()?)))
            .collect();
        RoutesOfSet { routes, sessions }
    }
}

/// The service behind a host for routes of `namespace`: its own, if the gateway may see it, else the
/// gateway's.
fn service_for(cx: &Cx<'_>, client: &RouteClient, namespace: &Name, host: &str) -> Option<SharedService> {
    let own = cx.view().services(host).iter().find(|service: &&Arc<Hashed<Service>>| {
        service.namespace == *namespace && service.export_to.includes(client.scope.namespace())
    });
    own.cloned().or_else(|| client.scope.service(cx.view(), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_hosts_that_overlap_the_more_specific_is_served() {
        let check = |listener: &[&str], routes: &[&str], expected: &[&str]| {
            let names = |texts: &[&str]| texts.iter().copied().map(Name::from).collect::<Vec<_>>();
            let (listener, routes) = (names(listener), names(routes));
            let both = intersection(&listener.iter().collect::<Vec<_>>(), &routes);
            assert_eq!(both.into_iter().map(|host| &**host).collect::<Vec<_>>(), expected);
        };
        check(&["*.com"], &["a.com", "b.org"], &["a.com"]);
        check(&["a.com", "b.com"], &["*.com"], &["a.com", "b.com"]);
        check(&["*"], &["*.com", "a.com"], &["*.com", "a.com"]);
        check(&["a.com"], &["a.com"], &["a.com"]);
        check(&["a.com"], &["b.com"], &[]);
    }
}

//! The hosts that a route configuration of a gateway serves, in the buckets in which they change: a change of
//! one set of routes among thousands concerns the hosts that share a bucket with it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::listener::ListenerHost;
use navarch_model::route::{Parent, RouteSet, RuleOrder};
use navarch_model::service::{PersistentSession, Service};
use navarch_model::{Fingerprint, Hashed, Name, Precedence};
use navarch_snapshot::host::{by_specificity, covers, is_wildcard, overlap};
use navarch_snapshot::{HostBucket, host_bucket};
use navarch_translate::gateway::{
    GatewayHost, GatewayHostResource, GatewayHostResourceInput, GatewayRouteConfigurationInput,
    hosts_with_routes,
};
use navarch_translate::routes::{RouteContext, Routes};

use super::merge::{MergedGateways, MergedListener};
use super::sets::sets_in;
use crate::composed::BucketResources;
use crate::engine::{Cx, Gather};
use crate::gather::shared::routes::{
    RouteClient, SharedRoutes, SharedService, default_retries, destination_hosts, destination_service,
    merged_routes, routes_of,
};

/// What a route configuration serves: its listeners.
#[derive(Clone, Debug, Hash)]
pub struct Served {
    /// Name of the route configuration.
    pub name: Name,
    /// Of several that routes are attached to by the same name, and that have the same hosts, the first says
    /// everything: every Ingress opens the port for all hosts.
    listeners: Vec<Arc<Hashed<MergedListener>>>,
    /// Responses offer HTTP/3.
    alt_svc: bool,
}

impl Served {
    /// What a route configuration serves.
    pub fn of(gateways: &MergedGateways, name: &Name) -> Self {
        let mut seen: BTreeSet<(&Parent, &Vec<ListenerHost>)> = BTreeSet::new();
        let listeners = gateways.routes.get(name).into_iter().flatten().filter(|listener| {
            seen.insert((listener.parent(), &listener.listener.hosts)) || listener.redirects_to_https()
        });
        Served {
            name: name.clone(),
            listeners: listeners.cloned().collect(),
            alt_svc: gateways.http3_routes.contains(name),
        }
    }

    /// The port in the names of virtual hosts that no listener has.
    pub fn port(&self) -> u16 {
        self.listeners.first().map_or(0, |listener| listener.port())
    }

    /// The exact hosts of listeners.
    fn exact_hosts(&self) -> impl Iterator<Item = &Name> {
        let hosts = self.listeners.iter().flat_map(|listener| &listener.listener.hosts);
        hosts.map(|host| &host.name).filter(|host| !is_wildcard(host))
    }

    /// Where hosts are that are redirected to HTTPS whether they have routes or not.
    fn redirected(&self) -> impl Iterator<Item = HostBucket> {
        let listeners = self.listeners.iter().filter(|listener| listener.redirects_to_https());
        listeners.flat_map(|listener| redirected_hosts(listener)).map(|host| host_bucket(&host))
    }
}

/// As istiod: with the namespace, if the host is for the routes of one.
fn redirected_hosts(listener: &MergedListener) -> impl Iterator<Item = String> {
    listener.listener.hosts.iter().map(|host| host.to_string().to_ascii_lowercase())
}

/// A route configuration for a client.
#[derive(Clone, Debug, Hash)]
pub struct ServedTo {
    pub client: Arc<Hashed<RouteClient>>,
    pub served: Arc<Hashed<Served>>,
}

/// Hosts by domain, in lower case.
type HostsByDomain = BTreeMap<String, Host>;

/// A host that is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// The port of the first listener with the host.
    port: u16,
    /// The sets of routes that it has, in the order in which they are put together. Hosts with the same ones
    /// share a virtual host.
    sets: Vec<Fingerprint>,
    /// What these say.
    routes: Vec<Routes>,
    require_tls: bool,
    session: Option<PersistentSession>,
    /// Where hosts with the same sets may be.
    places: Arc<BTreeSet<HostBucket>>,
}

impl Host {
    /// The routes of each set.
    pub fn routes(&self) -> &[Routes] {
        &self.routes
    }
}

/// Where the hosts of a route configuration are: a place that is not among them has none.
pub fn places(cx: &Cx<'_>, served: &Served) -> BTreeSet<HostBucket> {
    // Also those that only wildcards of routes cover.
    let mut places: BTreeSet<HostBucket> = served.exact_hosts().map(|host| host_bucket(host)).collect();
    for listener in &served.listeners {
        if listener.listener.hosts.iter().any(|host| is_wildcard(&host.name)) {
            places.extend(cx.view().gateway_buckets(listener.parent()).iter());
        }
    }
    places.extend(served.redirected());
    places
}

/// All hosts, place by place.
pub fn all_hosts(cx: &Cx<'_>, to: &ServedTo) -> Vec<Arc<HostsByDomain>> {
    places(cx, &to.served).into_iter().map(|place| hosts_in(cx, to, place)).collect()
}

/// The hosts in one place.
pub fn hosts_in(cx: &Cx<'_>, to: &ServedTo, place: HostBucket) -> Arc<HostsByDomain> {
    cx.gather::<HostsIn>(&(to.clone(), place))
}

/// The input of translation for some hosts.
pub fn input_of<'h>(
    to: &ServedTo,
    hosts: impl Iterator<Item = (&'h String, &'h Host)>,
) -> GatewayRouteConfigurationInput {
    let mut routes: Vec<Routes> = Vec::new();
    let mut known: BTreeMap<Fingerprint, usize> = BTreeMap::new();
    let hosts = hosts.map(|(domain, host)| {
        let indices = host.sets.iter().zip(&host.routes).map(|(set, own)| {
            *known.entry(*set).or_insert_with(|| {
                routes.push(own.clone());
                routes.len() - 1
            })
        });
        let routes = indices.collect();
        let Host { port, require_tls, session, .. } = host;
        let (port, require_tls, session) = (*port, *require_tls, session.clone());
        (domain.clone(), GatewayHost { port, routes, require_tls, session })
    });
    let hosts = hosts.collect();
    GatewayRouteConfigurationInput {
        name: to.served.name.clone(),
        port: to.served.port(),
        routes,
        hosts,
        misdirected: BTreeSet::new(),
        include_request_attempt_count: to.client.include_request_attempt_count,
        ignore_port_in_host_matching: true,
    }
}

/// The virtual hosts whose first domain is in one place, as resources of their own.
pub struct VirtualHostsIn;

impl Gather for VirtualHostsIn {
    const NAME: &'static str = "routes.gateway_hosts";
    type Key = (ServedTo, HostBucket);
    type Output = BucketResources;

    fn run((to, place): &Self::Key, cx: &Cx<'_>) -> BucketResources {
        let here = hosts_in(cx, to, *place);
        // Hosts elsewhere with the same sets share a virtual host with these, or these with them.
        let mut together: BTreeMap<&[Fingerprint], Arc<HostsByDomain>> = BTreeMap::new();
        for host in here.values().filter(|host| host.places.iter().any(|other| other != place)) {
            together.entry(&host.sets).or_insert_with(|| {
                cx.gather::<HostsTogether>(&(to.clone(), host.sets.clone(), host.places.clone()))
            });
        }
        let others = together.values().flat_map(|hosts| hosts.iter());
        let others = others.filter(|(domain, _)| host_bucket(domain) != *place);
        let hosts = hosts_with_routes(&input_of(to, here.iter().chain(others)));
        let own = hosts.into_iter().filter(|host| host.domain().map(host_bucket) == Some(*place));
        let routes = &to.served.name;
        let made = own.map(|host| {
            cx.get::<GatewayHostResource>(&GatewayHostResourceInput { routes: routes.clone(), host })
        });
        made.collect()
    }
}

/// Hosts of several places by what they have in common.
type TogetherKey<P> = (ServedTo, Vec<Fingerprint>, P);

/// The hosts with the same sets, wherever they are. A set may have hosts in all places: what else changes
/// there is no business of theirs.
struct HostsTogether;

impl Gather for HostsTogether {
    const NAME: &'static str = "routes.gateway_hosts_together";
    type Key = TogetherKey<Arc<BTreeSet<HostBucket>>>;
    type Output = HostsByDomain;

    fn run((to, sets, places): &Self::Key, cx: &Cx<'_>) -> HostsByDomain {
        let found = places.iter().map(|place| cx.gather::<HostsWith>(&(to.clone(), sets.clone(), *place)));
        found.flat_map(|hosts| (*hosts).clone()).collect()
    }
}

/// The hosts with the same sets in one place.
struct HostsWith;

impl Gather for HostsWith {
    const NAME: &'static str = "routes.gateway_hosts_with";
    type Key = TogetherKey<HostBucket>;
    type Output = HostsByDomain;

    fn run((to, sets, place): &Self::Key, cx: &Cx<'_>) -> HostsByDomain {
        let here = hosts_in(cx, to, *place);
        let found = here.iter().filter(|(_, host)| host.sets == *sets);
        found.map(|(domain, host)| (domain.clone(), host.clone())).collect()
    }
}

/// The hosts of a route configuration in one place.
struct HostsIn;

impl Gather for HostsIn {
    const NAME: &'static str = "routes.gateway_hosts_in";
    type Key = (ServedTo, HostBucket);
    type Output = HostsByDomain;

    fn run((to, place): &Self::Key, cx: &Cx<'_>) -> HostsByDomain {
        let mut collected = Collected {
            cx,
            to,
            place: *place,
            routes: Vec::new(),
            known: BTreeMap::new(),
            hosts: BTreeMap::new(),
            by_specificity: BTreeMap::new(),
        };
        for (position, listener) in to.served.listeners.iter().enumerate() {
            collected.add_listener(position, listener);
        }
        collected.merge();
        collected.finish()
    }
}

/// Hosts and routes of one place while they are put together.
struct Collected<'a, 'e> {
    cx: &'a Cx<'e>,
    to: &'a ServedTo,
    place: HostBucket,
    routes: Vec<Collection>,
    /// Routes by gateway and set: those of the first listener count for all of the configuration.
    known: BTreeMap<(Parent, Precedence), (usize, Arc<RoutesOfSet>)>,
    hosts: BTreeMap<String, GatewayHost>,
    /// By index of the routes, the sets whose rules are put together with those of others, and their place.
    by_specificity: BTreeMap<usize, Standing>,
}

/// The routes of a set, or of several that are put together.
struct Collection {
    sets: Fingerprint,
    routes: Routes,
    /// Where the hosts of the set are; of several, of the one in the fewest places.
    places: Arc<BTreeSet<HostBucket>>,
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

impl Collected<'_, '_> {
    fn add_listener(&mut self, position: usize, listener: &MergedListener) {
        let place = self.place;
        let may_be_here = |host: &Name| is_wildcard(host) || host_bucket(host) == place;
        for set in sets_in(self.cx, &self.to.client.scope, &listener.listener, place) {
            let own: Vec<&Name> =
                listener.listener.hosts_for(set.namespace()).filter(|host| may_be_here(host)).collect();
            let stated: Vec<&Name> = set.hosts.iter().filter(|host| may_be_here(host)).collect();
            let mut hosts = intersection(&own, &stated);
            hosts.retain(|host| host_bucket(host) == place);
            if hosts.is_empty() {
                continue;
            }
            let Some((index, found)) = self.routes_of(position, &set) else { continue };
            for host in hosts {
                self.add_host(host.to_ascii_lowercase(), listener, index, &found);
            }
        }
        if listener.redirects_to_https() {
            for host in redirected_hosts(listener).filter(|host| host_bucket(host) == place) {
                self.entry(host, listener).require_tls = true;
            }
        }
    }

    /// Where hosts of a set may be.
    fn places(&self, set: &RouteSet) -> BTreeSet<HostBucket> {
        let mut places: BTreeSet<HostBucket> = set.hosts.iter().map(|host| host_bucket(host)).collect();
        if places.contains(&None) {
            let covered = |host: &&Name| set.hosts.iter().any(|pattern| covers(pattern, host));
            places.extend(self.to.served.exact_hosts().filter(covered).map(|host| host_bucket(host)));
        }
        places
    }

    fn finish(self) -> HostsByDomain {
        let nowhere = Arc::new(self.to.served.redirected().collect::<BTreeSet<HostBucket>>());
        let Collected { routes, hosts, .. } = self;
        let made = hosts.into_iter().map(|(domain, host)| {
            let GatewayHost { port, routes: indices, require_tls, session } = host;
            let own: Vec<&Collection> = indices.iter().filter_map(|index| routes.get(*index)).collect();
            let fewest = own.iter().map(|own| &own.places).min_by_key(|places| places.len());
            let host = Host {
                port,
                sets: own.iter().map(|own| own.sets).collect(),
                routes: own.iter().map(|own| own.routes.clone()).collect(),
                require_tls,
                session,
                places: fewest.unwrap_or(&nowhere).clone(),
            };
            (domain, host)
        });
        made.collect()
    }

    /// The routes of a set at a listener. If the set is attached to several listeners by one name, those of
    /// the first that has some count for all of them.
    fn routes_of(&mut self, position: usize, set: &SharedRoutes) -> Option<(usize, Arc<RoutesOfSet>)> {
        let (listener, before) = self.to.served.listeners.get(..=position)?.split_last()?;
        let id = (listener.parent().clone(), set.precedence.clone());
        if let Some(known) = self.known.get(&id) {
            return Some(known.clone());
        }
        let sees = |listener: &MergedListener| (listener.port(), listener.tls().is_some());
        let others = before.iter().filter(|other| {
            other.parent() == listener.parent() && sees(other) != sees(listener) && has_host_of(other, set)
        });
        let mut found = others.chain([listener]).map(|listener| self.routes_at(listener, set));
        let found = found.find(|found| !found.routes.is_empty())?;
        let index = self.routes.len();
        self.routes.push(Collection {
            sets: Fingerprint::of(&id),
            routes: found.routes.clone(),
            places: Arc::new(self.places(set)),
        });
        if set.order == RuleOrder::BySpecificity {
            self.by_specificity.insert(index, Standing::of(set));
        }
        self.known.insert(id, (index, found.clone()));
        Some((index, found))
    }

    fn routes_at(&self, listener: &MergedListener, set: &SharedRoutes) -> Arc<RoutesOfSet> {
        let ServedTo { client, served } = self.to;
        let context = RouteContext {
            port: listener.port(),
            parent: listener.parent().clone(),
            tls: listener.tls().is_some(),
            alt_svc: served.alt_svc,
            x_forwarded_host: client.x_forwarded_host,
            proxyless: false,
            default_retries: default_retries(self.cx),
        };
        self.cx.gather::<RoutesOfSet>(&SetKey { client: client.clone(), set: set.clone(), context })
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
                let of = |group: &[usize]| -> Vec<&Collection> {
                    group.iter().filter_map(|index| self.routes.get(*index)).collect()
                };
                let groups = merged.chunk_by(|a, b| host(a) == host(b));
                let groups = groups.map(|group| of(group).iter().map(|own| own.routes.clone()).collect());
                let routes = merged_routes(self.cx, groups.collect());
                let all = of(merged);
                let sets = Fingerprint::of(&all.iter().map(|own| own.sets).collect::<Vec<_>>());
                let fewest = all.iter().map(|own| &own.places).min_by_key(|places| places.len());
                let places = fewest.cloned().unwrap_or_default();
                self.routes.push(Collection { sets, routes, places });
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

/// Whether a listener has a host in common with a set of routes.
fn has_host_of(listener: &MergedListener, set: &RouteSet) -> bool {
    let mut hosts = listener.listener.hosts_for(set.namespace());
    hosts.any(|own| set.hosts.iter().any(|other| overlap(own, other)))
}

/// What both lists stand for: of two hosts that overlap, the more specific one.
fn intersection<'a>(listener: &[&'a Name], routes: &[&'a Name]) -> Vec<&'a Name> {
    let mut out: Vec<&'a Name> = Vec::new();
    for own in listener {
        for other in routes {
            let both = if covers(other, own) {
                *own
            } else if covers(own, other) {
                *other
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
            let both = intersection(&listener.iter().collect::<Vec<_>>(), &routes.iter().collect::<Vec<_>>());
            assert_eq!(both.into_iter().map(|host| &**host).collect::<Vec<_>>(), expected);
        };
        check(&["*.com"], &["a.com", "b.org"], &["a.com"]);
        check(&["a.com", "b.com"], &["*.com"], &["a.com", "b.com"]);
        check(&["*"], &["*.com", "a.com"], &["*.com", "a.com"]);
        check(&["a.com"], &["a.com"], &["a.com"]);
        check(&["a.com"], &["b.com"], &[]);
    }
}

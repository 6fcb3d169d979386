//! Which sets of routes may concern a listener. Sets are found by host, so that a change of one of many
//! concerns the listeners of its hosts only.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::listener::GatewayListener;
use navarch_model::route::Parent;
use navarch_model::{Hashed, Name, Precedence};
use navarch_snapshot::host::{covers, is_wildcard};
use navarch_snapshot::{HostBucket, RoutesByHost, Scope, host_bucket};

use crate::engine::{Cx, Gather};
use crate::gather::shared::routes::SharedRoutes;

/// The sets that are attached where a listener is and may have a host in common with it, in the order in
/// which they are put together.
pub fn sets_at(cx: &Cx<'_>, scope: &Arc<Hashed<Scope>>, listener: &GatewayListener) -> Vec<SharedRoutes> {
    let exact = listener.hosts.iter().all(|host| !is_wildcard(&host.name));
    if !exact || listener.hosts.is_empty() {
        return scope.gateway_routes(cx.view(), &listener.parent);
    }
    let mut hosts: Vec<Name> = listener.hosts.iter().map(|host| host.name.clone()).collect();
    hosts.sort();
    hosts.dedup();
    (*cx.gather::<SetsForHosts>(&(scope.clone(), listener.parent.clone(), hosts))).clone()
}

/// Those of them that make hosts of one bucket, or hosts with wildcards.
pub fn sets_in(
    cx: &Cx<'_>,
    scope: &Arc<Hashed<Scope>>,
    listener: &GatewayListener,
    place: HostBucket,
) -> Vec<SharedRoutes> {
    let here = cx.view().gateway_routes_in(&listener.parent, place);
    let mut found = Found::default();
    found.add(here.values().flatten());
    // An exact host of the listener may be covered by a wildcard of the routes.
    let own = || listener.hosts.iter().map(|host| &host.name).filter(|host| host_bucket(host) == place);
    if place.is_some() && own().next().is_some() {
        let wildcards = cx.view().gateway_routes_in(&listener.parent, None);
        found.add_covering(wildcards, own);
    }
    found.in_order(cx, scope)
}

/// The sets at a parent that may concern some exact hosts.
struct SetsForHosts;

impl Gather for SetsForHosts {
    const NAME: &'static str = "routes.gateway_sets";
    type Key = (Arc<Hashed<Scope>>, Parent, Vec<Name>);
    type Output = Vec<SharedRoutes>;

    fn run((scope, parent, hosts): &Self::Key, cx: &Cx<'_>) -> Vec<SharedRoutes> {
        let mut found = Found::default();
        found.add_covering(cx.view().gateway_routes_in(parent, None), || hosts.iter());
        for host in hosts {
            let here = cx.view().gateway_routes_in(parent, host_bucket(host));
            found.add(here.get(host).into_iter().flatten());
        }
        found.in_order(cx, scope)
    }
}

/// Sets, each once.
#[derive(Default)]
struct Found<'a>(BTreeMap<&'a Precedence, &'a SharedRoutes>);

impl<'a> Found<'a> {
    fn add(&mut self, sets: impl Iterator<Item = &'a SharedRoutes>) {
        self.0.extend(sets.map(|set| (&set.precedence, set)));
    }

    /// Adds the sets with a wildcard that covers one of the hosts.
    fn add_covering<'h, I: Iterator<Item = &'h Name>>(
        &mut self,
        wildcards: &'a RoutesByHost,
        hosts: impl Fn() -> I,
    ) {
        for (pattern, sets) in wildcards {
            if hosts().any(|host| covers(pattern, host)) {
                self.add(sets.iter());
            }
        }
    }

    fn in_order(self, cx: &Cx<'_>, scope: &Scope) -> Vec<SharedRoutes> {
        let sets: Vec<SharedRoutes> = self.0.into_values().cloned().collect();
        scope.routes_in_order(cx.view(), &sets)
    }
}

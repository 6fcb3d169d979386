//! Which sets of routes may concern a listener. Sets are found by host, so that a change of one of many
//! concerns the listeners of its hosts only.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::listener::GatewayListener;
use navarch_model::route::Parent;
use navarch_model::{Hashed, Name, Precedence};
use navarch_snapshot::host::{covers, is_wildcard};
use navarch_snapshot::{Bucket, Scope, bucket_of};

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

/// The sets at a parent that may concern some exact hosts.
struct SetsForHosts;

impl Gather for SetsForHosts {
    const NAME: &'static str = "routes.gateway_sets";
    type Key = (Arc<Hashed<Scope>>, Parent, Vec<Name>);
    type Output = Vec<SharedRoutes>;

    fn run((scope, parent, hosts): &Self::Key, cx: &Cx<'_>) -> Vec<SharedRoutes> {
        let wildcards = cx.gather::<SetsIn>(&(parent.clone(), None));
        let mut found: BTreeMap<Precedence, SharedRoutes> = BTreeMap::new();
        let mut add = |sets: &[SharedRoutes]| {
            found.extend(sets.iter().map(|set| (set.precedence.clone(), set.clone())));
        };
        let covering = wildcards.iter().filter(|(pattern, _)| hosts.iter().any(|host| covers(pattern, host)));
        covering.for_each(|(_, sets)| add(sets));
        for host in hosts {
            let bucket = cx.gather::<SetsIn>(&(parent.clone(), Some(bucket_of(host))));
            add(bucket.get(host).map_or(&[][..], Vec::as_slice));
        }
        scope.routes_in_order(cx.view(), &found.into_values().collect::<Vec<_>>())
    }
}

/// Sets by exact host.
type ByHost = BTreeMap<Name, Vec<SharedRoutes>>;

/// The sets at a parent with hosts of one bucket, or with wildcards.
struct SetsIn;

impl Gather for SetsIn {
    const NAME: &'static str = "routes.gateway_sets_in";
    type Key = (Parent, Option<Bucket>);
    type Output = ByHost;

    fn run((parent, bucket): &Self::Key, cx: &Cx<'_>) -> ByHost {
        cx.gather::<SetsByHost>(parent).get(bucket).cloned().unwrap_or_default()
    }
}

/// All sets at a parent, by bucket; those for wildcards apart.
struct SetsByHost;

impl Gather for SetsByHost {
    const NAME: &'static str = "routes.gateway_sets_by_host";
    type Key = Parent;
    type Output = BTreeMap<Option<Bucket>, ByHost>;

    fn run(parent: &Parent, cx: &Cx<'_>) -> Self::Output {
        let mut buckets: BTreeMap<Option<Bucket>, ByHost> = BTreeMap::new();
        for set in cx.view().gateway_routes(parent) {
            for host in &set.hosts {
                let bucket = (!is_wildcard(host)).then(|| bucket_of(host));
                buckets.entry(bucket).or_default().entry(host.clone()).or_default().push(set.clone());
            }
        }
        buckets
    }
}

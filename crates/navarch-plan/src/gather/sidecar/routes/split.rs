//! Virtual hosts of sidecars as resources of their own.
//!
//! Which domains a virtual host has depends on all others of its route configuration: a domain belongs to the
//! first that claims it. So as not to look at all of them after every change, it is known where each name is
//! claimed ([`super::claims`]). What a bucket has is made again when it changes, or when another does that
//! claims a name of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::Hashed;
use navarch_translate::routes::split::{
    HostResource, HostResourceInput, RoutesWithoutHosts, RoutesWithoutHostsInput,
};

use super::claims::{Claimants, Claims, Place};
use super::seen::{AllHosts, SeenHosts, catch_all, configurations, seen_hosts};
use crate::composed::{BucketResources, DiffersFor, Pieces, Seen};
use crate::engine::{Cx, Gather};
use crate::gather::shared::routes::RouteClient;

/// All route configurations of a client without their hosts: those of single ports in each bucket, which have
/// one host and keep it, then those that span buckets.
pub struct RoutesAlone;

impl Gather for RoutesAlone {
    const NAME: &'static str = "routes.alone";
    type Key = Arc<Hashed<RouteClient>>;
    type Output = Seen;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> Seen {
        let hosts = cx.gather::<SeenHosts>(client);
        let wide = configurations(client, &hosts).into_keys().map(|config| {
            let ignore_port_in_host_matching = true;
            let input = RoutesWithoutHostsInput { name: config.name, ignore_port_in_host_matching };
            cx.get::<RoutesWithoutHosts>(&input)
        });
        let wide = Arc::new(wide.collect());
        let detected = hosts.buckets.iter().map(|hosts| hosts.detected.clone());
        let common = client.elsewhere(cx).map(|client| seen_hosts(cx, &client).detected.clone());
        Seen { pieces: detected.chain([wide]).collect(), asked: DiffersFor::default(), common }
    }
}

/// The virtual hosts of a client: those of each bucket, those of wildcard hosts, and the ones for everything
/// else.
pub struct SplitHosts;

/// Virtual hosts as resources, and what to start from when they change.
pub struct MadeHosts {
    pub seen: Seen,
    hosts: Arc<AllHosts>,
    claims: Claims,
}

/// The rest is what they are made of.
impl PartialEq for MadeHosts {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen
    }
}

impl Gather for SplitHosts {
    const NAME: &'static str = "routes.split_hosts";
    type Key = Arc<Hashed<RouteClient>>;
    type Output = MadeHosts;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> MadeHosts {
        made(client, cx, None)
    }

    fn rerun(client: &Self::Key, cx: &Cx<'_>, previous: &MadeHosts) -> MadeHosts {
        made(client, cx, Some(previous))
    }
}

/// The hosts of a client, made from those that it had before, or else from those of a client elsewhere.
fn made(client: &Arc<Hashed<RouteClient>>, cx: &Cx<'_>, previous: Option<&MadeHosts>) -> MadeHosts {
    let hosts = cx.gather::<SeenHosts>(client);
    let elsewhere = client.elsewhere(cx);
    let common = elsewhere.as_ref().map(|elsewhere| {
        let key = |labels: &_| Arc::new(Hashed::new(elsewhere.with(labels)));
        (elsewhere, cx.narrow::<SplitHosts>(&elsewhere.labels, key).1)
    });
    let start = match (previous, &common) {
        (Some(known), _) => Some((client, known)),
        (None, Some((elsewhere, known))) => Some((*elsewhere, &**known)),
        (None, None) => None,
    };
    let now = Claimants { hosts: &hosts, namespace: &client.namespace };
    let (claims, affected) = match start {
        Some((owner, known)) => {
            let before = Claimants { hosts: &known.hosts, namespace: &owner.namespace };
            changed(&before, &known.claims, &now)
        }
        None => (
            now.all_places().fold(Claims::default(), |claims, place| {
                claims.replacing(place, &BTreeSet::new(), &now.names_at(place))
            }),
            now.all_places().collect(),
        ),
    };
    let pieces = now.all_places().map(|place| {
        let known = start.and_then(|(_, known)| known.seen.pieces.get(place.into()));
        let shared = common.as_ref().and_then(|(_, common)| common.seen.pieces.get(place.into()));
        if let Some(known) = known.filter(|_| !affected.contains(&place)) {
            return known.clone();
        }
        let made: BucketResources = now
            .left_to(place, &claims)
            .map(|(routes, host, domains)| {
                let input = HostResourceInput { routes: routes.clone(), host: host.clone(), domains };
                cx.get::<HostResource>(&input)
            })
            .collect();
        // What is equal stays what it is in memory, so that layers go on sharing it.
        let same = shared.into_iter().chain(known).find(|known| ***known == made);
        same.cloned().unwrap_or_else(|| Arc::new(made))
    });
    let pieces: Pieces = pieces.chain([of_everything_else(client, cx, &hosts)]).collect();
    let common = common.map(|(_, common)| common.seen.pieces.clone());
    MadeHosts { seen: Seen { pieces, asked: DiffersFor::default(), common }, hosts, claims }
}

/// Who claims what now, and the places where that makes a difference.
fn changed(before: &Claimants<'_>, claims: &Claims, now: &Claimants<'_>) -> (Claims, BTreeSet<Place>) {
    let mut claims = claims.clone();
    let mut affected = BTreeSet::new();
    let mut names = BTreeSet::new();
    for place in now.all_places().filter(|place| before.differ_at(now, *place)) {
        let (old, new) = (before.names_at(place), now.names_at(place));
        claims = claims.replacing(place, &old, &new);
        affected.insert(place);
        names.extend(old.into_iter().chain(new));
    }
    // Who shares a name with what has changed may have won or lost a domain. Where that is the name of a
    // host, all of its domains come and go with it, and others may claim those.
    while !names.is_empty() {
        let others: BTreeSet<Place> = names.iter().flat_map(|name| claims.places(*name)).collect();
        let others: BTreeSet<Place> = others.difference(&affected).copied().collect();
        let hosts = others.iter().flat_map(|place| now.names_with_hosts_named(*place, &names));
        names = hosts.collect();
        affected.extend(others);
    }
    (claims, affected)
}

/// The virtual hosts for what nobody names, one in each route configuration that spans buckets.
fn of_everything_else(client: &RouteClient, cx: &Cx<'_>, hosts: &AllHosts) -> Arc<BucketResources> {
    let Some(host) = catch_all(client).map(|host| Arc::new(Hashed::new(host.virtual_host()))) else {
        return Arc::default();
    };
    let made = configurations(client, hosts).into_keys().map(|config| {
        let input = HostResourceInput { routes: config.name, host: host.clone(), domains: None };
        cx.get::<HostResource>(&input)
    });
    Arc::new(made.collect())
}

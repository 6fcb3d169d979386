//! Routes that are bound to gateways, by host: of the thousands that a gateway may have, a change concerns
//! those that share a bucket with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use navarch_model::route::{Parent, RouteSet};
use navarch_model::{Fingerprint, Hashed, Name, Precedence};

use crate::changed_keys::changed_keys;
use crate::footprint::BucketSet;
use crate::host::is_wildcard;
use crate::part::{Bucket, Part, bucket_of};

type SharedRoutes = Arc<Hashed<RouteSet>>;

/// Sets of routes by host as they state it, oldest first. A set is found under each of its hosts.
pub type RoutesByHost = BTreeMap<Name, Vec<SharedRoutes>>;

/// Where routes of gateways are found: in the bucket of an exact host, or among those with wildcards.
pub type HostBucket = Option<Bucket>;

/// Where routes for a host are found at a gateway. Upper and lower case make no difference.
pub fn host_bucket(host: &str) -> HostBucket {
    (!is_wildcard(host)).then(|| bucket_of(&host.to_ascii_lowercase()))
}

/// Where a gateway, or one of its listeners, has routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayBuckets {
    /// Those with exact hosts.
    pub exact: BucketSet,
    /// There are some with wildcards.
    pub wildcards: bool,
}

impl GatewayBuckets {
    /// All places that have routes.
    pub fn iter(&self) -> impl Iterator<Item = HostBucket> + use<> {
        self.exact.iter().map(Some).chain(self.wildcards.then_some(None))
    }

    fn set(&mut self, place: HostBucket, present: bool) {
        match place {
            Some(bucket) => self.exact.set(bucket, present),
            None => self.wildcards = present,
        }
    }
}

static NO_ROUTES: RoutesByHost = BTreeMap::new();

/// The routes of all gateways.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatewayRoutes {
    by_host: OrdMap<(Parent, HostBucket), Arc<Hashed<RoutesByHost>>>,
    buckets: OrdMap<Parent, GatewayBuckets>,
}

impl GatewayRoutes {
    /// What routes are bound to.
    pub fn parents(&self) -> impl Iterator<Item = &Parent> {
        self.buckets.keys()
    }

    /// Where a gateway or listener has routes.
    pub fn buckets(&self, parent: &Parent) -> GatewayBuckets {
        self.buckets.get(parent).copied().unwrap_or_default()
    }

    /// The routes of a gateway or listener in one place.
    pub fn place(&self, parent: &Parent, place: HostBucket) -> &RoutesByHost {
        self.by_host.get(&(parent.clone(), place)).map_or(&NO_ROUTES, |hosts| hosts)
    }

    /// The routes of all gateways, place by place.
    pub fn iter(&self) -> impl Iterator<Item = (&Parent, &RoutesByHost)> {
        self.by_host.iter().map(|((parent, _), hosts)| (parent, &***hosts))
    }

    pub fn fingerprint(&self, parent: &Parent, place: HostBucket) -> Option<Fingerprint> {
        self.by_host.get(&(parent.clone(), place)).map(|hosts| hosts.fingerprint())
    }

    /// Places that have changed, with what they had and what they have.
    pub fn changes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a RoutesByHost, &'a RoutesByHost)> {
        changed_keys(&self.by_host, &before.by_host)
            .map(|(parent, place)| (before.place(parent, *place), self.place(parent, *place)))
    }

    /// Parts that may have changed. Visits what changed only.
    pub fn changed_since(&self, before: &Self) -> Vec<Part> {
        let places = changed_keys(&self.by_host, &before.by_host);
        let mut parts: Vec<Part> =
            places.map(|(parent, place)| Part::GatewayRoutes(parent.clone(), *place)).collect();
        let buckets = parts.len();
        parts.extend(changed_keys(&self.buckets, &before.buckets).cloned().map(Part::GatewayBuckets));
        if parts.len() > buckets {
            parts.push(Part::GatewaysNamed);
        }
        parts
    }

    /// All parts, for comparing snapshots.
    pub fn parts(&self) -> Vec<Part> {
        let places = self.by_host.keys();
        let mut parts: Vec<Part> =
            places.map(|(parent, place)| Part::GatewayRoutes(parent.clone(), *place)).collect();
        parts.extend(self.buckets.keys().cloned().map(Part::GatewayBuckets));
        parts.push(Part::GatewaysNamed);
        parts
    }

    /// Makes changes; each place that is concerned is copied once.
    pub fn edit(&mut self, edits: GatewayEdits) {
        for (key, hosts) in edits.0 {
            let before = self.by_host.get(&key);
            let mut map: RoutesByHost = before.map(|hosts| (***hosts).clone()).unwrap_or_default();
            for (host, sets) in hosts {
                let mut list = map.remove(&host).unwrap_or_default();
                list.retain(|set| !sets.contains_key(&set.precedence));
                list.extend(sets.into_values().flatten());
                list.sort_by(|a, b| a.precedence.cmp(&b.precedence));
                list.shrink_to_fit();
                if !list.is_empty() {
                    map.insert(host, list);
                }
            }
            let (parent, place) = &key;
            let mut buckets = self.buckets(parent);
            buckets.set(*place, !map.is_empty());
            if buckets == GatewayBuckets::default() {
                self.buckets.remove(parent);
            } else if buckets != self.buckets(parent) {
                self.buckets.insert(parent.clone(), buckets);
            }
            if map.is_empty() {
                self.by_host.remove(&key);
                continue;
            }
            let map = Hashed::new(map);
            if before.is_none_or(|before| before.fingerprint() != map.fingerprint()) {
                self.by_host.insert(key, Arc::new(map));
            }
        }
    }
}

/// Sets by host that come (`Some`) or go (`None`).
type HostEdits = BTreeMap<Name, BTreeMap<Precedence, Option<SharedRoutes>>>;

/// Changes of the routes of gateways. What is said last of a set counts.
#[derive(Debug, Default)]
pub(crate) struct GatewayEdits(BTreeMap<(Parent, HostBucket), HostEdits>);

impl GatewayEdits {
    /// Notes that a set is there, or is not any more.
    pub fn note(&mut self, set: &SharedRoutes, present: bool) {
        let parents: BTreeSet<&Parent> =
            set.parents.iter().filter(|parent| **parent != Parent::Mesh).collect();
        for parent in parents {
            for host in &set.hosts {
                let hosts = self.0.entry((parent.clone(), host_bucket(host))).or_default();
                let sets = hosts.entry(host.clone()).or_default();
                sets.insert(set.precedence.clone(), present.then(|| set.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_routes_of_a_gateway_are_found() {
        let mut buckets = GatewayBuckets::default();
        for (place, present, expected) in [
            (Some(3), true, vec![Some(3)]),
            (None, true, vec![Some(3), None]),
            (Some(200), true, vec![Some(3), Some(200), None]),
            (Some(3), false, vec![Some(200), None]),
            (None, false, vec![Some(200)]),
        ] {
            buckets.set(place, present);
            assert_eq!(buckets.iter().collect::<Vec<_>>(), expected, "{place:?} {present}");
        }
        assert_eq!((host_bucket("A.com"), host_bucket("*.com")), (host_bucket("a.com"), None));
    }
}

//! Maps by host, cut into buckets that are shared between snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use navarch_model::{Fingerprint, Hashed, Name};

use crate::part::{BUCKETS, Bucket, bucket_of};

/// One map per bucket; a change copies the maps of the changed hosts only.
#[derive(Clone, Debug)]
pub(crate) struct Buckets<V>(Arc<[Arc<Content<V>>]>);

/// The content of one bucket.
type Content<V> = Hashed<BTreeMap<Name, V>>;

impl<V: Clone + Hash> Default for Buckets<V> {
    fn default() -> Self {
        let empty = Arc::new(Hashed::new(BTreeMap::new()));
        Buckets((0..BUCKETS).map(|_| empty.clone()).collect())
    }
}

impl<V: Clone + Hash> Buckets<V> {
    /// The map of a bucket; an index beyond [`BUCKETS`] wraps around.
    pub fn bucket(&self, bucket: Bucket) -> &Hashed<BTreeMap<Name, V>> {
        &self.0[usize::from(bucket % BUCKETS)]
    }

    /// Whether both are one in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn get(&self, host: &str) -> Option<&V> {
        self.bucket(bucket_of(host)).get(host)
    }

    /// A host as it is in memory, and its value.
    pub fn entry(&self, host: &str) -> Option<(&Name, &V)> {
        self.bucket(bucket_of(host)).get_key_value(host)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Name> {
        (0..BUCKETS).flat_map(|bucket| self.bucket(bucket).keys())
    }

    /// Hosts that may have another value than before. Buckets that both share are not looked at.
    pub fn changed_since(&self, before: &Self) -> Vec<Name> {
        if self.is_same(before) {
            return Vec::new();
        }
        let pairs = (0..BUCKETS).map(|bucket| (self.bucket(bucket), before.bucket(bucket)));
        let others = pairs.filter(|(now, then)| now.fingerprint() != then.fingerprint());
        let differ = others.flat_map(|(now, then)| {
            let hosts: BTreeSet<&Name> = now.keys().chain(then.keys()).collect();
            let differs = move |host: &&Name| {
                now.get(&**host).map(Fingerprint::of) != then.get(&**host).map(Fingerprint::of)
            };
            hosts.into_iter().filter(differs).cloned()
        });
        differ.collect()
    }

    pub fn fingerprint(&self, bucket: Bucket) -> Fingerprint {
        self.bucket(bucket).fingerprint()
    }

    /// Sets (`Some`) or removes (`None`) the entries of hosts. Buckets whose content stays the same stay as
    /// they are.
    pub fn edit(&mut self, edits: impl IntoIterator<Item = (Name, Option<V>)>) {
        let mut by_bucket: BTreeMap<Bucket, Vec<(Name, Option<V>)>> = BTreeMap::new();
        for (host, value) in edits {
            by_bucket.entry(bucket_of(&host)).or_default().push((host, value));
        }
        for (bucket, edits) in by_bucket {
            let mut map: BTreeMap<Name, V> = (**self.bucket(bucket)).clone();
            for (host, value) in edits {
                match value {
                    Some(value) => map.insert(host, value),
                    None => map.remove(&host),
                };
            }
            let map = Hashed::new(map);
            if map.fingerprint() != self.fingerprint(bucket) {
                Arc::make_mut(&mut self.0)[usize::from(bucket % BUCKETS)] = Arc::new(map);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_touches_the_bucket_of_its_host_only() {
        let mut buckets: Buckets<u32> = Buckets::default();
        let before = buckets.clone();
        buckets.edit([(Name::from("a"), Some(1)), (Name::from("b"), Some(2))]);
        assert_eq!((buckets.get("a"), buckets.get("b"), buckets.get("c")), (Some(&1), Some(&2), None));
        let changed = (0..BUCKETS).filter(|&b| buckets.fingerprint(b) != before.fingerprint(b)).count();
        assert_eq!(changed, 2);

        buckets.edit([(Name::from("a"), None), (Name::from("b"), None)]);
        assert!((0..BUCKETS).all(|b| buckets.fingerprint(b) == before.fingerprint(b)));
    }
}

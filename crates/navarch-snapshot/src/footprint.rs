//! Footprints: the buckets that hosts of a namespace fall into.
//!
//! A client that imports a few namespaces sees nothing in most buckets. Its footprint tells which ones it
//! need not look at, so what it costs follows what it sees and not how many buckets there are.

use std::collections::BTreeSet;
use std::ops::BitOr;
use std::sync::Arc;

use imbl::OrdMap;
use navarch_model::Name;

use crate::changed_keys::changed_keys;
use crate::part::{BUCKETS, Bucket};

/// A set of buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketSet([u64; BUCKETS as usize / 64]);

impl BucketSet {
    /// Every bucket.
    pub const ALL: BucketSet = BucketSet([u64::MAX; BUCKETS as usize / 64]);

    /// Whether a bucket is in the set.
    pub fn contains(&self, bucket: Bucket) -> bool {
        self.0.get(usize::from(bucket / 64)).is_some_and(|word| word >> (bucket % 64) & 1 == 1)
    }

    /// The buckets, in order.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> + use<> {
        let set = *self;
        (0..BUCKETS).filter(move |bucket| set.contains(*bucket))
    }

    /// Adds a bucket.
    pub fn insert(&mut self, bucket: Bucket) {
        self.set(bucket, true);
    }

    /// Whether there is no bucket in the set.
    pub fn is_empty(&self) -> bool {
        *self == BucketSet::default()
    }

    pub(crate) fn set(&mut self, bucket: Bucket, present: bool) {
        if let Some(word) = self.0.get_mut(usize::from(bucket / 64)) {
            let bit = 1 << (bucket % 64);
            *word = if present { *word | bit } else { *word & !bit };
        }
    }
}

impl BitOr for BucketSet {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }
}

/// Footprints of all namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Footprints {
    /// By bucket, the namespaces that have something in it.
    namespaces: Arc<[Arc<BTreeSet<Name>>]>,
    buckets: OrdMap<Name, BucketSet>,
}

impl Default for Footprints {
    fn default() -> Self {
        let nobody = Arc::default();
        Footprints {
            namespaces: std::iter::repeat_n(nobody, usize::from(BUCKETS)).collect(),
            buckets: OrdMap::new(),
        }
    }
}

impl Footprints {
    /// The buckets in which a namespace has something.
    pub fn of(&self, namespace: &str) -> BucketSet {
        self.buckets.get(namespace).copied().unwrap_or_default()
    }

    /// Namespaces that have something somewhere.
    pub fn namespaces(&self) -> impl Iterator<Item = &Name> {
        self.buckets.keys()
    }

    /// Namespaces with another footprint than before.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Name> {
        changed_keys(&self.buckets, &before.buckets)
    }

    /// States which namespaces have something in a bucket now.
    pub fn edit(&mut self, bucket: Bucket, present: BTreeSet<Name>) {
        let Some(known) = self.namespaces.get(usize::from(bucket)).filter(|known| ***known != present) else {
            return;
        };
        for (namespace, present) in known
            .difference(&present)
            .map(|namespace| (namespace, false))
            .chain(present.difference(known).map(|namespace| (namespace, true)))
        {
            let mut footprint = self.buckets.get(namespace).copied().unwrap_or_default();
            footprint.set(bucket, present);
            if footprint == BucketSet::default() {
                self.buckets.remove(namespace);
            } else {
                self.buckets.insert(namespace.clone(), footprint);
            }
        }
        if let Some(known) = Arc::make_mut(&mut self.namespaces).get_mut(usize::from(bucket)) {
            *known = Arc::new(present);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_forgotten_with_its_last_bucket() {
        let mut footprints = Footprints::default();
        let names = |names: &[&str]| names.iter().copied().map(Name::from).collect::<BTreeSet<_>>();
        footprints.edit(3, names(&["a", "b"]));
        footprints.edit(200, names(&["a"]));
        assert_eq!(footprints.of("a").iter().collect::<Vec<_>>(), [3, 200]);
        assert_eq!(footprints.of("b").iter().collect::<Vec<_>>(), [3]);
        assert_eq!((footprints.of("a") | footprints.of("b")).iter().count(), 2);

        footprints.edit(3, names(&["b"]));
        footprints.edit(200, names(&[]));
        assert_eq!(footprints.namespaces().collect::<Vec<_>>(), [&Name::from("b")]);
        assert_eq!(footprints.of("a"), BucketSet::default());
        assert_eq!(BucketSet::ALL.iter().count(), usize::from(BUCKETS));
    }
}

//! `SmallMap`: maps of a few entries, such as labels: a mesh has a great many.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// An ordered map that is made once, shared, and seldom changed: a sorted list behind one pointer.
///
/// A `BTreeMap` reserves eleven places for its first entry and copies all of them when it is cloned. This one
/// has the places it needs, none if it is empty, and its clones share them. In return [`SmallMap::insert`]
/// copies the whole map: collect one instead of inserting in a loop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SmallMap<K, V>(Arc<[(K, V)]>);

impl<K, V> SmallMap<K, V> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.0.iter())
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values by key.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let place = self.0.binary_search_by(|(own, _)| own.borrow().cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> SmallMap<K, V> {
    /// Takes an entry out. Copies the map if the key is there.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if self.contains_key(key) {
            *self = self.0.iter().filter(|(own, _)| own.borrow() != key).cloned().collect();
        }
    }

    /// Adds or replaces an entry. Copies the map.
    pub fn insert(&mut self, key: K, value: V) {
        self.extend([(key, value)]);
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SmallMap<K, V> {
    /// Adds or replaces entries. Copies the map once, if there is anything to add.
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_some() {
            *self = self.0.iter().cloned().chain(entries).collect();
        }
    }
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Arc::default())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    /// Of entries with one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if entries.is_empty() {
            return SmallMap::default();
        }
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            entries = BTreeMap::from_iter(entries).into_iter().collect();
        }
        SmallMap(entries.into())
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SmallMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'m, K, V> IntoIterator for &'m SmallMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Iter<'m, K, V> {
        self.iter()
    }
}

/// The entries of a [`SmallMap`] by key.
#[derive(Clone, Debug)]
pub struct Iter<'m, K, V>(std::slice::Iter<'m, (K, V)>);

impl<'m, K, V> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, &'m V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SmallMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SmallMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_ordered_map_of_its_entries() {
        let check = |entries: &[(&str, u32)]| {
            let small: SmallMap<String, u32> =
                entries.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            let tree: BTreeMap<String, u32> =
                entries.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            assert!(small.iter().eq(&tree), "{small:?}");
            assert_eq!((small.len(), small.is_empty()), (tree.len(), tree.is_empty()));
            for key in ["a", "b", "c", "d"] {
                assert_eq!(small.get(key), tree.get(key), "{key} in {small:?}");
            }
            assert_eq!(format!("{small:?}"), format!("{tree:?}"));
            let mut grown = small.clone();
            grown.insert("b".to_owned(), 9);
            assert_eq!(grown.get("b"), Some(&9));
            assert_eq!(small.get("b"), tree.get("b"), "a clone is another map");
            grown.remove("b");
            assert_eq!((grown.get("b"), grown.get("a")), (None, tree.get("a")));
        };
        check(&[]);
        check(&[("a", 1)]);
        check(&[("c", 1), ("a", 2), ("b", 3)]);
        check(&[("a", 1), ("b", 2), ("a", 3)]);
    }
}

//! The names that a client asks for one by one. Proxies of a class ask for nearly the same ones, most of all
//! for the endpoints of every cluster, which is a name for each service in each proxy. What several streams
//! ask for is kept once.

use std::collections::{BTreeSet, HashMap};
use std::iter;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::names;

/// Names that a stream keeps for itself beside a list that it shares. More are put into a list, which costs
/// time in proportion to it.
const OWN_MAX: usize = 32;

/// A list of names that nobody changes, sorted.
type List = Arc<[Arc<str>]>;

/// Lists of names that streams of a class share. A list lives as long as a stream has it.
#[derive(Debug, Default)]
pub(crate) struct NameLists {
    known: Mutex<HashMap<u128, Weak<[Arc<str>]>>>,
}

impl NameLists {
    /// The list with these names, which are sorted.
    fn list(&self, names: Vec<Arc<str>>) -> List {
        let fingerprint = names::fingerprint(&names);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = known.get(&fingerprint).and_then(Weak::upgrade) {
            return list;
        }
        known.retain(|_, list| list.strong_count() > 0);
        let list = List::from(names);
        known.insert(fingerprint, Arc::downgrade(&list));
        list
    }
}

/// Names asked for one by one: those of a shared list, with a few exceptions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    list: List,
    /// Beside the list.
    added: BTreeSet<Arc<str>>,
    /// In the list, and not wanted.
    dropped: BTreeSet<Arc<str>>,
}

impl Wanted {
    pub fn contains(&self, name: &str) -> bool {
        self.added.contains(name) || (self.is_listed(name) && !self.dropped.contains(name))
    }

    pub fn len(&self) -> usize {
        self.list.len() + self.added.len() - self.dropped.len()
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        let mut listed = self.list.iter().filter(|name| !self.dropped.contains(*name)).peekable();
        let mut added = self.added.iter().peekable();
        iter::from_fn(move || match (listed.peek(), added.peek()) {
            (Some(of_list), Some(own)) if own < of_list => added.next(),
            (None, _) => added.next(),
            _ => listed.next(),
        })
    }

    /// Whether it was not there.
    pub fn insert(&mut self, name: Arc<str>) -> bool {
        if self.is_listed(&name) { self.dropped.remove(&name) } else { self.added.insert(name) }
    }

    /// Whether it was there.
    pub fn remove(&mut self, name: &Arc<str>) -> bool {
        if self.is_listed(name) { self.dropped.insert(name.clone()) } else { self.added.remove(name) }
    }

    /// Keeps what is not a little in a list that others may have too.
    pub fn share(&mut self, lists: &NameLists) {
        if self.added.len() + self.dropped.len() > OWN_MAX {
            let list = lists.list(self.iter().cloned().collect());
            *self = Self { list, ..Self::default() };
        }
    }

    fn is_listed(&self, name: &str) -> bool {
        self.list.binary_search_by(|listed| (**listed).cmp(name)).is_ok()
    }
}

impl FromIterator<Arc<str>> for Wanted {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        Self { added: names.into_iter().collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every third step takes a name away, so that names come back too; all answers are those of a set.
    #[test]
    fn it_is_a_set_however_it_is_kept() {
        let lists = NameLists::default();
        let mut wanted = Wanted::default();
        let mut set = BTreeSet::new();
        for step in 0..2_000_u64 {
            let name: Arc<str> = format!("cluster {}", step.wrapping_mul(0x9e37_79b9) % 211).into();
            if step % 3 == 0 {
                assert_eq!(wanted.remove(&name), set.remove(&name), "{step}");
            } else {
                assert_eq!(wanted.insert(name.clone()), set.insert(name.clone()), "{step}");
            }
            wanted.share(&lists);
            assert_eq!(wanted.contains(&name), set.contains(&name), "{step}");
            assert_eq!(wanted.len(), set.len(), "{step}");
            assert!(wanted.iter().eq(&set), "{step}");
        }
    }

    #[test]
    fn streams_with_the_same_names_have_one_list_of_them() {
        let lists = NameLists::default();
        let names = |count: usize| -> Wanted {
            let mut wanted: Wanted = (0..count).map(|n| Arc::from(format!("cluster {n}"))).collect();
            wanted.share(&lists);
            wanted
        };
        let (first, second, other) = (names(100), names(100), names(101));
        assert!(Arc::ptr_eq(&first.list, &second.list) && first.added.is_empty());
        assert!(!Arc::ptr_eq(&first.list, &other.list));
        // A few are not worth a list, and one that nobody has is not kept.
        assert_eq!(names(OWN_MAX).added.len(), OWN_MAX);
        drop((first, second, other));
        drop(names(50));
        assert_eq!(names(60).len(), 60);
        assert_eq!(lists.known.lock().expect("unpoisoned").len(), 1);
    }
}

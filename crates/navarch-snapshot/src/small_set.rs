//! Sets for the members of an index: a mesh has very many, and most hold one value.

use std::collections::BTreeSet;

/// How many values are kept in a sorted list; beyond it inserting would cost what the list is long.
const LIST_MAX: usize = 16;

/// An ordered set. With one value it needs no memory of its own, where a `BTreeSet` reserves eleven places.
#[derive(Clone, Debug)]
pub(crate) enum SmallSet<T> {
    One(T),
    /// Sorted; no value is there twice.
    List(Vec<T>),
    Many(BTreeSet<T>),
}

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        SmallSet::List(Vec::new())
    }
}

impl<T: Ord> SmallSet<T> {
    pub fn insert(&mut self, value: T) {
        match self {
            SmallSet::One(only) if *only == value => {}
            SmallSet::One(_) => {
                let SmallSet::One(only) = std::mem::take(self) else { return };
                let both = if only < value { [only, value] } else { [value, only] };
                *self = SmallSet::List(Vec::from(both));
            }
            SmallSet::List(list) if list.is_empty() => *self = SmallSet::One(value),
            SmallSet::List(list) => {
                let Err(place) = list.binary_search(&value) else { return };
                if list.len() < LIST_MAX {
                    list.insert(place, value);
                } else {
                    let mut many: BTreeSet<T> = std::mem::take(list).into_iter().collect();
                    many.insert(value);
                    *self = SmallSet::Many(many);
                }
            }
            SmallSet::Many(many) => {
                many.insert(value);
            }
        }
    }

    pub fn remove(&mut self, value: &T) {
        match self {
            SmallSet::One(only) if only == value => *self = SmallSet::default(),
            SmallSet::One(_) => {}
            SmallSet::List(list) => {
                if let Ok(place) = list.binary_search(value) {
                    list.remove(place);
                }
            }
            SmallSet::Many(many) => {
                many.remove(value);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            SmallSet::One(_) => false,
            SmallSet::List(list) => list.is_empty(),
            SmallSet::Many(many) => many.is_empty(),
        }
    }

    /// The values in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (list, many) = match self {
            SmallSet::One(only) => (std::slice::from_ref(only), None),
            SmallSet::List(list) => (list.as_slice(), None),
            SmallSet::Many(many) => (&[][..], Some(many.iter())),
        };
        list.iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_any_size_is_a_set() {
        let mut few = SmallSet::default();
        let mut set = BTreeSet::new();
        // Up beyond the longest list and down to nothing, in no particular order, with repetitions.
        let up = (0..60).map(|step| (step * 7 % 40, true));
        let down = (0..60).map(|step| (step * 11 % 40, false));
        for (value, insert) in up.chain(down) {
            if insert {
                few.insert(value);
                set.insert(value);
            } else {
                few.remove(&value);
                set.remove(&value);
            }
            assert!(few.iter().eq(&set), "{few:?}");
            assert_eq!(few.is_empty(), set.is_empty());
        }
        assert!(few.is_empty());
    }
}

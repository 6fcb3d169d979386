//! Which cluster an object is of.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use crate::service::Name;

/// The cluster that an object is of: a part of its identity, as two clusters may each have an object of one
/// kind, namespace and name.
///
/// It is a small number, because every object has many keys. The numbers are handed out as names come up and
/// mean something inside one process only; the order is that of the names, which is the same everywhere.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClusterId(u32);

/// Names of the clusters other than the local one, in the order in which they came up. There are as many as
/// there are clusters, and a cluster that is gone may come back: none is forgotten.
static REMOTE: RwLock<Vec<Name>> = RwLock::new(Vec::new());

impl ClusterId {
    /// The cluster whose configuration counts (Istio: the config cluster), or the directory of files that
    /// takes its place. What it is called is an option of the world and not a part of its identity.
    pub const LOCAL: ClusterId = ClusterId(0);

    /// Another cluster. Who reads names that may be that of the local cluster too has to tell them apart
    /// before.
    pub fn remote(name: &str) -> Self {
        let position = |names: &[Name]| names.iter().position(|known| **known == *name);
        let known = position(&REMOTE.read().unwrap_or_else(PoisonError::into_inner));
        let index = known.unwrap_or_else(|| {
            let mut names = REMOTE.write().unwrap_or_else(PoisonError::into_inner);
            position(&names).unwrap_or_else(|| {
                names.push(Name::from(name));
                names.len() - 1
            })
        });
        ClusterId(u32::try_from(index + 1).unwrap_or(u32::MAX))
    }

    /// The name of another cluster; `None` for the local one.
    pub fn remote_name(self) -> Option<Name> {
        let index = usize::try_from(self.0.checked_sub(1)?).ok()?;
        REMOTE.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    /// Whether this is the local cluster.
    pub fn is_local(self) -> bool {
        self == Self::LOCAL
    }
}

/// The local cluster first, then the others by name.
impl Ord for ClusterId {
    fn cmp(&self, other: &Self) -> Ordering {
        // Nearly always, and without looking at names.
        if self == other {
            return Ordering::Equal;
        }
        self.remote_name().cmp(&other.remote_name())
    }
}

impl PartialOrd for ClusterId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remote_name() {
            Some(name) => write!(f, "cluster {name}"),
            None => f.write_str("local cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_cluster_and_names_decide_the_order() {
        let (z, a) = (ClusterId::remote("test-z"), ClusterId::remote("test-a"));
        assert_eq!(z, ClusterId::remote("test-z"));
        assert_eq!(z.remote_name().as_deref(), Some("test-z"));
        assert!(ClusterId::LOCAL < a && a < z && ClusterId::LOCAL.remote_name().is_none());
    }

    #[test]
    fn a_cluster_does_not_make_a_key_larger() {
        let names = 2 * size_of::<Name>();
        assert_eq!(size_of::<crate::ObjectKey>(), names + size_of::<usize>());
    }
}

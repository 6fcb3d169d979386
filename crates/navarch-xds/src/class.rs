//! What streams of one class of proxies share: the newest resources, the differences between two states of
//! them, and lists of names that they ask for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use navarch_envoy::{ProxyResources, ResourceSet, SetDelta, WeakResourceSet, diff};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::wanted::NameLists;

/// Differences remembered. Streams of a class are at most a few revisions apart, for each of a dozen types.
const DIFFS_MAX: usize = 32;

/// A class of proxies: they all get the same resources.
///
/// Publishing replaces the resources; a stream that is slow sees only the newest ones, and there is no queue
/// between the publisher and the streams.
#[derive(Debug)]
pub struct Class {
    resources: watch::Sender<Option<Arc<ProxyResources>>>,
    memory: Arc<ClassMemory>,
}

/// What streams of one class remember together.
#[derive(Debug, Default)]
pub struct ClassMemory {
    pub(crate) diffs: DiffCache,
    pub(crate) names: NameLists,
}

impl Class {
    /// A class whose resources are not known yet. Its streams wait.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { resources: watch::Sender::new(None), memory: Arc::default() })
    }

    /// Replaces the resources. The revision must not go back.
    pub fn publish(&self, resources: Arc<ProxyResources>) {
        self.resources.send_replace(Some(resources));
    }

    /// The newest resources.
    #[must_use]
    pub fn resources(&self) -> Option<Arc<ProxyResources>> {
        self.resources.borrow().clone()
    }

    /// Number of streams that follow the class.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.resources.receiver_count()
    }

    /// The resources of now and all that follow; a slow reader sees only the newest.
    pub(crate) fn subscribe(&self) -> WatchStream<Option<Arc<ProxyResources>>> {
        WatchStream::new(self.resources.subscribe())
    }

    pub(crate) fn memory(&self) -> Arc<ClassMemory> {
        self.memory.clone()
    }
}

/// Remembers differences between sets, so that one that is needed by a thousand streams is computed by one.
#[derive(Debug, Default)]
pub(crate) struct DiffCache {
    known: Mutex<VecDeque<Known>>,
}

/// The sets are not kept: what the streams have left behind is not wanted again.
#[derive(Debug)]
struct Known {
    old: WeakResourceSet,
    new: WeakResourceSet,
    delta: Arc<SetDelta>,
}

impl DiffCache {
    /// What leads from `old` to `new`.
    #[must_use]
    pub fn diff(&self, old: &ResourceSet, new: &ResourceSet) -> Arc<SetDelta> {
        // No other stream asks.
        if old.is_own() || new.is_own() {
            return Arc::new(diff(old, new));
        }
        // The lock is held while computing, so that streams which wake up together compute once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hit) = known.iter().find(|known| known.old.is(old) && known.new.is(new)) {
            return hit.delta.clone();
        }
        let delta = Arc::new(diff(old, new));
        known.retain(|known| known.old.is_kept() && known.new.is_kept());
        if known.len() == DIFFS_MAX {
            known.pop_front();
        }
        known.push_back(Known { old: old.downgrade(), new: new.downgrade(), delta: delta.clone() });
        delta
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::{Resource, XdsType};

    use super::*;

    fn set(n: u32) -> ResourceSet {
        ResourceSet::of([Arc::new(Resource::of(XdsType::Cds, "c", &n.to_be_bytes()))])
    }

    #[test]
    fn differences_are_computed_once_and_keep_nothing_that_nobody_has() {
        let diffs = DiffCache::default();
        let mut held = set(0);
        let first = held.iter().next().map(Arc::downgrade);
        for n in 1..10 {
            let next = set(n);
            let delta = diffs.diff(&held, &next);
            assert!(Arc::ptr_eq(&delta, &diffs.diff(&held, &next)));
            assert_eq!(delta.changed.len(), 1);
            held = next;
        }
        assert!(first.is_some_and(|first| first.upgrade().is_none()));
        assert!(diffs.known.lock().expect("unpoisoned").len() <= 2);
    }
}

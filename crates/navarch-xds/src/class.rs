//! What streams of one class of proxies share: the newest resources, and the differences between two states of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use navarch_envoy::{ProxyResources, ResourceSet, SetDelta, diff};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

/// Differences remembered. Streams of a class are at most a few revisions apart, for each of a dozen types.
const DIFFS_MAX: usize = 32;

/// A class of proxies: they all get the same resources.
///
/// Publishing replaces the resources; a stream that is slow sees only the newest ones, and there is no queue between
/// the publisher and the streams.
#[derive(Debug)]
pub struct Class {
    resources: watch::Sender<Option<Arc<ProxyResources>>>,
    diffs: Arc<DiffCache>,
}

impl Class {
    /// A class whose resources are not known yet. Its streams wait.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { resources: watch::Sender::new(None), diffs: Arc::default() })
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

    /// The resources of now and all that come, of which a slow reader sees the newest.
    pub(crate) fn subscribe(&self) -> WatchStream<Option<Arc<ProxyResources>>> {
        WatchStream::new(self.resources.subscribe())
    }

    pub(crate) fn diffs(&self) -> Arc<DiffCache> {
        self.diffs.clone()
    }
}

/// Remembers differences between sets, so that one that is needed by a thousand streams is computed by one.
#[derive(Debug, Default)]
pub struct DiffCache {
    known: Mutex<VecDeque<Known>>,
}

/// The sets are kept beside their difference: identity is by address, which must not be reused meanwhile.
#[derive(Debug)]
struct Known {
    old: ResourceSet,
    new: ResourceSet,
    delta: Arc<SetDelta>,
}

impl DiffCache {
    /// What leads from `old` to `new`.
    #[must_use]
    pub fn diff(&self, old: &ResourceSet, new: &ResourceSet) -> Arc<SetDelta> {
        // The lock is held while computing, so that streams which wake up together compute once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hit) = known.iter().find(|known| known.old.ptr_eq(old) && known.new.ptr_eq(new)) {
            return hit.delta.clone();
        }
        let delta = Arc::new(diff(old, new));
        if known.len() == DIFFS_MAX {
            known.pop_front();
        }
        known.push_back(Known { old: old.clone(), new: new.clone(), delta: delta.clone() });
        delta
    }
}

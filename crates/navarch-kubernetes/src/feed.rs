//! What followers have told and nobody has read yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_sources::{Batch, Health, PlaceId, Settled, Update};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Filled by followers, emptied by the source. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Arc<Notify>,
    health: Health,
}

#[derive(Debug, Default)]
struct State {
    /// The newest update per place.
    updates: BTreeMap<PlaceId, Update>,
    /// Parts that have not been listed yet.
    missing: BTreeSet<String>,
    /// Parts that are being listed again.
    listing: BTreeSet<String>,
}

impl Feed {
    /// One that is complete when all of `parts` have been listed.
    pub(crate) fn new(parts: impl IntoIterator<Item = String>) -> Self {
        Feed::waking(Arc::default(), parts)
    }

    /// One that wakes whoever waits for that, in place of [`Feed::told`].
    pub(crate) fn waking(woken: Arc<Notify>, parts: impl IntoIterator<Item = String>) -> Self {
        let state = State { missing: parts.into_iter().collect(), ..State::default() };
        let shared = Shared { state: Mutex::new(state), woken, health: Health::default() };
        Feed { shared: Arc::new(shared) }
    }

    pub(crate) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Takes what has changed, all of it at once. Nothing wakes nobody.
    pub(crate) fn tell(&self, updates: impl IntoIterator<Item = (PlaceId, Update)>) {
        let mut updates = updates.into_iter().peekable();
        if updates.peek().is_some() {
            self.shared.state.lock().updates.extend(updates);
            self.shared.woken.notify_one();
        }
    }

    /// A part begins to be listed: what others tell now may belong together with what it is going
    /// to tell.
    pub(crate) fn lists(&self, part: &str) {
        self.shared.state.lock().listing.insert(part.to_owned());
    }

    /// A part does not list any more; whether it has been listed.
    pub(crate) fn listed(&self, part: &str, whole: bool) {
        let mut state = self.shared.state.lock();
        state.listing.remove(part);
        if whole && state.missing.remove(part) {
            drop(state);
            self.shared.woken.notify_one();
        }
    }

    /// Resolves when something has been told.
    pub(crate) async fn told(&self) {
        self.shared.woken.notified().await;
    }

    /// Parts that have not been listed yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.shared.state.lock().missing.iter().cloned().collect()
    }

    pub(crate) fn settled(&self) -> Settled {
        let state = self.shared.state.lock();
        match (state.listing.is_empty(), state.updates.len()) {
            (false, _) => Settled::Listing,
            (true, 0 | 1) => Settled::Edit,
            (true, _) => Settled::Batch,
        }
    }

    /// What has been told since the last call.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.shared.state.lock();
        let places = std::mem::take(&mut state.updates).into_iter().collect();
        Batch { places, complete: state.missing.is_empty(), ..Batch::default() }
    }
}

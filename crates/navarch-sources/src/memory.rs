//! Configuration in memory: what a program says instead of a directory.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use navarch_model::document::{WrittenIn, parse_objects};
use navarch_model::fact::{Fact, FactKey};
use tokio::sync::Notify;

use crate::source::{Batch, PlaceId, Settled, Source, SourceError, StatusWriter, Update, Written};

/// A source of configuration in memory, and the handle that fills it: clones are the same source.
///
/// It goes the way that the source of an API server goes: what is said is kept until it is read, the newest
/// per place; nothing is complete before somebody says so; and it takes statuses.
#[derive(Clone, Debug)]
pub struct Memory {
    name: Arc<str>,
    origin: WrittenIn,
    repeats: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    texts: BTreeMap<PlaceId, Option<Arc<str>>>,
    facts: BTreeMap<FactKey, Option<Fact>>,
    complete: bool,
    failure: Option<String>,
    statuses: Vec<Written>,
}

impl Memory {
    /// A source of texts in which nothing has been said yet.
    pub fn new(name: &str, origin: WrittenIn) -> Self {
        Memory { name: name.into(), origin, repeats: false, shared: Arc::default() }
    }

    /// The same, of what may be said elsewhere as well.
    pub fn repeating(name: &str, origin: WrittenIn) -> Self {
        Memory { repeats: true, ..Memory::new(name, origin) }
    }

    /// Says what is at a place, instead of what was there.
    pub fn write(&self, place: impl AsRef<Path>, text: &str) {
        self.change(|state| {
            state.texts.insert(place.as_ref().into(), Some(text.into()));
        });
    }

    /// Says that a place is gone.
    pub fn remove(&self, place: impl AsRef<Path>) {
        self.change(|state| {
            state.texts.insert(place.as_ref().into(), None);
        });
    }

    /// States a fact.
    pub fn state(&self, fact: Fact) {
        self.change(|state| {
            state.facts.insert(fact.key(), Some(fact));
        });
    }

    /// Says that a fact holds no longer.
    pub fn retract(&self, key: FactKey) {
        self.change(|state| {
            state.facts.insert(key, None);
        });
    }

    /// Says that everything has been said that there is at first.
    pub fn complete(&self) {
        self.change(|state| state.complete = true);
    }

    /// The next time it is read, it cannot be.
    pub fn fail(&self, reason: &str) {
        self.change(|state| state.failure = Some(reason.to_owned()));
    }

    /// The statuses that were written since the last call.
    pub fn take_statuses(&self) -> Vec<Written> {
        std::mem::take(&mut self.lock().statuses)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.woken.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.shared.woken.notified())
    }

    fn repeats(&self) -> bool {
        self.repeats
    }

    fn settled(&self) -> Settled {
        let state = self.lock();
        match state.texts.len() + state.facts.len() {
            0 | 1 => Settled::Edit,
            _ => Settled::Batch,
        }
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let mut state = self.lock();
        if let Some(reason) = state.failure.take() {
            return Err(SourceError { name: self.name(), cause: reason.into() });
        }
        let texts = std::mem::take(&mut state.texts).into_iter();
        let places = texts.map(|(place, text)| {
            let update = text.map_or(Update::Gone, |text| Update::Says(parse_objects(&self.origin, &text)));
            (place, update)
        });
        let mut batch = Batch { places: places.collect(), complete: state.complete, ..Batch::default() };
        for (key, fact) in std::mem::take(&mut state.facts) {
            match fact {
                Some(fact) => batch.facts.push(fact),
                None => batch.retracted.push(key),
            }
        }
        Ok(batch)
    }

    fn status_writer(&mut self) -> Option<&mut dyn StatusWriter> {
        Some(self)
    }
}

impl StatusWriter for Memory {
    fn write(&mut self, statuses: &[Written]) {
        self.lock().statuses.extend_from_slice(statuses);
    }
}

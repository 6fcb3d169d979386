//! Workloads that register themselves: each has an object for as long as it is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use navarch_model::document::WrittenIn;
use navarch_model::endpoint::HEALTH;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::memory::Memory;
use crate::source::Source;

/// The objects of workloads that have registered themselves. Clones are the same.
#[derive(Clone, Debug)]
pub struct Registrations {
    memory: Memory,
    state: Arc<Mutex<State>>,
    /// How long an object stays after its workload has gone: it may be about to come back.
    grace: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// By place.
    entries: BTreeMap<String, Entry>,
    /// Counts changes of objects.
    changes: u64,
    /// Places that have changed and that nobody was told of, if somebody asks.
    untold: Option<BTreeSet<String>>,
}

/// What is known of the health of a workload that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownHealth {
    /// Nobody looks at it.
    Unchecked,
    /// It is looked at, and will say what is found.
    Checked,
    /// The same; where it was connected before, it was healthy.
    CheckedAndHealthy,
}

/// A registration, to be kept for the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    place: String,
    object: Value,
    is_healthy: bool,
}

#[derive(Debug)]
struct Entry {
    object: Value,
    /// Streams of the workload that are open: two while one Envoy hands over to another.
    streams: usize,
    /// Whether it should be sent traffic.
    is_healthy: bool,
    /// Counts how often the last stream has gone.
    departures: u64,
}

/// A stream of a registered workload. When the last one has been dropped, its object goes after the grace.
#[derive(Debug)]
pub struct Registered {
    registrations: Registrations,
    place: String,
}

impl Registrations {
    /// Nobody has registered yet.
    pub fn new(grace: Duration) -> Self {
        let memory = Memory::repeating("registrations", WrittenIn::File("a registration".into()));
        memory.complete();
        Registrations { memory, state: Arc::default(), grace }
    }

    /// The source of the objects.
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.memory.clone())
    }

    /// A workload has connected. `place` names its object, which is that of its last stream. It is sent no
    /// traffic before it says that it is healthy, unless nobody checks that, or it `is_healthy` as far as it
    /// is known from elsewhere.
    pub fn join(&self, place: &str, object: Value, health: KnownHealth) -> Registered {
        let is_checked = health != KnownHealth::Unchecked;
        let mut state = self.lock();
        let entry = state.entries.entry(place.to_owned()).or_insert_with(|| Entry {
            object: Value::Null,
            streams: 0,
            is_healthy: health != KnownHealth::Checked,
            departures: 0,
        });
        entry.streams += 1;
        // Nobody reports any more on one that is not checked.
        let is_cleared = !is_checked && !entry.is_healthy;
        entry.is_healthy |= is_cleared;
        if entry.object != object || is_cleared {
            entry.object = object;
            self.write(&mut state, place);
        }
        Registered { registrations: self.clone(), place: place.to_owned() }
    }

    /// A workload says how it is. Whether that is news.
    pub fn report(&self, place: &str, is_healthy: bool) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(place).filter(|entry| entry.is_healthy != is_healthy) else {
            return false;
        };
        entry.is_healthy = is_healthy;
        self.write(&mut state, place);
        true
    }

    /// All registrations, to be kept, if they differ from those after so many changes; and how many changes
    /// there have been.
    pub fn kept(&self, since: u64) -> Option<(u64, Vec<Kept>)> {
        let state = self.lock();
        let kept = state.entries.iter().map(|(place, entry)| Kept {
            place: place.clone(),
            object: entry.object.clone(),
            is_healthy: entry.is_healthy,
        });
        (state.changes != since).then(|| (state.changes, kept.collect()))
    }

    /// What has changed since the last call, for one who asks from time to time: the objects by place, as
    /// this source says them, and `None` where there is none any more. The first call tells everything.
    pub fn changed(&self) -> BTreeMap<String, Option<Value>> {
        let mut state = self.lock();
        let untold = state.untold.replace(BTreeSet::new());
        let places = untold.unwrap_or_else(|| state.entries.keys().cloned().collect());
        let said = |place: String| {
            let object = state.entries.get(&place).map(Entry::said);
            (place, object)
        };
        places.into_iter().map(said).collect()
    }

    /// What was kept before a restart: it is there as if all workloads were connected, until what is returned
    /// is dropped, for which there is time when they have had the time to come back.
    pub fn restore(&self, kept: Vec<Kept>) -> Vec<Registered> {
        let mut state = self.lock();
        let restored = kept.into_iter().map(|Kept { place, object, is_healthy }| {
            state.entries.insert(place.clone(), Entry { object, streams: 1, is_healthy, departures: 0 });
            self.write(&mut state, &place);
            Registered { registrations: self.clone(), place }
        });
        restored.collect()
    }

    fn write(&self, state: &mut State, place: &str) {
        state.change(place);
        if let Some(entry) = state.entries.get(place) {
            self.memory.write(place, &entry.said().to_string());
        }
    }

    fn leave(&self, place: &str) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(place) else { return };
        entry.streams = entry.streams.saturating_sub(1);
        if entry.streams > 0 {
            return;
        }
        entry.departures += 1;
        let (departures, registrations, place) = (entry.departures, self.clone(), place.to_owned());
        drop(state);
        let Ok(runtime) = Handle::try_current() else { return registrations.forget(&place, departures) };
        runtime.spawn(async move {
            tokio::time::sleep(registrations.grace).await;
            registrations.forget(&place, departures);
        });
    }

    /// Takes the object of a workload away that has not come back since.
    fn forget(&self, place: &str, departures: u64) {
        let mut state = self.lock();
        let is_gone = |entry: &Entry| entry.streams == 0 && entry.departures == departures;
        if state.entries.get(place).is_some_and(is_gone) {
            state.entries.remove(place);
            state.change(place);
            self.memory.remove(place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, place: &str) {
        self.changes += 1;
        if let Some(untold) = &mut self.untold {
            untold.insert(place.to_owned());
        }
    }
}

impl Entry {
    /// The object with what is known of its health.
    fn said(&self) -> Value {
        let mut object = self.object.clone();
        if !self.is_healthy {
            object["metadata"]["annotations"][HEALTH] = json!("unhealthy");
        }
        object
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registrations.leave(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Update;

    const GRACE: Duration = Duration::from_secs(10);

    fn object(address: &str) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": { "name": "a", "namespace": "n", "annotations": {} },
            "spec": { "address": address },
        })
    }

    fn checked(is_checked: bool) -> KnownHealth {
        if is_checked { KnownHealth::Checked } else { KnownHealth::Unchecked }
    }

    /// What has changed: whether each place has a healthy object.
    fn changes(source: &mut dyn Source) -> Vec<(String, Option<bool>)> {
        let batch = source.read().expect("readable");
        let said = batch.places.iter().map(|(place, update)| {
            let healthy = match update {
                Update::Says(parsed) => {
                    assert_eq!((parsed.objects.len(), parsed.findings.len()), (1, 0), "{parsed:?}");
                    Some(!parsed.objects[0].metadata.annotations.contains_key(HEALTH))
                }
                _ => None,
            };
            (place.display().to_string(), healthy)
        });
        said.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_lives_as_long_as_the_streams_of_its_workload_and_some_time_longer() {
        let registrations = Registrations::new(GRACE);
        let mut source = registrations.source();
        assert!(source.read().expect("readable").complete);
        let one = registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
        // Another stream, and back within the grace: nobody notices.
        let two = registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked);
        drop(one);
        drop(two);
        tokio::time::sleep(GRACE / 2).await;
        let three = registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked);
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(changes(&mut *source), []);
        // It leaves twice: the first grace does not end the second.
        drop(three);
        tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        drop(registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(changes(&mut *source), []);
        tokio::time::sleep(GRACE).await;
        assert_eq!(changes(&mut *source), [("a".to_owned(), None)]);
        assert_eq!(registrations.kept(0).expect("changes").1, []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_after_a_restart_is_not_missed() {
        let before = Registrations::new(GRACE);
        let streams =
            ["a", "b", "c"].map(|place| before.join(place, object("10.0.0.1"), checked(place == "b")));
        let (at, kept) = before.kept(0).expect("changes");
        assert_eq!(before.kept(at), None);
        drop(streams);
        let registrations = Registrations::new(GRACE);
        let mut source = registrations.source();
        let restored = registrations.restore(kept);
        let three = [("a", true), ("b", false), ("c", true)];
        let three = three.map(|(place, healthy)| (place.to_owned(), Some(healthy)));
        assert_eq!(changes(&mut *source), three);
        // However long the start takes.
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(changes(&mut *source), []);
        let _back =
            ["a", "b"].map(|place| registrations.join(place, object("10.0.0.1"), checked(place == "b")));
        drop(restored);
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(changes(&mut *source), [("c".to_owned(), None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_checked_is_healthy_when_it_says_so() {
        let registrations = Registrations::new(GRACE);
        let mut source = registrations.source();
        let _stream = registrations.join("a", object("10.0.0.1"), KnownHealth::Checked);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(false))]);
        assert!(registrations.report("a", true) && !registrations.report("a", true));
        assert!(!registrations.report("b", true));
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
        assert!(registrations.report("a", false));
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(false))]);
        // Back without a check, nobody would ever say that it is well again.
        let _unchecked = registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_healthy_elsewhere_is_until_it_says_otherwise() {
        let registrations = Registrations::new(GRACE);
        let mut source = registrations.source();
        let _stream = registrations.join("a", object("10.0.0.1"), KnownHealth::CheckedAndHealthy);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
        assert!(registrations.report("a", false));
        let changed = registrations.changed();
        let said = changed["a"].as_ref().expect("an object");
        assert_eq!(said["metadata"]["annotations"][HEALTH], "unhealthy");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_changed_is_told_once() {
        let registrations = Registrations::new(GRACE);
        let changed = || -> Vec<(String, bool)> {
            let changed = registrations.changed().into_iter();
            changed.map(|(place, object)| (place, object.is_some())).collect()
        };
        let one = registrations.join("a", object("10.0.0.1"), KnownHealth::Unchecked);
        let _other = registrations.join("b", object("10.0.0.2"), KnownHealth::Checked);
        assert_eq!(changed(), [("a".to_owned(), true), ("b".to_owned(), true)]);
        assert_eq!(changed(), []);
        assert!(registrations.report("b", true));
        drop(one);
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(changed(), [("a".to_owned(), false), ("b".to_owned(), true)]);
    }
}

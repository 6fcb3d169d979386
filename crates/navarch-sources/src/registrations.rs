//! Workloads that register themselves: each has an object for as long as it is connected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use navarch_model::document::WrittenIn;
use navarch_model::endpoint::HEALTH;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::memory::Memory;
use crate::source::Source;

/// The objects of workloads that have registered themselves. Clones are the same.
#[derive(Clone, Debug)]
pub struct Registrations {
    memory: Memory,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    /// How long an object stays after its workload has gone: it may be about to come back.
    grace: Duration,
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
        let memory = Memory::new("registrations", WrittenIn::File("a registration".into()));
        memory.complete();
        Registrations { memory, entries: Arc::default(), grace }
    }

    /// The source of the objects.
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.memory.clone())
    }

    /// A workload has connected. `place` names its object, which is that of its last stream. One whose health
    /// `is_checked` is sent no traffic before it says that it is healthy.
    pub fn join(&self, place: &str, object: Value, is_checked: bool) -> Registered {
        let mut entries = self.lock();
        let entry = entries.entry(place.to_owned()).or_insert_with(|| Entry {
            object: Value::Null,
            streams: 0,
            is_healthy: !is_checked,
            departures: 0,
        });
        entry.streams += 1;
        // Nobody reports any more on one that is not checked.
        let is_cleared = !is_checked && !entry.is_healthy;
        entry.is_healthy |= is_cleared;
        if entry.object != object || is_cleared {
            entry.object = object;
            self.memory.write(place, &entry.text());
        }
        Registered { registrations: self.clone(), place: place.to_owned() }
    }

    /// A workload says how it is. Whether that is news.
    pub fn report(&self, place: &str, is_healthy: bool) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(place).filter(|entry| entry.is_healthy != is_healthy) else {
            return false;
        };
        entry.is_healthy = is_healthy;
        self.memory.write(place, &entry.text());
        true
    }

    /// How many have registered.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leave(&self, place: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(place) else { return };
        entry.streams = entry.streams.saturating_sub(1);
        if entry.streams > 0 {
            return;
        }
        entry.departures += 1;
        let (departures, registrations, place) = (entry.departures, self.clone(), place.to_owned());
        drop(entries);
        let Ok(runtime) = Handle::try_current() else { return registrations.forget(&place, departures) };
        runtime.spawn(async move {
            tokio::time::sleep(registrations.grace).await;
            registrations.forget(&place, departures);
        });
    }

    /// Takes the object of a workload away that has not come back since.
    fn forget(&self, place: &str, departures: u64) {
        let mut entries = self.lock();
        let is_gone = |entry: &Entry| entry.streams == 0 && entry.departures == departures;
        if entries.get(place).is_some_and(is_gone) {
            entries.remove(place);
            self.memory.remove(place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn text(&self) -> String {
        let mut object = self.object.clone();
        if !self.is_healthy {
            object["metadata"]["annotations"][HEALTH] = json!("unhealthy");
        }
        object.to_string()
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
        let one = registrations.join("a", object("10.0.0.1"), false);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
        // Another stream, and back within the grace: nobody notices.
        let two = registrations.join("a", object("10.0.0.1"), false);
        drop(one);
        drop(two);
        tokio::time::sleep(GRACE / 2).await;
        let three = registrations.join("a", object("10.0.0.1"), false);
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(changes(&mut *source), []);
        // It leaves twice: the first grace does not end the second.
        drop(three);
        tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        drop(registrations.join("a", object("10.0.0.1"), false));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(changes(&mut *source), []);
        tokio::time::sleep(GRACE).await;
        assert_eq!(changes(&mut *source), [("a".to_owned(), None)]);
        assert!(registrations.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_checked_is_healthy_when_it_says_so() {
        let registrations = Registrations::new(GRACE);
        let mut source = registrations.source();
        let _stream = registrations.join("a", object("10.0.0.1"), true);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(false))]);
        assert!(registrations.report("a", true) && !registrations.report("a", true));
        assert!(!registrations.report("b", true));
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
        assert!(registrations.report("a", false));
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(false))]);
        // Back without a check, nobody would ever say that it is well again.
        let _unchecked = registrations.join("a", object("10.0.0.1"), false);
        assert_eq!(changes(&mut *source), [("a".to_owned(), Some(true))]);
    }
}

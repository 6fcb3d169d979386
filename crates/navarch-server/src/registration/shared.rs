//! Registrations in the API server, so that all replicas know the workloads that are connected to one of
//! them.
//!
//! As with istiod, the entry of a workload says which replica it is connected to. That replica writes the
//! entry, and takes it away when the workload has gone. The entries of a replica that is gone itself are
//! taken away by the one that writes statuses, if their workloads do not come back to another one first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use navarch_kubernetes::{Maker, WriteError};
use navarch_model::{Kind, ObjectKey};
use navarch_snapshot::Snapshot;
use navarch_sources::Registrations;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::GROUP;

/// The annotation that says which replica a workload is connected to, as in Istio.
const CONTROLLER: &str = "istio.io/workloadController";

/// Begins what our replicas are called: what another control plane has written is left alone.
const OURS: &str = "navarch-";

/// Time between two looks at whether anything has changed.
const LOOK: Duration = Duration::from_millis(100);

/// How often a replica says that it is there.
const RENEWAL: Duration = Duration::from_secs(15);

/// Time between two looks at which replicas are there, and how many in a row a silent one is believed to be:
/// a minute in all, and none while the API server is away, when nobody could say anything.
const SWEEP: Duration = Duration::from_secs(10);
const SILENT_LOOKS: u32 = 6;

/// Writes under way at once.
const AT_ONCE: usize = 8;

/// The longest time after which a write that failed is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(10);

/// What is done to share the registrations of a replica, and to clean up after others.
pub struct Sharing {
    pub registrations: Registrations,
    pub objects: Maker,
    pub latest: Arc<ArcSwap<Snapshot>>,
    /// Where the Leases are.
    pub namespace: String,
    /// What this replica is called: see [`holder`].
    pub holder: String,
}

/// A name for a replica that no other has, nor the same one after a restart; the name of its Lease.
pub fn holder(replica: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let replica: String = replica.chars().map(known).take(200).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{OURS}{}-{:x}", replica.trim_matches('-'), now.as_millis())
}

impl Sharing {
    /// Works until it is dropped.
    pub async fn run(self) {
        tokio::join!(self.write(), self.sweep());
    }

    async fn write(&self) {
        let mut ledger = Ledger::default();
        let (mut renewed, mut failures) = (None::<Instant>, 0);
        loop {
            sleep(LOOK).await;
            ledger.want(self.registrations.changed());
            if ledger.lines.is_empty() {
                continue;
            }
            if renewed.is_none_or(|at| at.elapsed() >= RENEWAL) {
                // Whoever is not known to be there has no entries: first this.
                if let Err(error) = self.objects.say_present(&self.namespace, &self.holder).await {
                    if failures == 0 {
                        tracing::warn!(%error, "registrations cannot be shared with other replicas yet");
                    }
                    failures += 1;
                    sleep(after(failures)).await;
                    continue;
                }
                (renewed, failures) = (Some(Instant::now()), 0);
            }
            self.write_due(&mut ledger).await;
        }
    }

    async fn write_due(&self, ledger: &mut Ledger) {
        let due = ledger.due(Instant::now());
        let mut writing = JoinSet::new();
        for (place, object) in due {
            if writing.len() >= AT_ONCE {
                note(ledger, writing.join_next().await);
            }
            let path = path(&place);
            let (objects, holder) = (self.objects.clone(), self.holder.clone());
            let entry = object.clone().map(|object| self.entry(object));
            writing.spawn(async move {
                let result = match entry {
                    Some(entry) => objects.apply_own(&path, &entry, GROUP).await,
                    None => objects.remove_own(&path, CONTROLLER, &holder).await.map(|()| true),
                };
                (place, object, result)
            });
        }
        while !writing.is_empty() {
            note(ledger, writing.join_next().await);
        }
    }

    /// The object as the API server has it: connected to us, and gone with its group.
    fn entry(&self, mut object: Value) -> Value {
        let metadata = &mut object["metadata"];
        metadata["annotations"][CONTROLLER] = json!(self.holder);
        let (namespace, group) = (metadata["namespace"].as_str(), metadata["annotations"][GROUP].as_str());
        if let (Some(namespace), Some(group)) = (namespace, group) {
            let key = ObjectKey::new(Kind::WorkloadGroup, namespace, group);
            let snapshot = self.latest.load();
            let uid = snapshot.object(&key).map(|group| &*group.metadata.uid).unwrap_or_default();
            if !uid.is_empty() {
                metadata["ownerReferences"] = json!([{
                    "apiVersion": key.kind.api_version(),
                    "kind": key.kind.as_str(),
                    "name": group,
                    "uid": uid,
                }]);
            }
        }
        object
    }

    async fn sweep(&self) {
        let mut silence = Silence::default();
        loop {
            sleep(SWEEP).await;
            if !self.objects.may_write() {
                silence = Silence::default();
                continue;
            }
            let entries = of_replicas(&self.latest.load());
            let leases = match self.objects.presences(&self.namespace).await {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::debug!(%error, "which replicas are there is not known");
                    continue;
                }
            };
            for replica in silence.look(&leases, entries.keys()) {
                if replica == self.holder {
                    continue;
                }
                let places = entries.get(&replica);
                let result = match (places, leases.get(&replica)) {
                    (Some(places), _) => self.clean_up(&replica, places).await,
                    (None, Some(version)) => {
                        self.objects.forget_presence(&self.namespace, &replica, version).await
                    }
                    (None, None) => Ok(()),
                };
                if let Err(error) = result {
                    tracing::warn!(%error, replica, "registrations of a replica that is gone are still there");
                }
            }
        }
    }

    async fn clean_up(&self, replica: &str, places: &BTreeSet<String>) -> Result<(), WriteError> {
        tracing::info!(replica, entries = places.len(), "a replica is gone, and workloads with it");
        for place in places {
            if !self.objects.may_write() {
                return Err(WriteError::NotOurs);
            }
            self.objects.remove_own(&path(place), CONTROLLER, replica).await?;
        }
        Ok(())
    }
}

type Outcome = (String, Option<Value>, Result<bool, WriteError>);

fn note(ledger: &mut Ledger, outcome: Option<Result<Outcome, tokio::task::JoinError>>) {
    match outcome {
        Some(Ok((place, object, Ok(ours)))) => {
            if !ours {
                tracing::warn!(entry = %place, "there is a WorkloadEntry of this name that registers nobody; it stays");
            }
            ledger.done(&place, object);
        }
        Some(Ok((place, _, Err(error)))) => {
            tracing::debug!(entry = %place, %error, "a registration is not shared yet");
            ledger.failed(&place, Instant::now());
        }
        Some(Err(error)) => tracing::error!(%error, "a registration is not shared"),
        None => {}
    }
}

/// How long a write waits that failed so often in a row.
fn after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(4)).min(AGAIN_MAX)
}

/// The path of the object at a place, which is its namespace and name.
fn path(place: &str) -> String {
    let (namespace, name) = place.split_once('/').unwrap_or_default();
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/workloadentries/{name}")
}

/// Entries of workloads, by the replica of ours that they are connected to.
fn of_replicas(snapshot: &Snapshot) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let of_cluster = |object: &&Arc<navarch_model::Object>| object.key.cluster.remote_name().is_none();
    for object in snapshot.objects_of(Kind::WorkloadEntry).filter(of_cluster) {
        let replica = object.metadata.annotations.get(CONTROLLER).filter(|name| name.starts_with(OURS));
        if let Some(replica) = replica {
            let place = format!("{}/{}", object.key.namespace, object.key.name);
            found.entry(replica.to_string()).or_default().insert(place);
        }
    }
    found
}

/// What should be in the API server, and what has been written to it.
#[derive(Debug, Default)]
struct Ledger {
    lines: BTreeMap<String, Line>,
    /// Those in which something else is wanted than was written.
    unwritten: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Line {
    wanted: Option<Value>,
    written: Option<Value>,
    failures: u32,
    /// When it is tried again.
    again: Option<Instant>,
}

impl Ledger {
    /// Registrations that have changed.
    fn want(&mut self, changed: BTreeMap<String, Option<Value>>) {
        for (place, wanted) in changed {
            self.lines.entry(place.clone()).or_default().wanted = wanted;
            self.look(&place);
        }
    }

    /// What is to be written: an object, or that there is none.
    fn due(&self, now: Instant) -> Vec<(String, Option<Value>)> {
        let lines = self.unwritten.iter().filter_map(|place| Some((place, self.lines.get(place)?)));
        let due = lines.filter(|(_, line)| line.again.is_none_or(|again| again <= now));
        due.map(|(place, line)| (place.clone(), line.wanted.clone())).collect()
    }

    fn done(&mut self, place: &str, written: Option<Value>) {
        let Some(line) = self.lines.get_mut(place) else { return };
        *line = Line { wanted: line.wanted.take(), written, ..Line::default() };
        self.look(place);
    }

    fn failed(&mut self, place: &str, now: Instant) {
        let Some(line) = self.lines.get_mut(place) else { return };
        line.failures += 1;
        line.again = Some(now + after(line.failures));
        // It may have been written all the same: then it has to be taken away.
        if line.written.is_none() {
            line.written = Some(Value::Null);
        }
        self.look(place);
    }

    /// Whether something is to be written at a place, and whether there is anything to remember of it.
    fn look(&mut self, place: &str) {
        let Some(line) = self.lines.get(place) else { return };
        if line.wanted != line.written {
            self.unwritten.insert(place.to_owned());
            return;
        }
        self.unwritten.remove(place);
        if line.wanted.is_none() {
            self.lines.remove(place);
        }
    }
}

/// Replicas by how long nothing has been heard of them.
#[derive(Debug, Default)]
struct Silence {
    /// The version of the Lease, and in how many looks in a row it was that.
    known: BTreeMap<String, (Option<String>, u32)>,
}

impl Silence {
    /// Takes in the Leases and their versions, and who has entries. Gives who is gone.
    fn look<'a>(
        &mut self,
        leases: &'a BTreeMap<String, String>,
        others: impl Iterator<Item = &'a String>,
    ) -> Vec<String> {
        let all: BTreeSet<&String> = leases.keys().chain(others).collect();
        self.known.retain(|name, _| all.contains(name));
        let mut gone = Vec::new();
        for name in all {
            let version = leases.get(name);
            let (known, looks) = self.known.entry(name.clone()).or_insert_with(|| (version.cloned(), 0));
            if known.as_ref() != version {
                (*known, *looks) = (version.cloned(), 0);
            }
            *looks += 1;
            if *looks > SILENT_LOOKS {
                gone.push(name.clone());
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(of: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<Value>> {
        of.iter()
            .map(|(place, content)| ((*place).to_owned(), content.map(|content| json!(content))))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_differs_is_written_and_what_failed_is_tried_again_later() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        let due = |ledger: &Ledger, after: u64| {
            let due = ledger.due(now + Duration::from_secs(after));
            due.into_iter().map(|(place, object)| (place, object.is_some())).collect::<Vec<_>>()
        };
        let line = |place: &str, is_there| (place.to_owned(), is_there);
        ledger.want(changed(&[("n/a", Some(1)), ("n/b", Some(1))]));
        assert_eq!(due(&ledger, 0), [line("n/a", true), line("n/b", true)]);
        ledger.done("n/a", Some(json!(1)));
        ledger.failed("n/b", now);
        assert_eq!(due(&ledger, 1), []);
        assert_eq!(due(&ledger, 2), [line("n/b", true)]);
        // What changes while it is written is written again.
        ledger.want(changed(&[("n/a", Some(3))]));
        ledger.done("n/a", Some(json!(2)));
        assert_eq!(due(&ledger, 0), [line("n/a", true)]);
        ledger.done("n/a", Some(json!(3)));
        // Nobody knows whether it is there.
        ledger.want(changed(&[("n/a", None), ("n/b", None)]));
        assert_eq!(due(&ledger, 2), [line("n/a", false), line("n/b", false)]);
        ledger.done("n/a", None);
        ledger.done("n/b", None);
        assert!(ledger.lines.is_empty() && ledger.unwritten.is_empty());
    }

    #[test]
    fn a_replica_is_gone_when_its_lease_has_been_silent_in_many_looks() {
        let mut silence = Silence::default();
        let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
        for look in 0..20_u32 {
            // One that is renewed, one that is not, and one that has no Lease and entries.
            let leases = BTreeMap::from([(a.clone(), look.to_string()), (b.clone(), "1".to_owned())]);
            let gone = silence.look(&leases, [&b, &c].into_iter());
            let expected = if look >= SILENT_LOOKS { vec![b.clone(), c.clone()] } else { Vec::new() };
            assert_eq!(gone, expected, "{look}");
        }
        // Whoever is heard again is there, and whoever has nothing is forgotten.
        let leases = BTreeMap::from([(b.clone(), "2".to_owned())]);
        assert!(silence.look(&leases, [].into_iter()).is_empty());
        assert_eq!(silence.known.len(), 1);
    }

    #[test]
    fn a_holder_is_a_name_of_kubernetes() {
        for replica in ["navarch-7d9f-x2", "My_Laptop.local", "-", "ä"] {
            let holder = holder(replica);
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(holder.starts_with(OURS) && holder.chars().all(known), "{holder}");
        }
    }
}

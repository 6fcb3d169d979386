//! Which statuses have to be written, and when. No clock and no API server.
//!
//! What is wanted comes from the pipeline, and what there is from those who follow the cluster: an
//! object is due while the two differ. So nothing is written twice, what somebody else overwrites is
//! written again, and a replica that begins to write knows what is right already.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use navarch_model::{Name, ObjectKey, Revision, Whose};
use navarch_sources::Written;

/// Between two writes to one object.
const APART: Duration = Duration::from_millis(200);

/// After the first failure, or when an object has been written and has something else again. Doubled each
/// time.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(120);

/// How long what is wanted of an object that is gone is remembered: one that is made again soon may be told
/// the same, of which we do not hear.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What an object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Names its status, as far as it is ours.
    pub fingerprint: u64,
    /// The object's path.
    pub path: Arc<str>,
    /// The revision or tag that it names; empty if it names none.
    pub asked: Name,
}

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub object: ObjectKey,
    pub path: Arc<str>,
    pub wanted: Arc<Written>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Which revision we are.
    revision: Arc<Revision>,
    /// Namespaces that name a revision or a tag, with that name.
    namespaces: BTreeMap<Name, Name>,
    entries: BTreeMap<ObjectKey, Entry>,
    /// Objects that are due, by the time from which they are.
    queue: BTreeSet<(Duration, ObjectKey)>,
    /// Objects that are gone, and since when.
    gone: VecDeque<(Duration, ObjectKey)>,
}

#[derive(Debug, Default)]
struct Entry {
    wanted: Option<(Arc<Written>, u64)>,
    found: Option<Found>,
    /// What the object had after the last write, if that is not what was wanted: an API server may leave
    /// fields out that it does not know.
    settled: Option<u64>,
    /// Writes of what is wanted that did not last: failed, or were overwritten.
    attempts: u32,
    not_before: Duration,
    queued: Option<Duration>,
    /// Being written.
    busy: bool,
}

impl Entry {
    /// `namespace` is the revision or tag that its namespace names.
    fn is_due(&self, revision: &Revision, namespace: &str) -> bool {
        match (&self.wanted, &self.found) {
            (Some((_, wanted)), Some(found))
                if !self.busy && revision.whose(&found.asked, namespace) == Whose::Ours =>
            {
                found.fingerprint != *wanted && self.settled != Some(found.fingerprint)
            }
            _ => false,
        }
    }
}

impl Ledger {
    pub(crate) fn new(revision: Arc<Revision>) -> Self {
        Ledger { revision, ..Ledger::default() }
    }

    /// A namespace names a revision or a tag; or none, if that is empty.
    pub(crate) fn asks(&mut self, namespace: &str, asked: &str) {
        if self.asked(namespace) == asked {
            return;
        }
        match asked {
            "" => self.namespaces.remove(namespace),
            asked => self.namespaces.insert(namespace.into(), asked.into()),
        };
        let concerned: Vec<_> =
            self.entries.keys().filter(|key| *key.namespace == *namespace).cloned().collect();
        concerned.iter().for_each(|key| self.queue(key));
    }

    /// The revision or tag that a namespace names.
    fn asked(&self, namespace: &str) -> &str {
        self.namespaces.get(namespace).map_or("", |asked| asked)
    }

    /// What the status should be.
    pub(crate) fn want(&mut self, wanted: Written, fingerprint: u64, now: Duration) {
        let key = wanted.object.clone();
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.wanted.as_ref().is_some_and(|(_, before)| *before == fingerprint) {
            return;
        }
        entry.wanted = Some((Arc::new(wanted), fingerprint));
        entry.settled = None;
        entry.attempts = 0;
        entry.not_before = entry.not_before.min(now.saturating_add(APART));
        self.queue(&key);
    }

    /// An object has this.
    pub(crate) fn found(&mut self, key: &ObjectKey, found: Found) {
        self.entries.entry(key.clone()).or_default().found = Some(found);
        self.queue(key);
    }

    /// An object is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey, now: Duration) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.found = None;
            self.queue(key);
            self.gone.push_back((now, key.clone()));
        }
        while let Some((since, key)) = self.gone.front()
            && since.saturating_add(REMEMBERED) <= now
        {
            if self.entries.get(key).is_some_and(|entry| entry.found.is_none() && !entry.busy) {
                self.entries.remove(key);
            }
            self.gone.pop_front();
        }
    }

    /// The next object to write to; it is not given again before its end is told.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Job> {
        let (due, key) = self.queue.first()?.clone();
        if due > now {
            return None;
        }
        self.queue.pop_first();
        let entry = self.entries.get_mut(&key)?;
        entry.queued = None;
        let (wanted, found) = (entry.wanted.as_ref()?, entry.found.as_ref()?);
        entry.busy = true;
        Some(Job { object: key, path: found.path.clone(), wanted: wanted.0.clone() })
    }

    /// When the next object is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// How many objects are due.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len()
    }

    /// A job is done: the object has this, which is what was wanted at `wanted` or all that can be had.
    pub(crate) fn done(&mut self, job: &Job, fingerprint: u64, now: Duration) {
        let Some(entry) = self.entries.get_mut(&job.object) else { return };
        entry.busy = false;
        if let Some(found) = &mut entry.found {
            found.fingerprint = fingerprint;
        }
        let current = entry.wanted.as_ref().is_some_and(|(wanted, _)| Arc::ptr_eq(wanted, &job.wanted));
        if current {
            entry.settled = Some(fingerprint);
            let wait = if entry.attempts == 0 { APART } else { longer(entry.attempts) };
            entry.not_before = now.saturating_add(wait);
            entry.attempts = entry.attempts.saturating_add(1);
        } else {
            entry.not_before = now.saturating_add(APART);
        }
        self.queue(&job.object);
    }

    /// A job has failed.
    pub(crate) fn failed(&mut self, job: &Job, now: Duration) {
        let Some(entry) = self.entries.get_mut(&job.object) else { return };
        entry.busy = false;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.not_before = now.saturating_add(longer(entry.attempts));
        self.queue(&job.object);
    }

    /// A job was not begun.
    pub(crate) fn put_back(&mut self, job: &Job) {
        if let Some(entry) = self.entries.get_mut(&job.object) {
            entry.busy = false;
        }
        self.queue(&job.object);
    }

    /// Puts an object into the queue, or takes it out.
    fn queue(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let namespace = self.namespaces.get(&key.namespace).map_or("", |asked| asked);
        let due = entry.is_due(&self.revision, namespace).then_some(entry.not_before);
        if entry.queued != due {
            if let Some(queued) = entry.queued.take() {
                self.queue.remove(&(queued, key.clone()));
            }
            if let Some(due) = due {
                entry.queued = Some(due);
                self.queue.insert((due, key.clone()));
            }
        }
    }
}

fn longer(attempts: u32) -> Duration {
    AGAIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(AGAIN_MAX)
}

#[cfg(test)]
mod tests {
    use navarch_model::Kind;
    use navarch_model::status::Status;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::HttpRoute, "shop", name)
    }

    fn want(ledger: &mut Ledger, name: &str, fingerprint: u64, now: u32) {
        let written = Written {
            object: key(name),
            resource_version: "".into(),
            status: Status::default(),
            controllers: Vec::new(),
        };
        ledger.want(written, fingerprint, MS * now);
    }

    fn found(ledger: &mut Ledger, name: &str, fingerprint: u64) {
        ledger.found(&key(name), Found { fingerprint, path: name.into(), asked: "".into() });
    }

    /// The next job, done at once with a result.
    fn write(ledger: &mut Ledger, now: u32, result: u64) -> Option<String> {
        let job = ledger.next(MS * now)?;
        ledger.done(&job, result, MS * now);
        Some(job.path.to_string())
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let mut ledger = Ledger::default();
        want(&mut ledger, "a", 1, 0);
        assert_eq!(ledger.due(), None, "it is not known to be there");
        found(&mut ledger, "a", 1);
        assert_eq!(ledger.due(), None);
        found(&mut ledger, "b", 9);
        assert_eq!(ledger.due(), None, "nobody wants anything of it");
        found(&mut ledger, "a", 2);
        assert_eq!(write(&mut ledger, 0, 1).as_deref(), Some("a"));
        found(&mut ledger, "a", 1);
        assert_eq!((ledger.due(), ledger.pending()), (None, 0));
    }

    #[test]
    fn an_object_is_written_once_per_change_and_not_too_often() {
        let mut ledger = Ledger::default();
        found(&mut ledger, "a", 0);
        want(&mut ledger, "a", 1, 0);
        let job = ledger.next(MS).expect("a job");
        want(&mut ledger, "a", 2, 1);
        want(&mut ledger, "a", 3, 1);
        assert_eq!(ledger.next(MS), None, "it is being written");
        ledger.done(&job, 1, MS * 5);
        assert_eq!(write(&mut ledger, 100, 3), None);
        assert_eq!(write(&mut ledger, 205, 3).as_deref(), Some("a"));
        assert_eq!(ledger.due(), None);
    }

    #[test]
    fn what_others_overwrite_is_written_again_less_and_less_often() {
        let mut ledger = Ledger::default();
        want(&mut ledger, "a", 1, 0);
        let mut writes = 0;
        for now in 0..600_000 {
            found(&mut ledger, "a", 2);
            writes += usize::from(write(&mut ledger, now, 1).is_some());
        }
        assert!((8..15).contains(&writes), "{writes}");
        // Something new is written soon all the same.
        want(&mut ledger, "a", 3, 600_000);
        assert_eq!(write(&mut ledger, 600_200, 3).as_deref(), Some("a"));
    }

    #[test]
    fn what_an_api_server_leaves_out_is_not_written_for_ever() {
        let mut ledger = Ledger::default();
        found(&mut ledger, "a", 0);
        want(&mut ledger, "a", 1, 0);
        assert!(write(&mut ledger, 0, 7).is_some());
        found(&mut ledger, "a", 7);
        assert_eq!(ledger.due(), None);
        found(&mut ledger, "a", 8);
        assert!(ledger.due().is_some());
    }

    #[test]
    fn failures_wait_and_keep_nobody_else_waiting() {
        let mut ledger = Ledger::default();
        for name in ["a", "b"] {
            found(&mut ledger, name, 0);
            want(&mut ledger, name, 1, 0);
        }
        let job = ledger.next(MS).expect("a job");
        ledger.failed(&job, MS);
        assert_eq!(write(&mut ledger, 1, 1).as_deref(), Some("b"));
        assert_eq!(write(&mut ledger, 500, 1), None);
        assert_eq!(write(&mut ledger, 501, 1).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_gone_is_left_alone_and_remembered_for_a_while() {
        let mut ledger = Ledger::default();
        found(&mut ledger, "a", 0);
        want(&mut ledger, "a", 1, 0);
        ledger.gone(&key("a"), MS);
        assert_eq!(ledger.due(), None);
        found(&mut ledger, "a", 0);
        assert!(ledger.due().is_some(), "made again, and told the same");
        ledger.gone(&key("a"), MS);
        ledger.gone(&key("other"), MS * 700_000);
        assert!(ledger.entries.is_empty());
    }

    #[test]
    fn labels_of_objects_and_of_namespaces_say_who_writes() {
        let mut ledger = Ledger::default();
        let named = |asked: &str| Found { fingerprint: 0, path: "a".into(), asked: asked.into() };
        want(&mut ledger, "a", 1, 0);
        ledger.found(&key("a"), named("canary"));
        assert_eq!(ledger.due(), None, "another revision's");
        ledger.found(&key("a"), named(""));
        assert!(ledger.due().is_some());
        ledger.asks("shop", "canary");
        assert_eq!(ledger.due(), None, "its namespace is another revision's");
        ledger.found(&key("a"), named("default"));
        assert!(ledger.due().is_some(), "its own label counts");
        ledger.found(&key("a"), named(""));
        ledger.asks("other", "");
        assert_eq!(ledger.due(), None);
        ledger.asks("shop", "");
        assert!(ledger.due().is_some(), "the namespace says nothing any longer");
    }
}

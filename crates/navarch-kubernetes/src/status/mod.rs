//! What became of objects, written to their statuses: by one replica, once per change.
//!
//! [`document`] knows how a status looks, [`ledger`] which of them have to be written, and this file asks
//! the API server.

mod document;
mod ledger;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Client;
use navarch_model::{Kind, Name, ObjectKey, Revision, service};
use navarch_sources::{StatusWriter, Written};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::document::Document;
use self::ledger::{Found, Job, Ledger};
use crate::leadership::Leadership;
use crate::permissions::STATUS_KINDS;
use crate::request::{self, Change, Failure, chain, clock, understood};

/// Between the beginnings of two writes: fifty a second.
const PACE: Duration = Duration::from_millis(20);

/// Writes under way at once.
const AT_ONCE: usize = 4;

/// How often what somebody else changes meanwhile is looked at again at once.
const CONFLICTS_MAX: usize = 3;

/// Whether we write statuses of objects of a kind.
fn has_status(kind: Kind) -> bool {
    STATUS_KINDS.contains(&kind)
}

/// Whether it is heard of objects of a kind what they show.
pub(crate) fn is_heard(kind: Kind) -> bool {
    kind == Kind::Namespace || has_status(kind)
}

/// Statuses of objects of one cluster. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Statuses {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    woken: Notify,
    begun: Instant,
    written: AtomicU64,
    failed: AtomicU64,
}

/// How writing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects whose status is not what it should be.
    pub pending: usize,
    /// Statuses written since the start.
    pub written: u64,
    /// Writes that failed.
    pub failed: u64,
}

/// What a follower says of an object.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    key: ObjectKey,
    /// Its status, as far as it is ours.
    fingerprint: u64,
    /// The revision or tag that it names; empty if it names none.
    asked: Name,
}

impl Shown {
    /// What an object shows, if its kind has a status of ours, or if it says whose statuses of others are.
    pub(crate) fn of(key: ObjectKey, json: &str, asked: &str) -> Option<Shown> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            status: Value,
        }
        let asked = service::name(asked);
        if !has_status(key.kind) {
            return is_heard(key.kind).then_some(Shown { key, fingerprint: 0, asked });
        }
        let Object { status } = serde_json::from_str(json).ok()?;
        let fingerprint = Document::of(&key, &status).fingerprint();
        Some(Shown { key, fingerprint, asked })
    }
}

impl Statuses {
    pub(crate) fn new(revision: Arc<Revision>) -> Self {
        let shared = Shared {
            ledger: Mutex::new(Ledger::new(revision)),
            woken: Notify::new(),
            begun: Instant::now(),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Statuses { shared: Arc::new(shared) }
    }

    /// An object in a collection shows this.
    pub(crate) fn shown(&self, shown: Shown, version: &str) {
        let Shown { key, fingerprint, asked } = shown;
        if key.kind == Kind::Namespace {
            return self.change(|ledger, _| ledger.asks(&key.name, &asked));
        }
        let found = Found { fingerprint, path: path(&key, version).into(), asked };
        self.change(|ledger, _| ledger.found(&key, found));
    }

    /// An object is gone.
    pub(crate) fn gone(&self, key: &ObjectKey) {
        match key.kind {
            Kind::Namespace => self.change(|ledger, _| ledger.asks(&key.name, "")),
            _ => self.change(|ledger, now| ledger.gone(key, now)),
        }
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            pending: self.shared.ledger.lock().pending(),
            written: self.shared.written.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ledger, Duration) -> T) -> T {
        let mut ledger = self.shared.ledger.lock();
        let result = change(&mut ledger, self.shared.begun.elapsed());
        let due = ledger.due().is_some();
        drop(ledger);
        if due {
            self.shared.woken.notify_one();
        }
        result
    }

    /// Writes until it is dropped, whenever we are the one who does.
    pub(crate) async fn run(self, client: Client, leadership: Leadership) {
        let mut writing = JoinSet::new();
        loop {
            while writing.try_join_next().is_some() {}
            leadership.held().await;
            if writing.len() >= AT_ONCE {
                writing.join_next().await;
                continue;
            }
            let job = {
                let mut ledger = self.shared.ledger.lock();
                ledger.next(self.shared.begun.elapsed()).ok_or(ledger.due())
            };
            match job {
                Ok(job) => {
                    let write = Write {
                        statuses: self.clone(),
                        client: client.clone(),
                        leadership: leadership.clone(),
                    };
                    writing.spawn(write.run(job));
                    sleep(PACE).await;
                }
                Err(due) => {
                    let due = async {
                        match due {
                            Some(due) => sleep_until(self.shared.begun + due).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.shared.woken.notified() => {}
                        () = due => {}
                    }
                }
            }
        }
    }
}

impl StatusWriter for Statuses {
    fn write(&mut self, statuses: &[Written]) {
        let wanted = statuses.iter().filter(|written| has_status(written.object.kind));
        for written in wanted {
            let document = Document::wanted(&written.object, &written.status, &written.controllers);
            let (written, fingerprint) = (written.clone(), document.fingerprint());
            self.change(|ledger, now| ledger.want(written, fingerprint, now));
        }
    }
}

/// The path of an object.
fn path(key: &ObjectKey, version: &str) -> String {
    let (kind, name) = (key.kind, &key.name);
    let group = match kind.group() {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    match &*key.namespace {
        "" => format!("{group}/{}/{name}", kind.plural()),
        namespace => format!("{group}/namespaces/{namespace}/{}/{name}", kind.plural()),
    }
}

/// One write.
struct Write {
    statuses: Statuses,
    client: Client,
    leadership: Leadership,
}

/// Why a status was not written.
enum Undone {
    /// Another replica writes.
    NotOurs,
    Failed(Failure),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Undone::Failed(failure)
    }
}

impl Write {
    async fn run(self, job: Job) {
        let shared = &self.statuses.shared;
        match self.write(&job).await {
            Ok(fingerprint) => self.statuses.change(|ledger, now| ledger.done(&job, fingerprint, now)),
            Err(Undone::NotOurs) => self.statuses.change(|ledger, _| ledger.put_back(&job)),
            // Whoever follows it will say so.
            Err(Undone::Failed(Failure::Absent)) => {
                self.statuses.change(|ledger, now| ledger.failed(&job, now))
            }
            Err(Undone::Failed(failure)) => {
                let reason = chain(&failure);
                if shared.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(object = %job.object, reason, "a status cannot be written; it is tried again");
                } else {
                    tracing::debug!(object = %job.object, reason, "a status cannot be written; it is tried again");
                }
                self.statuses.change(|ledger, now| ledger.failed(&job, now));
            }
        }
    }

    /// Writes what is not as it should be. Gives the fingerprint of what there is then.
    async fn write(&self, job: &Job) -> Result<u64, Undone> {
        let Written { object, resource_version: _, status, controllers } = &*job.wanted;
        let wanted = Document::wanted(object, status, controllers);
        let mut conflicts = 0;
        loop {
            let found: Value = understood(&request::read(&self.client, &job.path).await?)?;
            let present = Document::of(object, &found["status"]);
            if present.fingerprint() == wanted.fingerprint() {
                return Ok(present.fingerprint());
            }
            let dated = wanted.clone().since(&present, &clock());
            let body = json!({
                "apiVersion": found["apiVersion"],
                "kind": found["kind"],
                // Of this version and no other: lists of several writers are replaced as a whole.
                "metadata": {
                    "name": object.name,
                    "namespace": found["metadata"]["namespace"],
                    "resourceVersion": found["metadata"]["resourceVersion"],
                },
                "status": dated.written(object, &found["status"]),
            });
            let version = match self.change(Change::Apply, job, &body).await {
                Ok(result) => {
                    let after = Document::of(object, &result["status"]).fingerprint();
                    if after == wanted.fingerprint() {
                        return Ok(after);
                    }
                    result["metadata"]["resourceVersion"].clone()
                }
                Err(Undone::Failed(failure))
                    if failure.status() == Some(409) && conflicts < CONFLICTS_MAX =>
                {
                    conflicts += 1;
                    continue;
                }
                // The definition of the kind is older than a field of ours.
                Err(Undone::Failed(Failure::Refused { message, .. }))
                    if message.contains("not declared in schema") =>
                {
                    body["metadata"]["resourceVersion"].clone()
                }
                Err(undone) => return Err(undone),
            };
            // What somebody else has applied besides stays where fields are merged, and fields that are not
            // known are refused. Replacing the lists does neither.
            let merged = json!({"metadata": {"resourceVersion": version}, "status": body["status"]});
            let result = self.change(Change::Merge, job, &merged).await?;
            return Ok(Document::of(object, &result["status"]).fingerprint());
        }
    }

    async fn change(&self, change: Change, job: &Job, body: &Value) -> Result<Value, Undone> {
        if !self.leadership.is_held() {
            return Err(Undone::NotOurs);
        }
        let path = format!("{}/status", job.path);
        let result = understood(&request::change(&self.client, change, &path, body).await?)?;
        self.statuses.shared.written.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(object = %job.object, ?change, "status written");
        Ok(result)
    }
}

#[cfg(test)]
mod tests;

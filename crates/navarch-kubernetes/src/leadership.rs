//! Standing for election, for as long as the program runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;
use navarch_model::timestamp::format_timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::lease::{Election, Lease, Timing};
use crate::request::{self, Change, Failure};

/// How long nothing is tried again that we may not do.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(30);

/// Which Lease it is about, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// What we are called in it. No other replica is called that.
    pub name: String,
}

/// Whether we are the one who writes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    until: watch::Sender<Option<Instant>>,
    /// Who holds the Lease, as far as is known.
    holder: Mutex<String>,
    /// Nobody shall stand any more.
    over: watch::Sender<bool>,
    /// Nobody does.
    left: watch::Sender<bool>,
}

impl Leadership {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            until: watch::Sender::new(None),
            holder: Mutex::default(),
            over: watch::Sender::new(false),
            left: watch::Sender::new(false),
        };
        Leadership { shared: Arc::new(shared) }
    }

    /// Whether we may write at this moment. To be asked right before each write.
    pub fn is_held(&self) -> bool {
        self.shared.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Who writes, as far as is known; empty if nobody does.
    pub fn holder(&self) -> String {
        self.shared.holder.lock().clone()
    }

    /// Resolves when we may write.
    pub(crate) async fn held(&self) {
        let mut until = self.shared.until.subscribe();
        while !self.is_held() {
            // The sender is ours.
            let _ = until.changed().await;
        }
    }

    /// Stops writing, and waits until the Lease has been left to others, if it can be.
    pub async fn resign(&self) {
        self.shared.over.send_replace(true);
        self.shared.until.send_replace(None);
        let mut left = self.shared.left.subscribe();
        let _ = tokio::time::timeout(request::ANSWER_MAX, left.wait_for(|left| *left)).await;
    }
}

/// Stands for election until [`Leadership::resign`].
pub(crate) async fn stand(client: Client, candidate: Candidate, timing: Timing, leadership: Leadership) {
    let Shared { until, holder, over, left } = &*leadership.shared;
    let mut over = over.subscribe();
    let begun = Instant::now();
    let mut booth = Booth { client, election: Election::new(&candidate.name, timing), candidate, begun };
    let mut failing = false;
    while !*over.borrow_and_update() {
        let looked = tokio::select! {
            looked = booth.look() => looked,
            _ = over.changed() => break,
        };
        let wait = match looked {
            Ok(found) => {
                failing = false;
                *holder.lock() = found;
                timing.retry
            }
            Err(failure) => {
                if !std::mem::replace(&mut failing, true) {
                    let reason = request::chain(&failure);
                    tracing::warn!(lease = %booth.candidate.lease, reason, "nothing can be written to the cluster for now");
                }
                if failure.status() == Some(403) { FORBIDDEN_WAIT } else { timing.retry }
            }
        };
        let now = booth.election.until().map(|until| begun + until);
        let had = until.send_replace(now).is_some_and(|until| Instant::now() < until);
        if had != leadership.is_held() {
            let (lease, namespace) = (&booth.candidate.lease, &booth.candidate.namespace);
            tracing::info!(lease, namespace, held = !had, "who writes to the cluster has changed");
        }
        tokio::select! {
            () = sleep(wait) => {}
            _ = over.changed() => {}
        }
    }
    until.send_replace(None);
    if let Err(failure) = booth.leave().await {
        tracing::debug!(reason = request::chain(&failure), "the Lease runs out by itself");
    }
    holder.lock().clear();
    left.send_replace(true);
}

/// Where bids are made.
struct Booth {
    client: Client,
    candidate: Candidate,
    election: Election,
    begun: Instant,
}

impl Booth {
    /// Looks at the Lease, and takes or renews it if it is ours to take. Gives who holds it.
    async fn look(&mut self) -> Result<String, Failure> {
        let found = self.found().await?;
        let now = Instant::now();
        let Some(bid) = self.election.bid(now - self.begun, &clock(), found.as_ref()) else {
            return Ok(found.and_then(|found| found.holder().map(str::to_owned)).unwrap_or_default());
        };
        match self.write(&bid, found.is_none()).await {
            Ok(()) => {
                self.election.holds(now - self.begun);
                Ok(self.candidate.name.clone())
            }
            // Another one was faster.
            Err(failure) if failure.status() == Some(409) => Ok(String::new()),
            Err(failure) => Err(failure),
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        let found = self.found().await?;
        match self.election.resigns(&clock(), found.as_ref()) {
            Some(left) => self.write(&left, false).await,
            None => Ok(()),
        }
    }

    async fn found(&self) -> Result<Option<Lease>, Failure> {
        match request::read(&self.client, &self.path(false)).await {
            Ok(bytes) => {
                let lease = serde_json::from_slice(&bytes);
                lease.map(Some).map_err(|error| Failure::Nonsense(error.to_string()))
            }
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn write(&self, lease: &Lease, new: bool) -> Result<(), Failure> {
        let Candidate { namespace, lease: name, name: _ } = &self.candidate;
        let mut object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": lease.spec,
        });
        if !new {
            object["metadata"]["resourceVersion"] = Value::from(lease.metadata.resource_version.as_str());
        }
        let change = if new { Change::Create } else { Change::Replace };
        request::change(&self.client, change, &self.path(new), &object).await.map(|_| ())
    }

    fn path(&self, collection: bool) -> String {
        let Candidate { namespace, lease, name: _ } = &self.candidate;
        let all = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        if collection { all } else { format!("{all}/{lease}") }
    }
}

/// The time, as `MicroTime` of Kubernetes.
pub(crate) fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = format_timestamp(i64::try_from(now.as_secs()).unwrap_or_default());
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), now.subsec_micros())
}

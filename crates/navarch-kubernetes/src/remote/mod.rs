//! Other clusters: what runs there counts as what runs in the one whose configuration counts.
//!
//! ```text
//!  Secrets istio/multiCluster ──> wanted ──> a set of followers per cluster ──┐
//!  files of --remote-cluster ─────┘             (places, last good)           └──> one Source
//! ```
//!
//! Each cluster is followed for itself. One that is away keeps what it said, and keeps no other from being
//! heard; serving waits for it for a bounded time.

mod cluster;
mod kubeconfig;
mod report;
mod secrets;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use navarch_model::document::Parsed;
use navarch_model::finding::{Code, Finding};
use navarch_model::{Kind, Name, ObjectKey, Position};
use navarch_sources::{Batch, Health, PlaceId, Settled, Source, SourceError, Update};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use self::cluster::KINDS;
use self::cluster::{Ground, Remote, nowhere};
pub use self::report::{Report, State};
pub use self::secrets::SECRET_LABEL;
use self::secrets::Secrets;
use self::wanted::{GivenBy, Problem, Refused, Wanted, Ways, already, wanted};
use crate::access::{Access, AccessError};
use crate::ask::Questions;

/// How often it is looked whether serving still has to wait.
const LOOK: Duration = Duration::from_millis(500);

/// Which other clusters are followed.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the cluster whose configuration counts is called: no other one may be.
    pub local: Name,
    /// Where Secrets with kubeconfigs are: its API server, and the namespace.
    pub secrets: Option<(Access, String)>,
    /// Files with kubeconfigs, by what the clusters are called.
    pub files: BTreeMap<String, PathBuf>,
    /// The only namespaces that are followed; all if there are none.
    pub namespaces: BTreeSet<String>,
    /// Directory in which what API servers say is kept, for a start while they are away.
    pub kept: Option<PathBuf>,
    /// How long serving waits for a cluster that does not answer (istiod: `PILOT_REMOTE_CLUSTER_TIMEOUT`).
    /// Longer than a connection may take, what is kept on disk is told before.
    pub patience: Duration,
}

/// The other clusters, as one source.
pub struct RemoteClusters {
    remotes: Remotes,
    /// All that was asked for at the start has been heard, or waited for long enough.
    complete: bool,
    tasks: JoinSet<()>,
}

/// What is known of the other clusters. Clones are the same.
#[derive(Clone)]
pub struct Remotes {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Remotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remotes")
    }
}

struct Shared {
    local: Name,
    state: Mutex<Inner>,
    woken: Arc<Notify>,
    /// How well the Secrets are heard, if there may be some.
    secrets: Option<Health>,
}

#[derive(Default)]
struct Inner {
    clusters: BTreeMap<String, Remote>,
    /// Kubeconfigs that cannot be used, by the names of clusters and where they are from.
    refused: BTreeMap<(String, GivenBy), String>,
    /// What is to be told beside what clusters say.
    pending: Vec<(PlaceId, Update)>,
    /// It is known which clusters there are.
    known: bool,
}

impl Inner {
    /// Whether all that was asked for has been heard, or waited for long enough.
    fn is_whole(&self) -> bool {
        self.known && !self.clusters.values().any(Remote::is_awaited)
    }
}

impl RemoteClusters {
    /// Begins to follow. Nothing is waited for.
    ///
    /// # Errors
    /// If it is not known how to reach the API server with the Secrets. That it cannot be reached is no
    /// error: it may be later.
    pub async fn follow(options: Options) -> Result<Self, AccessError> {
        let mut secrets = None;
        if let Some((access, namespace)) = &options.secrets {
            let kept = options.kept.as_ref().map(|kept| kept.join(".secrets"));
            secrets = Some(Secrets::follow(access.client().await?, &options.local, namespace, kept));
        }
        let shared = Shared {
            local: options.local.clone(),
            state: Mutex::default(),
            woken: Arc::default(),
            secrets: secrets.as_ref().map(Secrets::health),
        };
        let remotes = Remotes { shared: Arc::new(shared) };
        let mut tasks = JoinSet::new();
        tasks.spawn(remotes.clone().run(options, secrets));
        Ok(RemoteClusters { remotes, complete: false, tasks })
    }

    /// What is known of them.
    pub fn remotes(&self) -> Remotes {
        self.remotes.clone()
    }
}

impl Drop for RemoteClusters {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.remotes.shared.state.lock().clusters.clear();
    }
}

impl Remotes {
    /// What the cluster is called whose configuration counts.
    pub fn local(&self) -> &Name {
        &self.shared.local
    }

    /// All clusters, by name.
    pub fn reports(&self) -> Vec<Report> {
        let state = self.shared.state.lock();
        let mut reports: Vec<Report> =
            state.clusters.iter().map(|(name, remote)| remote.report(name)).collect();
        for ((name, from), reason) in &state.refused {
            match reports.iter_mut().find(|report| report.name == *name) {
                // Of one that is told from what is kept this is why.
                Some(report) if report.reason.is_empty() || report.server.is_empty() => {
                    report.reason.clone_from(reason);
                }
                Some(_) => {}
                None => reports.push(Report {
                    name: name.clone(),
                    state: State::Refused,
                    from: from.to_string(),
                    server: String::new(),
                    objects: 0,
                    followed_ms: 0,
                    silent_ms: None,
                    reason: reason.clone(),
                }),
            }
        }
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// How well clusters are heard, by what people call them.
    pub fn healths(&self) -> Vec<(String, Health)> {
        let state = self.shared.state.lock();
        let named = |(name, remote): (&String, &Remote)| {
            (format!("the API server of cluster {name}"), remote.feed.health().clone())
        };
        state.clusters.iter().map(named).collect()
    }

    /// Who asks the API server of a cluster what it alone knows.
    pub fn questions(&self, cluster: &str) -> Option<Questions> {
        self.shared.state.lock().clusters.get(cluster).map(|remote| remote.questions.clone())
    }

    /// Follows the clusters that are wanted, until it is dropped.
    async fn run(self, options: Options, secrets: Option<Secrets>) {
        let ground = Ground {
            namespaces: options.namespaces,
            kept: options.kept,
            woken: self.shared.woken.clone(),
            patience: options.patience,
        };
        let no_secrets = BTreeMap::new();
        let mut refused = Refused::default();
        // Clusters that have gone while we were away.
        let mut swept = false;
        self.set(wanted(&options.local, &options.files, &no_secrets), &ground, &mut refused).await;
        let Some(mut secrets) = secrets else {
            self.know();
            return std::future::pending().await;
        };
        loop {
            secrets.changed().await;
            let all = wanted(&options.local, &options.files, secrets.found());
            self.set(all, &ground, &mut refused).await;
            if secrets.are_known() {
                self.know();
                if !std::mem::replace(&mut swept, true) {
                    let stays: BTreeSet<String> =
                        self.reports().into_iter().map(|report| report.name).collect();
                    ground.forget_others(stays).await;
                }
            }
        }
    }

    /// From now on it is known which clusters there are.
    fn know(&self) {
        self.shared.state.lock().known = true;
        self.shared.woken.notify_one();
    }

    /// Follows these clusters, and no others.
    async fn set(&self, all: (Ways, Refused), ground: &Ground, told: &mut Refused) {
        let (wanted, mut refused) = all;
        let gone: Vec<String> = {
            let state = self.shared.state.lock();
            // One whose kubeconfig is wrong now is followed as before.
            let stays = |name: &String| {
                wanted.contains_key(name) || refused.keys().any(|(refused, _)| refused == name)
            };
            state.clusters.keys().filter(|name| !stays(name)).cloned().collect()
        };
        for name in gone {
            tracing::info!(cluster = name, "a cluster is not followed any more");
            self.leave(&name);
            ground.forget(&name).await;
        }
        for (name, ways) in wanted {
            let mut counts: Option<GivenBy> = None;
            let first = ways.first().cloned();
            for wanted in ways {
                let is_followed = |remote: &Remote| remote.wanted == wanted;
                if let Some(other) = &counts {
                    refused.insert((name.clone(), wanted.from), already(other));
                } else if self.shared.state.lock().clusters.get(&name).is_some_and(is_followed) {
                    counts = Some(wanted.from);
                } else {
                    match ground.connect(&wanted).await {
                        Ok((client, server)) => {
                            tracing::info!(cluster = name, from = %wanted.from, server, "a cluster is followed");
                            counts = Some(wanted.from.clone());
                            self.follow(ground, &name, wanted, client, server);
                        }
                        Err(reason) => {
                            refused.insert((name.clone(), wanted.from), (Code::InvalidValue, reason));
                        }
                    }
                }
            }
            let is_known = || self.shared.state.lock().clusters.contains_key(&name);
            if let (None, Some(first), false) = (counts, first, is_known())
                && ground.has_kept(&name)
            {
                // As if it had been refused while we ran: what it said last is told.
                let unusable = Wanted { kubeconfig: None, ..first };
                self.follow(ground, &name, unusable, nowhere(), String::new());
            }
        }
        self.tell(refused, told);
    }

    /// Follows a cluster from now on, on another way if it is followed already.
    fn follow(&self, ground: &Ground, name: &str, wanted: Wanted, client: Client, server: String) {
        let mut state = self.shared.state.lock();
        let former = state.clusters.remove(name);
        let remote = ground.remote(name, wanted, client, server, former);
        state.clusters.insert(name.to_owned(), remote);
    }

    /// Everything of a cluster goes.
    fn leave(&self, name: &str) {
        let mut state = self.shared.state.lock();
        if let Some(remote) = state.clusters.remove(name) {
            state.pending.extend(remote.leave(name));
        }
    }

    /// Tells which kubeconfigs cannot be used.
    fn tell(&self, refused: Refused, told: &mut Refused) {
        let mut state = self.shared.state.lock();
        let place = |(name, from): &(String, GivenBy)| {
            PlaceId::from(PathBuf::from(format!(".refused/{name}/{from}")))
        };
        for key in told.keys().filter(|key| !refused.contains_key(key)) {
            state.pending.push((place(key), Update::Gone));
        }
        for (key, problem) in &refused {
            if told.get(key) != Some(problem) {
                let (name, from) = key;
                tracing::warn!(cluster = name, %from, reason = problem.1, "a cluster cannot be followed");
                let findings = vec![self.finding(key, problem)];
                let parsed = Parsed { findings, ..Parsed::default() };
                state.pending.push((place(key), Update::Says(parsed)));
            }
        }
        state.refused = refused.iter().map(|(key, (_, reason))| (key.clone(), reason.clone())).collect();
        drop(state);
        *told = refused;
        self.shared.woken.notify_one();
    }

    fn finding(&self, (name, from): &(String, GivenBy), (code, reason): &Problem) -> Finding {
        let message = format!("cluster {name} is not followed as {from} says: {reason}");
        let finding = Finding::error(*code, message);
        match from {
            GivenBy::File(_) => finding,
            GivenBy::Secret { namespace, name: secret } => {
                let object = ObjectKey::new(Kind::Secret, namespace, secret);
                let cluster = self.shared.local.clone();
                let position = Position::Cluster { cluster, object: object.clone() };
                finding.of(object).path(format!("data[{name:?}]")).at(position)
            }
        }
    }
}

impl Source for RemoteClusters {
    fn name(&self) -> String {
        let state = self.remotes.shared.state.lock();
        let missing: Vec<&str> = state
            .clusters
            .iter()
            .filter(|(_, remote)| remote.is_awaited())
            .map(|(name, _)| name.as_str())
            .collect();
        match (state.known, missing.as_slice()) {
            (true, []) => "other clusters".to_owned(),
            (false, _) => "other clusters (the Secrets that say which there are)".to_owned(),
            (true, missing) => format!("other clusters ({})", missing.join(", ")),
        }
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let shared = &self.remotes.shared;
            // That it is waited no longer happens by itself.
            let patience_ends = async {
                if self.complete {
                    std::future::pending::<()>().await;
                }
                while !shared.state.lock().is_whole() {
                    sleep(LOOK).await;
                }
            };
            tokio::select! {
                () = shared.woken.notified() => {}
                () = patience_ends => {}
            }
        })
    }

    fn settled(&self) -> Settled {
        let state = self.remotes.shared.state.lock();
        // One that is away begins to list again and again, and others do not wait for it.
        let heard = state.clusters.values().filter(|remote| !remote.is_silent());
        heard.map(|remote| remote.feed.settled()).max().unwrap_or_default()
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let mut state = self.remotes.shared.state.lock();
        let mut places = std::mem::take(&mut state.pending);
        for (name, remote) in &mut state.clusters {
            remote.take(name, &mut places);
        }
        self.complete |= state.is_whole();
        Ok(Batch { places, complete: self.complete, ..Batch::default() })
    }

    fn health(&self) -> Option<Health> {
        self.remotes.shared.secrets.clone()
    }
}

#[cfg(test)]
mod tests;

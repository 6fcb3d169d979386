//! The fleet: which class each connected proxy belongs to, and what each class gets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use navarch_envoy::ProxyResources;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Fingerprint, Hashed};
use navarch_plan::{Class, ClassPlan, Planner};
use navarch_snapshot::{Part, Snapshot};
use navarch_xds::{Connection, Discovery, Node, Peer, Rejection};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How long a class without proxies keeps its plan, so that proxies that reconnect find it.
const IDLE: Duration = Duration::from_secs(120);

/// Connected proxies and the classes they belong to.
///
/// Streams ask for their class from the tasks of the IO runtime and never wait; everything that computes happens on one planning
/// thread (and the threads it starts), which also is the only one that publishes, so that revisions never go back.
pub struct Fleet {
    planner: Planner,
    snapshot: ArcSwap<Snapshot>,
    /// The newest revision that every class has been planned for.
    planned: AtomicU64,
    state: Mutex<State>,
    work: mpsc::Sender<Work>,
    metrics: Metrics,
    threads: usize,
}

#[derive(Default)]
struct State {
    classes: HashMap<Fingerprint, Arc<ClassEntry>>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
}

/// A class of proxies while it has any.
struct ClassEntry {
    class: Arc<Hashed<Class>>,
    plan: OnceLock<ClassPlan>,
    streams: Arc<navarch_xds::Class>,
    idle_since: Mutex<Option<Instant>>,
}

/// A connected stream.
struct Member {
    facts: Arc<ProxyFacts>,
    class: Fingerprint,
    /// What the registry knew of the proxy's addresses when it was classified.
    workloads: Vec<(Part, Fingerprint)>,
    moves: watch::Sender<Arc<navarch_xds::Class>>,
}

/// What the planning thread is asked to do.
enum Work {
    /// A new revision; the answer says that every class has been planned.
    Revision(Arc<Snapshot>, tokio::sync::oneshot::Sender<()>),
    /// A class that nobody has planned yet.
    Class(Arc<ClassEntry>),
}

/// Takes the stream out of the fleet when it ends.
struct Membership {
    fleet: Weak<Fleet>,
    member: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(fleet) = self.fleet.upgrade() {
            fleet.leave(self.member);
        }
    }
}

impl Fleet {
    /// A fleet without proxies, and its planning thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(snapshot: Arc<Snapshot>, metrics: Metrics) -> std::io::Result<Arc<Self>> {
        let (work, queue) = mpsc::channel();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let fleet = Arc::new(Fleet {
            planner: Planner::new(snapshot.clone()),
            planned: AtomicU64::new(snapshot.revision()),
            snapshot: ArcSwap::new(snapshot),
            state: Mutex::default(),
            work,
            metrics,
            threads,
        });
        let worker = Arc::downgrade(&fleet);
        std::thread::Builder::new().name("plan".to_owned()).spawn(move || plan_loop(&worker, &queue))?;
        Ok(fleet)
    }

    /// The world that is being served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest revision that every class has been planned for.
    pub fn planned_revision(&self) -> u64 {
        self.planned.load(Ordering::Acquire)
    }

    /// Looks at the planner's counters.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Plans every class that the revision concerns and publishes what changed. Resolves when that is done.
    pub async fn publish(&self, snapshot: Arc<Snapshot>) {
        let (done, wait) = tokio::sync::oneshot::channel();
        if self.work.send(Work::Revision(snapshot, done)).is_ok() {
            // The planning thread ends only with the process.
            let _ = wait.await;
        }
    }

    /// The revision in which the configuration of a class last changed, by the fingerprint of the class.
    pub fn class_revision(&self, node: &Node) -> Option<u64> {
        let facts = facts_of(node).ok()?;
        let class = Hashed::new(Class::of(&facts, &self.snapshot.load().view()));
        let state = self.state.lock();
        let entry = state.classes.get(&class.fingerprint())?;
        entry.streams.resources().map(|resources| resources.revision())
    }

    /// What a connected proxy gets now.
    pub fn resources(&self, node: &Node) -> Option<Arc<ProxyResources>> {
        let facts = facts_of(node).ok()?;
        let class = Hashed::new(Class::of(&facts, &self.snapshot.load().view()));
        self.state.lock().classes.get(&class.fingerprint())?.streams.resources()
    }

    fn join(self: &Arc<Self>, facts: ProxyFacts) -> Connection {
        let snapshot = self.snapshot.load_full();
        let class = Hashed::new(Class::of(&facts, &snapshot.view()));
        let workloads = workload_parts(&facts, &snapshot);
        let mut state = self.state.lock();
        let entry = self.entry(&mut state, class);
        let (moves, class) = watch::channel(entry.streams.clone());
        let member = state.next_member;
        state.next_member += 1;
        let fingerprint = entry.class.fingerprint();
        state.members.insert(member, Member { facts: Arc::new(facts), class: fingerprint, workloads, moves });
        Connection { class, guard: Box::new(Membership { fleet: Arc::downgrade(self), member }) }
    }

    /// The entry of a class; a new one is handed to the planning thread.
    fn entry(&self, state: &mut State, class: Hashed<Class>) -> Arc<ClassEntry> {
        let entry = state.classes.entry(class.fingerprint()).or_insert_with(|| {
            let entry = Arc::new(ClassEntry {
                class: Arc::new(class),
                plan: OnceLock::new(),
                streams: navarch_xds::Class::new(),
                idle_since: Mutex::new(None),
            });
            // The queue is as long as there are classes that wait; the planning thread takes them in batches.
            let _ = self.work.send(Work::Class(entry.clone()));
            entry
        });
        *entry.idle_since.lock() = None;
        entry.clone()
    }

    fn leave(&self, member: u64) {
        let mut state = self.state.lock();
        let Some(gone) = state.members.remove(&member) else { return };
        if let Some(entry) = state.classes.get(&gone.class)
            && !state.members.values().any(|member| member.class == gone.class)
        {
            *entry.idle_since.lock() = Some(Instant::now());
        }
    }

    /// Members whose workload the registry now knows otherwise may belong to another class.
    fn reclassify(&self, snapshot: &Snapshot) {
        let mut state = self.state.lock();
        let stale: Vec<(u64, Arc<ProxyFacts>)> = state
            .members
            .iter()
            .filter(|(_, member)| member.workloads.iter().any(|(part, was)| snapshot.fingerprint(part) != *was))
            .map(|(id, member)| (*id, member.facts.clone()))
            .collect();
        for (id, facts) in stale {
            let class = Hashed::new(Class::of(&facts, &snapshot.view()));
            let fingerprint = class.fingerprint();
            let entry = self.entry(&mut state, class);
            if let Some(member) = state.members.get_mut(&id) {
                member.workloads = workload_parts(&facts, snapshot);
                if member.class != fingerprint {
                    member.class = fingerprint;
                    member.moves.send_replace(entry.streams.clone());
                }
            }
        }
        let busy: std::collections::HashSet<Fingerprint> = state.members.values().map(|m| m.class).collect();
        let now = Instant::now();
        state.classes.retain(|fingerprint, entry| {
            let mut idle = entry.idle_since.lock();
            if busy.contains(fingerprint) {
                *idle = None;
                return true;
            }
            now.duration_since(*idle.get_or_insert(now)) < IDLE
        });
        self.metrics.classes.set(state.classes.len() as i64);
    }

    fn revise(&self, snapshot: Arc<Snapshot>) {
        let started = Instant::now();
        let revision = snapshot.revision();
        self.snapshot.store(snapshot.clone());
        self.planner.advance(snapshot.clone());
        self.reclassify(&snapshot);
        let entries: Vec<Arc<ClassEntry>> = self.state.lock().classes.values().cloned().collect();
        self.plan(&entries);
        self.planned.store(revision, Ordering::Release);
        self.metrics.revision.set(revision as i64);
        self.metrics.plan.observe(started.elapsed().as_secs_f64());
        self.planner.sweep();
    }

    /// Plans classes and publishes those whose resources changed.
    fn plan(&self, entries: &[Arc<ClassEntry>]) {
        let plans: Vec<&ClassPlan> = entries
            .iter()
            .map(|entry| entry.plan.get_or_init(|| self.planner.class_plan(entry.class.clone())))
            .collect();
        let made = self.planner.all_resources(&plans, self.threads);
        for (entry, resources) in entries.iter().zip(made) {
            if entry.streams.resources().is_none_or(|known| !Arc::ptr_eq(&known, &resources)) {
                entry.streams.publish(resources);
            }
        }
    }
}

/// Runs until the fleet is gone.
fn plan_loop(fleet: &Weak<Fleet>, queue: &mpsc::Receiver<Work>) {
    while let Ok(first) = queue.recv() {
        let Some(fleet) = fleet.upgrade() else { return };
        let mut revision = None;
        let mut waiting = Vec::new();
        let mut entries = Vec::new();
        for work in std::iter::once(first).chain(queue.try_iter()) {
            match work {
                // Only the newest of several matters: each contains the ones before.
                Work::Revision(snapshot, done) => {
                    revision = Some(snapshot);
                    waiting.push(done);
                }
                Work::Class(entry) => entries.push(entry),
            }
        }
        match revision {
            Some(snapshot) => fleet.revise(snapshot),
            None => fleet.plan(&entries),
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn workload_parts(facts: &ProxyFacts, snapshot: &Snapshot) -> Vec<(Part, Fingerprint)> {
    let view = snapshot.view();
    Class::of(facts, &view);
    view.into_reads().iter().map(|(part, fingerprint)| (part.clone(), fingerprint)).collect()
}

/// The facts a node states.
pub fn facts_of(node: &Node) -> Result<ProxyFacts, Rejection> {
    let locality = &node.locality;
    ProxyFacts::parse(
        &node.id,
        &node.cluster,
        &node.metadata,
        navarch_model::endpoint::Locality {
            region: locality.region.as_str().into(),
            zone: locality.zone.as_str().into(),
            sub_zone: locality.sub_zone.as_str().into(),
        },
    )
    .map_err(|error| Rejection::InvalidNode(error.to_string()))
}

/// The fleet as the xDS server sees it.
pub struct FleetDiscovery(pub Arc<Fleet>);

impl Discovery for FleetDiscovery {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>) -> Result<Connection, Rejection> {
        let facts = facts_of(node)?;
        tracing::info!(node = %node.id, peer = %peer.address, "connected");
        Ok(self.0.join(facts))
    }
}

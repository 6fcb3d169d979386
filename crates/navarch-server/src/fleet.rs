//! The fleet: which class each connected proxy belongs to, and what each class gets.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use navarch_envoy::{ProxyResources, XdsType};
use navarch_model::fact::{Account, FactKey};
use navarch_model::{Fingerprint, Hashed};
use navarch_plan::engine::Engine;
use navarch_plan::{Class, ClassPlan, Fates, Planner};
use navarch_snapshot::{Part, Reads, Snapshot};
use navarch_xds::{ClientRules, Connection, Dialect, Node, Peer, Rejection, StreamStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::client::{Client, RouteForm};
use crate::metrics::Metrics;

/// How long a class without proxies keeps its plan, so that proxies that reconnect find it.
const IDLE: Duration = Duration::from_secs(120);

/// Revisions of which it is remembered when they were noticed; older ones are not news.
const REVISIONS: usize = 64;

/// Connected proxies and the classes they belong to.
///
/// Streams ask for their class from the tasks of the IO runtime and never wait; everything that computes
/// happens on one planning thread (and the threads it starts), which also is the only one that publishes, so
/// that revisions never go back.
pub struct Fleet {
    planner: Planner,
    snapshot: ArcSwap<Snapshot>,
    /// The newest revision that every class has been planned for.
    planned: AtomicU64,
    state: Mutex<State>,
    work: mpsc::Sender<Work>,
    metrics: Metrics,
    threads: usize,
    routes: RouteForm,
    /// Woken when something has been planned, where service accounts say who gets secrets.
    reviews: OnceLock<Arc<Notify>>,
    /// Nodes that get routes whole since they hold them so, as long as they are connected.
    whole: Mutex<BTreeSet<String>>,
    /// What became of the patches of EnvoyFilters at the proxies there are.
    fates: watch::Sender<Arc<Fates>>,
    /// When changes were noticed, by the revisions that they are in.
    noticed: Mutex<VecDeque<(u64, Instant)>>,
    /// What was configured, and since which revision, oldest first.
    contents: Mutex<VecDeque<(u128, u64)>>,
}

#[derive(Default)]
struct State {
    classes: HashMap<Fingerprint, Arc<ClassEntry>>,
    members: BTreeMap<u64, Member>,
    /// The members of each node: more than one if it has connected again before its stream of before ended.
    by_node: HashMap<String, BTreeSet<u64>>,
    /// The members whose class depends on a part.
    readers: HashMap<Part, BTreeSet<u64>>,
    next_member: u64,
}

impl State {
    /// Takes a stream in; gives the number of the member.
    fn admit(&mut self, member: Member) -> u64 {
        let id = self.next_member;
        self.next_member += 1;
        self.read(id, &member.reads);
        self.by_node.entry(member.client.node.clone()).or_default().insert(id);
        self.members.insert(id, member);
        id
    }

    /// Takes a stream out. Also says whether it was the last one of its node.
    fn dismiss(&mut self, member: u64) -> Option<(Member, bool)> {
        let gone = self.members.remove(&member)?;
        self.forget(member, &gone.reads);
        let others = self.by_node.get_mut(&gone.client.node)?;
        others.remove(&member);
        let is_last = others.is_empty();
        if is_last {
            self.by_node.remove(&gone.client.node);
        }
        Some((gone, is_last))
    }

    /// Remembers what the class of a member depends on.
    fn read(&mut self, member: u64, parts: &Reads) {
        for (part, _) in parts.iter() {
            self.readers.entry(part.clone()).or_default().insert(member);
        }
    }

    fn forget(&mut self, member: u64, parts: &Reads) {
        for (part, _) in parts.iter() {
            if let Some(readers) = self.readers.get_mut(part) {
                readers.remove(&member);
                if readers.is_empty() {
                    self.readers.remove(part);
                }
            }
        }
    }
}

/// A class of proxies while it has any.
struct ClassEntry {
    class: Arc<Hashed<Class>>,
    plan: OnceLock<ClassPlan>,
    /// What became of patches when the class was planned last.
    fates: Mutex<Arc<Fates>>,
    streams: Arc<navarch_xds::Class>,
    /// Connected streams; changed under the lock of the fleet's state.
    members: AtomicUsize,
    idle_since: Mutex<Option<Instant>>,
}

/// A connected stream.
struct Member {
    client: Arc<Client>,
    class: Fingerprint,
    /// What was looked at when the proxy was classified: mostly what the registry knows of its addresses.
    reads: Reads,
    moves: watch::Sender<Arc<navarch_xds::Class>>,
}

/// What the planning thread is asked to do.
enum Work {
    /// A new revision; the answer says that every class has been planned.
    Revision(Arc<Snapshot>, tokio::sync::oneshot::Sender<Instant>),
    /// A class that nobody has planned yet.
    Class(Arc<ClassEntry>),
    /// A node that gets its routes whole from now on.
    Whole(String),
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
    pub fn start(snapshot: Arc<Snapshot>, metrics: Metrics, routes: RouteForm) -> std::io::Result<Arc<Self>> {
        let (work, queue) = mpsc::channel();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let contents = Mutex::new(VecDeque::from([(snapshot.content(), snapshot.revision())]));
        let fleet = Arc::new(Fleet {
            planner: Planner::new(snapshot.clone()),
            planned: AtomicU64::new(snapshot.revision()),
            snapshot: ArcSwap::new(snapshot),
            state: Mutex::default(),
            work,
            metrics,
            threads,
            routes,
            reviews: OnceLock::new(),
            whole: Mutex::default(),
            fates: watch::Sender::default(),
            noticed: Mutex::default(),
            contents,
        });
        let worker = Arc::downgrade(&fleet);
        std::thread::Builder::new().name("plan".to_owned()).spawn(move || plan_loop(&worker, &queue))?;
        Ok(fleet)
    }

    /// Who is at the other end of a stream, and what it takes.
    ///
    /// # Errors
    /// As [`Client::of`].
    pub fn client(&self, node: &Node, peer: &Peer, dialect: Dialect) -> Result<Client, Rejection> {
        let mut client = Client::of(node, peer)?;
        if self.reviews.get().is_some() {
            client = client.reviewed(peer);
        }
        let rules = ClientRules::of(node);
        let can = rules.takes_split_routes(dialect);
        let is_whole = || self.whole.lock().contains(&client.node);
        client.facts.split_routes = can && self.routes == RouteForm::Split && !is_whole();
        client.facts.standard_metrics &= rules.has_counting_loggers();
        Ok(client)
    }

    /// From now on keys go to proxies whose service account may read Secrets. Gives what is woken whenever
    /// [`Self::secret_readers`] may be others.
    pub fn review_secrets(&self) -> Arc<Notify> {
        self.reviews.get_or_init(Arc::default).clone()
    }

    /// The accounts of proxies for which it counts whether they may read Secrets.
    pub fn secret_readers(&self) -> BTreeSet<Account> {
        let classes: Vec<Arc<ClassEntry>> = self.state.lock().classes.values().cloned().collect();
        let accounts: BTreeSet<Account> =
            classes.iter().filter_map(|entry| entry.class.secret_reader()).collect();
        let counts = |engine: &Engine, account: &Account| {
            engine.is_read(&Part::Fact(FactKey::SecretReader(account.clone())))
        };
        self.planner
            .inspect(|engine| accounts.into_iter().filter(|account| counts(engine, account)).collect())
    }

    /// A client holds its routes whole, and keeps them so: it would lose requests if they were split.
    pub fn keep_routes_whole(&self, node: &str) {
        self.whole.lock().insert(node.to_owned());
        // The planning thread ends only with the process.
        let _ = self.work.send(Work::Whole(node.to_owned()));
    }

    /// Who is at the other end of a stream that is connected.
    pub fn client_of(&self, stream: &StreamStatus) -> Option<Client> {
        self.client(&stream.node, &stream.peer, stream.dialect).ok()
    }

    /// The world that is being served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest revision that every class has been planned for.
    pub fn planned_revision(&self) -> u64 {
        self.planned.load(Ordering::Acquire)
    }

    /// What became of the patches of EnvoyFilters at the proxies there are, and when that changes.
    pub fn fates(&self) -> watch::Receiver<Arc<Fates>> {
        self.fates.subscribe()
    }

    /// Looks at the planner's counters.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Plans every class that the revision concerns and publishes what changed. Resolves when that is done.
    pub async fn publish(&self, snapshot: Arc<Snapshot>) {
        self.publish_noticed(snapshot, Instant::now()).await;
    }

    /// The same, of a change of which the first event was noticed before. Gives when it was done, which may
    /// be before this task had its turn again.
    pub async fn publish_noticed(&self, snapshot: Arc<Snapshot>, noticed: Instant) -> Instant {
        {
            let mut known = self.noticed.lock();
            if known.len() == REVISIONS {
                known.pop_front();
            }
            known.push_back((snapshot.revision(), noticed));
        }
        let (done, wait) = tokio::sync::oneshot::channel();
        // The planning thread ends only with the process.
        let _ = self.work.send(Work::Revision(snapshot, done));
        wait.await.unwrap_or_else(|_| Instant::now())
    }

    /// The revision in which the configuration of a class last changed, by the fingerprint of the class.
    pub fn class_revision(&self, client: &Client) -> Option<u64> {
        let (class, _) = classify(client, &self.snapshot.load());
        let state = self.state.lock();
        let entry = state.classes.get(&class.fingerprint())?;
        entry.streams.resources().map(|resources| resources.revision())
    }

    /// Whoever is connected as this node.
    pub fn client_with_id(&self, node: &str) -> Option<Arc<Client>> {
        let state = self.state.lock();
        let member = state.by_node.get(node)?.first()?;
        state.members.get(member).map(|member| member.client.clone())
    }

    /// Whether proxies of a namespace have a cluster.
    pub fn has_cluster(&self, namespace: &str, cluster: &str) -> bool {
        let state = self.state.lock();
        let mut classes = state.classes.values().filter(|entry| *entry.class.facts.namespace == *namespace);
        classes.any(|entry| {
            let resources = entry.streams.resources();
            resources.is_some_and(|resources| resources.set(XdsType::Cds).get(cluster).is_some())
        })
    }

    /// What has been configured lately, and since which revision: the newest last. These revisions have been
    /// planned.
    pub fn contents(&self) -> Vec<(u128, u64)> {
        self.contents.lock().iter().copied().collect()
    }

    /// When the first event of a change was noticed that is in a revision, as long as it is news.
    pub fn noticed(&self, revision: u64) -> Option<Instant> {
        let noticed = self.noticed.lock();
        noticed.iter().find(|(known, _)| *known == revision).map(|(_, at)| *at)
    }

    /// What a connected proxy gets now.
    pub fn resources(&self, client: &Client) -> Option<Arc<ProxyResources>> {
        let (class, _) = classify(client, &self.snapshot.load());
        self.state.lock().classes.get(&class.fingerprint())?.streams.resources()
    }

    /// Which class a proxy belongs to.
    pub fn class_of(&self, client: &Client) -> Fingerprint {
        classify(client, &self.snapshot.load()).0.fingerprint()
    }

    /// What a proxy gets of the current snapshot, planned from scratch: nothing that was planned before is
    /// used, so a difference to what the proxy holds is a defect of the incremental plan or of the protocol.
    pub fn from_scratch(&self, client: &Client) -> Arc<ProxyResources> {
        let snapshot = self.snapshot.load_full();
        let (class, _) = classify(client, &snapshot);
        let planner = Planner::new(snapshot);
        let plan = planner.class_plan(Arc::new(class));
        planner.resources(&plan)
    }

    /// Takes a client in; it leaves when the connection ends.
    pub(crate) fn join(self: &Arc<Self>, client: Client) -> Connection {
        let (class, reads, mut state) = loop {
            let snapshot = self.snapshot.load_full();
            let (class, reads) = classify(&client, &snapshot);
            let state = self.state.lock();
            // A snapshot that came meanwhile has not looked at this member.
            if Arc::ptr_eq(&snapshot, &self.snapshot.load()) {
                break (class, reads, state);
            }
        };
        let entry = self.entry(&mut state, class);
        entry.members.fetch_add(1, Ordering::Relaxed);
        let (moves, class) = watch::channel(entry.streams.clone());
        let fingerprint = entry.class.fingerprint();
        let member = state.admit(Member { client: Arc::new(client), class: fingerprint, reads, moves });
        Connection { class, own: None, guard: Box::new(Membership { fleet: Arc::downgrade(self), member }) }
    }

    /// The entry of a class; a new one is handed to the planning thread.
    fn entry(&self, state: &mut State, class: Hashed<Class>) -> Arc<ClassEntry> {
        let entry = state.classes.entry(class.fingerprint()).or_insert_with(|| {
            let entry = Arc::new(ClassEntry {
                class: Arc::new(class),
                plan: OnceLock::new(),
                fates: Mutex::default(),
                streams: navarch_xds::Class::new(),
                members: AtomicUsize::new(0),
                idle_since: Mutex::new(None),
            });
            // The queue is as long as there are classes that wait; the planning thread takes them in batches.
            let _ = self.work.send(Work::Class(entry.clone()));
            entry
        });
        entry.clone()
    }

    fn leave(&self, member: u64) {
        let mut state = self.state.lock();
        let Some((gone, is_last)) = state.dismiss(member) else { return };
        // A proxy may connect again before its stream of before ends; only the last one takes this with it.
        if is_last {
            self.whole.lock().remove(&gone.client.node);
        }
        if let Some(entry) = state.classes.get(&gone.class) {
            entry.members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Members whose class depends on a part that changed, with the class that they now belong to if it has
    /// changed.
    fn reclassify(&self, snapshot: &Snapshot, changed: &[Part]) -> Vec<(u64, Arc<ClassEntry>)> {
        let mut state = self.state.lock();
        let concerned: BTreeSet<u64> =
            changed.iter().filter_map(|part| state.readers.get(part)).flatten().copied().collect();
        self.classify_again(&mut state, snapshot, concerned)
    }

    /// Gives the members of a node their routes whole.
    fn make_whole(&self, node: &str) {
        let snapshot = self.snapshot.load_full();
        let movers = {
            let mut state = self.state.lock();
            let concerned = state.by_node.get(node).cloned().unwrap_or_default();
            for id in &concerned {
                let Some(member) = state.members.get_mut(id) else { continue };
                let mut client = Client::clone(&member.client);
                client.facts.split_routes = false;
                member.client = Arc::new(client);
            }
            if concerned.is_empty() {
                // Its last stream has ended meanwhile, and nobody else would forget it.
                self.whole.lock().remove(node);
            }
            self.classify_again(&mut state, &snapshot, concerned)
        };
        let entries: Vec<Arc<ClassEntry>> = movers.iter().map(|(_, entry)| entry.clone()).collect();
        if self.plan(&entries) {
            self.sum_fates();
        }
        self.move_streams(movers, snapshot.revision());
    }

    /// These members with the class that they now belong to, if it has changed.
    fn classify_again(
        &self,
        state: &mut State,
        snapshot: &Snapshot,
        concerned: BTreeSet<u64>,
    ) -> Vec<(u64, Arc<ClassEntry>)> {
        let mut movers = Vec::new();
        for id in concerned {
            let Some(client) = state.members.get(&id).map(|member| member.client.clone()) else { continue };
            let (class, reads) = classify(&client, snapshot);
            let entry = self.entry(state, class);
            let Some(member) = state.members.get_mut(&id) else { continue };
            let read_before = std::mem::replace(&mut member.reads, reads.clone());
            let before = std::mem::replace(&mut member.class, entry.class.fingerprint());
            state.forget(id, &read_before);
            state.read(id, &reads);
            if before != entry.class.fingerprint() {
                entry.members.fetch_add(1, Ordering::Relaxed);
                if let Some(left) = state.classes.get(&before) {
                    left.members.fetch_sub(1, Ordering::Relaxed);
                }
                movers.push((id, entry));
            }
        }
        movers
    }

    /// Leads streams to their new classes, once these have resources of the revision that moved them: what a
    /// stream gets never goes back to an earlier revision.
    fn move_streams(&self, movers: Vec<(u64, Arc<ClassEntry>)>, revision: u64) {
        for (id, entry) in movers {
            if let Some(resources) = entry.streams.resources()
                && resources.revision() < revision
            {
                entry.streams.publish(Arc::new(resources.at_revision(revision)));
            }
            if let Some(member) = self.state.lock().members.get(&id) {
                member.moves.send_replace(entry.streams.clone());
            }
        }
    }

    /// Drops classes that have had no proxies for a while. Returns whether patches concerned one of them.
    fn retire(&self) -> bool {
        let now = Instant::now();
        let mut fates_changed = false;
        let mut state = self.state.lock();
        state.classes.retain(|_, entry| {
            let mut idle = entry.idle_since.lock();
            if entry.members.load(Ordering::Relaxed) > 0 {
                *idle = None;
                return true;
            }
            let stays = now.duration_since(*idle.get_or_insert(now)) < IDLE;
            fates_changed |= !stays && !entry.fates.lock().is_empty();
            stays
        });
        self.metrics.classes.set(state.classes.len() as i64);
        fates_changed
    }

    /// Plans all classes for a revision. Returns whether fates of patches changed.
    fn revise(&self, snapshot: Arc<Snapshot>) -> bool {
        let started = Instant::now();
        let revision = snapshot.revision();
        self.snapshot.store(snapshot.clone());
        let changed = self.planner.advance(snapshot.clone());
        let movers = self.reclassify(&snapshot, &changed);
        let gone = self.retire();
        let entries: Vec<Arc<ClassEntry>> = self.state.lock().classes.values().cloned().collect();
        let fates_changed = gone | self.plan(&entries);
        self.move_streams(movers, revision);
        self.planned.store(revision, Ordering::Release);
        self.note_content(snapshot.content(), revision);
        self.metrics.revision.set(revision as i64);
        self.metrics.plan.observe(started.elapsed().as_secs_f64());
        self.planner.sweep();
        fates_changed
    }

    fn note_content(&self, content: u128, revision: u64) {
        let mut contents = self.contents.lock();
        if contents.back().is_none_or(|(newest, _)| *newest != content) {
            if contents.len() == REVISIONS {
                contents.pop_front();
            }
            contents.push_back((content, revision));
        }
    }

    /// Plans classes and publishes those whose resources changed. Returns whether fates of patches changed.
    fn plan(&self, entries: &[Arc<ClassEntry>]) -> bool {
        let plans: Vec<&ClassPlan> = entries
            .iter()
            .map(|entry| entry.plan.get_or_init(|| self.planner.class_plan(entry.class.clone())))
            .collect();
        let made = self.planner.all_resources(&plans, self.threads);
        let mut fates_changed = false;
        for ((entry, plan), resources) in entries.iter().zip(plans).zip(made) {
            if entry.streams.resources().is_none_or(|known| known.revision() < resources.revision()) {
                entry.streams.publish(resources);
            }
            let fates = plan.fates();
            let before = std::mem::replace(&mut *entry.fates.lock(), fates.clone());
            let is_new = !Arc::ptr_eq(&before, &fates);
            fates_changed |= is_new && !(before.is_empty() && fates.is_empty());
        }
        if let Some(reviews) = self.reviews.get() {
            reviews.notify_one();
        }
        fates_changed
    }

    /// Sums up what became of patches over all classes: for edits of EnvoyFilters and kinds of proxies that
    /// come or go, which are rare.
    fn sum_fates(&self) {
        let state = self.state.lock();
        let fates = state.classes.values().map(|entry| entry.fates.lock().clone());
        // Most classes share what they have.
        let distinct: BTreeMap<*const Fates, Arc<Fates>> =
            fates.filter(|fates| !fates.is_empty()).map(|fates| (Arc::as_ptr(&fates), fates)).collect();
        drop(state);
        let mut sum = Fates::default();
        distinct.values().for_each(|fates| sum.sum(fates));
        self.fates.send_if_modified(|known| {
            let differs = **known != sum;
            if differs {
                *known = Arc::new(sum);
            }
            differs
        });
    }
}

/// Runs until the fleet is gone.
fn plan_loop(fleet: &Weak<Fleet>, queue: &mpsc::Receiver<Work>) {
    while let Ok(first) = queue.recv() {
        let Some(fleet) = fleet.upgrade() else { return };
        let mut revision = None;
        let mut waiting = Vec::new();
        let mut entries = Vec::new();
        let mut whole = Vec::new();
        for work in std::iter::once(first).chain(queue.try_iter()) {
            match work {
                // Only the newest of several matters: each contains the ones before.
                Work::Revision(snapshot, done) => {
                    revision = Some(snapshot);
                    waiting.push(done);
                }
                Work::Class(entry) => entries.push(entry),
                Work::Whole(node) => whole.push(node),
            }
        }
        let fates_changed = match revision {
            Some(snapshot) => fleet.revise(snapshot),
            None => fleet.plan(&entries),
        };
        if fates_changed {
            fleet.sum_fates();
        }
        for node in whole {
            fleet.make_whole(&node);
        }
        let now = Instant::now();
        for done in waiting {
            let _ = done.send(now);
        }
    }
}

/// The class of a proxy, and the parts of the world that decide it.
fn classify(client: &Client, snapshot: &Snapshot) -> (Hashed<Class>, Reads) {
    let view = snapshot.view();
    let class = Hashed::new(client.class(&view));
    (class, view.into_reads())
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::change::ChangeSet;
    use navarch_model::parse_text;
    use navarch_snapshot::World;

    /// The registry learns what a connected proxy is, and later that it is something else.
    #[tokio::test]
    async fn a_proxy_moves_when_the_registry_knows_it_otherwise() {
        let pod = |address: &str, app: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, labels: {{app: {app}}}}}\nstatus: {{phase: Running, \
                 podIP: {address}}}\n"
            )
        };
        let mut world = World::new(Default::default());
        let mut apply =
            |text: String| world.apply(ChangeSet::upserting(parse_text("pod.yaml", &text).objects));
        let snapshot = apply(pod("10.0.0.8", "other"));
        let metrics = Metrics::new().expect("metrics");
        let fleet = Fleet::start(snapshot, metrics, RouteForm::default()).expect("a thread");
        let id = "sidecar~10.0.0.9~web.shop~shop.svc.cluster.local".to_owned();
        let peer = Peer::plaintext("127.0.0.1:1".parse().expect("an address"));
        let client = Client::of(&Node { id, ..Node::default() }, &peer).expect("a node");
        let mut stream = fleet.join(client);

        let mut check = async |snapshot: Arc<Snapshot>, moves: bool| {
            fleet.publish(snapshot).await;
            assert_eq!(stream.class.has_changed().expect("connected"), moves);
            stream.class.mark_unchanged();
        };
        check(apply(pod("10.0.0.8", "another")), false).await;
        check(apply(pod("10.0.0.9", "web")), true).await;
        check(apply(pod("10.0.0.9", "web-2")), true).await;
        check(apply(pod("10.0.0.8", "web-2")), true).await;
        check(apply(pod("10.0.0.7", "web-2")), false).await;
        drop(stream);
        let state = fleet.state.lock();
        let State { members, by_node, readers, .. } = &*state;
        assert!(members.is_empty() && by_node.is_empty() && readers.is_empty(), "something is left");
    }

    /// An Envoy that does not have the loggers would refuse the listeners that have them.
    #[tokio::test]
    async fn only_envoys_that_can_are_made_to_count() {
        let snapshot = World::new(Default::default()).snapshot().clone();
        let metrics = Metrics::new().expect("metrics");
        let fleet = Fleet::start(snapshot, metrics, RouteForm::Split).expect("a thread");
        let peer = Peer::plaintext("127.0.0.1:1".parse().expect("an address"));
        let delta = Dialect { protocol: navarch_xds::Protocol::Delta, aggregated: true };
        let check = |agent: &str, version: &str, said: &str, counts: bool| {
            let id = "sidecar~10.0.0.9~web.shop~shop.svc.cluster.local".to_owned();
            let (user_agent_name, user_agent_version) = (agent.to_owned(), version.to_owned());
            let mut node = Node { id, user_agent_name, user_agent_version, ..Node::default() };
            node.metadata.insert("PEER_METADATA".to_owned(), said.into());
            let facts = fleet.client(&node, &peer, delta).expect("a node").facts.clone();
            assert_eq!(facts.standard_metrics, counts, "{agent} {version} {said:?}");
        };
        check("envoy", "1.40.0", "c29t", true);
        check("envoy", "1.41.0", "c29t", true);
        check("envoy", "1.38.4", "c29t", false);
        check("envoy", "1.40.0", "", false);
        check("grpc-go", "1.99.0", "c29t", false);
    }

    /// A proxy that connects again before its stream of before has ended still gets its routes whole.
    #[tokio::test]
    async fn routes_stay_whole_until_the_last_stream_of_a_node_ends() {
        let snapshot = World::new(Default::default()).snapshot().clone();
        let metrics = Metrics::new().expect("metrics");
        let fleet = Fleet::start(snapshot, metrics, RouteForm::Split).expect("a thread");
        let id = "sidecar~10.0.0.9~web.shop~shop.svc.cluster.local".to_owned();
        let (user_agent_name, user_agent_version) = ("envoy".to_owned(), "1.99.0".to_owned());
        let node = Node { id, user_agent_name, user_agent_version, ..Node::default() };
        let peer = Peer::plaintext("127.0.0.1:1".parse().expect("an address"));
        let delta = Dialect { protocol: navarch_xds::Protocol::Delta, aggregated: true };
        let client = || fleet.client(&node, &peer, delta).expect("a node");
        let check = |splits: bool| assert_eq!(client().facts.split_routes, splits);

        check(true);
        let before = fleet.join(client());
        fleet.keep_routes_whole(&node.id);
        check(false);
        let again = fleet.join(client());
        drop(before);
        check(false);
        drop(again);
        check(true);
    }
}

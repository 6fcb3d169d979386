//! The fleet: which class each connected proxy belongs to, and what each class gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use navarch_envoy::ProxyResources;
use navarch_model::proxy::{MetadataProblem, ProxyFacts};
use navarch_model::{Fingerprint, Hashed, SpiffeId, TrustDomains};
use navarch_plan::Fates;
use navarch_plan::{Class, ClassPlan, Planner};
use navarch_snapshot::{Part, Reads, Snapshot, View};
use navarch_xds::{Answers, Connection, Discovery, Node, Peer, Question, Rejection, Visible};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::debug::{self, Access};
use crate::identity::Identity;
use crate::metrics::Metrics;

/// How long a class without proxies keeps its plan, so that proxies that reconnect find it.
const IDLE: Duration = Duration::from_secs(120);

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
    /// What became of the patches of EnvoyFilters at the proxies there are.
    fates: watch::Sender<Arc<Fates>>,
}

#[derive(Default)]
struct State {
    classes: HashMap<Fingerprint, Arc<ClassEntry>>,
    members: BTreeMap<u64, Member>,
    /// The members whose class depends on a part.
    readers: HashMap<Part, BTreeSet<u64>>,
    next_member: u64,
}

impl State {
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
    streams: Arc<navarch_xds::Class>,
    /// Connected streams; changed under the lock of the fleet's state.
    members: AtomicUsize,
    idle_since: Mutex<Option<Instant>>,
}

/// Who is at the other end of a stream.
#[derive(Clone, Debug)]
pub struct Client {
    pub facts: ProxyFacts,
    /// Whether secrets may be sent: see [`Client::of`].
    may_have_secrets: bool,
    /// What the node states and nobody can use.
    problems: Vec<MetadataProblem>,
}

impl Client {
    /// What a node states and what its connection proves.
    ///
    /// Secrets go to clients whose identity the transport has proven, and over plaintext to clients on the
    /// same machine only: they could read the configuration directory as well.
    ///
    /// # Errors
    /// If the node is not one that can be served, or claims another namespace or service account than its
    /// connection proves.
    pub fn of(node: &Node, peer: &Peer) -> Result<Self, Rejection> {
        let (mut facts, problems) = facts_of(node)?;
        let may_have_secrets = !peer.identities.is_empty() || peer.address.ip().to_canonical().is_loopback();
        if !peer.identities.is_empty() {
            let claims = |id: &SpiffeId| {
                *id.namespace() == facts.namespace
                    && (facts.service_account.is_empty() || *id.account() == facts.service_account)
            };
            let Some(id) = peer.identities.iter().filter_map(|id| id.parse().ok()).find(claims) else {
                return Err(Rejection::PermissionDenied(format!(
                    "the node claims namespace {} and service account {}, and its certificate is of {}",
                    facts.namespace,
                    if facts.service_account.is_empty() { "(any)" } else { &facts.service_account },
                    peer.identities.join(", ")
                )));
            };
            facts.service_account = id.account().clone();
        }
        Ok(Client { facts, may_have_secrets, problems })
    }

    /// Whether all identities that the connection proves are of this mesh. A root that several meshes share
    /// signs others too.
    fn is_of_mesh(peer: &Peer, snapshot: &Snapshot) -> bool {
        let view = snapshot.view();
        let trust_domains = TrustDomains::of(&view.mesh().config);
        peer.identities.iter().all(|id| id.parse().is_ok_and(|id| trust_domains.contains(&id)))
    }

    /// The namespace that the connection proves, if it is of this mesh.
    pub fn namespace_of(peer: &Peer, snapshot: &Snapshot) -> Option<String> {
        let id = peer.identities.iter().find_map(|id| id.parse::<SpiffeId>().ok());
        id.filter(|_| Self::is_of_mesh(peer, snapshot)).map(|id| id.namespace().to_string())
    }

    fn class(&self, view: &View<'_>) -> Class {
        let class = Class::of(&self.facts, view);
        if self.may_have_secrets { class } else { class.without_secrets() }
    }
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
            fates: watch::Sender::default(),
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
        let (done, wait) = tokio::sync::oneshot::channel();
        if self.work.send(Work::Revision(snapshot, done)).is_ok() {
            // The planning thread ends only with the process.
            let _ = wait.await;
        }
    }

    /// The revision in which the configuration of a class last changed, by the fingerprint of the class.
    pub fn class_revision(&self, client: &Client) -> Option<u64> {
        let (class, _) = classify(client, &self.snapshot.load());
        let state = self.state.lock();
        let entry = state.classes.get(&class.fingerprint())?;
        entry.streams.resources().map(|resources| resources.revision())
    }

    /// What a connected proxy gets now.
    pub fn resources(&self, client: &Client) -> Option<Arc<ProxyResources>> {
        let (class, _) = classify(client, &self.snapshot.load());
        self.state.lock().classes.get(&class.fingerprint())?.streams.resources()
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

    fn join(self: &Arc<Self>, client: Client) -> Connection {
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
        let member = state.next_member;
        state.next_member += 1;
        let fingerprint = entry.class.fingerprint();
        state.read(member, &reads);
        state.members.insert(member, Member { client: Arc::new(client), class: fingerprint, reads, moves });
        Connection { class, own: None, guard: Box::new(Membership { fleet: Arc::downgrade(self), member }) }
    }

    /// The entry of a class; a new one is handed to the planning thread.
    fn entry(&self, state: &mut State, class: Hashed<Class>) -> Arc<ClassEntry> {
        let entry = state.classes.entry(class.fingerprint()).or_insert_with(|| {
            let entry = Arc::new(ClassEntry {
                class: Arc::new(class),
                plan: OnceLock::new(),
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
        let Some(gone) = state.members.remove(&member) else { return };
        state.forget(member, &gone.reads);
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
        let mut movers = Vec::new();
        for id in concerned {
            let Some(client) = state.members.get(&id).map(|member| member.client.clone()) else { continue };
            let (class, reads) = classify(&client, snapshot);
            let entry = self.entry(&mut state, class);
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

    /// Drops classes that have had no proxies for a while.
    fn retire(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.classes.retain(|_, entry| {
            let mut idle = entry.idle_since.lock();
            if entry.members.load(Ordering::Relaxed) > 0 {
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
        let changed = self.planner.advance(snapshot.clone());
        let movers = self.reclassify(&snapshot, &changed);
        self.retire();
        let entries: Vec<Arc<ClassEntry>> = self.state.lock().classes.values().cloned().collect();
        self.plan(&entries);
        self.move_streams(movers, revision);
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
            if entry.streams.resources().is_none_or(|known| known.revision() < resources.revision()) {
                entry.streams.publish(resources);
            }
        }
    }

    /// Sums up what became of patches, if that changed for some class.
    fn sum_fates(&self) {
        let entries: Vec<Arc<ClassEntry>> = self.state.lock().classes.values().cloned().collect();
        let fates: Vec<Arc<Fates>> =
            entries.iter().filter_map(|entry| entry.plan.get()).map(ClassPlan::fates).collect();
        // A sum over classes is for edits of EnvoyFilters and new kinds of proxies only.
        let mut distinct: Vec<&Arc<Fates>> = Vec::new();
        for of_class in fates.iter().filter(|fates| !fates.is_empty()) {
            if !distinct.iter().any(|known| Arc::ptr_eq(known, of_class)) {
                distinct.push(of_class);
            }
        }
        let mut sum = Fates::default();
        distinct.into_iter().for_each(|fates| sum.sum(fates));
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
        fleet.sum_fates();
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// The class of a proxy, and the parts of the world that decide it.
fn classify(client: &Client, snapshot: &Snapshot) -> (Hashed<Class>, Reads) {
    let view = snapshot.view();
    let class = Hashed::new(client.class(&view));
    (class, view.into_reads())
}

/// The facts a node states.
fn facts_of(node: &Node) -> Result<(ProxyFacts, Vec<MetadataProblem>), Rejection> {
    let locality = &node.locality;
    ProxyFacts::read(
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
pub struct FleetDiscovery {
    pub fleet: Arc<Fleet>,
    /// The pages of the admin port, once they are there: they are answered over xDS too.
    pub pages: Arc<OnceLock<Arc<Admin>>>,
    /// Who makes certificates, if somebody does.
    pub identity: Option<Arc<Identity>>,
}

impl Discovery for FleetDiscovery {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>) -> Result<Connection, Rejection> {
        let client = Client::of(node, peer).inspect_err(|error| refused(node, peer, error))?;
        if !Client::is_of_mesh(peer, &self.fleet.snapshot()) {
            let message = format!("{} is not of this mesh's trust domain", peer.identities.join(", "));
            let rejection = Rejection::PermissionDenied(message);
            refused(node, peer, &rejection);
            return Err(rejection);
        }
        tracing::info!(node = %node.id, peer = %peer.address, "connected");
        for problem in &client.problems {
            tracing::warn!(node = %node.id, peer = %peer.address, "{problem}");
        }
        let own = self.identity.as_ref().and_then(|identity| identity.own(peer));
        Ok(Connection { own, ..self.fleet.join(client) })
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Answers>, Rejection> {
        debug::answer(&self.fleet, self.pages.get().map(|pages| &**pages), question)
    }

    fn visible(&self, peer: &Arc<Peer>) -> Result<Visible, Rejection> {
        let access = Access::of(peer, &self.fleet)?;
        Ok(Box::new(move |stream| access.covers(stream)))
    }
}

fn refused(node: &Node, peer: &Peer, error: &Rejection) {
    tracing::warn!(node = %node.id, peer = %peer.address, %error, "refused");
}

#[cfg(test)]
mod tests {
    use navarch_model::change::ChangeSet;
    use navarch_model::parse_text;
    use navarch_snapshot::World;

    use super::*;

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
        let fleet = Fleet::start(snapshot, Metrics::new().expect("metrics")).expect("a thread");
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
        assert!(state.members.is_empty() && state.readers.is_empty(), "something is left of the stream");
    }

    #[test]
    fn a_node_is_what_its_certificate_says() {
        let check = |account: Option<&str>, identities: &[&str], expected: Option<&str>| {
            let mut node =
                Node { id: "sidecar~10.0.0.9~web.shop~shop.svc.cluster.local".to_owned(), ..Node::default() };
            if let Some(account) = account {
                node.metadata.insert("SERVICE_ACCOUNT".to_owned(), account.into());
            }
            let identities = identities.iter().map(|id| (*id).to_owned()).collect();
            let address = "127.0.0.1:1".parse().expect("an address");
            let peer = Peer { identities, ..Peer::plaintext(address) };
            let client = Client::of(&node, &peer);
            let account = client.as_ref().ok().map(|client| &*client.facts.service_account);
            assert_eq!(account, expected, "{:?} {:?}", node.metadata, peer.identities);
        };
        let web = "spiffe://cluster.local/ns/shop/sa/web";
        check(Some("web"), &[web], Some("web"));
        check(None, &[web], Some("web"));
        check(None, &[], Some(""));
        check(Some("admin"), &[web], None);
        check(Some("web"), &["spiffe://cluster.local/ns/other/sa/web"], None);
        check(Some("web"), &["spiffe://cluster.local/ns/shop/sa/web/more"], None);
        check(Some("web"), &["spiffe://cluster.local/web"], None);
        check(Some("web"), &["spiffe://cluster.local/ns/other/sa/x", web], Some("web"));
    }

    #[test]
    fn identities_are_of_the_trust_domain() {
        let snapshot = navarch_snapshot::World::new(Default::default()).snapshot().clone();
        for (id, expected) in [
            ("spiffe://cluster.local/ns/shop/sa/web", true),
            ("spiffe://other/ns/shop/sa/web", false),
            ("spiffe://cluster.local.evil/ns/shop/sa/web", false),
            ("nonsense", false),
        ] {
            let address = "10.0.0.9:1".parse().expect("an address");
            let peer = Peer { identities: vec![id.to_owned()], ..Peer::plaintext(address) };
            assert_eq!(Client::is_of_mesh(&peer, &snapshot), expected, "{id}");
        }
    }

    #[test]
    fn secrets_go_to_proven_identities_and_to_the_same_machine() {
        let node =
            Node { id: "router~10.0.0.9~gw.edge~edge.svc.cluster.local".to_owned(), ..Node::default() };
        let identity = || vec!["spiffe://cluster.local/ns/edge/sa/gw".to_owned()];
        let check = |address: &str, identities: Vec<String>, expected: bool| {
            let peer = Peer { identities, ..Peer::plaintext(address.parse().expect("an address")) };
            let client = Client::of(&node, &peer).expect("a node");
            let snapshot = navarch_snapshot::World::new(Default::default()).snapshot().clone();
            let (class, _) = classify(&client, &snapshot);
            assert_eq!(class.may_have_secrets, expected, "{address}");
        };
        check("127.0.0.1:1", Vec::new(), true);
        check("[::1]:1", Vec::new(), true);
        check("[::ffff:127.0.0.1]:1", Vec::new(), true);
        check("10.0.0.9:1", Vec::new(), false);
        check("10.0.0.9:1", identity(), true);
    }
}

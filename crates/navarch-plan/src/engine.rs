//! The incremental engine: computations that are repeated only when something they read has changed.
//!
//! A [`Gather`] looks at the snapshot through a view that records what it reads, calls translators through
//! the [`Memo`], and may ask for other gathers. The engine remembers its output together with the parts and
//! gathers it read. When a new snapshot arrives, the computations that read a changed part are marked, and
//! whatever was built on them; a marked computation is checked when somebody asks for it, and repeated if a
//! read really differs. If the repetition gives an equal output, nothing above it is repeated.
//!
//! Nobody declares what a computation depends on, so nobody can forget to. The cost is a record per
//! computation of the parts it read (a handful, because parts are coarse) and the rule that a gather may look
//! at nothing but its key and its context.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use navarch_model::{Fingerprint, Hashed, Labels, Name, Origin};
use navarch_snapshot::{ClientLabels, Part, Reads, Scope, Snapshot, View};
use navarch_translate::Pure;
use navarch_translate::patching::{Fates, Reach};
use parking_lot::Mutex;

use crate::composed::SharedLayers;
use crate::memo::Memo;

/// A computation over the snapshot: reads through the context, translates through the memo.
///
/// `run` must depend on nothing but `key` and what it gets from `cx`.
pub trait Gather: Sized + 'static {
    /// Name for metrics and traces.
    const NAME: &'static str;
    /// What differs between clients: the scope, a narrow view of the proxy, a bucket.
    type Key: Hash + Clone + Send + Sync + 'static;
    /// Compared after a repetition: an equal output ends the propagation of a change.
    type Output: PartialEq + Send + Sync + 'static;

    /// Computes the output from scratch.
    fn run(key: &Self::Key, cx: &Cx<'_>) -> Self::Output;

    /// Computes the output, possibly starting from the one before. The result must be what [`Gather::run`]
    /// would return.
    fn rerun(key: &Self::Key, cx: &Cx<'_>, _previous: &Self::Output) -> Self::Output {
        Self::run(key, cx)
    }
}

/// What a gather may use: tracked reads, the memo, other gathers.
pub struct Cx<'e> {
    engine: &'e Engine,
    view: View<'e>,
    read: RefCell<BTreeMap<usize, Child>>,
    used: RefCell<Vec<Output>>,
    /// Labels of clients that the gathers asked for.
    labels_asked: RefCell<BTreeSet<Name>>,
    /// What became of patches, here and in the gathers that were asked for.
    fates: RefCell<Fates>,
}

/// Keys for the clients that one client is to different gathers, which ask for different labels: one for all
/// that ask for the same.
#[derive(Debug)]
pub struct KeysByLabels<K>(Vec<(ClientLabels, Arc<Hashed<K>>)>);

impl<K> Default for KeysByLabels<K> {
    fn default() -> Self {
        KeysByLabels(Vec::new())
    }
}

impl<K: Hash> KeysByLabels<K> {
    /// The key for a client with these known labels.
    pub fn get(&mut self, labels: &ClientLabels, key: impl FnOnce() -> K) -> Arc<Hashed<K>> {
        if let Some((_, known)) = self.0.iter().find(|(known, _)| known == labels) {
            return known.clone();
        }
        let made = Arc::new(Hashed::new(key()));
        self.0.push((labels.clone(), made.clone()));
        made
    }
}

/// What an up-to-date gather has to say.
struct Made<T> {
    output: Arc<T>,
    stamp: u64,
    labels_asked: LabelSet,
    fates: Arc<Fates>,
}

/// Keys of labels of clients.
pub type LabelSet = Arc<BTreeSet<Name>>;

/// A translator's output, whatever its type.
type Output = Arc<dyn Any + Send + Sync>;
/// A gather that was asked for, with the stamp that its output had.
type Child = (Arc<dyn Node>, u64);

impl<'e> Cx<'e> {
    fn new(engine: &'e Engine, view: View<'e>) -> Self {
        Cx {
            engine,
            view,
            read: RefCell::default(),
            used: RefCell::default(),
            labels_asked: RefCell::default(),
            fates: RefCell::default(),
        }
    }

    /// The snapshot; every read is recorded.
    pub fn view(&self) -> &View<'e> {
        &self.view
    }

    /// The output of a translator, from the memo if possible.
    pub fn get<P: Pure>(&self, input: &P::Input) -> Arc<P::Output>
    where
        P::Output: PartialEq,
    {
        let output = self.engine.memo.get::<P>(input);
        self.reuse::<P>(&output);
        output
    }

    /// Uses a translator's output that an earlier run got.
    pub fn reuse<P: Pure>(&self, output: &Arc<P::Output>) {
        if let Some(fates) = P::fates(output) {
            self.fates.borrow_mut().sum(fates);
        }
        // The memo keeps only what is used; this is the use.
        self.used.borrow_mut().push(output.clone());
    }

    /// Says how far a patch got.
    pub fn reach(&self, patch: &Origin, reach: Reach) {
        self.fates.borrow_mut().reach(patch, reach);
    }

    /// The output of another gather, up to date.
    pub fn gather<G: Gather>(&self, key: &G::Key) -> Arc<G::Output> {
        self.made::<G>(key).output
    }

    fn made<G: Gather>(&self, key: &G::Key) -> Made<G::Output> {
        let unit = self.engine.unit::<G>(key);
        let made = unit.output(self.engine);
        let node: Arc<dyn Node> = unit;
        self.read.borrow_mut().insert(address(&node), (node, made.stamp));
        if !made.labels_asked.is_empty() {
            self.labels_asked.borrow_mut().extend(made.labels_asked.iter().cloned());
        }
        if !made.fates.is_empty() {
            self.fates.borrow_mut().sum(&made.fates);
        }
        made
    }

    /// The output of another gather for a client whose labels it does not know before it asks for them, and
    /// those that it was told. Clients that differ in other labels share the output.
    pub fn narrow<G: Gather>(
        &self,
        client: &ClientLabels,
        mut key: impl FnMut(&ClientLabels) -> G::Key,
    ) -> (ClientLabels, Arc<G::Output>) {
        if self.engine.exact {
            return (client.clone(), self.gather::<G>(&key(client)));
        }
        let mut known = ClientLabels::default();
        loop {
            let made = self.made::<G>(&key(&known));
            match known.with_asked(client, &made.labels_asked) {
                Some(more) => known = more,
                None => return (known, made.output),
            }
        }
    }

    /// The output of another gather, and the labels of clients that were asked for to make it.
    pub fn gather_asked<G: Gather>(&self, key: &G::Key) -> (Arc<G::Output>, LabelSet) {
        let made = self.made::<G>(key);
        (made.output, made.labels_asked)
    }

    /// The labels of a client, for [`Cx::narrow`].
    pub fn client_labels(&self, labels: &Labels) -> ClientLabels {
        if self.engine.exact {
            ClientLabels::exact(labels.clone())
        } else {
            ClientLabels::all(labels.clone())
        }
    }

    /// The scope of a client elsewhere, with whom clients in most namespaces share what they get (see
    /// [`Scope::elsewhere`]).
    pub fn elsewhere(&self, scope: &Scope) -> Option<Arc<Hashed<Scope>>> {
        if self.engine.exact {
            return None;
        }
        scope.elsewhere().map(|scope| Arc::new(Hashed::new(scope)))
    }

    /// Whether nothing is left out that a client states, so that it shows if it should not have been.
    pub fn is_exact(&self) -> bool {
        self.engine.exact
    }

    /// Layers that other plans use.
    pub fn layers(&self) -> &'e SharedLayers {
        &self.engine.layers
    }
}

/// Holds the current snapshot and every computation in use.
pub struct Engine {
    snapshot: Arc<Snapshot>,
    memo: Arc<Memo>,
    layers: SharedLayers,
    units: Mutex<HashMap<(TypeId, Fingerprint), Weak<dyn Node>>>,
    /// Who read a part.
    readers: Mutex<HashMap<Part, Vec<Weak<dyn Node>>>>,
    stamps: AtomicU64,
    /// How many computations and translations the last sweep left.
    swept: usize,
    runs: Mutex<BTreeMap<&'static str, u64>>,
    /// What most computations ask of the labels of clients.
    no_labels: LabelSet,
    /// What others ask. There are few of these: configuration looks at the same labels in many places.
    label_sets: Mutex<BTreeSet<LabelSet>>,
    /// What becomes of patches in most computations: there are none.
    no_fates: Arc<Fates>,
    /// What becomes of them in others; many computations say the same.
    fates: Mutex<BTreeSet<Arc<Fates>>>,
    /// Nothing is shared between namespaces, nor between clients with different labels.
    exact: bool,
}

impl Engine {
    /// An engine that has computed nothing yet.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Engine {
            snapshot,
            memo: Arc::default(),
            layers: SharedLayers::default(),
            units: Mutex::default(),
            readers: Mutex::default(),
            stamps: AtomicU64::new(1),
            swept: 0,
            runs: Mutex::default(),
            no_labels: Arc::default(),
            label_sets: Mutex::default(),
            no_fates: Arc::default(),
            fates: Mutex::default(),
            exact: false,
        }
    }

    /// An engine that has computed nothing yet, with a memo that others may have filled.
    pub fn with_memo(snapshot: Arc<Snapshot>, memo: Arc<Memo>) -> Self {
        Engine { memo, ..Engine::new(snapshot) }
    }

    /// An engine that computes everything for each namespace and with all labels of each client: what sharing
    /// must not change. For tests and self-checks.
    pub fn exact(snapshot: Arc<Snapshot>) -> Self {
        Engine { exact: true, ..Engine::new(snapshot) }
    }

    /// Whether nothing is shared.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Moves to another snapshot and marks the computations that read a part that differs.
    ///
    /// Returns the parts. Costs a look at them, and a visit per computation that is marked.
    pub fn advance(&mut self, snapshot: Arc<Snapshot>) -> Vec<Part> {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        let readers = self.readers.get_mut();
        let changed = self.snapshot.changed_since(&before);
        for part in &changed {
            let Some(nodes) = readers.get_mut(part) else { continue };
            nodes.retain(|node| match node.upgrade() {
                Some(node) => {
                    node.mark();
                    true
                }
                None => false,
            });
        }
        changed
    }

    /// Whether what nobody uses may have become as much as what is used: then a look at all of it is paid for
    /// by what was computed since the last one.
    pub fn needs_sweep(&self) -> bool {
        const FEW: usize = 1024;
        self.size() > 2 * self.swept + FEW
    }

    /// Computations and translations, those that nobody uses any more included.
    fn size(&self) -> usize {
        self.units.lock().len() + self.memo.len() + self.layers.count()
    }

    /// Forgets computations and translations that no plan uses any more. Looks at all of them.
    pub fn sweep(&mut self) {
        self.units.get_mut().retain(|_, unit| unit.strong_count() > 0);
        self.readers.get_mut().retain(|_, nodes| {
            nodes.retain(|node| node.strong_count() > 0);
            !nodes.is_empty()
        });
        self.memo.sweep();
        self.layers.sweep();
        self.label_sets.get_mut().retain(|set| Arc::strong_count(set) > 1);
        self.fates.get_mut().retain(|fates| Arc::strong_count(fates) > 1);
        self.swept = self.size();
    }

    /// The snapshot that answers are for.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The cache of translated output.
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    /// Whether a computation in use has read a part.
    pub fn is_read(&self, part: &Part) -> bool {
        let readers = self.readers.lock();
        readers.get(part).is_some_and(|nodes| nodes.iter().any(|node| node.strong_count() > 0))
    }

    /// How often each gather has run, by name.
    pub fn runs(&self) -> BTreeMap<&'static str, u64> {
        self.runs.lock().clone()
    }

    /// Asks something on the side, as a gather would. Nobody is told when the answer changes.
    pub fn ask<T>(&self, question: impl FnOnce(&Cx<'_>) -> T) -> T {
        let view = self.snapshot.view();
        question(&Cx::new(self, view))
    }

    /// A root: keeps `G` of `key` alive, and everything it is built on.
    pub fn root<G: Gather>(&self, key: &G::Key) -> Root<G> {
        Root { unit: self.unit::<G>(key) }
    }

    fn unit<G: Gather>(&self, key: &G::Key) -> Arc<Unit<G>> {
        let id = (TypeId::of::<G>(), Fingerprint::of(key));
        let mut units = self.units.lock();
        if let Some(known) = units.get(&id).and_then(Weak::upgrade)
            && let Ok(unit) = (known as Arc<dyn Any + Send + Sync>).downcast::<Unit<G>>()
        {
            return unit;
        }
        let unit = Arc::new_cyclic(|me: &Weak<Unit<G>>| Unit {
            me: me.clone(),
            key: key.clone(),
            marked: AtomicBool::new(true),
            state: Mutex::new(None),
            parents: Mutex::default(),
        });
        let node: Arc<dyn Node> = unit.clone();
        units.insert(id, Arc::downgrade(&node));
        unit
    }

    /// The set in use that is equal, so that computations that ask for the same share it.
    fn label_set(&self, set: BTreeSet<Name>) -> LabelSet {
        if set.is_empty() {
            return self.no_labels.clone();
        }
        let mut known = self.label_sets.lock();
        if let Some(known) = known.get(&set) {
            return known.clone();
        }
        let made: LabelSet = Arc::new(set);
        known.insert(made.clone());
        made
    }

    /// The fates in use that are equal.
    fn shared_fates(&self, fates: Fates) -> Arc<Fates> {
        if fates.is_empty() {
            return self.no_fates.clone();
        }
        let mut known = self.fates.lock();
        if let Some(known) = known.get(&fates) {
            return known.clone();
        }
        let made = Arc::new(fates);
        known.insert(made.clone());
        made
    }

    /// Shows every output of translators that a gather is made of. Looks at all of them: for questions of
    /// people.
    pub fn outputs<G: Gather>(&self, root: &Root<G>, mut look: impl FnMut(&(dyn Any + Send + Sync))) {
        root.unit.output(self);
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<Arc<dyn Node>> = vec![root.unit.clone()];
        while let Some(node) = waiting.pop() {
            if seen.insert(address(&node)) {
                waiting.extend(node.look(&mut look));
            }
        }
    }

    fn register(&self, node: &Weak<dyn Node>, reads: &Reads, known: Option<&Reads>) {
        let mut readers = self.readers.lock();
        for (part, _) in reads.iter() {
            if known.is_none_or(|known| !known.contains(part)) {
                readers.entry(part.clone()).or_default().push(node.clone());
            }
        }
    }
}

/// A handle on a gather that is asked for again and again.
pub struct Root<G: Gather> {
    unit: Arc<Unit<G>>,
}

impl<G: Gather> Root<G> {
    /// The output for the engine's current snapshot, and a number that changes when the output does.
    pub fn get(&self, engine: &Engine) -> (Arc<G::Output>, u64) {
        let Made { output, stamp, .. } = self.unit.output(engine);
        (output, stamp)
    }

    /// What became of patches in everything that this is built on.
    pub fn fates(&self, engine: &Engine) -> Arc<Fates> {
        self.unit.output(engine).fates
    }

    /// Whether something this was built on may have changed since it was last asked for.
    pub fn is_marked(&self) -> bool {
        self.unit.marked.load(Ordering::Acquire)
    }
}

fn address(node: &Arc<dyn Node>) -> usize {
    Arc::as_ptr(node).addr()
}

/// A computation whatever its types.
trait Node: Any + Send + Sync {
    /// Marks this and everything built on it as possibly out of date.
    fn mark(&self);
    /// Brings the output up to date; returns its stamp.
    fn refresh(&self, engine: &Engine) -> u64;
    /// Shows the translations that this was made of, and returns the gathers.
    fn look(&self, look: &mut dyn FnMut(&(dyn Any + Send + Sync))) -> Vec<Arc<dyn Node>>;
    /// Remembers who builds on this.
    fn add_parent(&self, parent: Weak<dyn Node>);
}

struct Unit<G: Gather> {
    me: Weak<Unit<G>>,
    key: G::Key,
    marked: AtomicBool,
    /// Locked while computing, so that two plans that want the same output wait for one computation. Gathers
    /// form a directed acyclic graph, so the waiting does too.
    state: Mutex<Option<State<G::Output>>>,
    parents: Mutex<Vec<Weak<dyn Node>>>,
}

struct State<T> {
    output: Arc<T>,
    stamp: u64,
    reads: Reads,
    /// In the order of their addresses. Slices, as there are very many of these and they do not change.
    children: Box<[Child]>,
    /// Labels of clients that this and the gathers below it asked for. Nearly always the empty set of the
    /// engine.
    labels_asked: LabelSet,
    /// What became of patches, here and in the gathers below. Nearly always the empty value of the engine.
    fates: Arc<Fates>,
    /// Keeps the translations alive that the output was made of, so that a repetition finds them in the memo.
    used: Box<[Output]>,
}

impl<T> State<T> {
    fn is_current(&self, engine: &Engine) -> bool {
        self.reads.hold_in(&engine.snapshot)
            && self.children.iter().all(|(child, stamp)| child.refresh(engine) == *stamp)
    }

    fn made(&self) -> Made<T> {
        Made {
            output: self.output.clone(),
            stamp: self.stamp,
            labels_asked: self.labels_asked.clone(),
            fates: self.fates.clone(),
        }
    }

    fn has_child(&self, node: &Arc<dyn Node>) -> bool {
        self.children.binary_search_by_key(&address(node), |(child, _)| address(child)).is_ok()
    }
}

impl<G: Gather> Unit<G> {
    fn output(&self, engine: &Engine) -> Made<G::Output> {
        let mut state = self.state.lock();
        let marked = self.marked.swap(false, Ordering::AcqRel);
        if let Some(known) = &*state
            && (!marked || known.is_current(engine))
        {
            return known.made();
        }
        let next = self.compute(engine, state.take());
        let made = next.made();
        *state = Some(next);
        made
    }

    fn compute(&self, engine: &Engine, previous: Option<State<G::Output>>) -> State<G::Output> {
        *engine.runs.lock().entry(G::NAME).or_default() += 1;
        let cx = Cx::new(engine, engine.snapshot.view());
        let output = match &previous {
            Some(state) => G::rerun(&self.key, &cx, &state.output),
            None => G::run(&self.key, &cx),
        };
        let mut labels_asked = cx.labels_asked.into_inner();
        labels_asked.append(&mut cx.view.labels_asked());
        let labels_asked = engine.label_set(labels_asked);
        let fates = engine.shared_fates(cx.fates.into_inner());
        let reads = cx.view.into_reads();
        let children: Box<[Child]> = cx.read.into_inner().into_values().collect();
        let used = cx.used.into_inner().into_boxed_slice();
        let me: Weak<dyn Node> = self.me.clone();
        engine.register(&me, &reads, previous.as_ref().map(|state| &state.reads));
        for (child, _) in &children {
            if previous.as_ref().is_none_or(|state| !state.has_child(child)) {
                child.add_parent(me.clone());
            }
        }
        match previous {
            Some(state)
                if *state.output == output && state.labels_asked == labels_asked && state.fates == fates =>
            {
                State { reads, children, used, ..state }
            }
            _ => State {
                output: Arc::new(output),
                stamp: engine.stamps.fetch_add(1, Ordering::Relaxed),
                reads,
                children,
                labels_asked,
                fates,
                used,
            },
        }
    }
}

impl<G: Gather> Node for Unit<G> {
    fn mark(&self) {
        if self.marked.swap(true, Ordering::AcqRel) {
            return;
        }
        let parents = {
            let mut parents = self.parents.lock();
            parents.retain(|parent| parent.strong_count() > 0);
            parents.clone()
        };
        for parent in parents.iter().filter_map(Weak::upgrade) {
            parent.mark();
        }
    }

    fn refresh(&self, engine: &Engine) -> u64 {
        self.output(engine).stamp
    }

    fn look(&self, look: &mut dyn FnMut(&(dyn Any + Send + Sync))) -> Vec<Arc<dyn Node>> {
        let state = self.state.lock();
        let Some(state) = &*state else { return Vec::new() };
        state.used.iter().for_each(|output| look(&**output));
        state.children.iter().map(|(child, _)| child.clone()).collect()
    }

    fn add_parent(&self, parent: Weak<dyn Node>) {
        let mut parents = self.parents.lock();
        // Settings that never change are never marked, so parents that are gone are looked for here as well,
        // at a price that grows with the parents there are.
        if parents.len() == parents.capacity() {
            parents.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&parent));
        }
        parents.push(parent);
    }
}

//! What the resources of a type are composed of: what all clients have in common, what is shared with other
//! classes, and what is a class's own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use navarch_envoy::{Layer, Resource, ResourceSet};
use navarch_model::{Fingerprint, Name};
use navarch_snapshot::{BUCKETS, Bucket, BucketSet};
use parking_lot::Mutex;

/// The resources that stem from the hosts of one bucket.
pub type BucketResources = Vec<Arc<Resource>>;

/// Resources in the pieces in which they change: one per bucket, or as many as the type likes, always in the
/// same order.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Arc<[Arc<BucketResources>]>);

impl Pieces {
    /// A piece for each bucket that is in the set; the others have nothing.
    pub fn of_buckets(set: BucketSet, piece: impl FnMut(Bucket) -> Arc<BucketResources>) -> Self {
        in_buckets(set, &Arc::default(), piece).collect()
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<BucketResources>> {
        self.0.iter()
    }

    /// The piece at a position.
    pub fn get(&self, index: usize) -> Option<&Arc<BucketResources>> {
        self.0.get(index)
    }

    /// These pieces with those of some buckets replaced. A piece of equal content stays what it is in memory.
    #[must_use]
    pub fn replacing(&self, set: BucketSet, mut piece: impl FnMut(Bucket) -> Arc<BucketResources>) -> Self {
        let replaced = (0..BUCKETS).zip(self.iter()).map(|(bucket, known)| {
            let own = set.contains(bucket).then(|| piece(bucket));
            own.filter(|own| own != known).unwrap_or_else(|| known.clone())
        });
        replaced.collect()
    }

    /// How many pieces differ in memory.
    fn distance(&self, other: &Self) -> usize {
        if self.0.len() != other.0.len() {
            return usize::MAX;
        }
        self.pairs(other).filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs)).count()
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.len() == other.0.len()
                && self.pairs(other).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
    }

    fn pairs<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a Arc<BucketResources>, &'a Arc<BucketResources>)> {
        self.0.iter().zip(other.0.iter())
    }
}

impl FromIterator<Arc<BucketResources>> for Pieces {
    fn from_iter<I: IntoIterator<Item = Arc<BucketResources>>>(pieces: I) -> Self {
        Pieces(pieces.into_iter().collect())
    }
}

/// A change leaves most pieces what they are in memory; only the others are looked at.
impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.pairs(other).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs) || ours == theirs)
    }
}

/// A value for each bucket in order: that of the bucket if it is in the set, else `nothing`.
pub fn in_buckets<T: Clone>(
    set: BucketSet,
    nothing: &T,
    mut value: impl FnMut(Bucket) -> T,
) -> impl Iterator<Item = T> {
    (0..BUCKETS).map(move |bucket| if set.contains(bucket) { value(bucket) } else { nothing.clone() })
}

/// What a bucket has for a client, and the namespaces whose clients may have something else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InBucket {
    pub resources: Arc<BucketResources>,
    pub asked: BTreeSet<Name>,
}

/// By namespace, the buckets in which its clients may have something else than a client elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffersFor(BTreeMap<Name, BucketSet>);

impl DiffersFor {
    /// Notes the namespaces of a bucket.
    pub fn add(&mut self, namespaces: &BTreeSet<Name>, bucket: Bucket) {
        for namespace in namespaces {
            self.0.entry(namespace.clone()).or_default().insert(bucket);
        }
    }

    /// The buckets that are to be computed for a namespace by itself.
    pub fn of(&self, namespace: &Name) -> BucketSet {
        self.0.get(namespace).copied().unwrap_or_default()
    }
}

/// The pieces of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub pieces: Pieces,
    /// For a client elsewhere: where others have something else.
    pub asked: DiffersFor,
    /// The pieces of a client elsewhere, from which these differ in a few buckets.
    pub common: Option<Pieces>,
}

/// Of the state before and the common one, the one to start from. What is made from the common one goes on
/// sharing with everybody who does the same, so it is preferred as long as there is little to change.
pub fn start<T>(previous: Option<T>, common: Option<T>, distance: impl Fn(&T) -> usize) -> Option<T> {
    const LITTLE: usize = 32;
    let (Some(before), Some(shared)) = (&previous, &common) else { return previous.or(common) };
    let to_change = distance(shared);
    if to_change <= LITTLE || to_change <= distance(before) { common } else { previous }
}

/// All resources of one type for one class.
#[derive(Clone, Debug, Default)]
pub struct Composed {
    /// Shared with other classes.
    pub shared: Pieces,
    /// What a client elsewhere has in place of `shared`, if it differs in a few pieces.
    pub common: Option<Pieces>,
    /// What only this class has.
    pub own: BucketResources,
}

impl Composed {
    /// Resources of the class alone.
    pub fn own(own: BucketResources) -> Self {
        Composed { own, ..Composed::default() }
    }

    /// Resources that are shared with other classes, and no others.
    pub fn shared(shared: Pieces) -> Self {
        Composed { shared, ..Composed::default() }
    }

    /// What a client sees, and resources of the class alone.
    pub fn seen(seen: &Seen, own: BucketResources) -> Self {
        Composed { shared: seen.pieces.clone(), common: seen.common.clone(), own }
    }
}

/// A layer together with the pieces it was made of.
#[derive(Debug)]
pub struct SharedLayer {
    pieces: Pieces,
    layer: Arc<Layer>,
}

impl SharedLayer {
    fn of(pieces: &Pieces) -> Self {
        let layer = Layer::new(pieces.iter().flat_map(|piece| piece.iter().cloned()));
        SharedLayer { pieces: pieces.clone(), layer: Arc::new(layer) }
    }

    /// Makes a layer from the one before: pieces that are the same in memory are not looked at.
    fn update(&self, pieces: &Pieces) -> Self {
        if self.pieces.0.len() != pieces.0.len() {
            return Self::of(pieces);
        }
        let pairs = || self.pieces.pairs(pieces).filter(|(old, new)| !Arc::ptr_eq(old, new));
        let there: BTreeMap<&str, &Arc<Resource>> =
            pairs().flat_map(|(_, new)| new.iter()).map(|resource| (&**resource.name(), resource)).collect();
        let before = pairs().flat_map(|(old, _)| old.iter()).map(|resource| &**resource.name());
        let gone = before.filter(|name| !there.contains_key(name));
        let layer = self.layer.update(there.values().map(|resource| (*resource).clone()), gone);
        SharedLayer { pieces: pieces.clone(), layer: Arc::new(layer) }
    }
}

/// Layers in use, so that classes made of the same pieces share one layer and the comparisons made on it.
#[derive(Debug, Default)]
pub struct SharedLayers {
    /// By the addresses of the pieces. A layer holds its pieces, so the addresses of a living one cannot be
    /// reused.
    layers: Mutex<HashMap<Fingerprint, Weak<SharedLayer>>>,
}

impl SharedLayers {
    /// The layer made of these pieces; `previous` and `common` are what to start from if nobody has it yet.
    pub fn get(
        &self,
        pieces: &Pieces,
        previous: Option<&Arc<SharedLayer>>,
        common: Option<&Arc<SharedLayer>>,
    ) -> Arc<SharedLayer> {
        let same = |layer: &&Arc<SharedLayer>| layer.pieces.is_same(pieces);
        if let Some(known) = common.filter(same).or(previous.filter(same)) {
            return known.clone();
        }
        let addresses: Vec<usize> = pieces.iter().map(|piece| Arc::as_ptr(piece).addr()).collect();
        let key = Fingerprint::of(&addresses);
        let known = self.layers.lock().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.pieces.is_same(pieces)) {
            return known;
        }
        let made = Arc::new(match start(previous, common, |layer| layer.pieces.distance(pieces)) {
            Some(known) => known.update(pieces),
            None => SharedLayer::of(pieces),
        });
        self.layers.lock().insert(key, Arc::downgrade(&made));
        made
    }

    /// Number of layers, dead ones included.
    pub fn count(&self) -> usize {
        self.layers.lock().len()
    }

    /// Forgets layers that nobody uses.
    pub fn sweep(&self) {
        self.layers.lock().retain(|_, layer| layer.strong_count() > 0);
    }
}

/// Resources of one type for one class: the pieces and the set they make.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Kept, so that it need not be made again when it changes.
    common: Option<Arc<SharedLayer>>,
    shared: Arc<SharedLayer>,
    set: ResourceSet,
}

impl Planned {
    /// Makes the set, starting from the one before where there is one.
    pub fn new(composed: Composed, layers: &SharedLayers, previous: Option<&Planned>) -> Self {
        let common = composed
            .common
            .map(|pieces| layers.get(&pieces, previous.and_then(|previous| previous.common.as_ref()), None));
        let shared = layers.get(&composed.shared, previous.map(|previous| &previous.shared), common.as_ref());
        let local = Arc::new(Layer::new(composed.own));
        let set = ResourceSet::new([shared.layer.clone(), local]);
        Planned { common, shared, set }
    }

    /// The resources.
    pub fn set(&self) -> &ResourceSet {
        &self.set
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        let layer = |planned: &Self| planned.common.as_ref().map(Arc::as_ptr);
        self.set == other.set && layer(self) == layer(other)
    }
}

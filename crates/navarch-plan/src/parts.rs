//! What a gather of a resource type returns: resources by bucket, and those of no bucket.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use navarch_envoy::{Layer, Resource, ResourceSet};
use navarch_model::Fingerprint;
use navarch_snapshot::{BUCKETS, Bucket, BucketSet};
use parking_lot::Mutex;

/// The resources that stem from the hosts of one bucket.
pub type BucketResources = Vec<Arc<Resource>>;

/// Resources in the pieces in which they change: one per bucket, or as many as the type likes, always in the same order.
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

/// All resources of one type for one class.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Shared with other classes.
    pub shared: Pieces,
    /// What only this class has.
    pub local: BucketResources,
}

impl Parts {
    /// Parts without buckets.
    pub fn local(local: BucketResources) -> Self {
        Parts { shared: Pieces::default(), local }
    }

    /// Parts without resources of the class alone.
    pub fn shared(shared: Pieces) -> Self {
        Parts { shared, local: BucketResources::new() }
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
        let gone = pairs().flat_map(|(old, _)| old.iter()).map(|resource| &**resource.name());
        let there = pairs().flat_map(|(_, new)| new.iter().cloned());
        let layer = self.layer.update([], gone).update(there, []);
        SharedLayer { pieces: pieces.clone(), layer: Arc::new(layer) }
    }
}

/// Layers in use, so that classes made of the same pieces share one layer and the comparisons made on it.
#[derive(Debug, Default)]
pub struct SharedLayers {
    /// By the addresses of the pieces. A layer holds its pieces, so the addresses of a living one cannot be reused.
    layers: Mutex<HashMap<Fingerprint, Weak<SharedLayer>>>,
}

impl SharedLayers {
    /// The layer made of these pieces; `previous` is where to start from if nobody has it yet.
    pub fn get(&self, pieces: &Pieces, previous: Option<&Arc<SharedLayer>>) -> Arc<SharedLayer> {
        if let Some(previous) = previous.filter(|previous| previous.pieces.is_same(pieces)) {
            return previous.clone();
        }
        let addresses: Vec<usize> = pieces.iter().map(|piece| Arc::as_ptr(piece).addr()).collect();
        let key = Fingerprint::of(&addresses);
        let known = self.layers.lock().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.pieces.is_same(pieces)) {
            return known;
        }
        let made = Arc::new(match previous {
            Some(previous) => previous.update(pieces),
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
    shared: Arc<SharedLayer>,
    set: ResourceSet,
}

impl Planned {
    /// Makes the set, starting from the one before where there is one.
    pub fn new(parts: Parts, layers: &SharedLayers, previous: Option<&Planned>) -> Self {
        let shared = layers.get(&parts.shared, previous.map(|previous| &previous.shared));
        let local = Arc::new(Layer::new(parts.local));
        let set = ResourceSet::new([shared.layer.clone(), local]);
        Planned { shared, set }
    }

    /// The resources.
    pub fn set(&self) -> &ResourceSet {
        &self.set
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.set == other.set
    }
}

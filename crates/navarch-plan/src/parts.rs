//! What a gather of a resource type returns: resources by bucket, and those of no bucket.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use navarch_envoy::{Layer, Resource, ResourceSet};
use navarch_model::Fingerprint;
use parking_lot::Mutex;

/// The resources that stem from the hosts of one bucket.
pub type BucketResources = Vec<Arc<Resource>>;

/// All resources of one type for one class, in the pieces in which they change.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Shared with other classes: a piece per bucket, or as many as the type likes, always in the same order.
    pub buckets: Vec<Arc<BucketResources>>,
    /// What only this class has.
    pub local: BucketResources,
}

impl Parts {
    /// Parts without buckets.
    pub fn local(local: BucketResources) -> Self {
        Parts { buckets: Vec::new(), local }
    }
}

/// A layer together with the pieces it was made of.
#[derive(Debug)]
pub struct SharedLayer {
    buckets: Vec<Arc<BucketResources>>,
    layer: Arc<Layer>,
}

impl SharedLayer {
    fn of(buckets: &[Arc<BucketResources>]) -> Self {
        let layer = Layer::new(buckets.iter().flat_map(|bucket| bucket.iter().cloned()));
        SharedLayer { buckets: buckets.to_vec(), layer: Arc::new(layer) }
    }

    /// Makes a layer from the one before: pieces that are the same in memory are not looked at.
    fn update(&self, buckets: &[Arc<BucketResources>]) -> Self {
        if self.buckets.len() != buckets.len() {
            return Self::of(buckets);
        }
        let pairs = || self.buckets.iter().zip(buckets).filter(|(old, new)| !Arc::ptr_eq(old, new));
        let gone = pairs().flat_map(|(old, _)| old.iter()).map(|resource| &**resource.name());
        let there = pairs().flat_map(|(_, new)| new.iter().cloned());
        let layer = self.layer.update([], gone).update(there, []);
        SharedLayer { buckets: buckets.to_vec(), layer: Arc::new(layer) }
    }

    fn is_made_of(&self, buckets: &[Arc<BucketResources>]) -> bool {
        self.buckets.len() == buckets.len()
            && self.buckets.iter().zip(buckets).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
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
    pub fn get(
        &self,
        buckets: &[Arc<BucketResources>],
        previous: Option<&Arc<SharedLayer>>,
    ) -> Arc<SharedLayer> {
        let addresses: Vec<usize> = buckets.iter().map(|bucket| Arc::as_ptr(bucket).addr()).collect();
        let key = Fingerprint::of(&addresses);
        let known = self.layers.lock().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.is_made_of(buckets)) {
            return known;
        }
        let made = Arc::new(match previous {
            Some(previous) => previous.update(buckets),
            None => SharedLayer::of(buckets),
        });
        self.layers.lock().insert(key, Arc::downgrade(&made));
        made
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
        let shared = layers.get(&parts.buckets, previous.map(|previous| &previous.shared));
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

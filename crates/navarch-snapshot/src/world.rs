//! `World`: the one writer.

use std::sync::Arc;

use navarch_model::Name;
use navarch_model::change::ChangeSet;
use navarch_model::mesh::MeshSettings;

use crate::snapshot::Snapshot;

/// What the world is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the cluster that objects belong to.
    pub cluster_id: Name,
    /// Domain suffix of Kubernetes services.
    pub domain: Name,
    /// Mesh settings from outside; without them the ConfigMap `istio` of the namespace `istio-system` counts, if there is one.
    pub mesh: Option<MeshSettings>,
}

impl Default for Options {
    fn default() -> Self {
        Options { cluster_id: Name::from("Kubernetes"), domain: Name::from("cluster.local"), mesh: None }
    }
}

/// All objects, and what is derived from them. There is one writer; readers get snapshots.
#[derive(Debug)]
pub struct World {
    current: Arc<Snapshot>,
}

impl World {
    /// An empty world.
    pub fn new(options: Options) -> World {
        World { current: Arc::new(Snapshot::empty(options.mesh.unwrap_or_default())) }
    }

    /// The latest snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Makes changes and returns the snapshot after them. The revision grows by one unless nothing changed.
    pub fn apply(&mut self, change: ChangeSet) -> Arc<Snapshot> {
        let mut next = (*self.current).clone();
        for object in &change.upserts {
            next.objects.insert(object.key.clone(), object.clone());
            next.tables.set(object);
        }
        for key in &change.removals {
            next.objects.remove(key);
            next.tables.remove(key);
        }
        next.tables.settle();
        next.revision += 1;
        self.current = Arc::new(next);
        self.current.clone()
    }
}

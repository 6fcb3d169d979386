//! `ChangeSet`: what a source tells the world.

use std::sync::Arc;

use crate::mesh::MeshSettings;
use crate::object::{Object, ObjectKey};

/// Changes that take effect together: the step from one consistent state of a source to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSet {
    /// New and changed objects. If a key is there twice, the last one counts.
    pub upserts: Vec<Arc<Object>>,
    /// Objects that are gone. A key that is also among the upserts stays.
    pub removals: Vec<ObjectKey>,
    /// Mesh settings that were given from outside, such as a file. Once given, the ConfigMap of the mesh no longer counts.
    pub mesh: Option<MeshSettings>,
}

impl ChangeSet {
    /// A change set that only adds or replaces objects.
    pub fn upserting(objects: impl IntoIterator<Item = Object>) -> Self {
        ChangeSet { upserts: objects.into_iter().map(Arc::new).collect(), ..ChangeSet::default() }
    }

    /// A change set that only removes objects.
    pub fn removing(keys: impl IntoIterator<Item = ObjectKey>) -> Self {
        ChangeSet { removals: keys.into_iter().collect(), ..ChangeSet::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.mesh.is_none()
    }
}

//! `ChangeSet`: what the world is told.

use std::sync::Arc;

use crate::fact::{Fact, FactKey};
use crate::object::{Object, ObjectKey};

/// Changes that take effect together: the step from one consistent state of the sources to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSet {
    /// New and changed objects. If a key is there twice, the last one counts.
    pub upserts: Vec<Arc<Object>>,
    /// Objects that are gone. A key that is also among the upserts stays.
    pub removals: Vec<ObjectKey>,
    /// New and changed facts. If a key is there twice, the last one counts.
    pub facts: Vec<Fact>,
    /// Facts that hold no longer. A key that is also among the facts stays.
    pub retracted: Vec<FactKey>,
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

    /// A change set that only states facts.
    pub fn stating(facts: impl IntoIterator<Item = Fact>) -> Self {
        ChangeSet { facts: facts.into_iter().collect(), ..ChangeSet::default() }
    }

    pub fn is_empty(&self) -> bool {
        let ChangeSet { upserts, removals, facts, retracted } = self;
        upserts.is_empty() && removals.is_empty() && facts.is_empty() && retracted.is_empty()
    }
}

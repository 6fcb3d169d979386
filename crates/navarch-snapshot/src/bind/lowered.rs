//! What objects are lowered to.

use std::sync::Arc;

use navarch_model::finding::Finding;
use navarch_model::listener::ListenerSet;
use navarch_model::route::{Parent, RouteSet};
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

use super::uses;
use crate::bound::{BoundRule, DestinationUse};
use crate::outcome::Outcome;
use crate::registry::store::Reader;
use crate::registry::visibility;

/// The routes of an object, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lowered {
    pub sets: Vec<Arc<Hashed<RouteSet>>>,
    /// Where they send the traffic of sidecars.
    pub uses: Vec<Arc<Hashed<DestinationUse>>>,
    /// Listeners that the object is attached to, whether it has routes there that can be used or not.
    pub attached: Vec<Parent>,
    pub findings: Vec<Finding>,
    pub outcome: Outcome,
}

/// The listeners of an object, what became of it, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoweredListeners {
    pub set: Option<Arc<Hashed<ListenerSet>>>,
    pub outcome: Outcome,
    pub findings: Vec<Finding>,
}

/// Rules for hosts, and what became of the object that states them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoweredRules {
    pub rules: Vec<Arc<Hashed<BoundRule>>>,
    pub outcome: Outcome,
}

impl Lowered {
    /// Sets with which nothing is wrong.
    pub fn of(sets: Vec<RouteSet>) -> Self {
        let uses = sets.iter().filter(|set| set.for_mesh()).flat_map(uses::destination_uses).collect();
        let sets = sets.into_iter().map(Hashed::new).map(Arc::new).collect();
        Lowered { sets, uses, ..Lowered::default() }
    }
}

/// Who may use the routes of an object in a namespace, by what it states and the defaults of the mesh.
pub fn exported(reader: &Reader<'_>, export_to: &[String], namespace: &Name) -> Visibility {
    let defaults = &reader.mesh().config.default_virtual_service_export_to;
    visibility(export_to.iter().map(String::as_str), defaults, namespace)
}

//! Outcomes: what a unit knows of what became of its object.

use std::sync::Arc;

use navarch_model::object::ObjectKey;
use navarch_model::status::{Condition, ListenerStatus, ParentStatus};

/// What a unit knows of its object beside whether it is in use. Empty for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub conditions: Vec<Condition>,
    pub parents: Vec<ParentStatus>,
    /// Without the numbers of routes, which are counted for whoever asks.
    pub listeners: Vec<ListenerStatus>,
    /// Somebody else tells what becomes of the object.
    pub foreign: bool,
}

impl Outcome {
    pub fn is_empty(&self) -> bool {
        let Outcome { conditions, parents, listeners, foreign } = self;
        conditions.is_empty() && parents.is_empty() && listeners.is_empty() && !foreign
    }
}

/// Outcomes that say something, by object.
pub(crate) type Outcomes = imbl::OrdMap<ObjectKey, Arc<Outcome>>;

//! Outcomes: what a unit knows of what became of its object.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::object::ObjectKey;
use navarch_model::route::Parent;
use navarch_model::status::{Condition, ConditionType, ListenerStatus, ParentStatus};

use crate::bind::Lowered;
use crate::registry::store::Reader;

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

/// What becomes of routes: with their delegates, and at each gateway that they are attached to.
pub(crate) fn of_routes(reader: &Reader<'_>, routes: &Lowered, findings: &[Finding]) -> Outcome {
    let condition = |ty: ConditionType, reason, finding: &Finding| {
        Condition::new(ty, !ty.is_good(), reason, format!("{}: {}", finding.path, finding.message))
    };
    let missing = findings.iter().find(|finding| finding.code == Code::InvalidReference);
    let left_out = findings.iter().find(|finding| finding.code == Code::Unreachable);
    let missing = missing.map(|found| condition(ConditionType::ResolvedRefs, "DelegateNotUsable", found));
    let left_out = left_out.map(|found| condition(ConditionType::PartiallyInvalid, "RoutesLeftOut", found));

    let gateways = routes.sets.iter().flat_map(|set| &set.parents).filter_map(Parent::gateway);
    let gateways: BTreeSet<&ObjectKey> = gateways.collect();
    let parents = gateways.into_iter().map(|parent| {
        let condition = match reader.exists(parent) {
            true => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
            false => {
                let message = format!("there is no {parent}");
                Condition::new(ConditionType::Accepted, false, "NoMatchingParent", message)
            }
        };
        ParentStatus { parent: parent.clone(), section: None, port: None, conditions: vec![condition] }
    });
    Outcome {
        conditions: missing.into_iter().chain(left_out).collect(),
        parents: parents.collect(),
        ..Outcome::default()
    }
}

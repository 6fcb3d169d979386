//! Secrets of sidecars.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::secrets::{named, of_own_rules};

/// The secrets of a sidecar: those that rules of its own namespace name. What is written in another namespace
/// must not hand a workload secrets that its namespace did not mean for it.
pub fn secrets(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, _scope: &Arc<Hashed<Scope>>) -> Composed {
    named(cx, class, of_own_rules(cx, &class.facts.namespace))
}

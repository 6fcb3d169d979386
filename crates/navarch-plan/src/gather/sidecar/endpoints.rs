//! Endpoints of sidecars.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use crate::class::Class;
use crate::engine::Cx;
use crate::gather::shared;
use crate::parts::Parts;

/// The endpoints of a sidecar.
pub fn endpoints(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    shared::endpoints::endpoints(cx, class, scope, false)
}

//! Endpoints of sidecars.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared;
use crate::gather::shared::upstream::FurtherClusters;

/// The endpoints of a sidecar.
pub fn endpoints(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    shared::endpoints::endpoints(cx, class, scope, FurtherClusters::default())
}

//! Endpoints of gateways.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use super::selected::further_clusters;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared;

/// The endpoints of a gateway.
pub fn endpoints(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    shared::endpoints::endpoints(cx, class, scope, further_clusters(cx, class))
}

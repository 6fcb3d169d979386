//! Clusters of gateways.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use super::selected::further_clusters;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::clusters::Clusters;

/// The clusters of a gateway.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let clusters = Clusters::new(cx, class, scope);
    clusters.with_services(further_clusters(cx, class), clusters.fixed())
}

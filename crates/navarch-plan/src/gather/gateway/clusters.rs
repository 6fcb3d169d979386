//! Clusters of gateways.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use super::selected::ForwardsMeshTls;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::clusters::Clusters;

/// The clusters of a gateway.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let clusters = Clusters::new(cx, class, scope);
    let sni_clusters = *cx.gather::<ForwardsMeshTls>(&class.facts.labels);
    clusters.with_services(sni_clusters, clusters.fixed())
}

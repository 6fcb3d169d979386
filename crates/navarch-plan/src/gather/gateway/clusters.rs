//! Clusters of gateways.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use super::selected::{BackendCertificate, further_clusters};
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::clusters::Clusters;

/// The clusters of a gateway.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let mut clusters = Clusters::new(cx, class, scope);
    clusters.view.backend_certificate = (*cx.gather::<BackendCertificate>(class)).clone();
    clusters.with_services(further_clusters(cx, class), clusters.fixed())
}

//! Gathering: from what a class can see to the inputs of translators, by the role of the proxy, then by the
//! type of resource.
//!
//! A gather decides *what* is translated (which services, which rule for each); *how* is the translators'
//! business. What several roles have in common is in [`shared`]; a role never looks into another.

pub mod gateway;
pub mod shared;
pub mod sidecar;
pub mod waypoint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::proxy::ProxyKind;
use navarch_model::{Hashed, Origin};
use navarch_snapshot::Scope;

use self::shared::listeners::ChainOrigin;
use crate::class::Class;
use crate::engine::Cx;

/// What the filter chains of a listener were made from, as far as somebody wrote rules or listeners for them.
pub(crate) fn chain_origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    listener: &str,
) -> Vec<ChainOrigin> {
    match class.facts.kind {
        ProxyKind::Sidecar => sidecar::listeners::origins(cx, class, scope, listener),
        ProxyKind::Router => gateway::listeners::origins(cx, class, scope, listener),
        ProxyKind::Waypoint | ProxyKind::Ztunnel => Vec::new(),
    }
}

/// The rules that the virtual hosts of a route configuration were made from, by name of the virtual host or
/// by domain.
pub(crate) fn route_origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    configuration: &str,
) -> BTreeMap<String, BTreeSet<Origin>> {
    match class.facts.kind {
        ProxyKind::Sidecar => sidecar::routes::origins(cx, class, scope, configuration),
        ProxyKind::Router => gateway::routes::origins(cx, class, scope, configuration),
        ProxyKind::Waypoint | ProxyKind::Ztunnel => BTreeMap::new(),
    }
}

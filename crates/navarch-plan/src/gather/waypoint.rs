//! What waypoints get: everything about services, and nothing yet of the traffic that they are to take.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;

use super::shared;
use super::shared::clusters::Clusters;
use super::shared::upstream::FurtherClusters;
use crate::class::Class;
use crate::composed::{BucketResources, Composed};
use crate::engine::Cx;

/// The clusters of a waypoint.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    Clusters::new(cx, class, scope).with_services(FurtherClusters::default(), BucketResources::new())
}

/// The endpoints of a waypoint.
pub fn endpoints(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    shared::endpoints::endpoints(cx, class, scope, FurtherClusters::default())
}

/// The secrets of a waypoint: those of the rules that it may use.
pub fn secrets(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, _scope: &Arc<Hashed<Scope>>) -> Composed {
    shared::secrets::named(cx, class, shared::secrets::of_visible_rules(cx, &class.facts.namespace))
}

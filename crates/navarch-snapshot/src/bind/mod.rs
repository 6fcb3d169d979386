//! From rules as they are written to rules bound to hosts: names qualified, delegates merged, visibility resolved.
//!
//! Every API of routes ends here: what it says becomes sets of routes, and nobody behind this module knows
//! which API it was.

mod backend_policy;
mod delegate;
mod gateway;
mod gateway_api;
mod lower;
mod uses;
mod virtual_service;

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::finding::Finding;
use navarch_model::kinds::Kind;
use navarch_model::listener::ListenerSet;
use navarch_model::networking::DestinationRule;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::RouteSet;
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

pub(crate) use gateway_api::serves_controller;

use crate::bound::{BoundRule, DestinationUse};
use crate::host::qualify;
use crate::outcome::Outcome;
use crate::registry::store::{Reader, Settings};
use crate::tables::typed;

/// The routes of an object, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lowered {
    pub sets: Vec<Arc<Hashed<RouteSet>>>,
    /// Where they send the traffic of sidecars.
    pub uses: Vec<Arc<Hashed<DestinationUse>>>,
    pub findings: Vec<Finding>,
}

/// The listeners of an object, what became of it, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoweredListeners {
    pub set: Option<Arc<Hashed<ListenerSet>>>,
    pub outcome: Outcome,
    pub findings: Vec<Finding>,
}

/// Makes sets of routes from an object of a kind that has none of its own.
pub type RouteProducer = fn(&Object) -> Vec<RouteSet>;

impl Lowered {
    fn new(sets: Vec<RouteSet>, findings: Vec<Finding>) -> Self {
        let uses = sets.iter().filter(|set| set.for_mesh()).flat_map(uses::destination_uses).collect();
        Lowered { sets: sets.into_iter().map(Hashed::new).map(Arc::new).collect(), uses, findings }
    }
}

/// Whether objects of a kind have listeners.
pub(crate) fn has_listeners(kind: Kind) -> bool {
    matches!(kind, Kind::Gateway | Kind::KubernetesGateway | Kind::ListenerSet)
}

/// The listeners of an object.
pub(crate) fn listeners(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    match key.kind {
        Kind::Gateway => gateway::gateway(reader, key),
        Kind::KubernetesGateway => gateway_api::gateway(reader, key),
        Kind::ListenerSet => gateway_api::listener_set(reader, key),
        _ => LoweredListeners::default(),
    }
}

/// Whether objects of a kind have routes.
pub(crate) fn has_routes(settings: &Settings, kind: Kind) -> bool {
    kind == Kind::VirtualService || settings.route_producer(kind).is_some()
}

/// The routes of an object.
pub(crate) fn routes(reader: &Reader<'_>, key: &ObjectKey) -> Lowered {
    match key.kind {
        Kind::VirtualService => virtual_service::virtual_service(reader, key),
        kind => match (reader.route_producer(kind), reader.object(key)) {
            (Some(produce), Some(object)) => Lowered::new(produce(object), Vec::new()),
            _ => Lowered::default(),
        },
    }
}

/// Rules for hosts, and what became of the object that states them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoweredRules {
    pub rules: Vec<Arc<Hashed<BoundRule>>>,
    pub outcome: Outcome,
}

/// Whether objects of a kind are rules for hosts.
pub(crate) fn has_rules(kind: Kind) -> bool {
    matches!(kind, Kind::DestinationRule | Kind::BackendTlsPolicy | Kind::BackendTrafficPolicy)
}

/// The rules of an object.
pub(crate) fn rules(reader: &Reader<'_>, key: &ObjectKey) -> LoweredRules {
    match key.kind {
        Kind::DestinationRule => {
            let rules = destination_rule(reader, key).into_iter().collect();
            LoweredRules { rules, ..LoweredRules::default() }
        }
        Kind::BackendTlsPolicy => backend_policy::backend_tls_policy(reader, key),
        Kind::BackendTrafficPolicy => backend_policy::backend_traffic_policy(reader, key),
        _ => LoweredRules::default(),
    }
}

/// A DestinationRule bound to its host.
fn destination_rule(reader: &Reader<'_>, key: &ObjectKey) -> Option<Arc<Hashed<BoundRule>>> {
    let object = reader.object(key)?;
    let config = typed::<DestinationRule>(object)?;
    let host = Name::from(qualify(&config.spec.host, &key.namespace, reader.domain()));
    let own = || Visibility::Namespaces(BTreeSet::from([key.namespace.clone()]));
    let export_to = if config.spec.workload_selector.is_some() {
        own()
    } else if config.spec.export_to.is_empty() {
        // Of the mesh's default only "private" counts, as in istiod.
        let defaults = &reader.mesh().config.default_destination_rule_export_to;
        if defaults.iter().any(|name| name == ".") { own() } else { Visibility::Public }
    } else {
        crate::registry::visibility(config.spec.export_to.iter().map(String::as_str), &[], &key.namespace)
    };
    Some(Arc::new(Hashed::new(BoundRule { key: key.clone(), beneath: false, config, host, export_to })))
}

/// Order of DestinationRules for one host: those with a workload selector first, then oldest first.
pub(crate) fn rule_order(rule: &BoundRule) -> (bool, i64, &str, &str) {
    let (created_at, name, namespace) = rule.config.age_order();
    (rule.config.spec.workload_selector.is_none(), created_at, name, namespace)
}

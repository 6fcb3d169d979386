//! From rules as they are written to rules bound to hosts: names qualified, delegates merged, visibility
//! resolved.
//!
//! Every API of routes ends here: what it says becomes sets of routes, and nobody behind this module knows
//! which API it was.

mod backend_policy;
mod delegate;
mod gateway;
mod gateway_api;
mod ingress;
mod lower;
mod lowered;
mod routes;
mod targets;
mod uses;
mod virtual_service;

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::kinds::Kind;
use navarch_model::networking::DestinationRule;
use navarch_model::object::ObjectKey;
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

pub(crate) use gateway_api::{controller_of, made_name, serves_controller};
pub(crate) use ingress::{GATEWAY_NAMESPACE as INGRESS_NAMESPACE, service as ingress_service};
pub(crate) use lowered::{Lowered, LoweredListeners, LoweredRules};
pub(crate) use targets::{has_targets, targets};

use crate::bound::BoundRule;
use crate::host::qualify;
use crate::registry::store::Reader;
use crate::registry::visibility;
use crate::tables::typed;

/// Whether objects of a kind have listeners.
pub(crate) fn has_listeners(kind: Kind) -> bool {
    matches!(kind, Kind::Gateway | Kind::KubernetesGateway | Kind::ListenerSet | Kind::Ingress)
}

/// The listeners of an object.
pub(crate) fn listeners(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    match key.kind {
        Kind::Gateway => gateway::gateway(reader, key),
        Kind::KubernetesGateway => gateway_api::gateway(reader, key),
        Kind::ListenerSet => gateway_api::listener_set(reader, key),
        Kind::Ingress => ingress::listeners(reader, key),
        _ => LoweredListeners::default(),
    }
}

/// Whether objects of a kind have routes.
pub(crate) fn has_routes(kind: Kind) -> bool {
    matches!(kind, Kind::VirtualService | Kind::Ingress) || routes::is_route(kind)
}

/// The routes of an object.
pub(crate) fn routes(reader: &Reader<'_>, key: &ObjectKey) -> Lowered {
    match key.kind {
        Kind::VirtualService => virtual_service::virtual_service(reader, key),
        Kind::Ingress => ingress::routes(reader, key),
        kind if routes::is_route(kind) => routes::route(reader, key),
        _ => Lowered::default(),
    }
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
        visibility(config.spec.export_to.iter().map(String::as_str), &[], &key.namespace)
    };
    Some(Arc::new(Hashed::new(BoundRule { key: key.clone(), beneath: false, config, host, export_to })))
}

/// Order of DestinationRules for one host: those with a workload selector first, then oldest first.
pub(crate) fn rule_order(rule: &BoundRule) -> (bool, i64, &str, &str) {
    let (created_at, name, namespace) = rule.config.age_order();
    (rule.config.spec.workload_selector.is_none(), created_at, name, namespace)
}

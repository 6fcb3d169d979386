//! From rules as they are written to rules bound to hosts: names qualified, delegates merged, visibility resolved.

mod delegate;
mod virtual_service;

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::networking::DestinationRule;
use navarch_model::object::ObjectKey;
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

use crate::bound::BoundRule;
use crate::host::qualify;
use crate::registry::store::Reader;
use crate::tables::typed;

pub(crate) use virtual_service::{BoundRoutes, virtual_service};

/// A DestinationRule bound to its host.
pub(crate) fn destination_rule(reader: &Reader<'_>, key: &ObjectKey) -> Option<Arc<Hashed<BoundRule>>> {
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
    Some(Arc::new(Hashed::new(BoundRule { config, host, export_to })))
}

/// Order of DestinationRules for one host: those with a workload selector first, then oldest first.
pub(crate) fn rule_order(rule: &BoundRule) -> (bool, i64, &str, &str) {
    let (created_at, name, namespace) = rule.config.age_order();
    (rule.config.spec.workload_selector.is_none(), created_at, name, namespace)
}

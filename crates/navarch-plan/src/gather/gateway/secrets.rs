//! Secrets of gateways.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Scope;
use navarch_translate::sds::credential_resource;

use super::selected::GatewaysOf;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::secrets::{named, of_visible_rules};

/// The secrets of a gateway: those that its listeners name, and those of the rules that it may use.
pub fn secrets(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, _scope: &Arc<Hashed<Scope>>) -> Composed {
    let mut names = of_visible_rules(cx, &class.facts.namespace);
    if let Some(gateways) = &*cx.gather::<GatewaysOf>(class) {
        names.own.extend(gateways.credentials.iter().map(|name| credential_resource(name)));
        names.granted.extend(gateways.granted_credentials.iter().cloned());
        names.files.extend(gateways.files.iter().cloned());
    }
    named(cx, class, names)
}

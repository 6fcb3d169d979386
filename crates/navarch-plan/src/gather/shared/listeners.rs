//! What listeners of sidecars and gateways have in common.

use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::mesh::MeshConfig;
use navarch_model::networking::PatchContext;
use navarch_model::security::AuthorizationAction;
use navarch_model::{Hashed, Name, ObjectKey, Origin};
use navarch_snapshot::authn::peer_policies;
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::listeners::patch::{AddedListener, ListenerPatches};
use navarch_translate::listeners::settings::ListenerSettings;

use super::attachment::Workload;
use super::envoy_filters::{FilterTarget, ListenerPatchesOf};
use super::security::SecurityFilters;
use super::{extensions, security, standard_metrics, telemetry};
use crate::class::Class;
use crate::engine::Cx;

/// What a filter chain was made from.
#[derive(Clone, Debug)]
pub struct ChainOrigin {
    /// Server names and blocks of addresses whose connections it takes; empty if it takes all.
    pub takes: Vec<Name>,
    pub origin: Origin,
    /// It is what opens the port, rather than what says where connections go.
    pub opens: bool,
}

/// What all listeners of a class in one direction have in common, with everything that configuration adds.
pub fn common(cx: &Cx<'_>, class: &Class, direction: Direction) -> ListenerSettings {
    let mesh: &MeshConfig = &cx.view().mesh().config;
    let proxy = class.facts.proxy_config(mesh);
    let mut settings = ListenerSettings::new(direction, mesh, &proxy, &class.facts);
    telemetry::apply(cx, &class.facts, &proxy, &mut settings);
    standard_metrics::apply(cx, &class.facts, &mut settings);
    extensions::add_filters(cx, class, direction, &mut settings.http.filters, &mut settings.network_filters);
    let workload = Arc::new(Hashed::new(Workload::of(&class.facts)));
    let policies = cx.gather::<SecurityFilters>(&(workload, direction));
    settings.http.filters.filters.extend(policies.http.filters.iter().cloned());
    settings.network_filters.filters.extend(policies.network.filters.iter().cloned());
    settings.patches = patches(cx, class, context(direction));
    settings
}

/// The direction in the words of EnvoyFilter.
fn context(direction: Direction) -> PatchContext {
    match direction {
        Direction::Inbound => PatchContext::SidecarInbound,
        Direction::Outbound => PatchContext::SidecarOutbound,
        Direction::Gateway => PatchContext::Gateway,
    }
}

/// The policies, extensions and telemetry that shape the listeners of a class in one direction, and what each
/// makes.
pub fn shaped_by(cx: &Cx<'_>, class: &Class, direction: Direction) -> Vec<(Origin, String)> {
    let workload = Workload::of(&class.facts);
    let mut found = Vec::new();
    let mut add = |key: ObjectKey, field: &str, role: String| found.push((Origin::field(key, field), role));
    if direction != Direction::Outbound {
        for policy in security::authorization_policies(&workload, cx) {
            let role = match policy.spec.action {
                AuthorizationAction::Custom => "asks whether calls are let through (filter ext_authz)",
                _ => "decides which calls are let through (filter rbac)",
            };
            add(policy.key(), "spec", role.to_owned());
        }
        for policy in security::request_authentications(&workload, cx) {
            add(policy.key(), "spec", "checks tokens (filter jwt_authn)".to_owned());
        }
    }
    if direction == Direction::Inbound {
        for policy in peer_policies(cx.view(), &class.facts.namespace, class.labels()) {
            let modes = policy.spec.mtls.iter().map(|mtls| mtls.mode);
            let modes: Vec<_> =
                modes.chain(policy.spec.port_level_mtls.values().map(|mtls| mtls.mode)).collect();
            add(policy.key(), "spec", format!("says whether mutual TLS is taken: {modes:?} (filter chains)"));
        }
    }
    for key in extensions::shaping(cx, class, direction) {
        let role = format!("adds its filter {}.{}", key.namespace, key.name);
        add(key, "spec", role);
    }
    let mesh = &cx.view().mesh().config;
    for object in telemetry::applicable(cx, &class.facts, mesh) {
        let spec = &object.spec;
        let says = [
            (!spec.access_logging.is_empty(), "spec.accessLogging", "says what is logged (access logs)"),
            (!spec.tracing.is_empty(), "spec.tracing", "says what is traced"),
            (
                class.facts.standard_metrics && !spec.metrics.is_empty(),
                "spec.metrics",
                "says what is counted (access logs)",
            ),
        ];
        for (_, field, role) in says.into_iter().filter(|(is_said, ..)| *is_said) {
            add(object.key(), field, role.to_owned());
        }
    }
    found
}

/// Changes that EnvoyFilters make to the listeners of a class.
fn patches(cx: &Cx<'_>, class: &Class, context: PatchContext) -> ListenerPatches {
    (*cx.gather::<ListenerPatchesOf>(&(FilterTarget::of(&class.facts), context))).clone()
}

/// Listeners that EnvoyFilters add.
pub fn added_listeners(cx: &Cx<'_>, class: &Class, context: PatchContext) -> Vec<Arc<Resource>> {
    let patches = patches(cx, class, context);
    patches
        .iter()
        .filter_map(|patch| patch.added(context))
        .map(|added| cx.get::<AddedListener>(&added).made.clone())
        .filter(|listener| !listener.name().is_empty())
        .collect()
}

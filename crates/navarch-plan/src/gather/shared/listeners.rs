//! What listeners of sidecars and gateways have in common.

use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::mesh::MeshConfig;
use navarch_model::networking::PatchContext;
use navarch_model::{Hashed, Name, ObjectKey, Origin};
use navarch_snapshot::authn::peer_policies;
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::listeners::patch::{AddedListener, ListenerPatches};
use navarch_translate::listeners::settings::ListenerSettings;

use super::attachment::Workload;
use super::envoy_filters::{FilterTarget, ListenerPatchesOf};
use super::security::SecurityFilters;
use super::{extensions, security, telemetry};
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
/// does.
pub fn shaped_by(cx: &Cx<'_>, class: &Class, direction: Direction) -> Vec<(ObjectKey, &'static str)> {
    let workload = Workload::of(&class.facts);
    let mut found = Vec::new();
    if direction != Direction::Outbound {
        let policies = security::authorization_policies(&workload, cx);
        found.extend(policies.iter().map(|policy| (policy.key(), "decides which calls are let through")));
        let policies = security::request_authentications(&workload, cx);
        found.extend(policies.iter().map(|policy| (policy.key(), "checks tokens")));
    }
    if direction == Direction::Inbound {
        let policies = peer_policies(cx.view(), &class.facts.namespace, class.labels());
        found.extend(policies.iter().map(|policy| (policy.key(), "says whether mutual TLS is taken")));
    }
    found.extend(extensions::shaping(cx, class, direction).into_iter().map(|key| (key, "adds its filter")));
    let mesh = &cx.view().mesh().config;
    let telemetry = telemetry::applicable(cx, &class.facts, mesh);
    found.extend(telemetry.iter().map(|object| (object.key(), "says what is logged and traced")));
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

//! Gathering of listeners.
//!
//! For sidecars, every bucket of services makes *contributions* ([`bucket`]): what a port of a service asks of the listener on one
//! address. They are grouped by address ([`groups`]), and each group becomes a listener. A change in one service repeats the
//! work of one bucket, and encodes only the listeners whose contributions differ.

mod addresses;
mod bucket;
mod groups;
mod inbound;
mod mesh_alpn;
mod outbound;
mod service;
pub(crate) mod settings;
pub(crate) mod tcp_routes;
mod view;

use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::proxy::ProxyKind;
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::Scope;
use navarch_translate::listeners::patch::AddedListener;

use crate::class::Class;
use crate::engine::Cx;
use crate::gather::gateway;
use crate::parts::Parts;

/// What a filter chain was made from.
#[derive(Clone, Debug)]
pub(crate) struct ChainOrigin {
    /// Server names and blocks of addresses whose connections it takes; empty if it takes all.
    pub takes: Vec<Name>,
    pub origin: Origin,
    /// It is what opens the port, rather than what says where connections go.
    pub opens: bool,
}

/// What the filter chains of a listener were made from, as far as somebody wrote rules or listeners for them.
pub(crate) fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    listener: &str,
) -> Vec<ChainOrigin> {
    match class.facts.kind {
        ProxyKind::Sidecar => outbound::origins(cx, class, scope, listener),
        ProxyKind::Router => gateway::origins(cx, class, scope, listener),
        ProxyKind::Waypoint | ProxyKind::Ztunnel => Vec::new(),
    }
}

/// The listeners of a class.
pub fn listeners(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    match class.facts.kind {
        ProxyKind::Sidecar => sidecar(cx, class, scope),
        ProxyKind::Router => gateway::listeners(cx, class, scope),
        ProxyKind::Waypoint | ProxyKind::Ztunnel => Parts::default(),
    }
}

fn sidecar(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    let mesh = &cx.view().mesh().config;
    if mesh.proxy_listen_port <= 0 {
        return Parts::default();
    }
    let mut parts = outbound::outbound(cx, class, scope);
    parts.local.extend(inbound::inbound(cx, class, scope));
    parts.local.retain(|listener| !listener.name().is_empty());
    for context in [PatchContext::SidecarInbound, PatchContext::SidecarOutbound] {
        parts.local.extend(added_listeners(cx, class, context));
    }
    parts
}

/// Listeners that EnvoyFilters add.
pub(crate) fn added_listeners(cx: &Cx<'_>, class: &Class, context: PatchContext) -> Vec<Arc<Resource>> {
    let patches = settings::patches(cx, class, context);
    patches
        .iter()
        .filter_map(|patch| patch.added(context))
        .map(|added| cx.get::<AddedListener>(added))
        .filter(|listener| !listener.name().is_empty())
        .collect()
}

//! Listeners of sidecars.
//!
//! Every bucket of services makes *contributions* ([`bucket`]): what a port of a service asks of the listener
//! on one address. They are grouped by address ([`groups`]), and each group becomes a listener. A change in
//! one service repeats the work of one bucket, and encodes only the listeners whose contributions differ.

mod addresses;
mod bucket;
mod groups;
mod inbound;
mod mesh_alpn;
mod outbound;
mod port;
mod service;
mod settings;
mod tcp_routes;
mod view;

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_model::networking::PatchContext;
use navarch_snapshot::Scope;

pub use self::outbound::origins;
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::Cx;
use crate::gather::shared::listeners::added_listeners;

/// The listeners of a sidecar.
pub fn listeners(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let mesh = &cx.view().mesh().config;
    if mesh.proxy_listen_port <= 0 {
        return Composed::default();
    }
    let mut composed = outbound::outbound(cx, class, scope);
    composed.own.extend(inbound::inbound(cx, class, scope));
    composed.own.retain(|listener| !listener.name().is_empty());
    for context in [PatchContext::SidecarInbound, PatchContext::SidecarOutbound] {
        composed.own.extend(added_listeners(cx, class, context));
    }
    composed
}

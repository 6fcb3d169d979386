//! What the listeners of a sidecar have in common.

use std::sync::Arc;

use navarch_model::networking::PatchContext;
use navarch_model::{Hashed, Name};
use navarch_snapshot::Scope;
use navarch_snapshot::scope::OutboundMode;
use navarch_translate::clusters::unknown_hosts_cache;
use navarch_translate::filters::http::dynamic_forward_proxy;
use navarch_translate::filters::{HttpFilters, HttpPhase};
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::listeners::inbound::InboundSettings;
use navarch_translate::listeners::outbound::OutboundSettings;
use navarch_translate::listeners::tls::MutualTls;
use navarch_translate::names;
use navarch_translate::routes::patch::RoutePatch;

use crate::class::Class;
use crate::engine::Cx;
use crate::gather::shared::clusters::name_server;
use crate::gather::shared::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::gather::shared::listeners::common;
use crate::gather::sidecar::egress_proxy_cluster;

/// Settings of outbound listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub all: Arc<Hashed<OutboundSettings>>,
    /// Without what only HTTP has. Listeners without HTTP are made from these, so that workloads that differ
    /// only in the tags of their traces share them.
    pub bytes_only: Arc<Hashed<OutboundSettings>>,
}

/// The settings of a class for outgoing traffic.
pub fn outbound(cx: &Cx<'_>, class: &Class, scope: &Scope, persistent_sessions: bool) -> Outbound {
    let mut listener = common(cx, class, Direction::Outbound);
    listener.http.stateful_sessions = persistent_sessions;
    let catch_all = catch_all(scope);
    let resolves_unknown_hosts =
        scope.outbound_traffic_policy().is_some_and(|policy| policy.mode == OutboundMode::AllowAnyDynamicDns);
    if resolves_unknown_hosts {
        let cache = unknown_hosts_cache(class.facts.ip_mode(), &name_server(&class.facts));
        listener.http.filters.push(HttpPhase::DynamicForwardProxy, dynamic_forward_proxy(cache));
    }
    let mut bytes = listener.clone();
    bytes.http.access_log = Vec::new();
    bytes.http.tracing = None;
    bytes.http.filters = HttpFilters::default();
    bytes.http.stateful_sessions = false;
    Outbound {
        all: Arc::new(Hashed::new(OutboundSettings {
            listener,
            catch_all: catch_all.clone(),
            resolves_unknown_hosts,
        })),
        bytes_only: Arc::new(Hashed::new(OutboundSettings {
            listener: bytes,
            catch_all,
            resolves_unknown_hosts: false,
        })),
    }
}

/// The settings of a class for incoming traffic.
pub fn inbound(cx: &Cx<'_>, class: &Class) -> Arc<Hashed<InboundSettings>> {
    let mesh = &cx.view().mesh().config;
    let tls = MutualTls::new(mesh, class.facts.server_certificates.clone());
    let all = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
    let inbound =
        |patch: &&RoutePatch| matches!(patch.context, PatchContext::Any | PatchContext::SidecarInbound);
    let route_patches = Arc::new(Hashed::new(all.iter().filter(inbound).cloned().collect()));
    Arc::new(Hashed::new(InboundSettings {
        listener: common(cx, class, Direction::Inbound),
        tls,
        retries: mesh.default_inbound_http_retry_policy.clone(),
        route_patches,
    }))
}

/// Where connections go that no service is known for.
fn catch_all(scope: &Scope) -> Name {
    match scope.outbound_traffic_policy() {
        Some(policy) if policy.mode != OutboundMode::RegistryOnly => match &policy.egress_proxy {
            Some(proxy) => egress_proxy_cluster(proxy),
            None => Name::from(names::PASSTHROUGH),
        },
        _ => Name::from(names::BLACK_HOLE),
    }
}

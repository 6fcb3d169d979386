//! Which Sidecar applies to a client.

use std::sync::Arc;

use navarch_model::mesh::MeshConfig;
use navarch_model::networking::{CaptureMode, IstioEgressListener, Sidecar};
use navarch_model::proxy::{ProxyFacts, ProxyKind};
use navarch_model::{Config, Hashed, Name};

use super::{EgressListener, HostFilter, Labels, OutboundPolicy, RoleScope, Scope, SidecarScope};
use crate::bound::selects;
use crate::view::View;

impl Scope {
    /// The scope of a client with these labels.
    ///
    /// For a sidecar: the oldest Sidecar of its namespace whose workload selector matches, else the oldest
    /// without a selector, else that of the root namespace, else everything that is visible. Gateways and
    /// waypoints ignore Sidecars.
    pub fn resolve(view: &View<'_>, facts: &ProxyFacts, labels: &Labels) -> Scope {
        let mesh = &view.mesh().config;
        let root_namespace = Name::from(mesh.root_namespace.as_str());
        let namespace = facts.namespace.clone();
        let role = match facts.kind {
            ProxyKind::Sidecar => {
                let sidecar = sidecar_for(view, &namespace, &root_namespace, labels);
                let spec = sidecar.as_deref().map(|sidecar| &sidecar.spec);
                RoleScope::Sidecar(SidecarScope {
                    egress: egress_listeners(spec, &namespace),
                    outbound: outbound_policy(spec, mesh),
                    sidecar,
                })
            }
            ProxyKind::Router | ProxyKind::Waypoint | ProxyKind::Ztunnel => RoleScope::Gateway,
        };
        Scope { namespace, root_namespace, role }
    }
}

fn sidecar_for(
    view: &View<'_>,
    namespace: &str,
    root_namespace: &str,
    labels: &Labels,
) -> Option<Arc<Hashed<Config<Sidecar>>>> {
    let own = view.objects::<Sidecar>(namespace);
    let selecting = own.iter().find(|sidecar| {
        sidecar.spec.workload_selector.as_ref().is_some_and(|selector| selects(&selector.labels, labels))
    });
    let plain = |sidecars: &[Arc<Hashed<Config<Sidecar>>>]| {
        sidecars.iter().find(|sidecar| sidecar.spec.workload_selector.is_none()).cloned()
    };
    selecting.cloned().or_else(|| plain(own)).or_else(|| plain(view.objects::<Sidecar>(root_namespace)))
}

fn egress_listeners(sidecar: Option<&Sidecar>, namespace: &str) -> Vec<EgressListener> {
    let stated = sidecar.map_or(&[][..], |sidecar| &sidecar.egress);
    if stated.is_empty() {
        return vec![EgressListener {
            port: None,
            bind: String::new(),
            capture_mode: CaptureMode::Default,
            hosts: HostFilter::everything(),
            match_port: false,
        }];
    }
    stated.iter().map(|listener| egress_listener(listener, namespace)).collect()
}

fn egress_listener(listener: &IstioEgressListener, namespace: &str) -> EgressListener {
    // A listener with a port imports the services with that port, unless it is a proxy for every port.
    let match_port = listener
        .port
        .as_ref()
        .is_some_and(|port| port.number != 0 && !port.protocol.eq_ignore_ascii_case("http_proxy"));
    EgressListener {
        port: listener.port.clone(),
        bind: listener.bind.clone(),
        capture_mode: listener.capture_mode,
        hosts: HostFilter::parse(listener.hosts.iter().map(String::as_str), namespace),
        match_port,
    }
}

fn outbound_policy(sidecar: Option<&Sidecar>, mesh: &MeshConfig) -> Option<OutboundPolicy> {
    if let Some(policy) = sidecar.and_then(|sidecar| sidecar.outbound_traffic_policy.as_ref()) {
        return Some(OutboundPolicy { mode: policy.mode.into(), egress_proxy: policy.egress_proxy.clone() });
    }
    let policy = mesh.outbound_traffic_policy.as_ref()?;
    Some(OutboundPolicy { mode: policy.mode.into(), egress_proxy: None })
}

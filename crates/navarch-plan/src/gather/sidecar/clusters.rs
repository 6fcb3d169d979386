//! Clusters of sidecars: services, what all sidecars have, and the workload's own ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use navarch_model::networking::IstioIngressListener;
use navarch_model::proxy::{InterceptionMode, IpMode};
use navarch_model::service::{Protocol, Service};
use navarch_model::{EffectiveRule, Hashed};
use navarch_snapshot::Scope;
use navarch_snapshot::bound::Instance;
use navarch_translate::clusters::{ClusterPatches, ClusterView, Inbound, InboundInput, InboundTarget};

use crate::class::Class;
use crate::composed::{BucketResources, Composed};
use crate::engine::Cx;
use crate::gather::shared::clusters::Clusters;
use crate::gather::shared::upstream::{ClusterMeshOf, FurtherClusters};

/// The clusters of a sidecar.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let clusters = Clusters::new(cx, class, scope);
    let mut own = clusters.fixed();
    own.extend(inbound(&clusters));
    clusters.with_services(FurtherClusters::default(), own)
}

/// The clusters of the workload's own ports: of the Sidecar's ingress listeners if it has any, else of the
/// services it backs. Without interception the latter would bind the workload's own ports.
fn inbound(clusters: &Clusters<'_, '_>) -> BucketResources {
    let Clusters { cx, class, scope, view, patches } = clusters;
    let instances = &class.instances;
    let mut inputs = BTreeMap::new();
    if !scope.ingress().is_empty() {
        for listener in scope.ingress() {
            if let Some(input) = of_listener(cx, class, scope, view, listener, instances) {
                inputs.entry(input.port).or_insert(input);
            }
        }
    } else if class.facts.interception != InterceptionMode::None {
        let mut by_port: BTreeMap<u16, Vec<&Instance>> = BTreeMap::new();
        for instance in instances {
            by_port.entry(instance.target_port).or_default().push(instance);
        }
        for (port, instances) in by_port {
            if let Some(input) = of_port(cx, scope, view, port, &instances) {
                inputs.entry(input.port).or_insert(input);
            }
        }
    }
    let inputs = inputs.into_values().map(|input| InboundInput { patches: patches.clone(), ..input });
    inputs.flat_map(|input| cx.get::<Inbound>(&input).to_vec()).collect()
}

fn of_port(
    cx: &Cx<'_>,
    scope: &Scope,
    view: &ClusterView,
    port: u16,
    instances: &[&Instance],
) -> Option<InboundInput> {
    let first = instances.first()?;
    let mesh = (*cx.gather::<ClusterMeshOf>(&())).clone();
    let target = if mesh.inbound_to_localhost {
        InboundTarget::Address(loopback(view.ip_mode, false), port.into())
    } else {
        InboundTarget::OriginalDestination
    };
    Some(InboundInput {
        port: port.into(),
        target,
        service_port: first.port.into(),
        service_port_name: first.port_name.to_string(),
        protocol: first.protocol,
        services: services(instances.iter().copied()),
        rule: scope.destination_rule(cx.view(), &first.service, None),
        connection_pool: scope.inbound_connection_pool(port.into()).cloned(),
        mesh,
        view: view.clone(),
        patches: ClusterPatches::default(),
    })
}

fn services<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<(Arc<Hashed<Service>>, u32)> {
    let mut seen = BTreeSet::new();
    instances
        .filter(|instance| seen.insert((&instance.service.hostname, instance.port)))
        .map(|instance| (instance.service.clone(), instance.port.into()))
        .collect()
}

fn of_listener(
    cx: &Cx<'_>,
    class: &Class,
    scope: &Scope,
    view: &ClusterView,
    listener: &IstioIngressListener,
    instances: &[Instance],
) -> Option<InboundInput> {
    let port = listener.port.as_ref()?;
    let instance = instances.iter().find(|instance| u32::from(instance.target_port) == port.number);
    let rule: Option<Arc<Hashed<EffectiveRule>>> =
        instance.and_then(|instance| scope.destination_rule(cx.view(), &instance.service, None));
    Some(InboundInput {
        port: port.number,
        target: target(&listener.default_endpoint, class, view.ip_mode)?,
        service_port: port.number,
        service_port_name: port.name.clone(),
        protocol: Protocol::parse(&port.protocol),
        services: instance.map(|instance| (instance.service.clone(), port.number)).into_iter().collect(),
        rule,
        connection_pool: scope.inbound_connection_pool(port.number).cloned(),
        mesh: (*cx.gather::<ClusterMeshOf>(&())).clone(),
        view: view.clone(),
        patches: ClusterPatches::default(),
    })
}

/// Where `defaultEndpoint` points to: a socket, the loopback interface, or (for an unspecified address) the
/// address of the instance. Nothing if it cannot be read; validation has said so.
fn target(endpoint: &str, class: &Class, mode: IpMode) -> Option<InboundTarget> {
    if endpoint.is_empty() {
        return Some(InboundTarget::OriginalDestination);
    }
    if endpoint.starts_with("unix://") {
        return Some(InboundTarget::Unix(endpoint.to_owned()));
    }
    let (host, port) = endpoint.rsplit_once(':')?;
    let port: u32 = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = |wanted: fn(&IpAddr) -> bool| class.own_addresses.iter().copied().find(wanted);
    let address = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => own(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into()),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => own(IpAddr::is_ipv6).unwrap_or(Ipv6Addr::LOCALHOST.into()),
        Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) => loopback(mode, false),
        Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)) => loopback(mode, true),
        _ => return Some(InboundTarget::OriginalDestination),
    };
    Some(InboundTarget::Address(address, port))
}

/// The loopback address of a family that the proxy has.
fn loopback(mode: IpMode, prefer_v6: bool) -> IpAddr {
    match (mode, prefer_v6) {
        (IpMode::V4, _) | (IpMode::Dual, false) => Ipv4Addr::LOCALHOST.into(),
        (IpMode::V6, _) | (IpMode::Dual, true) => Ipv6Addr::LOCALHOST.into(),
    }
}

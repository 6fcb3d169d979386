//! What the registry knows of a proxy: its labels, its locality and the services it backs.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::endpoint::Locality;
use navarch_model::proxy::{PodPort, ProxyFacts};
use navarch_model::service::{Protocol, ServicePort, TargetPort};
use navarch_model::{Hashed, Labels, Name};

use crate::bound::{Instance, WorkloadFacts, WorkloadKind};
use crate::registry::workloads::{REGION, SUB_ZONE, ZONE, label_locality, with_topology};
use crate::view::View;

/// A proxy as configuration sees it, put together from its own statement and the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyWorkload {
    /// Labels for selectors, with those of its topology.
    pub labels: Labels,
    pub locality: Locality,
    /// What it serves, in the order that decides conflicts.
    pub instances: Vec<Instance>,
}

/// Looks a proxy up (Istio: labels and locality of a proxy, service targets).
///
/// The registry's labels go over the static labels of the node; labels of the node itself count only for a
/// proxy that the registry does not know, and so does its locality. The services of an unknown proxy are
/// found by its labels, and their ports by the metadata `POD_PORTS`.
pub fn of_proxy(view: &View<'_>, facts: &ProxyFacts) -> ProxyWorkload {
    let known = find(view, facts);
    let own_word = facts.labels.get("istio.io/test-vm").is_some_and(|value| !value.is_empty());
    let mut labels = match known {
        Some(workload) if !own_word => {
            let mut labels = facts.static_labels.clone();
            labels.extend(workload.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
            labels
        }
        _ => facts.labels.clone(),
    };
    let instances = match known {
        Some(workload) => workload.instances.clone(),
        None => instances_by_labels(view, facts, &labels),
    };
    let locality = locality_of(&labels).unwrap_or_else(|| facts.locality.clone());
    labels = with_topology(&labels, &facts.cluster_id, &locality, &facts.node_name, &facts.network);
    ProxyWorkload { labels, locality, instances }
}

/// The workload that a proxy runs at. Of several at its address: a WorkloadEntry before a pod, the one the
/// proxy names before others of its namespace.
///
/// A loopback address identifies nobody: any number of proxies on one machine state it. There, only the
/// workload that the proxy names counts.
fn find<'s>(view: &View<'s>, facts: &ProxyFacts) -> Option<&'s Arc<Hashed<WorkloadFacts>>> {
    let address = *facts.addresses.first()?;
    let candidates = view.workloads(address);
    let is_named = |workload: &WorkloadFacts| {
        facts
            .pod()
            .is_some_and(|(name, namespace)| *workload.name == *name && *workload.namespace == *namespace)
    };
    let of_kind = |kind: WorkloadKind| {
        let of_kind = || candidates.iter().filter(move |workload| workload.kind == kind);
        let own = || of_kind().find(|workload| workload.namespace == facts.namespace);
        let only = || of_kind().next().filter(|_| of_kind().count() == 1);
        let named = of_kind().find(|workload| is_named(workload));
        if address.is_loopback() { named } else { named.or_else(own).or_else(only) }
    };
    let listed = || {
        let listed = of_kind(WorkloadKind::Endpoint);
        listed.filter(|workload| !address.is_loopback() && workload.namespace == facts.namespace)
    };
    of_kind(WorkloadKind::WorkloadEntry).or_else(|| of_kind(WorkloadKind::Pod)).or_else(listed)
}

/// The locality that labels state, by topology labels or by a locality label.
fn locality_of(labels: &Labels) -> Option<Locality> {
    let stated = [REGION, ZONE, SUB_ZONE].map(|key| labels.get(key).cloned());
    if stated.iter().all(Option::is_none) {
        return label_locality(labels);
    }
    let [region, zone, sub_zone] = stated.map(|value| value.unwrap_or_else(|| Name::from("")));
    Some(Locality { region, zone, sub_zone })
}

fn instances_by_labels(view: &View<'_>, facts: &ProxyFacts, labels: &Labels) -> Vec<Instance> {
    let mut instances = Vec::new();
    for service in view.selecting_services(&facts.namespace, labels) {
        let mut seen = BTreeSet::new();
        for port in &service.ports {
            let Some(target_port) = target(port, &facts.pod_ports) else { continue };
            if seen.insert((target_port, port.protocol)) {
                instances.push(Instance {
                    service: service.clone(),
                    port_name: port.name.clone(),
                    port: port.port,
                    protocol: port.protocol,
                    target_port,
                });
            }
        }
    }
    instances.sort_by(|a, b| a.order().cmp(&b.order()));
    instances
}

fn target(port: &ServicePort, ports: &[PodPort]) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => {
            let transport = if port.protocol == Protocol::Udp { "UDP" } else { "TCP" };
            ports.iter().find(|own| own.name == *name && *own.protocol == *transport).map(|own| own.number)
        }
    }
}

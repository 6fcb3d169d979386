//! Which service ports the workload at an address serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::Address;
use navarch_model::kinds::Kind;
use navarch_model::kubernetes as kube;
use navarch_model::networking::{ServiceEntry, WorkloadEntry};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service::{Protocol, Resolution};
use navarch_model::{Labels, Name};

use super::endpoints::{at_port, entry_target, entry_workloads, workload_entry};
use super::objects;
use super::store::{Input, Reader, slice_service};
use super::workloads::{self, Workload};
use crate::bound::{Instance, WorkloadFacts, WorkloadKind, selects};

/// The workloads at an address: WorkloadEntries, then Pods, then namespaces whose ServiceEntries list the
/// address.
pub(super) fn workloads_at(reader: &Reader<'_>, address: IpAddr) -> Vec<WorkloadFacts> {
    let here: Vec<&Arc<Object>> = reader.members(&Input::Address(address)).collect();
    let mut found = Vec::new();
    for object in here.iter().filter(|object| object.key.kind == Kind::WorkloadEntry) {
        let Some(workload) = workload_entry(reader, object) else { continue };
        let mut instances = entry_instances(reader, object, &workload);
        instances.extend(service_entry_instances(reader, &here, &object.key.namespace, address));
        found.push(facts(WorkloadKind::WorkloadEntry, &object.key.name, workload, vec![address], instances));
    }
    for object in &here {
        let Some(pod) = object.spec::<kube::Pod>() else { continue };
        let workload = workloads::of_pod(reader, object, pod, address);
        let mut instances = pod_instances(reader, &here, object, pod, address);
        instances.extend(service_entry_instances(reader, &here, &object.key.namespace, address));
        let mut addresses = objects::pod_addresses(object);
        addresses.sort_by_key(|own| *own != address);
        found.push(facts(WorkloadKind::Pod, &object.key.name, workload, addresses, instances));
    }
    let listing = here.iter().filter(|object| object.key.kind == Kind::ServiceEntry);
    let namespaces: BTreeSet<&Name> = listing.map(|object| &object.key.namespace).collect();
    for namespace in namespaces {
        if found.iter().any(|facts| facts.namespace == *namespace) {
            continue;
        }
        let listed = listed_workloads(reader, &here, namespace, address);
        let Some(workload) = listed.into_iter().next() else { continue };
        let instances = service_entry_instances(reader, &here, namespace, address);
        let name = workload.endpoint.workload_name.clone();
        found.push(facts(WorkloadKind::Endpoint, &name, workload, vec![address], instances));
    }
    // Nearly always one, and there is one of these for each address.
    found.shrink_to_fit();
    found
}

fn facts(
    kind: WorkloadKind,
    name: &Name,
    workload: Workload,
    addresses: Vec<IpAddr>,
    mut instances: Vec<Instance>,
) -> WorkloadFacts {
    instances.sort_by(|a, b| a.order().cmp(&b.order()));
    let endpoint = workload.endpoint;
    WorkloadFacts {
        kind,
        namespace: endpoint.namespace,
        name: name.clone(),
        addresses,
        labels: endpoint.labels,
        locality: endpoint.locality,
        service_account: endpoint.service_account,
        node_name: endpoint.node_name,
        network: endpoint.network,
        instances,
    }
}

/// Services of the cluster of a workload, or ServiceEntries, of its namespace that may select these labels.
fn selecting<'a>(
    reader: &Reader<'a>,
    workload: &ObjectKey,
    labels: &Labels,
    kind: Kind,
) -> BTreeMap<&'a ObjectKey, &'a Arc<Object>> {
    let mut found = BTreeMap::new();
    for (key, value) in labels {
        let input = Input::Selecting(workload.namespace.clone(), key.clone(), value.clone());
        // ServiceEntries are of the local cluster, and select workloads of all clusters.
        let may_select = |key: &ObjectKey| {
            key.kind == kind && (kind == Kind::ServiceEntry || key.cluster == workload.cluster)
        };
        let candidates = reader.members(&input).filter(|object| may_select(&object.key));
        found.extend(candidates.map(|object| (&object.key, object)));
    }
    found
}

/// What a pod serves of Kubernetes Services: by selector, or, if none selects it, because a slice written by
/// hand names it.
fn pod_instances(
    reader: &Reader<'_>,
    here: &[&Arc<Object>],
    object: &Object,
    pod: &kube::Pod,
    address: IpAddr,
) -> Vec<Instance> {
    let labels = &object.metadata.labels;
    let mut selected = false;
    let mut instances = Vec::new();
    for (key, service) in selecting(reader, &object.key, labels, Kind::Service) {
        let Some(spec) = service.spec::<kube::Service>() else { continue };
        if !selects(&spec.spec.selector, labels) {
            continue;
        }
        selected = true;
        let targets = spec.spec.ports.iter().filter_map(|port| {
            Some((port.name.as_str(), u16::try_from(port.port).ok()?, workloads::pod_target(pod, port)?))
        });
        instances.extend(distinct(reader, key, targets));
    }
    if selected { instances } else { slice_instances(reader, here, &object.key, address) }
}

fn slice_instances(
    reader: &Reader<'_>,
    here: &[&Arc<Object>],
    pod: &ObjectKey,
    address: IpAddr,
) -> Vec<Instance> {
    let mut instances = Vec::new();
    let beside = |key: &ObjectKey| key.namespace == pod.namespace && key.cluster == pod.cluster;
    for object in here.iter().filter(|object| beside(&object.key)) {
        let (Some(slice), Some(service)) = (object.spec::<kube::EndpointSlice>(), slice_service(object))
        else {
            continue;
        };
        let key = ObjectKey::of(pod.cluster, Kind::Service, &pod.namespace, service);
        let at_address = slice
            .endpoints
            .iter()
            .any(|endpoint| endpoint.addresses.first().and_then(|first| first.parse().ok()) == Some(address));
        if !at_address {
            continue;
        }
        for service in reader.services(&key) {
            for port in &slice.ports {
                let own = service.ports.iter().find(|own| *own.name == *port.name);
                let number = port.port.and_then(|number| u16::try_from(number).ok());
                if let (Some(own), Some(target_port)) = (own, number) {
                    instances.push(Instance {
                        service: service.clone(),
                        port_name: own.name.clone(),
                        port: own.port,
                        protocol: own.protocol,
                        target_port,
                    });
                }
            }
        }
    }
    instances
}

/// Instances of a service for (port name, port, target port). Ports that lead to one target with one protocol
/// count once: there is one listener for them.
fn distinct<'p>(
    reader: &Reader<'_>,
    key: &ObjectKey,
    targets: impl Iterator<Item = (&'p str, u16, u16)>,
) -> Vec<Instance> {
    let Some(service) = reader.services(key).first() else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let mut instances = Vec::new();
    for (name, number, target_port) in targets {
        let Some(port) = service.ports.iter().find(|port| *port.name == *name && port.port == number) else {
            continue;
        };
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
    instances
}

/// What a WorkloadEntry serves of Kubernetes Services.
fn entry_instances(reader: &Reader<'_>, object: &Object, workload: &Workload) -> Vec<Instance> {
    let Some(entry) = object.spec::<WorkloadEntry>() else { return Vec::new() };
    let labels = objects::entry_labels(object, entry);
    let mut instances = Vec::new();
    for (key, service_object) in selecting(reader, &object.key, &labels, Kind::Service) {
        let Some(spec) = service_object.spec::<kube::Service>() else { continue };
        if !selects(&spec.spec.selector, &labels) {
            continue;
        }
        for service in reader.services(key).iter().filter(|s| s.resolution == Resolution::ClientSide) {
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let target = entry_target(&spec.spec.ports, &port.name, port.port, &workload.ports);
                instances.extend(target.map(|target_port| Instance {
                    service: service.clone(),
                    port_name: port.name.clone(),
                    port: port.port,
                    protocol: port.protocol,
                    target_port,
                }));
            }
        }
    }
    instances
}

/// What the workloads at an address serve of ServiceEntries of a namespace.
fn service_entry_instances(
    reader: &Reader<'_>,
    here: &[&Arc<Object>],
    namespace: &Name,
    address: IpAddr,
) -> Vec<Instance> {
    let mut instances = Vec::new();
    for object in entries_at(reader, here, namespace) {
        let Some(entry) = object.spec::<ServiceEntry>() else { continue };
        for workload in entry_workloads(reader, object, entry) {
            if workload.endpoint.address != Address::Ip(address) {
                continue;
            }
            for service in reader.services(&object.key) {
                for port in &entry.ports {
                    let own = service.ports.iter().find(|own| u32::from(own.port) == port.number);
                    if let (Some(own), Some(endpoint)) = (own, at_port(&workload, port)) {
                        instances.push(Instance {
                            service: service.clone(),
                            port_name: own.name.clone(),
                            port: own.port,
                            protocol: own.protocol,
                            target_port: endpoint.port,
                        });
                    }
                }
            }
        }
    }
    instances
}

/// ServiceEntries of a namespace that list an address or select a workload that has it.
fn entries_at<'a>(
    reader: &Reader<'a>,
    here: &[&'a Arc<Object>],
    namespace: &Name,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let own = here.iter().copied().filter(|object| object.key.namespace == *namespace);
    let mut entries: BTreeMap<&ObjectKey, &Arc<Object>> = BTreeMap::new();
    for object in own {
        let labels = match (object.key.kind, object.spec::<WorkloadEntry>()) {
            (Kind::ServiceEntry, _) => {
                entries.insert(&object.key, object);
                continue;
            }
            (Kind::WorkloadEntry, Some(entry)) => objects::entry_labels(object, entry),
            (Kind::Pod, _) => object.metadata.labels.clone(),
            _ => continue,
        };
        entries.extend(selecting(reader, &object.key, &labels, Kind::ServiceEntry));
    }
    entries.into_values()
}

/// Workloads that ServiceEntries of a namespace list at an address.
fn listed_workloads(
    reader: &Reader<'_>,
    here: &[&Arc<Object>],
    namespace: &Name,
    address: IpAddr,
) -> Vec<Workload> {
    let entries = here.iter().filter(|object| object.key.namespace == *namespace);
    let workloads =
        entries.filter_map(|object| Some(entry_workloads(reader, object, object.spec::<ServiceEntry>()?)));
    workloads.flatten().filter(|workload| workload.endpoint.address == Address::Ip(address)).collect()
}

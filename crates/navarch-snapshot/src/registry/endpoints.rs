//! The endpoints that a Service or ServiceEntry has, from EndpointSlices, Pods, WorkloadEntries and its own
//! list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::{Address, Endpoint, EndpointSet, HEALTH, Health, TlsMode};
use navarch_model::kinds::Kind;
use navarch_model::kubernetes as kube;
use navarch_model::networking::{ServiceEntry, ServicePort as EntryPort, WorkloadEntry};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service::{PersistentSession, Resolution, Service};
use navarch_model::{Hashed, Labels, Name, SmallMap};

use super::objects;
use super::service_entry::resolution;
use super::store::{Input, Reader, first_label, slice_service};
use super::workloads::{self, Workload};
use crate::bound::selects;

/// Endpoints by host.
pub(crate) type HostEndpoints = SmallMap<Name, Arc<Hashed<EndpointSet>>>;

/// The label by which a pod asks to be drained.
const DRAINING: &str = "istio.io/draining";

/// The endpoints of a Kubernetes Service.
///
/// EndpointSlices decide where there are any, then Endpoints objects; a directory of files may have neither,
/// and then the pods that the selector matches count. WorkloadEntries that the selector matches come after
/// them.
pub(super) fn of_kubernetes(
    reader: &Reader<'_>,
    object: &Object,
    spec: &kube::Service,
    service: &Service,
) -> Vec<Endpoint> {
    if service.resolution == Resolution::Alias {
        return Vec::new();
    }
    let key = &object.key;
    let lists = Input::EndpointsOf(key.cluster, key.namespace.clone(), key.name.clone());
    let mut collected = Collected::new(service);
    let slices: Vec<&Arc<Object>> =
        reader.members(&lists).filter(|list| list.key.kind == Kind::EndpointSlice).collect();
    let plain: Vec<&Arc<Object>> =
        reader.members(&lists).filter(|list| list.key.kind == Kind::Endpoints).collect();
    if !slices.is_empty() {
        for slice in slices {
            from_slice(reader, slice, spec, &mut collected);
        }
    } else if !plain.is_empty() {
        for endpoints in plain {
            from_endpoints(reader, endpoints, &mut collected);
        }
    } else {
        from_pods(reader, object, spec, service, &mut collected);
    }
    if service.resolution == Resolution::ClientSide {
        from_workload_entries(reader, object, spec, service, &mut collected);
    }
    collected.endpoints
}

/// Endpoints of a Kubernetes Service as they are found. The first one with an address and a port name stays.
struct Collected {
    endpoints: Vec<Endpoint>,
    seen: BTreeSet<(Address, Name)>,
    /// Endpoints that shut down stay for clients whose session is bound to them.
    keeps_draining: bool,
}

impl Collected {
    fn new(service: &Service) -> Self {
        // Only sessions by cookie, as in istiod.
        let keeps_draining = matches!(service.persistent_session, Some(PersistentSession::Cookie { .. }));
        Collected { endpoints: Vec::new(), seen: BTreeSet::new(), keeps_draining }
    }

    fn add(&mut self, mut endpoint: Endpoint) {
        // Endpoints of a service are mostly labelled alike; one list stands for all of them.
        if let Some(last) = self.endpoints.last()
            && last.labels == endpoint.labels
        {
            endpoint.labels = last.labels.clone();
        }
        if endpoint.labels.get(DRAINING).is_some_and(|value| !value.is_empty()) {
            endpoint.health = Health::Draining;
        }
        let wanted = match endpoint.health {
            Health::Terminating => false,
            Health::Draining => self.keeps_draining,
            _ => true,
        };
        if wanted && self.seen.insert((endpoint.address.clone(), endpoint.service_port_name.clone())) {
            self.endpoints.push(endpoint);
        }
    }
}

/// What is known of the workload behind an address of an EndpointSlice or Endpoints object; `None` if it
/// should be a pod and there is none.
fn workload_behind(
    reader: &Reader<'_>,
    list: &ObjectKey,
    address: IpAddr,
    target: Option<&kube::ObjectReference>,
) -> Option<(Workload, Vec<IpAddr>)> {
    if let Some(target) = target.filter(|target| target.kind == "Pod") {
        let (object, pod) = reader.get::<kube::Pod>(list.cluster, &target.namespace, &target.name)?;
        return Some((workloads::of_pod(reader, object, pod, address), objects::pod_addresses(object)));
    }
    // A manual endpoint. If a pod of the namespace has the address, its labels and identity are a good guess.
    let here = |key: &ObjectKey| key.namespace == list.namespace && key.cluster == list.cluster;
    let pods = reader.members(&Input::Address(address)).filter(|object| here(&object.key));
    let pod = pods
        .filter_map(|object| Some((object, object.spec::<kube::Pod>()?)))
        .find(|(_, pod)| workloads::is_ready(pod));
    let workload = match pod {
        Some((object, pod)) => workloads::of_pod(reader, object, pod, address),
        None => workloads::of_address(reader, list.cluster, address),
    };
    Some((workload, Vec::new()))
}

fn from_slice(reader: &Reader<'_>, object: &Object, spec: &kube::Service, collected: &mut Collected) {
    let Some(slice) = object.spec::<kube::EndpointSlice>() else { return };
    if slice.address_type == "FQDN" || slice_service(object).is_none() {
        return;
    }
    let dual_stack_service = spec.spec.cluster_ips.len() > 1;
    let ports: Vec<(Name, u16)> = slice
        .ports
        .iter()
        .map(|port| {
            let number = port.port.and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
            (Name::from(port.name.as_str()), number)
        })
        .collect();
    for endpoint in &slice.endpoints {
        let health = slice_health(&endpoint.conditions, collected.keeps_draining);
        for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
            let target = endpoint.target_ref.as_ref();
            let Some((mut workload, own)) = workload_behind(reader, &object.key, address, target) else {
                continue;
            };
            workload.endpoint.health = health;
            if own.len() > 1 && dual_stack_service {
                // The slice of the first family stands for both: one endpoint with all addresses of the pod.
                if slice.address_type == "IPv6" {
                    continue;
                }
                with_all_addresses(&mut workload.endpoint, &own);
            }
            for (name, number) in &ports {
                collected.add(workload.at(name, *number));
            }
        }
    }
}

/// A slice's conditions: unset means ready, serving and not terminating (Kubernetes: EndpointConditions).
fn slice_health(conditions: &kube::EndpointConditions, keeps_draining: bool) -> Health {
    if conditions.ready.unwrap_or(true) {
        return Health::Healthy;
    }
    if !conditions.terminating.unwrap_or(false) {
        return Health::Unhealthy;
    }
    if keeps_draining && conditions.serving.unwrap_or(true) { Health::Draining } else { Health::Terminating }
}

fn with_all_addresses(endpoint: &mut Endpoint, addresses: &[IpAddr]) {
    if let [first, others @ ..] = addresses {
        endpoint.address = Address::Ip(*first);
        endpoint.additional_addresses = others.to_vec();
    }
}

fn from_endpoints(reader: &Reader<'_>, object: &Object, collected: &mut Collected) {
    let Some(endpoints) = object.spec::<kube::Endpoints>() else { return };
    for subset in &endpoints.subsets {
        let ready = subset.addresses.iter().map(|address| (address, Health::Healthy));
        let not_ready = subset.not_ready_addresses.iter().map(|address| (address, Health::Unhealthy));
        for (stated, health) in ready.chain(not_ready) {
            let Ok(address) = stated.ip.parse() else { continue };
            let target = stated.target_ref.as_ref();
            let Some((mut workload, _)) = workload_behind(reader, &object.key, address, target) else {
                continue;
            };
            workload.endpoint.health = health;
            for port in &subset.ports {
                let number = u16::try_from(port.port).unwrap_or(0);
                collected.add(workload.at(&Name::from(port.name.as_str()), number));
            }
        }
    }
}

/// What the endpoint controller of a cluster would do.
fn from_pods(
    reader: &Reader<'_>,
    object: &Object,
    spec: &kube::Service,
    service: &Service,
    collected: &mut Collected,
) {
    let dual_stack_service = spec.spec.cluster_ips.len() > 1;
    for pod_object in selected_by_service(reader, object, spec) {
        let Some(pod) = pod_object.spec::<kube::Pod>() else { continue };
        let addresses = objects::pod_addresses(pod_object);
        let Some(address) = addresses.first() else { continue };
        let mut workload = workloads::of_pod(reader, pod_object, pod, *address);
        if service.publish_not_ready_addresses {
            workload.endpoint.health = Health::Healthy;
        }
        if dual_stack_service {
            with_all_addresses(&mut workload.endpoint, &addresses);
        }
        for port in &spec.spec.ports {
            if let Some(number) = workloads::pod_target(pod, port) {
                collected.add(workload.at(&Name::from(port.name.as_str()), number));
            }
        }
    }
}

/// Pods and WorkloadEntries of a namespace that a selector matches, by kind and name. An empty selector
/// matches nothing.
fn selected<'a, 's, T: Clone + Into<Name> + AsRef<str> + 's>(
    reader: &Reader<'a>,
    namespace: &Name,
    selector: impl IntoIterator<Item = (&'s T, &'s T)> + Copy,
) -> Vec<&'a Arc<Object>> {
    let Some((key, value)) = first_label(selector) else { return Vec::new() };
    let candidates = reader.members(&Input::Labelled(namespace.clone(), key, value));
    candidates
        .filter(|object| match object.spec::<WorkloadEntry>() {
            Some(entry) => selects(selector, &objects::entry_labels(object, entry)),
            None => selects(selector, &object.metadata.labels),
        })
        .collect()
}

/// What the selector of a Kubernetes Service matches in its own cluster.
fn selected_by_service<'a>(
    reader: &Reader<'a>,
    object: &Object,
    spec: &kube::Service,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let cluster = object.key.cluster;
    let matching = selected(reader, &object.key.namespace, &spec.spec.selector);
    matching.into_iter().filter(move |found| found.key.cluster == cluster)
}

fn from_workload_entries(
    reader: &Reader<'_>,
    object: &Object,
    spec: &kube::Service,
    service: &Service,
    collected: &mut Collected,
) {
    let entries: Vec<Workload> = selected_by_service(reader, object, spec)
        .filter_map(|object| workload_entry(reader, object))
        .filter(|workload| !workload.is_named())
        .collect();
    for port in &service.ports {
        for workload in &entries {
            if let Some(number) = entry_target(&spec.spec.ports, &port.name, port.port, &workload.ports) {
                collected.add(workload.at(&port.name, number));
            }
        }
    }
}

/// The workload that a WorkloadEntry declares; `None` for other objects.
pub(super) fn workload_entry(reader: &Reader<'_>, object: &Object) -> Option<Workload> {
    let entry = object.spec::<WorkloadEntry>()?;
    let labels = objects::entry_labels(object, entry);
    let mut workload = workloads::of_entry(reader, entry, &labels, &object.key, &object.key.name)?;
    if object.metadata.annotations.get(HEALTH).is_some_and(|health| &**health == "unhealthy") {
        workload.endpoint.health = Health::Unhealthy;
    }
    Some(workload)
}

/// The port of a WorkloadEntry that a port of a Kubernetes Service leads to.
///
/// A numeric target port can be overridden by the entry under the name of the service port; a named one must
/// be there.
pub(super) fn entry_target(
    ports: &[kube::ServicePort],
    name: &str,
    number: u16,
    named: &BTreeMap<String, u16>,
) -> Option<u16> {
    let stated = ports.iter().find(|port| port.name == name || port.port == i32::from(number));
    match stated.and_then(|port| port.target_port.as_ref()) {
        Some(kube::IntOrString::String(target)) => named.get(target).copied().filter(|port| *port != 0),
        Some(kube::IntOrString::Int(target)) if *target > 0 => {
            let overridden = named.get(name).copied().filter(|port| *port != 0);
            overridden.or_else(|| u16::try_from(*target).ok())
        }
        _ => Some(number),
    }
}

/// The endpoints of the services of a ServiceEntry, by host.
pub(super) fn of_service_entry(
    reader: &Reader<'_>,
    object: &Object,
    entry: &ServiceEntry,
    host: &Name,
) -> Vec<Endpoint> {
    let resolved_by_name = matches!(resolution(entry), Resolution::Dns | Resolution::DnsRoundRobin);
    if entry.workload_selector.is_none() && entry.endpoints.is_empty() {
        return if resolved_by_name { from_host(reader, object, entry, host) } else { Vec::new() };
    }
    let workloads = entry_workloads(reader, object, entry);
    workloads
        .iter()
        .flat_map(|workload| entry.ports.iter().filter_map(|port| at_port(workload, port)))
        .collect()
}

/// The workloads behind a ServiceEntry: those it selects, pods first, or those it lists.
pub(super) fn entry_workloads(reader: &Reader<'_>, object: &Object, entry: &ServiceEntry) -> Vec<Workload> {
    let Some(selector) = &entry.workload_selector else {
        let listed = entry.endpoints.iter().enumerate();
        return listed
            .filter_map(|(index, endpoint)| {
                let name = format!("{}-{index}", object.key.name);
                let labels = objects::own_labels(endpoint);
                workloads::of_entry(reader, endpoint, &labels, &object.key, &name)
            })
            .collect();
    };
    let resolved_by_name = matches!(resolution(entry), Resolution::Dns | Resolution::DnsRoundRobin);
    let selected = selected(reader, &object.key.namespace, &selector.labels);
    let (pods, entries): (Vec<_>, Vec<_>) =
        selected.into_iter().partition(|object| object.key.kind == Kind::Pod);
    let pods = pods.into_iter().filter_map(|object| ready_pod(reader, object));
    let entries = entries.into_iter().filter_map(|object| workload_entry(reader, object));
    pods.chain(entries).filter(|workload| resolved_by_name || !workload.is_named()).collect()
}

/// A pod as a workload that a ServiceEntry selects: only if it is ready.
fn ready_pod(reader: &Reader<'_>, object: &Object) -> Option<Workload> {
    let pod = object.spec::<kube::Pod>().filter(|pod| workloads::is_ready(pod))?;
    let addresses = objects::pod_addresses(object);
    let mut workload = workloads::of_pod(reader, object, pod, *addresses.first()?);
    with_all_addresses(&mut workload.endpoint, &addresses);
    Some(workload)
}

/// The endpoint of a workload for a port of a ServiceEntry.
pub(super) fn at_port(workload: &Workload, port: &EntryPort) -> Option<Endpoint> {
    let name = Name::from(port.name.as_str());
    if matches!(workload.endpoint.address, Address::Unix(_)) {
        return Some(workload.at(&name, 0));
    }
    let own = workload.ports.get(&port.name).copied().filter(|port| *port != 0);
    let number = match own {
        Some(number) => number,
        None => u16::try_from(if port.target_port != 0 { port.target_port } else { port.number }).ok()?,
    };
    Some(workload.at(&name, number))
}

/// A service resolved by name whose host is its only endpoint.
fn from_host(reader: &Reader<'_>, object: &Object, entry: &ServiceEntry, host: &Name) -> Vec<Endpoint> {
    let none = Name::default;
    let endpoint = |port: &EntryPort| {
        let number = if port.target_port != 0 { port.target_port } else { port.number };
        Some(Endpoint {
            address: Address::Dns(host.clone()),
            additional_addresses: Vec::new(),
            port: u16::try_from(number).ok()?,
            service_port_name: Name::from(port.name.as_str()),
            labels: Labels::default(),
            locality: Default::default(),
            weight: 0,
            network: none(),
            cluster_id: reader.cluster_name(object.key.cluster),
            health: Health::Unknown,
            tls_mode: TlsMode::Disabled,
            service_account: none(),
            namespace: object.key.namespace.clone(),
            workload_name: object.key.name.clone(),
            host_name: none(),
            sub_domain: none(),
            node_name: none(),
            hbone: false,
            cluster_local: false,
        })
    };
    entry.ports.iter().filter_map(endpoint).collect()
}

/// The endpoints that an object gives to each of its hosts.
pub(super) fn of_object(reader: &Reader<'_>, key: &ObjectKey) -> HostEndpoints {
    let Some(object) = reader.object(key) else { return HostEndpoints::default() };
    let services = reader.services(key);
    let endpoints = services.iter().map(|service| {
        let endpoints = match key.kind {
            Kind::Service => {
                object.spec::<kube::Service>().map(|spec| of_kubernetes(reader, object, spec, service))
            }
            Kind::ServiceEntry => object
                .spec::<ServiceEntry>()
                .map(|entry| of_service_entry(reader, object, entry, &service.hostname)),
            _ => None,
        };
        let mut endpoints = endpoints.unwrap_or_default();
        endpoints.shrink_to_fit();
        (service.hostname.clone(), Arc::new(Hashed::new(EndpointSet { endpoints })))
    });
    endpoints.filter(|(_, set)| !set.endpoints.is_empty()).collect()
}

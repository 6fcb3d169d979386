//! Workloads: Pods, WorkloadEntries and addresses written in ServiceEntries, and what is known of each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use navarch_model::endpoint::{Address, Endpoint, Health, Locality, TlsMode};
use navarch_model::kinds::Kind;
use navarch_model::kubernetes as kube;
use navarch_model::networking::WorkloadEntry;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service;
use navarch_model::{ClusterId, Labels, Name};

use super::store::Reader;

/// A workload, before it is known which ports of which service it serves.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// The endpoint without port and service port.
    pub endpoint: Endpoint,
    /// Ports that have a name.
    pub ports: BTreeMap<String, u16>,
}

impl Workload {
    /// The endpoint for a port.
    pub fn at(&self, service_port_name: &Name, port: u16) -> Endpoint {
        Endpoint { service_port_name: service_port_name.clone(), port, ..self.endpoint.clone() }
    }

    /// Whether only a proxy can resolve the address: it is a name or a socket.
    pub fn is_named(&self) -> bool {
        !matches!(self.endpoint.address, Address::Ip(_))
    }
}

/// Labels that hold where a workload is.
pub(crate) const REGION: &str = "topology.kubernetes.io/region";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
pub(crate) const SUB_ZONE: &str = "topology.istio.io/subzone";
pub(crate) const CLUSTER: &str = "topology.istio.io/cluster";
pub(crate) const NETWORK: &str = "topology.istio.io/network";
pub(crate) const NODE: &str = "kubernetes.io/hostname";

/// Whether a pod is ready. A pod whose status has no such condition counts as ready: a directory of files has
/// no kubelet that would write one.
pub(super) fn is_ready(pod: &kube::Pod) -> bool {
    pod.status.readiness.0.unwrap_or(true)
}

/// The workload at an address of a pod.
pub(super) fn of_pod(reader: &Reader<'_>, object: &Object, pod: &kube::Pod, address: IpAddr) -> Workload {
    let labels = &object.metadata.labels;
    let cluster = object.key.cluster;
    let locality = pod_locality(reader, cluster, labels, &pod.spec.node_name);
    let primary = pod.status.pod_ip.parse().ok().unwrap_or(address);
    let network_at = |address| network(reader, cluster, labels, Some(address));
    let network = network_at(primary).or_else(|| network_at(address)).unwrap_or_default();
    let cluster_id = reader.cluster_name(cluster);
    let account = match pod.spec.service_account_name.as_str() {
        // What the API server fills in.
        "" => "default",
        account => account,
    };
    let node_name = service::name(&pod.spec.node_name);
    let sub_domain = service::name(&pod.spec.subdomain);
    let host_name = match (sub_domain.is_empty(), pod.spec.hostname.is_empty()) {
        (true, _) => Name::default(),
        (false, true) => object.key.name.clone(),
        (false, false) => Name::from(pod.spec.hostname.as_str()),
    };
    let endpoint = Endpoint {
        address: Address::Ip(address),
        additional_addresses: Vec::new(),
        port: 0,
        service_port_name: Name::default(),
        labels: with_topology(labels, &cluster_id, &locality, &node_name, &network),
        tls_mode: tls_mode(labels).unwrap_or_default(),
        hbone: labels.get("networking.istio.io/tunnel").is_some_and(|tunnel| &**tunnel == "http"),
        locality,
        weight: 0,
        network,
        cluster_id,
        health: if is_ready(pod) { Health::Healthy } else { Health::Unhealthy },
        service_account: Name::from(account),
        namespace: object.key.namespace.clone(),
        workload_name: object.key.name.clone(),
        host_name,
        sub_domain,
        node_name,
        cluster_local: false,
    };
    Workload { endpoint, ports: pod_ports(pod) }
}

/// The workload at an address that no pod of a cluster has: a manual endpoint.
pub(super) fn of_address(reader: &Reader<'_>, cluster: ClusterId, address: IpAddr) -> Workload {
    let labels = Labels::default();
    let network = network(reader, cluster, &labels, Some(address)).unwrap_or_default();
    let cluster_id = reader.cluster_name(cluster);
    let none = Name::default;
    let mut labels = with_topology(&labels, &cluster_id, &Locality::default(), &Name::default(), &network);
    labels.insert(topology_key(NETWORK), network.clone());
    let endpoint = Endpoint {
        address: Address::Ip(address),
        additional_addresses: Vec::new(),
        port: 0,
        service_port_name: none(),
        labels,
        locality: Locality::default(),
        weight: 0,
        network,
        cluster_id,
        health: Health::Healthy,
        tls_mode: TlsMode::Disabled,
        service_account: none(),
        namespace: none(),
        workload_name: none(),
        host_name: none(),
        sub_domain: none(),
        node_name: none(),
        hbone: false,
        cluster_local: false,
    };
    Workload { endpoint, ports: BTreeMap::new() }
}

/// The workload of a WorkloadEntry, or of an endpoint in a ServiceEntry, which is the owner. Without an
/// address there is none: it could only be reached through the gateway of its network.
pub(super) fn of_entry(
    reader: &Reader<'_>,
    entry: &WorkloadEntry,
    labels: &Labels,
    owner: &ObjectKey,
    name: &str,
) -> Option<Workload> {
    let cluster_id = reader.cluster_name(owner.cluster);
    let address = entry_address(&entry.address)?;
    let stated = Locality::parse(&entry.locality);
    let locality = if stated.is_empty() { label_locality(labels).unwrap_or_default() } else { stated };
    let network = service::name(&entry.network);
    let account = service::name(&entry.service_account);
    // A workload with an identity is one that has a proxy, unless its label says otherwise.
    let by_account = if account.is_empty() { TlsMode::Disabled } else { TlsMode::Istio };
    let endpoint = Endpoint {
        address,
        additional_addresses: Vec::new(),
        port: 0,
        service_port_name: Name::default(),
        labels: with_topology(labels, &cluster_id, &locality, &Name::default(), &network),
        locality,
        weight: entry.weight,
        network,
        cluster_id,
        health: Health::Unknown,
        tls_mode: tls_mode(labels).unwrap_or(by_account),
        service_account: account,
        namespace: owner.namespace.clone(),
        workload_name: Name::from(name),
        host_name: Name::default(),
        sub_domain: Name::default(),
        node_name: Name::default(),
        hbone: labels.get("networking.istio.io/tunnel").is_some_and(|tunnel| &**tunnel == "http"),
        cluster_local: false,
    };
    let ports =
        entry.ports.iter().filter_map(|(name, port)| Some((name.clone(), u16::try_from(*port).ok()?)));
    Some(Workload { endpoint, ports: ports.collect() })
}

fn entry_address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(Address::Unix(Name::from(path)));
    }
    match text.parse() {
        Ok(address) => Some(Address::Ip(address)),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(Address::Dns(Name::from(text))),
    }
}

/// The mode that the label `security.istio.io/tlsMode` states.
fn tls_mode(labels: &Labels) -> Option<TlsMode> {
    let mode = labels.get("security.istio.io/tlsMode")?;
    Some(if &**mode == "istio" { TlsMode::Istio } else { TlsMode::Disabled })
}

/// The network of a workload: its label, else that of the system namespace, else by MeshNetworks.
fn network(
    reader: &Reader<'_>,
    cluster: ClusterId,
    labels: &Labels,
    address: Option<IpAddr>,
) -> Option<Name> {
    let stated = |labels: &Labels| labels.get(NETWORK).filter(|network| !network.is_empty()).cloned();
    if let Some(network) = stated(labels) {
        return Some(network);
    }
    let system = reader.system_namespace();
    let system = system.map(|namespace| ObjectKey::of(cluster, Kind::Namespace, "", namespace));
    let system = system.and_then(|key| reader.object(&key));
    if let Some(network) = system.and_then(|namespace| stated(&namespace.metadata.labels)) {
        return Some(network);
    }
    reader.networks().of_address(&reader.cluster_name(cluster), address).cloned()
}

/// The locality of a pod: its label, else that of its node.
fn pod_locality(reader: &Reader<'_>, cluster: ClusterId, labels: &Labels, node: &str) -> Locality {
    if let Some(locality) = label_locality(labels) {
        return locality;
    }
    if node.is_empty() {
        return Locality::default();
    }
    let Some((node, _)) = reader.get::<kube::Node>(cluster, "", node) else { return Locality::default() };
    let first = |keys: &[&str]| {
        let mut stated = keys.iter().filter_map(|key| node.metadata.labels.get(*key));
        stated.find(|value| !value.is_empty()).cloned().unwrap_or_default()
    };
    Locality {
        region: first(&[REGION, "failure-domain.beta.kubernetes.io/region"]),
        zone: first(&[ZONE, "failure-domain.beta.kubernetes.io/zone"]),
        sub_zone: first(&[SUB_ZONE]),
    }
}

/// The locality that labels of a workload state. In a label, dots may stand for slashes.
pub(crate) fn label_locality(labels: &Labels) -> Option<Locality> {
    let stated = |key: &str| labels.get(key).filter(|value| !value.is_empty());
    let text = stated("topology.istio.io/locality").or_else(|| stated("istio-locality"))?;
    Some(if text.contains('/') { Locality::parse(text) } else { Locality::parse(&text.replace('.', "/")) })
}

/// Labels of a workload with those of its topology added.
pub(crate) fn with_topology(
    labels: &Labels,
    cluster_id: &Name,
    locality: &Locality,
    node: &Name,
    network: &Name,
) -> Labels {
    let mut out = labels.clone();
    let known = [
        (REGION, &locality.region),
        (ZONE, &locality.zone),
        (SUB_ZONE, &locality.sub_zone),
        (CLUSTER, cluster_id),
        (NODE, node),
    ];
    let known = known.into_iter().filter(|(_, value)| !value.is_empty());
    let own_network = labels.get(NETWORK).is_some_and(|stated| !stated.is_empty());
    let network = (!network.is_empty() && !own_network).then_some((NETWORK, network));
    out.extend(known.chain(network).map(|(key, value)| (topology_key(key), value.clone())));
    out
}

/// The key of a topology label. Every workload has some, so they share one text.
fn topology_key(key: &str) -> Name {
    static KEYS: LazyLock<[Name; 6]> =
        LazyLock::new(|| [REGION, ZONE, SUB_ZONE, CLUSTER, NETWORK, NODE].map(Name::from));
    KEYS.iter().find(|known| ***known == *key).cloned().unwrap_or_else(|| Name::from(key))
}

/// Named TCP ports of a pod; the first of equal names counts.
fn pod_ports(pod: &kube::Pod) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for port in
        container_ports(pod).filter(|port| !port.name.is_empty() && transport(&port.protocol) == "TCP")
    {
        if let Ok(number) = u16::try_from(port.container_port) {
            ports.entry(port.name.clone()).or_insert(number);
        }
    }
    ports
}

fn container_ports(pod: &kube::Pod) -> impl Iterator<Item = &kube::ContainerPort> {
    // Init containers that keep running ("native sidecars") have ports too; others are gone before traffic
    // arrives.
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    containers.flat_map(|container| &container.ports)
}

fn transport(protocol: &str) -> &str {
    if protocol.is_empty() { "TCP" } else { protocol }
}

/// The port of a pod that a service port leads to, if the pod has it.
pub(super) fn pod_target(pod: &kube::Pod, port: &kube::ServicePort) -> Option<u16> {
    match &port.target_port {
        Some(kube::IntOrString::Int(number)) if *number != 0 => u16::try_from(*number).ok(),
        Some(kube::IntOrString::String(name)) => container_ports(pod)
            .find(|own| own.name == *name && transport(&own.protocol) == transport(&port.protocol))
            .and_then(|own| u16::try_from(own.container_port).ok()),
        // What the API server fills in.
        _ => u16::try_from(port.port).ok(),
    }
}

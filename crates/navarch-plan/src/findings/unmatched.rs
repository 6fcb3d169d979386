//! Selectors that select no workload, and ports of gateways that no Service leads to.
//!
//! Only where a directory or a cluster lists its workloads as Pods or WorkloadEntries: a server that proxies
//! connect to has their labels from them. So it is looked for once, by `navarch analyze`, and not after every
//! change.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::extensions::{TrafficExtension, WasmPlugin};
use navarch_model::finding::{Code, Finding, Severity};
use navarch_model::kubernetes::{IntOrString, Service};
use navarch_model::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, WorkloadEntry,
};
use navarch_model::object::Object;
use navarch_model::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use navarch_model::telemetry::Telemetry;
use navarch_model::{Kind, Labels, Name};
use navarch_snapshot::Snapshot;
use navarch_snapshot::bound::selects;

use super::problem::Problem;

/// Pods of these gateways are made by whoever runs them, and are in no directory.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The labels of all workloads that are listed, by namespace.
struct Workloads(BTreeMap<Name, Vec<Labels>>);

impl Workloads {
    fn of(snapshot: &Snapshot) -> Self {
        let mut found: BTreeMap<Name, Vec<Labels>> = BTreeMap::new();
        for object in snapshot.objects_of(Kind::Pod).chain(snapshot.objects_of(Kind::WorkloadEntry)) {
            let own = object.spec::<WorkloadEntry>().into_iter().flat_map(|entry| &entry.labels);
            let mut labels: Labels =
                own.map(|(key, value)| (Name::from(key.as_str()), Name::from(value.as_str()))).collect();
            labels.extend(object.metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
            found.entry(object.key.namespace.clone()).or_default().push(labels);
        }
        Workloads(found)
    }

    /// Of one namespace, or of all.
    fn within(&self, namespace: Option<&Name>) -> impl Iterator<Item = (&Name, &Labels)> {
        let lists = self.0.iter().filter(move |(own, _)| namespace.is_none_or(|wanted| wanted == *own));
        lists.flat_map(|(own, labels)| labels.iter().map(move |labels| (own, labels)))
    }
}

/// The problems of a snapshot.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    let workloads = Workloads::of(snapshot);
    let root = snapshot.view().mesh().config.root_namespace.clone();
    let mut problems = Vec::new();
    for object in snapshot.objects() {
        let Some((path, labels)) = selector(object) else { continue };
        if labels.is_empty() || labels.contains_key(GATEWAY_NAME) {
            continue;
        }
        let everywhere = object.key.kind == Kind::Gateway || *object.key.namespace == *root;
        let namespace = (!everywhere).then_some(&object.key.namespace);
        let mut listed = workloads.within(namespace).peekable();
        if listed.peek().is_none() || listed.any(|(_, own)| selects(labels, own)) {
            continue;
        }
        let place = namespace.map_or_else(|| "the mesh".to_owned(), |own| format!("namespace {own}"));
        let message = format!("no Pod and no WorkloadEntry of {place} has these labels; nothing is selected");
        let severity = match object.key.kind {
            // Gateways are often not in the lists of workloads.
            Kind::Gateway => Severity::Info,
            _ => Severity::Warning,
        };
        let finding = Finding::new(severity, Code::NoEffect, message)
            .hint("correct the labels, or label the workloads; proxies elsewhere may have them");
        problems.push(Problem { key: object.key.clone(), path: path.to_owned(), finding });
    }
    for object in snapshot.objects_of(Kind::Gateway) {
        if let Some(gateway) = object.spec::<Gateway>() {
            ports(snapshot, &workloads, object, gateway, &mut problems);
        }
    }
    problems
}

/// The labels by which an object selects workloads, and the field that has them.
fn selector(object: &Object) -> Option<(&'static str, &BTreeMap<String, String>)> {
    macro_rules! selectors {
        ($($kind:ident => $field:ident . $labels:ident $path:literal;)+) => {
            match object.key.kind {
                Kind::Gateway => Some(("spec.selector", &object.spec::<Gateway>()?.selector)),
                $( Kind::$kind => Some(($path, &object.spec::<$kind>()?.$field.as_ref()?.$labels)), )+
                _ => None,
            }
        };
    }
    selectors! {
        Sidecar => workload_selector.labels "spec.workloadSelector";
        EnvoyFilter => workload_selector.labels "spec.workloadSelector";
        ServiceEntry => workload_selector.labels "spec.workloadSelector";
        DestinationRule => workload_selector.match_labels "spec.workloadSelector";
        ProxyConfig => selector.match_labels "spec.selector";
        PeerAuthentication => selector.match_labels "spec.selector";
        RequestAuthentication => selector.match_labels "spec.selector";
        AuthorizationPolicy => selector.match_labels "spec.selector";
        Telemetry => selector.match_labels "spec.selector";
        WasmPlugin => selector.match_labels "spec.selector";
        TrafficExtension => selector.match_labels "spec.selector";
    }
}

/// Servers of a gateway on ports that no Service in front of its pods has.
fn ports(
    snapshot: &Snapshot,
    workloads: &Workloads,
    object: &Object,
    gateway: &Gateway,
    problems: &mut Vec<Problem>,
) {
    let pods: Vec<(&Name, &Labels)> =
        workloads.within(None).filter(|(_, labels)| selects(&gateway.selector, labels)).collect();
    let mut names = Vec::new();
    let mut open: BTreeSet<i64> = BTreeSet::new();
    for service in snapshot.objects_of(Kind::Service) {
        let Some(spec) = service.spec::<Service>().filter(|service| !service.spec.selector.is_empty()) else {
            continue;
        };
        let is_front = |(namespace, labels): &(&Name, &Labels)| {
            **namespace == service.key.namespace && selects(&spec.spec.selector, labels)
        };
        if !pods.iter().any(is_front) {
            continue;
        }
        names.push(format!("{}/{}", service.key.namespace, service.key.name));
        for port in &spec.spec.ports {
            open.insert(port.port.into());
            if let Some(IntOrString::Int(target)) = &port.target_port {
                open.insert((*target).into());
            }
        }
    }
    if names.is_empty() {
        return;
    }
    for (index, server) in gateway.servers.iter().enumerate() {
        let Some(port) = server.port.as_ref().filter(|port| !open.contains(&port.number.into())) else {
            continue;
        };
        let message = format!("no port of {} leads to port {} of the gateway", names.join(", "), port.number);
        let finding =
            Finding::warning(Code::NoEffect, message).hint("add the port to the Service, or use one it has");
        let path = format!("spec.servers[{index}].port.number");
        problems.push(Problem { key: object.key.clone(), path, finding });
    }
}

//! Proxies that a configuration implies, for looking at it without any: what would become of its
//! EnvoyFilters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::Locality;
use navarch_model::kinds::Kind;
use navarch_model::kubernetes::Pod;
use navarch_model::listener::GatewayProxies;
use navarch_model::networking::{EnvoyFilter, WorkloadEntry};
use navarch_model::proxy::{COMPATIBLE_ISTIO_VERSION, ProxyFacts};
use navarch_model::{Hashed, Labels, Name};
use navarch_snapshot::{Snapshot, View};
use navarch_translate::patching::{Fates, Reach};
use serde_json::{Map, Value, json};

use crate::class::Class;
use crate::gather::shared::envoy_filters::FilterTarget;
use crate::planner::Planner;

/// More proxies than this are not planned for: where so many differ, what was found at these stands for all.
const PROXIES_MAX: usize = 64;
/// An address that no workload has.
const NOBODY: &str = "192.0.2.1";

/// What becomes of the patches of EnvoyFilters at the proxies that a snapshot implies: a gateway for each
/// Gateway, and the sidecars of the workloads that it lists. Nothing is planned if there are no EnvoyFilters.
///
/// Where the sidecars of services without a known workload could be what a patch is for, it is not said to
/// hit nothing.
pub fn presumed_fates(snapshot: &Arc<Snapshot>) -> Arc<Fates> {
    let view = snapshot.view();
    let filters = view.all_objects::<EnvoyFilter>();
    if filters.is_empty() {
        return Arc::default();
    }
    let planner = Planner::new(snapshot.clone());
    let mut classes = Vec::new();
    let mut known = BTreeSet::new();
    for facts in gateways(&view).chain(workloads(snapshot)) {
        let target = FilterTarget::of(&facts);
        if !filters.iter().any(|filter| target.is_meant_by(filter)) {
            continue;
        }
        let class: Hashed<Class> = Hashed::new(planner.classify(&facts));
        if known.insert(class.fingerprint()) && classes.len() < PROXIES_MAX {
            classes.push(Arc::new(class));
        }
    }
    let mut fates = Fates::default();
    for class in classes {
        let plan = planner.class_plan(class);
        planner.resources(&plan);
        fates.sum(&plan.fates());
    }
    let is_whole = known.len() <= PROXIES_MAX;
    Arc::new(if is_whole {
        fates
    } else {
        fates.only(|fate| fate.reach == Reach::Done || fate.refused.is_some())
    })
}

/// A proxy for each gateway whose proxies are found by labels.
fn gateways<'a>(view: &'a View<'_>) -> impl Iterator<Item = ProxyFacts> + 'a {
    view.gateways().filter_map(|gateway| match &gateway.proxies {
        GatewayProxies::Labelled(labels) => facts("router", NOBODY, &gateway.key().namespace, labels),
        GatewayProxies::Behind { .. } => None,
    })
}

/// A sidecar for each workload with an address.
fn workloads(snapshot: &Snapshot) -> impl Iterator<Item = ProxyFacts> + '_ {
    let pods = snapshot.objects_of(Kind::Pod).filter_map(|object| {
        let pod = object.spec::<Pod>()?;
        let address: IpAddr = pod.status.pod_ip.parse().ok()?;
        facts("sidecar", &address.to_string(), &object.key.namespace, &object.metadata.labels)
    });
    let entries = snapshot.objects_of(Kind::WorkloadEntry).filter_map(|object| {
        let entry = object.spec::<WorkloadEntry>()?;
        let address: IpAddr = entry.address.parse().ok()?;
        let labels = entry.labels.iter();
        let labels = labels.map(|(key, value)| (Name::from(key.as_str()), Name::from(value.as_str())));
        facts("sidecar", &address.to_string(), &object.key.namespace, &labels.collect())
    });
    pods.chain(entries)
}

fn facts(kind: &str, address: &str, namespace: &str, labels: &Labels) -> Option<ProxyFacts> {
    let labels: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect();
    let Value::Object(metadata) = json!({
        "NAMESPACE": namespace,
        "LABELS": labels,
        "ISTIO_VERSION": COMPATIBLE_ISTIO_VERSION,
    }) else {
        return None;
    };
    let id = format!("{kind}~{address}~presumed.{namespace}~{namespace}.svc.cluster.local");
    Some(ProxyFacts::read(&id, "", &metadata, Locality::default()).ok()?.0)
}

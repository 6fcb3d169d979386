//! What Pods and WorkloadEntries say by themselves, without a question to other objects.

use std::net::IpAddr;

use navarch_model::kubernetes as kube;
use navarch_model::networking::WorkloadEntry;
use navarch_model::object::Object;
use navarch_model::{Labels, Name};

/// Addresses of a pod, the primary one first; none if the pod is done or being deleted.
pub(crate) fn pod_addresses(object: &Object) -> Vec<IpAddr> {
    let Some(pod) = object.spec::<kube::Pod>() else { return Vec::new() };
    if !is_alive(object, pod) {
        return Vec::new();
    }
    let primary = pod.status.pod_ip.parse().ok();
    let others = pod.status.pod_ips.iter().filter_map(|address| address.ip.parse().ok());
    let mut addresses: Vec<IpAddr> = primary.into_iter().collect();
    for address in others {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Neither finished nor being deleted.
fn is_alive(object: &Object, pod: &kube::Pod) -> bool {
    !matches!(pod.status.phase.as_str(), "Failed" | "Succeeded")
        && object.metadata.deletion_timestamp.is_none()
}

/// Labels of a WorkloadEntry: those of the object go over those of the specification.
pub(crate) fn entry_labels(object: &Object, entry: &WorkloadEntry) -> Labels {
    let mut labels = own_labels(entry);
    labels.extend(object.metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels
}

/// Labels that a WorkloadEntry, or an endpoint of a ServiceEntry, states itself.
pub(super) fn own_labels(entry: &WorkloadEntry) -> Labels {
    entry.labels.iter().map(|(key, value)| (Name::from(key.as_str()), Name::from(value.as_str()))).collect()
}

//! Where Ingresses are reached: at Istio's ingress gateway.

use navarch_model::kubernetes as kube;
use navarch_model::object::ObjectKey;
use navarch_model::{Kind, Name};

use super::reach::external_addresses;
use crate::bind::{INGRESS_NAMESPACE, ingress_service};
use crate::snapshot::Snapshot;

/// The addresses of the Service that MeshConfig names (`ingressService`), outside the cluster.
pub(super) fn addresses(snapshot: &Snapshot) -> Vec<Name> {
    let key = key(snapshot);
    let service = snapshot.objects.get(&key).and_then(|object| object.spec::<kube::Service>());
    service.map(|service| external_addresses(service)).unwrap_or_default()
}

/// All Ingresses, if their addresses may be others than before.
pub(super) fn concerned_since(now: &Snapshot, before: &Snapshot) -> Vec<ObjectKey> {
    if addresses(now) == addresses(before) {
        return Vec::new();
    }
    now.objects_of(Kind::Ingress).map(|object| object.key.clone()).collect()
}

fn key(snapshot: &Snapshot) -> ObjectKey {
    ObjectKey::new(Kind::Service, INGRESS_NAMESPACE, ingress_service(&snapshot.mesh.config))
}

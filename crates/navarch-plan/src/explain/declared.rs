//! The objects behind nouns of the mesh.

use navarch_model::ObjectKey;
use navarch_model::kinds::Kind;
use navarch_model::service::{Registry, Service};

/// The object that declares a service.
pub(super) fn key_of(service: &Service) -> ObjectKey {
    let kind = match service.registry {
        Registry::Kubernetes => Kind::Service,
        Registry::ServiceEntry => Kind::ServiceEntry,
    };
    ObjectKey::new(kind, &service.namespace, &service.name)
}

//! From Kubernetes and Istio objects to services, endpoints and workloads.
//!
//! ```text
//!  Service ─┐                    ┌─ Services(object) ──> services by host
//!  ServiceEntry ─┤   Reader      ├─ Endpoints(object) ─> endpoints by host and namespace
//!  EndpointSlice ┼─ (records ───>┤
//!  Pod, Node     │   questions)  └─ Workload(address) ─> what a proxy serves
//!  WorkloadEntry ┘
//! ```
//!
//! Each arrow on the right is a *unit* (see [`crate::world`]): a function of what its reader answered, run
//! again when one of the answers may have changed.

mod allocation;
mod endpoints;
mod instances;
mod kubernetes;
mod objects;
mod service_entry;
pub(crate) mod store;
pub(crate) mod workloads;

use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::Hashed;
use navarch_model::kubernetes as kube;
use navarch_model::networking::ServiceEntry;
use navarch_model::object::ObjectKey;
use navarch_model::service::Service;

pub(crate) use self::endpoints::HostEndpoints;
use crate::bound::{NetworkGateway, WorkloadFacts};
use store::Reader;

pub(crate) use kubernetes::{hostname as kubernetes_host, visibility};

/// The services that an object declares, and the gateways to this network that it is.
pub(crate) fn services_of(
    reader: &Reader<'_>,
    key: &ObjectKey,
) -> (Vec<Arc<Hashed<Service>>>, Vec<NetworkGateway>) {
    let Some(object) = reader.object(key) else { return (Vec::new(), Vec::new()) };
    if let Some(spec) = object.spec::<kube::Service>() {
        let service = kubernetes::service(reader, object, spec);
        let gateways = kubernetes::network_gateways(reader, object, spec, &service);
        return (vec![Arc::new(Hashed::new(service))], gateways);
    }
    let Some(entry) = object.spec::<ServiceEntry>() else { return (Vec::new(), Vec::new()) };
    let services = service_entry::services(reader, object, entry);
    (services.into_iter().map(Hashed::new).map(Arc::new).collect(), Vec::new())
}

/// The endpoints that an object gives to each host it declares.
pub(crate) fn endpoints_of(reader: &Reader<'_>, key: &ObjectKey) -> HostEndpoints {
    endpoints::of_object(reader, key)
}

/// The workloads at an address.
pub(crate) fn workloads_at(reader: &Reader<'_>, address: IpAddr) -> Vec<WorkloadFacts> {
    instances::workloads_at(reader, address)
}

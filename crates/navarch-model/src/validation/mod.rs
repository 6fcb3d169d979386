//! What is wrong with objects whose types are right.
//!
//! The rules are those that Istio's own validation enforces, as far as they protect something: an error means that the object cannot
//! be translated into what its author wants, a warning that part of it has no effect or is dangerous.

mod metadata;
mod report;

pub(crate) use metadata::validate_metadata;
pub use report::Report;

/// A specification that can be checked on its own, without the rest of the mesh.
pub trait Validate {
    /// Reports what is wrong; paths count from `spec`, or from the object for Kubernetes' own kinds.
    fn validate(&self, report: &mut Report<'_>) {
        let _ = report;
    }
}

use crate::{extensions, kubernetes, networking, security, telemetry};

impl Validate for networking::VirtualService {}
impl Validate for networking::DestinationRule {}
impl Validate for networking::Gateway {}
impl Validate for networking::ServiceEntry {}
impl Validate for networking::WorkloadEntry {}
impl Validate for networking::WorkloadGroup {}
impl Validate for networking::Sidecar {}
impl Validate for networking::EnvoyFilter {}
impl Validate for networking::ProxyConfig {}
impl Validate for security::PeerAuthentication {}
impl Validate for security::AuthorizationPolicy {}
impl Validate for security::RequestAuthentication {}
impl Validate for telemetry::Telemetry {}
impl Validate for extensions::WasmPlugin {}
impl Validate for extensions::TrafficExtension {}
impl Validate for kubernetes::Namespace {}
impl Validate for kubernetes::Node {}
impl Validate for kubernetes::Service {}
impl Validate for kubernetes::EndpointSlice {}
impl Validate for kubernetes::Endpoints {}
impl Validate for kubernetes::Pod {}
impl Validate for kubernetes::Secret {}
impl Validate for kubernetes::ConfigMap {}

//! What is wrong with objects whose types are right.
//!
//! The rules are those that Istio's own validation enforces, as far as they protect something: an error means
//! that the object cannot be translated into what its author wants, a warning that part of it has no effect
//! or is dangerous.

mod annotations;
mod authorization_policy;
mod backend_policy;
mod beyond;
mod checks;
mod destination_rule;
mod envoy_filter;
mod extensions;
mod gateway;
mod gateway_api;
mod header_value;
mod hosts;
mod ingress;
mod kubernetes;
mod mesh_config;
mod metadata;
mod regex;
mod report;
mod routes;
mod security;
mod service_entry;
mod sidecar;
mod unreachable;
mod virtual_service;

pub use annotations::annotation_misses;
pub(crate) use annotations::validate_annotations;
pub(crate) use mesh_config::extension_providers;
pub(crate) use metadata::validate_metadata;
pub use report::Report;

/// A specification that can be checked on its own, without the rest of the mesh.
pub trait Validate {
    /// Reports what is wrong with this value, which `report` has walked to.
    fn validate(&self, report: &mut Report<'_>);
}

//! Gathering: from what a class can see to the inputs of translators, one module per type of resource.
//!
//! A gather decides *what* is translated (which services, which rule for each); *how* is the translators' business.

pub mod attachment;
pub mod clusters;
pub mod endpoints;
pub mod envoy_filters;
pub mod extensions;
pub mod gateway;
pub mod listeners;
pub mod routes;
pub mod secrets;
pub mod security;
pub(crate) mod telemetry;
mod upstream;

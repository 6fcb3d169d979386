//! Pure translation of Istio and Kubernetes nouns into Envoy resources.
//!
//! In: plain values that are the keys of the plan's cache. Out: encoded Envoy resources and parts of them.
//! This crate must never know the snapshot, a runtime, a socket, the clock or the environment: a translator
//! can read nothing but its input.

pub mod access_log;
pub mod bootstrap;
pub mod clusters;
pub mod encoded;
pub mod endpoints;
pub mod extensions;
pub mod filters;
pub mod gateway;
mod guard;
pub mod http_connection_manager;
pub mod listeners;
pub mod name_table;
pub mod names;
mod origin;
pub mod patch_values;
pub mod patching;
mod pure;
pub mod routes;
pub mod sds;
pub mod secrets;
pub mod security;
pub mod standard_metrics;
pub mod tls;
pub mod tracing;

pub use patching::Patched;
pub use pure::Pure;

//! Filters and the one place that decides their order.
//!
//! Every HTTP and network filter chain of sidecars and gateways is assembled here: whoever adds a filter
//! (authorization, token checks, extensions, telemetry) hands over `(phase, filter)` pairs and never touches
//! a listener.

pub mod http;
pub mod network;

pub use http::{HttpFilters, HttpPhase};
pub use network::{NetworkFilters, NetworkPhase};

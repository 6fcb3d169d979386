//! What proxies of several roles get, and what their gathers share.

pub mod attachment;
pub mod bootstrap;
pub mod clusters;
pub mod endpoints;
pub mod envoy_filters;
pub mod extensions;
pub mod listeners;
pub mod name_table;
pub mod rejected;
pub mod routes;
pub mod secrets;
pub mod security;
pub mod sessions;
pub mod standard_metrics;
pub mod streams;
pub mod telemetry;
pub mod upstream;

//! What proxies of several roles get, and what their gathers share.

pub mod attachment;
pub mod clusters;
pub mod endpoints;
pub mod envoy_filters;
pub mod extensions;
pub(crate) mod route_client;
pub(crate) mod routes;
pub mod secrets;
pub mod security;
pub(crate) mod telemetry;
pub(crate) mod upstream;

//! What gateways get: proxies that serve the listeners of Istio and Kubernetes Gateways.

pub mod clusters;
pub mod endpoints;
mod hosts;
pub mod listeners;
pub mod merge;
pub mod routes;
pub mod secrets;
mod selected;
mod sets;

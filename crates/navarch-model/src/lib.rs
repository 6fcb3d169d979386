//! The nouns of the control plane.
//!
//! In: text of configuration files (through `yaml`) and the node a proxy sends. Out: typed, validated values and findings.
//! This crate must never know Envoy's types, a Kubernetes client, a runtime or a socket.

pub mod config;
pub mod endpoint;
pub mod hashed;
pub mod proxy;
pub mod service;

pub use config::Config;
pub use hashed::{Fingerprint, Hashed};
pub use service::Name;

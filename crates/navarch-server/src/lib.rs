//! The control plane put together: pipeline, fleet, admin port, metrics.
//!
//! In: a directory of configuration, and streams of proxies. Out: what `navarch-xds` sends, and pages for
//! people. This crate must never know the side of the proxy (`navarch-agent`).

pub mod admin;
pub mod client;
pub mod day;
pub mod debounce;
pub mod debug;
pub mod discovery;
pub mod error;
pub mod events;
pub mod fleet;
pub mod gateways;
pub mod guard;
pub mod identity;
pub mod inputs;
pub mod keys;
pub mod load;
pub mod metrics;
pub mod object_status;
pub mod observe;
pub mod pipeline;
pub mod pod_settings;
pub mod provenance;
pub mod reach;
pub mod refresh;
mod registration;
pub mod rejections;
pub mod reports;
pub mod roots;
pub mod secret_readers;
pub mod secure;
pub mod serve;
pub mod status;
pub mod webhook;
mod whose;

//! The side of the proxy: what stock Envoy needs to start.
//!
//! In: who the proxy is and where the control plane listens. Out: a bootstrap for stock Envoy. This crate
//! must never know the snapshot, the plan or the sources of configuration: it talks to the control plane as
//! any proxy does.

pub mod bootstrap;
pub mod node;

//! Code that users put into the filter chain.

pub mod traffic_extension;
pub mod wasm_module;
pub mod wasm_plugin;

pub use traffic_extension::*;
pub use wasm_module::*;
pub use wasm_plugin::*;

pub use crate::types::{PolicyTargetReference, PortSelector, WorkloadMode, WorkloadSelector};

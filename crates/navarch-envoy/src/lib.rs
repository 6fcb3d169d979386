//! Envoy and xDS protobuf types, encoded resources and resource sets.
//!
//! In: messages built by the translators, bytes from the wire, JSON from configuration. Out: encoded
//! resources with a content hash, canonical JSON, differences between two resource sets.
//!
//! Never knows anything of ours: no service, no proxy, no configuration kind, no runtime, no socket.

pub mod any;
mod descriptors;
pub mod dynamic;
pub mod hosts;
pub mod json;
pub mod proto;
pub mod resource;
pub mod set;
pub mod static_config;
pub mod types;
pub mod wire;
pub mod wkt;

pub use any::Any;
pub use resource::{Resource, Version};
pub use set::{Layer, ProxyResources, ResourceSet, SetDelta, WeakResourceSet, diff};
pub use static_config::{StaticConfig, static_config};
pub use types::{Removal, XdsType};

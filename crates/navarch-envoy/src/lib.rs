//! Envoy and xDS protobuf types, encoded resources and resource sets.

pub mod resource;
pub mod set;
pub mod types;
pub mod wire;

pub use resource::{Resource, Version};
pub use set::{Layer, ProxyResources, ResourceSet, SetDelta, diff};
pub use types::{Removal, XdsType};

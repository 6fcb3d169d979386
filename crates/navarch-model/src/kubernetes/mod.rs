//! Kubernetes' own objects, with the fields that a service mesh reads.
//!
//! The types mirror the whole object without its metadata (`spec`, `status`, …). Fields that are not here are
//! ignored.

pub mod config_map;
pub mod endpoint_slice;
pub mod endpoints;
pub mod ingress;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod secret;
pub mod service;

pub use config_map::*;
pub use endpoint_slice::*;
pub use endpoints::*;
pub use ingress::*;
pub use namespace::*;
pub use node::*;
pub use pod::*;
pub use secret::*;
pub use service::*;

use crate::yaml::{Decode, Decoder, Node as YamlNode, message};

message! {
    /// Which object something belongs to.
    pub struct ObjectReference {
        kind: String,
        namespace: String,
        name: String,
    }
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Decode for IntOrString {
    fn decode(node: &YamlNode, decoder: &mut Decoder) -> Option<Self> {
        match node.as_str() {
            Some(text) => Some(Self::String(text.to_owned())),
            None => i32::decode(node, decoder).map(Self::Int),
        }
    }
}

//! The nouns of the control plane.
//!
//! In goes text: YAML or JSON documents with Istio's and Kubernetes' objects, and the node that a proxy
//! sends. Out come typed, validated values that keep where they came from, and findings about what is wrong
//! with them and what to do about it.
//!
//! Everything here is a plain value that can be compared and hashed, so that it may be an input of
//! translation. This crate must never know Envoy's types, a Kubernetes client, a runtime, a socket, a clock
//! or a file system.

pub mod change;
pub mod cluster;
pub mod config;
pub mod definition;
pub mod document;
pub mod duration;
pub mod endpoint;
pub mod extensions;
pub mod fact;
pub mod finding;
pub mod gateway_api;
pub mod hashed;
pub mod identity;
pub mod inference;
pub mod key;
pub mod key_pair;
pub mod kinds;
pub mod kubernetes;
pub mod listener;
mod mention;
pub mod mesh;
pub mod multicluster;
pub mod networking;
pub mod object;
pub mod origin;
pub mod place;
pub mod proxy;
pub mod revision;
pub mod route;
pub mod rule;
pub mod security;
pub mod service;
mod small_map;
pub mod standard_metrics;
pub mod status;
pub mod telemetry;
pub mod timestamp;
pub mod types;
pub mod validation;
pub mod values;
pub mod yaml;

pub use cluster::ClusterId;
pub use config::Config;
pub use document::{Parsed, parse_bytes, parse_objects, parse_text};
pub use fact::{Fact, FactKey};
pub use finding::{Code, Finding, Severity};
pub use hashed::{Fingerprint, Hashed};
pub use identity::{SpiffeId, TrustDomains};
pub use key::ObjectKey;
pub use kinds::{ConfigKind, Kind, Spec};
pub use object::{Metadata, Object};
pub use origin::{Origin, Precedence};
pub use place::{Place, Position, Span};
pub use revision::{Revision, Whose};
pub use rule::EffectiveRule;
pub use service::{Labels, Name};
pub use small_map::SmallMap;

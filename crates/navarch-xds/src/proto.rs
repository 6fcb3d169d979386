//! The messages a client sends, as far as they are looked at.
//!
//! Written by hand and not taken from the generated types for one reason: a stock Envoy puts a list of some
//! 500 extensions (60 KB) into the node of every request. What is not named here is skipped while decoding
//! and never allocated, and the node stays bytes until somebody needs it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// The version of the last response that was accepted; on the first request of a stream, of an earlier
    /// one (xDS spec, "ACK/NACK and resource type instance version").
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks, encoded. Required in the first request of a stream only ("Aggregated Discovery Service").
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub node: Option<Bytes>,
    /// Everything that is wanted, `*` for all. Empty in the first request of a type: all, for clusters and
    /// listeners ("How the client specifies what resources to return").
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The type. Required on aggregated streams.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The nonce of the response that is answered; empty in the first request of a stream.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Present if the response is rejected, whatever is in it ("ACK and NACK semantics summary").
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
    /// Names with parameters, in place of `resource_names` (xRFC TP2).
    #[prost(message, repeated, tag = "7")]
    pub resource_locators: Vec<ResourceLocator>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks, encoded. Required in the first request of a stream only.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub node: Option<Bytes>,
    /// The type. Required on aggregated streams.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names that are wanted from now on, `*` for all. Each is answered, even if the client has it
    /// ("Subscribing to Resources").
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names that are no longer wanted ("Unsubscribing from Resources").
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// In the first request of a type: what the client holds from an earlier stream, by name, with its
    /// version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: BTreeMap<String, String>,
    /// The nonce of the response that is answered; empty in a request that answers none.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Present if the response is rejected, whatever is in it.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
    /// Names with parameters, in addition to `resource_names_subscribe` (xRFC TP2).
    #[prost(message, repeated, tag = "8")]
    pub resource_locators_subscribe: Vec<ResourceLocator>,
    /// The same for `resource_names_unsubscribe`.
    #[prost(message, repeated, tag = "9")]
    pub resource_locators_unsubscribe: Vec<ResourceLocator>,
}

/// `envoy.service.discovery.v3.ResourceLocator`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceLocator {
    /// The name. Parameters are not looked at.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Says nothing: Envoy sends 13, gRPC 3, ztunnel 0.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What was wrong. May contain configuration.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `envoy.config.core.v3.Node`, without `extensions`.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Names the proxy. Required.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The service or group the proxy says it belongs to.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Anything.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// Where the proxy runs.
    #[prost(message, optional, tag = "4")]
    pub locality: Option<Locality>,
    /// The kind of client, for example `envoy` or `gRPC Go`.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its version as text; Envoy gives it as numbers instead.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
    /// Its version as numbers.
    #[prost(message, optional, tag = "8")]
    pub user_agent_build_version: Option<BuildVersion>,
    /// What it can do beyond the base protocol.
    #[prost(string, repeated, tag = "10")]
    pub client_features: Vec<String>,
}

/// `envoy.config.core.v3.Locality`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Locality {
    /// Region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// Zone in the region.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// Part of the zone.
    #[prost(string, tag = "3")]
    pub sub_zone: String,
}

/// `envoy.config.core.v3.BuildVersion`.
#[derive(Clone, PartialEq, Message)]
pub struct BuildVersion {
    /// The version.
    #[prost(message, optional, tag = "1")]
    pub version: Option<SemanticVersion>,
}

/// `envoy.type.v3.SemanticVersion`.
#[derive(Clone, PartialEq, Message)]
pub struct SemanticVersion {
    /// Incompatible changes.
    #[prost(uint32, tag = "1")]
    pub major: u32,
    /// Additions.
    #[prost(uint32, tag = "2")]
    pub minor: u32,
    /// Corrections.
    #[prost(uint32, tag = "3")]
    pub patch: u32,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// By name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// What it is; nothing is read as null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// What a [`Value`] holds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// `null`.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number: doubles only.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    String(String),
    /// True or false.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

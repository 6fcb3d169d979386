//! What a client asks, in either protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::proto;
use crate::response::Protocol;

/// One request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Type URL; may be empty on a stream that serves one type.
    pub type_url: String,
    /// The encoded node, if there is one.
    pub node: Option<Bytes>,
    /// The nonce of the response that this one answers, if it answers one.
    pub nonce: String,
    /// Set if that response was rejected, whatever the code: ztunnel sends code 0.
    pub error: Option<Error>,
    /// What is wanted.
    pub wish: Wish,
}

/// `error_detail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// gRPC code; means nothing.
    pub code: i32,
    /// What the client says.
    pub text: String,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// State of the world: exactly these names.
    Exactly {
        /// All names.
        names: Vec<String>,
        /// The version the client has, from this server or another one.
        version: String,
    },
    /// Delta: a change to the subscription.
    Change {
        /// Names to add.
        subscribe: Vec<String>,
        /// Names to drop.
        unsubscribe: Vec<String>,
        /// On the first request: what the client has from an earlier stream.
        held: BTreeMap<String, String>,
    },
}

impl Default for Wish {
    fn default() -> Self {
        Wish::Exactly { names: Vec::new(), version: String::new() }
    }
}

impl Request {
    /// Decodes a request of this protocol.
    ///
    /// # Errors
    /// If the bytes are not one.
    pub fn decode(protocol: Protocol, message: Bytes) -> Result<Self, prost::DecodeError> {
        match protocol {
            Protocol::Sotw => proto::DiscoveryRequest::decode(message).map(Self::from),
            Protocol::Delta => proto::DeltaDiscoveryRequest::decode(message).map(Self::from),
        }
    }
}

impl From<proto::Status> for Error {
    fn from(status: proto::Status) -> Self {
        Self { code: status.code, text: status.message }
    }
}

/// Locators are names with dynamic parameters. No client sends parameters yet, and without them a locator is
/// its name.
fn with_locators(mut names: Vec<String>, locators: Vec<proto::ResourceLocator>) -> Vec<String> {
    names.extend(locators.into_iter().map(|locator| locator.name));
    names
}

impl From<proto::DiscoveryRequest> for Request {
    fn from(request: proto::DiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            node: request.node,
            nonce: request.response_nonce,
            error: request.error_detail.map(Error::from),
            wish: Wish::Exactly {
                names: with_locators(request.resource_names, request.resource_locators),
                version: request.version_info,
            },
        }
    }
}

impl From<proto::DeltaDiscoveryRequest> for Request {
    fn from(request: proto::DeltaDiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            node: request.node,
            nonce: request.response_nonce,
            error: request.error_detail.map(Error::from),
            wish: Wish::Change {
                subscribe: with_locators(
                    request.resource_names_subscribe,
                    request.resource_locators_subscribe,
                ),
                unsubscribe: with_locators(
                    request.resource_names_unsubscribe,
                    request.resource_locators_unsubscribe,
                ),
                held: request.initial_resource_versions,
            },
        }
    }
}

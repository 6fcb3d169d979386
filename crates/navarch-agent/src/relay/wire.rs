//! Responses of discovery as they stand on the wire, read and put together without decoding what is in them.

use navarch_envoy::wire::{Fields, Value, put_field};

/// How the client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Sotw,
    Delta,
}

/// Fields of both kinds of responses.
pub(super) const VERSION: u32 = 1;
pub(super) const RESOURCES: u32 = 2;
pub(super) const TYPE_URL: u32 = 4;
pub(super) const NONCE: u32 = 5;
/// Of `DeltaDiscoveryResponse`.
pub(super) const REMOVED: u32 = 6;
/// The tags of length-delimited fields, for writing.
pub(super) const fn tag(field: u32) -> u8 {
    (field << 3 | 2) as u8
}

/// One resource on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'r> {
    pub name: &'r str,
    pub version: &'r str,
    /// The encoded message, without its `Any`.
    pub message: &'r [u8],
}

/// What a response says besides its resources.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head<'m> {
    pub version: &'m str,
    pub type_url: &'m str,
    pub nonce: &'m str,
}

impl<'m> Head<'m> {
    /// Reads a response of either kind.
    #[must_use]
    pub fn of(message: &'m [u8]) -> Self {
        let mut head = Head::default();
        for (field, value) in Fields::new(message) {
            let Value::Bytes(bytes) = value else { continue };
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            match field {
                VERSION => head.version = text,
                TYPE_URL => head.type_url = text,
                NONCE => head.nonce = text,
                _ => {}
            }
        }
        head
    }
}

pub(super) fn bytes_of(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    })
}

pub(super) fn text_of(message: &[u8], wanted: u32) -> &str {
    bytes_of(message, wanted).last().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The resources of a `DeltaDiscoveryResponse`, each a `Resource`.
pub fn resources(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes_of(message, RESOURCES)
}

/// Name and version of a `Resource`.
#[must_use]
pub fn name_and_version(resource: &[u8]) -> (&str, &str) {
    (text_of(resource, 3), text_of(resource, 1))
}

/// The message in an `Any`, and that of the `resource` of a `Resource`.
#[must_use]
pub fn value_of(any: &[u8]) -> &[u8] {
    bytes_of(any, 2).last().unwrap_or_default()
}

/// The name of a resource in state of the world: of every type that there is, the first field.
#[must_use]
pub fn name_in(message: &[u8]) -> &str {
    text_of(message, 1)
}

/// The names that a `DeltaDiscoveryResponse` takes away.
pub fn removed(message: &[u8]) -> impl Iterator<Item = &str> {
    bytes_of(message, REMOVED).filter_map(|bytes| std::str::from_utf8(bytes).ok())
}

pub(super) fn delta_versions(message: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    resources(message).map(name_and_version)
}

/// A response with these resources.
pub(super) fn encode(
    protocol: Protocol,
    type_url: &str,
    version: &str,
    nonce: &str,
    resources: &[Sent<'_>],
    removed: &[String],
) -> Vec<u8> {
    let mut out = Vec::new();
    put_field(&mut out, tag(VERSION), version.as_bytes());
    put_field(&mut out, tag(TYPE_URL), type_url.as_bytes());
    put_field(&mut out, tag(NONCE), nonce.as_bytes());
    for Sent { name, version, message } in resources {
        let mut any = Vec::new();
        put_field(&mut any, tag(1), type_url.as_bytes());
        put_field(&mut any, tag(2), message);
        match protocol {
            Protocol::Sotw => put_field(&mut out, tag(RESOURCES), &any),
            Protocol::Delta => {
                let mut resource = Vec::new();
                put_field(&mut resource, tag(1), version.as_bytes());
                put_field(&mut resource, tag(2), &any);
                put_field(&mut resource, tag(3), name.as_bytes());
                put_field(&mut out, tag(RESOURCES), &resource);
            }
        }
    }
    if protocol == Protocol::Delta {
        for name in removed {
            put_field(&mut out, tag(REMOVED), name.as_bytes());
        }
    }
    out
}

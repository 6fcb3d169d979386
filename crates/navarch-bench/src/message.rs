//! Requests written and responses read by hand: field by field, nothing decoded that is not looked at.

use bytes::Bytes;
use navarch_envoy::XdsType;
use navarch_envoy::wire::{Fields, Value, put_field};

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Delta,
    Sotw,
}

impl Protocol {
    /// The method of the aggregated discovery service.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Protocol::Delta => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            Protocol::Sotw => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
        }
    }
}

/// A discovery request of either protocol.
#[derive(Default)]
pub struct Request<'a> {
    /// The encoded node; only on the first request of a stream, as Envoy does
    /// (`set_node_on_first_message_only`).
    pub node: Option<&'a [u8]>,
    /// Delta: names to subscribe to. State of the world: all names.
    pub names: Vec<&'a str>,
    pub unsubscribe: Vec<&'a str>,
    /// What the client holds already, on the first delta request of a type.
    pub initial: Vec<(&'a str, &'a str)>,
    pub nonce: &'a str,
    /// The version that is acknowledged (state of the world).
    pub version: &'a str,
}

impl Request<'_> {
    /// The request as one gRPC message.
    #[must_use]
    pub fn encode(&self, protocol: Protocol, ty: XdsType) -> Bytes {
        // The gRPC header: not compressed, and the length, written at the end.
        let mut out = vec![0u8; 5];
        let field = |out: &mut Vec<u8>, number: u8, value: &[u8]| put_field(out, number << 3 | 2, value);
        match protocol {
            Protocol::Delta => {
                if let Some(node) = self.node {
                    field(&mut out, 1, node);
                }
                field(&mut out, 2, ty.type_url().as_bytes());
                self.names.iter().for_each(|name| field(&mut out, 3, name.as_bytes()));
                self.unsubscribe.iter().for_each(|name| field(&mut out, 4, name.as_bytes()));
                for (name, version) in &self.initial {
                    let mut entry = Vec::with_capacity(name.len() + version.len() + 8);
                    field(&mut entry, 1, name.as_bytes());
                    field(&mut entry, 2, version.as_bytes());
                    field(&mut out, 5, &entry);
                }
                if !self.nonce.is_empty() {
                    field(&mut out, 6, self.nonce.as_bytes());
                }
            }
            Protocol::Sotw => {
                if !self.version.is_empty() {
                    field(&mut out, 1, self.version.as_bytes());
                }
                if let Some(node) = self.node {
                    field(&mut out, 2, node);
                }
                self.names.iter().for_each(|name| field(&mut out, 3, name.as_bytes()));
                field(&mut out, 4, ty.type_url().as_bytes());
                if !self.nonce.is_empty() {
                    field(&mut out, 5, self.nonce.as_bytes());
                }
            }
        }
        let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
        if let Some(header) = out.get_mut(1..5) {
            header.copy_from_slice(&length.to_be_bytes());
        }
        Bytes::from(out)
    }
}

/// A response as it lies in the buffer.
#[derive(Debug, Default)]
pub struct Response<'a> {
    pub ty: Option<XdsType>,
    pub nonce: &'a str,
    pub version: &'a str,
    pub resources: Vec<Received<'a>>,
    pub removed: Vec<&'a str>,
}

/// One resource of a response.
#[derive(Debug)]
pub struct Received<'a> {
    pub name: &'a str,
    /// As the server names it; empty in state of the world.
    pub version: &'a str,
    /// The encoded `google.protobuf.Any`; empty for a resource that only extends a time to live.
    pub any: &'a [u8],
    /// The message inside.
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// Reads a response; what is not understood is left out.
    #[must_use]
    pub fn read(protocol: Protocol, message: &'a [u8]) -> Self {
        let mut response = Response::default();
        for (number, value) in Fields::new(message) {
            let Value::Bytes(bytes) = value else { continue };
            match number {
                1 => response.version = text(bytes),
                2 => response.resources.push(match protocol {
                    Protocol::Delta => Received::delta(bytes),
                    Protocol::Sotw => Received::sotw(bytes),
                }),
                4 => response.ty = XdsType::from_type_url(text(bytes)),
                5 => response.nonce = text(bytes),
                6 if protocol == Protocol::Delta => response.removed.push(text(bytes)),
                _ => {}
            }
        }
        response
    }
}

impl<'a> Received<'a> {
    fn delta(resource: &'a [u8]) -> Self {
        let mut received = Received { name: "", version: "", any: &[], body: &[] };
        for (number, value) in Fields::new(resource) {
            match (number, value) {
                (1, Value::Bytes(bytes)) => received.version = text(bytes),
                (2, Value::Bytes(bytes)) => received.any = bytes,
                (3, Value::Bytes(bytes)) => received.name = text(bytes),
                _ => {}
            }
        }
        received.body = nested(received.any, 2);
        received
    }

    /// The name is the first field of every type that is asked for here.
    fn sotw(any: &'a [u8]) -> Self {
        let body = nested(any, 2);
        Received { name: text(nested(body, 1)), version: "", any, body }
    }
}

/// The first field of this number, if it is a message or text.
#[must_use]
pub fn nested(message: &[u8], number: u32) -> &[u8] {
    all_nested(message, number).next().unwrap_or_default()
}

/// All fields of this number.
pub fn all_nested(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |(found, value)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

/// UTF-8 text, or nothing.
#[must_use]
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The Envoy that the proxies behave like: servers treat versions differently.
const VERSION: &[u8] = b"1.40.0";

/// The encoded `envoy.config.core.v3.Node` of a proxy. Values of `metadata` are text or, if they parse as
/// such, JSON objects of text.
#[must_use]
pub fn node(id: &str, cluster: &str, metadata: &serde_json::Map<String, serde_json::Value>) -> Vec<u8> {
    let mut out = Vec::new();
    put_field(&mut out, 0x0a, id.as_bytes());
    put_field(&mut out, 0x12, cluster.as_bytes());
    put_field(&mut out, 0x1a, &structure(metadata));
    put_field(&mut out, 0x32, b"envoy");
    put_field(&mut out, 0x3a, VERSION);
    out
}

/// `google.protobuf.Struct`.
fn structure(fields: &serde_json::Map<String, serde_json::Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in fields {
        let mut entry = Vec::new();
        put_field(&mut entry, 0x0a, key.as_bytes());
        put_field(&mut entry, 0x12, &json_value(value));
        put_field(&mut out, 0x0a, &entry);
    }
    out
}

/// `google.protobuf.Value`.
fn json_value(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        serde_json::Value::Null => out.extend([0x08, 0]),
        serde_json::Value::Bool(truth) => out.extend([0x20, u8::from(*truth)]),
        serde_json::Value::Number(number) => {
            out.push(0x11);
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        serde_json::Value::String(text) => put_field(&mut out, 0x1a, text.as_bytes()),
        serde_json::Value::Object(fields) => put_field(&mut out, 0x2a, &structure(fields)),
        serde_json::Value::Array(values) => {
            let mut list = Vec::new();
            values.iter().for_each(|value| put_field(&mut list, 0x0a, &json_value(value)));
            put_field(&mut out, 0x32, &list);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::Resource;

    #[test]
    fn responses_are_read_in_both_protocols() {
        let mut cluster = Vec::new();
        put_field(&mut cluster, 0x0a, b"a");
        let resource = Resource::of(XdsType::Cds, "a", &cluster);
        for (protocol, chunk, version) in [
            (Protocol::Delta, resource.delta_chunk(), resource.version().to_string()),
            (Protocol::Sotw, resource.sotw_chunk(), String::new()),
        ] {
            let mut message = Vec::new();
            put_field(&mut message, 0x0a, b"v");
            put_field(&mut message, 0x22, XdsType::Cds.type_url().as_bytes());
            put_field(&mut message, 0x2a, b"n");
            message.extend_from_slice(&chunk);
            let response = Response::read(protocol, &message);
            assert_eq!(
                (response.ty, response.nonce, response.version),
                (Some(XdsType::Cds), "n", "v"),
                "{protocol:?}"
            );
            let received = response.resources.first().expect("one resource");
            assert_eq!((received.name, received.version), ("a", &*version), "{protocol:?}");
            assert_eq!((received.any, received.body), (&*resource.any(), &*cluster), "{protocol:?}");
        }
    }

    #[test]
    fn a_request_starts_with_its_length() {
        let request = Request { names: vec!["a", "b"], nonce: "n", ..Request::default() };
        let message = request.encode(Protocol::Delta, XdsType::Eds);
        assert_eq!(message.get(..5), Some(&[0, 0, 0, 0, (message.len() - 5) as u8][..]));
        let fields: Vec<u32> = Fields::new(&message[5..]).map(|(number, _)| number).collect();
        assert_eq!(fields, [2, 3, 3, 6]);
    }

    #[test]
    fn garbage_is_an_empty_response() {
        let response = Response::read(Protocol::Delta, &[0xff; 40]);
        assert!(response.ty.is_none() && response.resources.is_empty());
    }
}

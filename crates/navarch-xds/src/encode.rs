//! Responses as bytes: a few of their own, and the rest shared.
//!
//! Protobuf lets fields stand in any order and a repeated field in pieces. So a response is the fields that
//! differ from stream to stream (version, nonce, type) followed by resources that were encoded when they were
//! made.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use navarch_envoy::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource as WireResource,
};
use navarch_envoy::wire::{field_len, put_field};
use navarch_envoy::{Resource, XdsType};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use crate::response::{Protocol, Response};
use crate::server::{Answers, framed};

/// Bytes of a response up to which its resources are copied behind its head: cheaper than sharing them.
const COPIED_MAX: usize = 16 << 10;

/// Bytes of one shared piece. The transport takes piece by piece, as the client makes room, so the size
/// bounds what is buffered for a client that does not read.
const PIECE: usize = 256 << 10;

/// One resource in so many is the last of its piece.
const RESOURCES_PER_PIECE: u128 = 64;

/// Bytes of shared pieces that are kept for who comes next. To join a megabyte again takes as long as to send
/// some twenty kilobytes.
const KEPT_MAX: usize = 16 << 20;

/// Length of the gRPC message header: one byte flags, four bytes length.
pub const GRPC_HEADER: usize = 5;

/// Puts responses together and shares what is equal between streams.
#[derive(Debug)]
pub struct Encoder {
    /// `control_plane.identifier`, as its encoded field; empty if there is none.
    control_plane: Vec<u8>,
    joined: Mutex<Joined>,
}

/// Pieces by what is in them; the ones used last come first.
#[derive(Debug, Default)]
struct Joined {
    entries: VecDeque<(u128, Bytes)>,
    bytes: usize,
}

impl Encoder {
    /// An encoder that puts this `control_plane.identifier` into every response.
    #[must_use]
    pub fn new(identifier: &str) -> Self {
        let mut control_plane = Vec::new();
        if !identifier.is_empty() {
            put_field(&mut control_plane, 0x0a, identifier.as_bytes());
        }
        Self { control_plane, joined: Mutex::default() }
    }

    /// One gRPC message, in pieces. The first one is short and belongs to the stream; the others may be
    /// shared.
    #[must_use]
    pub fn grpc_message(&self, protocol: Protocol, response: &Response) -> Vec<Bytes> {
        let head = self.head(protocol, response);
        let total: usize = response.resources.iter().map(|r| chunk_len(protocol, r)).sum();
        let mut first = BytesMut::with_capacity(GRPC_HEADER + head.len() + total.min(COPIED_MAX));
        first.put_u8(0);
        first.put_u32(u32::try_from(head.len() + total).unwrap_or(u32::MAX));
        first.put_slice(&head);
        if total <= COPIED_MAX {
            for resource in response.resources.iter() {
                first.put_slice(&chunk(protocol, resource));
            }
            return vec![first.freeze()];
        }
        let mut message = vec![first.freeze()];
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        for run in runs(protocol, response) {
            match run.as_slice() {
                [alone] => message.extend(cut(&chunk(protocol, alone))),
                run => message.push(joined.get(protocol, run)),
            }
        }
        message
    }

    /// A response that is not part of the configuration.
    #[must_use]
    pub fn answer(&self, protocol: Protocol, type_url: &str, nonce: String, answers: Answers) -> Bytes {
        let type_url = type_url.to_owned();
        let (mut body, control_plane) = match protocol {
            Protocol::Sotw => {
                let resources = answers.into_iter().map(|(_, any)| any).collect();
                let response =
                    DiscoveryResponse { type_url, nonce, resources, ..DiscoveryResponse::default() };
                (response.encode_to_vec(), 0x32)
            }
            Protocol::Delta => {
                let named =
                    |(name, any)| WireResource { name, resource: Some(any), ..WireResource::default() };
                let resources = answers.into_iter().map(named).collect();
                let response = DeltaDiscoveryResponse {
                    type_url,
                    nonce,
                    resources,
                    ..DeltaDiscoveryResponse::default()
                };
                (response.encode_to_vec(), 0x3a)
            }
        };
        if !self.control_plane.is_empty() {
            put_field(&mut body, control_plane, &self.control_plane);
        }
        framed(&body)
    }

    /// All fields but the resources.
    fn head(&self, protocol: Protocol, response: &Response) -> Vec<u8> {
        let (nonce, version, url) = (&response.nonce, &response.version, response.ty.type_url());
        let mut head =
            Vec::with_capacity(field_len(nonce.len()) + field_len(version.len()) + field_len(url.len()));
        put_field(&mut head, 0x0a, version.as_bytes());
        put_field(&mut head, 0x22, url.as_bytes());
        put_field(&mut head, 0x2a, nonce.as_bytes());
        let (control_plane, errors) = match protocol {
            Protocol::Sotw => (0x32, 0x3a),
            Protocol::Delta => (0x3a, 0x4a),
        };
        if !self.control_plane.is_empty() {
            put_field(&mut head, control_plane, &self.control_plane);
        }
        if protocol == Protocol::Delta {
            for name in &response.removed {
                put_field(&mut head, 0x32, name.as_bytes());
            }
            for resource in &response.heartbeats {
                head.extend_from_slice(&resource.heartbeat_chunk());
            }
        }
        for name in &response.missing {
            put_field(&mut head, errors, &not_found(response.ty, name));
        }
        head
    }
}

impl Joined {
    /// The resources as one piece, the same one for all who send them in a row.
    fn get(&mut self, protocol: Protocol, run: &[&Resource]) -> Bytes {
        let key = key(protocol, run);
        let (key, piece) = match self.entries.iter().position(|(known, _)| *known == key) {
            Some(position) => self.entries.remove(position).unwrap_or_default(),
            None => {
                let len = run.iter().map(|resource| chunk_len(protocol, resource)).sum();
                let mut piece = BytesMut::with_capacity(len);
                run.iter().for_each(|resource| piece.put_slice(&chunk(protocol, resource)));
                self.bytes += len;
                (key, piece.freeze())
            }
        };
        self.entries.push_front((key, piece.clone()));
        while self.bytes > KEPT_MAX {
            let Some((_, old)) = self.entries.pop_back() else { break };
            self.bytes -= old.len();
        }
        piece
    }
}

/// The resources of a response in runs, each of them one piece.
///
/// A resource ends its run because of what it is, not because of how many there were before. So lists that
/// differ in a few resources, as those of two Deployments that see the same services do, differ in a few
/// runs.
fn runs(protocol: Protocol, response: &Response) -> Vec<Vec<&Resource>> {
    let mut runs = Vec::new();
    let (mut run, mut bytes) = (Vec::new(), 0);
    for resource in response.resources.iter() {
        let len = chunk_len(protocol, resource);
        // What is large is not copied.
        let alone = len >= PIECE / 4;
        if alone || bytes + len > PIECE {
            runs.push(mem::take(&mut run));
            bytes = 0;
        }
        run.push(&**resource);
        bytes += len;
        if alone || resource.version().0.is_multiple_of(RESOURCES_PER_PIECE) {
            runs.push(mem::take(&mut run));
            bytes = 0;
        }
    }
    runs.push(run);
    runs.retain(|run| !run.is_empty());
    runs
}

/// A resource that is sent as it is, in pieces.
fn cut(chunk: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..chunk.len()).step_by(PIECE);
    starts.map(|start| chunk.slice(start..chunk.len().min(start + PIECE)))
}

/// Equal for equal resources in equal order.
fn key(protocol: Protocol, run: &[&Resource]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&[protocol as u8]);
    for resource in run {
        hasher.update(&resource.version().0.to_le_bytes());
        hasher.update(resource.name().as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.digest128()
}

fn chunk(protocol: Protocol, resource: &Resource) -> Bytes {
    match protocol {
        Protocol::Sotw => resource.sotw_chunk(),
        Protocol::Delta => resource.delta_chunk(),
    }
}

fn chunk_len(protocol: Protocol, resource: &Resource) -> usize {
    match protocol {
        Protocol::Sotw => resource.sotw_chunk().len(),
        Protocol::Delta => resource.len(),
    }
}

/// `envoy.service.discovery.v3.ResourceError` with code NOT_FOUND.
fn not_found(ty: XdsType, name: &str) -> Vec<u8> {
    let mut resource_name = Vec::new();
    put_field(&mut resource_name, 0x0a, name.as_bytes());
    let mut status = vec![0x08, 5];
    put_field(&mut status, 0x12, format!("there is no {ty} resource {name}").as_bytes());
    let mut error = Vec::new();
    put_field(&mut error, 0x0a, &resource_name);
    put_field(&mut error, 0x12, &status);
    error
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navarch_envoy::ResourceSet;

    use super::*;
    use crate::response::Batch;

    const BOTH: [Protocol; 2] = [Protocol::Sotw, Protocol::Delta];

    fn resource(name: &str, bytes: usize) -> Arc<Resource> {
        let mut body = vec![b'x'; bytes];
        put_field(&mut body, 0x0a, name.as_bytes());
        Arc::new(Resource::of(XdsType::Cds, name, &body))
    }

    fn response(resources: impl IntoIterator<Item = Arc<Resource>>) -> Response {
        Response {
            ty: XdsType::Cds,
            nonce: "1.1".into(),
            version: "v".into(),
            resources: Batch::Set(ResourceSet::of(resources)),
            heartbeats: Vec::new(),
            removed: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn clusters(names: std::ops::Range<usize>) -> impl Iterator<Item = Arc<Resource>> {
        names.map(|n| resource(&format!("outbound|80||service-{n:05}"), 1000 + n % 7))
    }

    #[test]
    fn a_message_is_its_header_and_all_resources() {
        let large = || resource("large", 3 * PIECE);
        for (protocol, resources) in [0, 1, 10, 3000].map(|n| clusters(0..n)).into_iter().flat_map(|all| {
            let all: Vec<_> = all.chain([large()]).collect();
            BOTH.map(|protocol| (protocol, all.clone()))
        }) {
            let response = response(resources);
            let message = Encoder::new("").grpc_message(protocol, &response);
            assert!(message.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
            let head = Encoder::new("").head(protocol, &response);
            let chunks: Vec<u8> =
                response.resources.iter().flat_map(|resource| chunk(protocol, resource).to_vec()).collect();
            let whole = message.concat();
            assert_eq!(whole[..GRPC_HEADER], [&[0][..], &(whole.len() as u32 - 5).to_be_bytes()].concat());
            assert!(whole[GRPC_HEADER..] == [head, chunks].concat());
        }
    }

    #[test]
    fn lists_that_differ_a_little_share_most_pieces() {
        let encoder = Encoder::new("");
        let own = |name: &str| resource(name, 2000);
        let of = |name: &str| -> Vec<*const u8> {
            let response = response(clusters(0..2000).chain([own(name)]));
            let message = encoder.grpc_message(Protocol::Delta, &response);
            message[1..].iter().map(|piece| piece.as_ptr()).collect()
        };
        let (a, b) = (of("inbound|8080||"), of("outbound|80||service-01000-own"));
        let shared = a.iter().filter(|piece| b.contains(piece)).count();
        assert!(a.len() > 10 && shared >= a.len() - 3, "{shared} of {}", a.len());
    }

    #[test]
    fn what_is_kept_is_limited() {
        let encoder = Encoder::new("");
        for start in 0..10 {
            let _ =
                encoder.grpc_message(Protocol::Delta, &response(clusters(start * 5000..start * 5000 + 5000)));
        }
        let joined = encoder.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = joined.entries.iter().map(|(_, piece)| piece.len()).sum();
        assert_eq!(bytes, joined.bytes);
        assert!(bytes <= KEPT_MAX && bytes > KEPT_MAX / 2, "{bytes}");
    }
}

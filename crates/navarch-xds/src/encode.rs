//! Responses as bytes: a few of their own, and the rest shared.
//!
//! Protobuf lets fields stand in any order and a repeated field in pieces. So a response is the fields that differ
//! from stream to stream (version, nonce, type) followed by resources that were encoded when they were made.

use std::collections::VecDeque;
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
use crate::server::Answers;

/// Bytes of a response up to which its resources are copied behind its head: cheaper than sharing them.
const COPIED_MAX: usize = 16 << 10;

/// Bytes of one shared piece. The transport takes piece by piece, as the client makes room, so the size bounds what
/// is buffered for a client that does not read.
const PIECE: usize = 256 << 10;

/// Bytes of shared pieces that are kept.
const KEPT_MAX: usize = 64 << 20;

/// Length of the gRPC message header: one byte flags, four bytes length.
pub const GRPC_HEADER: usize = 5;

/// Puts responses together and shares what is equal between streams.
#[derive(Debug)]
pub struct Encoder {
    /// `control_plane.identifier`, as its encoded field; empty if there is none.
    control_plane: Vec<u8>,
    joined: Mutex<Joined>,
}

#[derive(Debug, Default)]
struct Joined {
    entries: VecDeque<(u128, Pieces)>,
    bytes: usize,
}

/// Resources of one response, joined.
#[derive(Clone, Debug)]
struct Pieces {
    pieces: std::sync::Arc<[Bytes]>,
    len: usize,
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

    /// One gRPC message, in pieces. The first one is short and belongs to the stream; the others may be shared.
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
        let shared = self.join(protocol, response, total);
        let mut message = Vec::with_capacity(1 + shared.pieces.len());
        message.push(first.freeze());
        message.extend(shared.pieces.iter().cloned());
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
        let mut message = BytesMut::with_capacity(GRPC_HEADER + body.len());
        message.put_u8(0);
        message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        message.put_slice(&body);
        message.freeze()
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

    /// The resources in pieces, the same ones for every response with equal resources.
    fn join(&self, protocol: Protocol, response: &Response, total: usize) -> Pieces {
        let key = key(protocol, response);
        {
            let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, pieces)) = joined.entries.iter().find(|(known, _)| *known == key) {
                return pieces.clone();
            }
        }
        let pieces = Pieces { pieces: pieces(protocol, response).into(), len: total };
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.bytes += pieces.len;
        joined.entries.push_front((key, pieces.clone()));
        while joined.bytes > KEPT_MAX && joined.entries.len() > 1 {
            if let Some((_, old)) = joined.entries.pop_back() {
                joined.bytes -= old.len;
            }
        }
        pieces
    }
}

fn pieces(protocol: Protocol, response: &Response) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = BytesMut::new();
    for resource in response.resources.iter() {
        let chunk = chunk(protocol, resource);
        // A large resource is not copied.
        if chunk.len() >= PIECE / 4 {
            if !piece.is_empty() {
                pieces.push(piece.split().freeze());
            }
            let starts = (0..chunk.len()).step_by(PIECE);
            pieces.extend(starts.map(|start| chunk.slice(start..chunk.len().min(start + PIECE))));
            continue;
        }
        if piece.len() + chunk.len() > PIECE {
            pieces.push(piece.split().freeze());
        }
        piece.put_slice(&chunk);
    }
    if !piece.is_empty() {
        pieces.push(piece.freeze());
    }
    pieces
}

/// Equal for equal resources in equal order.
fn key(protocol: Protocol, response: &Response) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&[protocol as u8]);
    for resource in response.resources.iter() {
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

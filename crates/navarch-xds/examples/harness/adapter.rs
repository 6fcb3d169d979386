//! A server whose resources are said by a harness, `adapter.Adapter`: each node has a state of its own.
//!
//! The harness dictates versions and expects to see them; this server's versions are hashes of content. So a
//! dictated version becomes a part of the content, in a field that nobody knows, and on the way out takes the
//! place of the hash. Everything else is the server as it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use navarch_envoy::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use navarch_envoy::wire::{Fields, Value};
use navarch_envoy::{Any, ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{Class, Connection, Dialect, Discovery, Node, Peer, Rejection, Server, Settings};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The package and name of the control interface.
pub const SERVICE: &str = "/adapter.Adapter/";
/// The field of a resource that carries the version the harness gave it. No message of Envoy has so many.
const VERSION_FIELD: u32 = 20_000;
/// Length of the header of a gRPC message.
const HEADER: usize = 5;

/// `SetState`: all that the node is to be served.
#[derive(Clone, PartialEq, Message)]
pub struct SetState {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(message, repeated, tag = "3")]
    pub resources: Vec<Any>,
}

/// `ClearState`: the node is not known any more.
#[derive(Clone, PartialEq, Message)]
pub struct ClearState {
    #[prost(string, tag = "1")]
    pub node: String,
}

/// The answer to `ClearState`.
#[derive(Clone, PartialEq, Message)]
pub struct Cleared {
    #[prost(string, tag = "1")]
    pub response: String,
}

/// `AddResource`, `UpdateResource`, `RemoveResource`.
#[derive(Clone, PartialEq, Message)]
pub struct OneResource {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(string, tag = "2")]
    pub type_url: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub version: String,
}

/// The answer to everything but `ClearState`.
#[derive(Clone, PartialEq, Message)]
pub struct Done {
    #[prost(bool, tag = "1")]
    pub success: bool,
}

/// A server and what it is told to serve.
#[derive(Clone)]
pub struct Adapter {
    server: Server,
    nodes: Nodes,
}

#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<BTreeMap<String, Served>>>);

/// What one node is served.
struct Served {
    class: Arc<Class>,
    revision: u64,
    resources: BTreeMap<XdsType, BTreeMap<String, Arc<Resource>>>,
}

impl Discovery for Nodes {
    fn connect(&self, node: &Arc<Node>, _: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        Ok(self.with(&node.id, |served| Connection::to(served.class.clone())))
    }
}

impl Nodes {
    fn with<T>(&self, node: &str, act: impl FnOnce(&mut Served) -> T) -> T {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Served { class: Class::new(), revision: 0, resources: BTreeMap::new() };
        act(nodes.entry(node.to_owned()).or_insert_with(fresh))
    }

    fn set_state(&self, state: &SetState) -> Done {
        let mut resources: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for any in &state.resources {
            let Some(ty) = XdsType::from_type_url(&any.type_url) else { return Done { success: false } };
            // The name is the first field of every type that the harness knows.
            let Some(name) = text(&any.value, 1) else { return Done { success: false } };
            let resource = resource(ty, name, &any.value, &state.version);
            resources.entry(ty).or_default().insert(name.to_owned(), resource);
        }
        self.with(&state.node, |served| {
            served.resources = resources;
            served.publish();
        });
        Done { success: true }
    }

    fn clear_state(&self, state: &ClearState) -> Cleared {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&state.node).is_some();
        Cleared { response: if known { "cleared" } else { "there was none" }.into() }
    }

    fn put(&self, one: &OneResource, exists: bool) -> Done {
        let Some(ty) = XdsType::from_type_url(&one.type_url) else { return Done { success: false } };
        let success = self.with(&one.node, |served| {
            let of_type = served.resources.entry(ty).or_default();
            if of_type.contains_key(&one.name) != exists {
                return false;
            }
            let mut body = Vec::new();
            prost::encoding::string::encode(1, &one.name, &mut body);
            of_type.insert(one.name.clone(), resource(ty, &one.name, &body, &one.version));
            served.publish();
            true
        });
        Done { success }
    }

    fn remove(&self, one: &OneResource) -> Done {
        let Some(ty) = XdsType::from_type_url(&one.type_url) else { return Done { success: false } };
        let success = self.with(&one.node, |served| {
            let removed = served.resources.entry(ty).or_default().remove(&one.name).is_some();
            served.publish();
            removed
        });
        Done { success }
    }
}

impl Served {
    fn publish(&mut self) {
        self.revision += 1;
        let start = ProxyResources::new(self.revision);
        let all = self.resources.iter();
        let all = all.fold(start, |all, (ty, set)| all.with(*ty, ResourceSet::of(set.values().cloned())));
        self.class.publish(Arc::new(all));
    }
}

/// A resource that carries the version the harness gave it.
fn resource(ty: XdsType, name: &str, body: &[u8], version: &str) -> Arc<Resource> {
    let mut body = body.to_vec();
    prost::encoding::string::encode(VERSION_FIELD, &version.to_owned(), &mut body);
    Arc::new(Resource::of(ty, name, &body))
}

/// A text field of an encoded message.
fn text(message: &[u8], number: u32) -> Option<&str> {
    Fields::new(message).find_map(|field| match field {
        (found, Value::Bytes(text)) if found == number => std::str::from_utf8(text).ok(),
        _ => None,
    })
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Adapter {
    /// A server that serves nobody yet.
    pub fn new() -> Self {
        let nodes = Nodes::default();
        let settings = Settings { streams_per_second: 1e6, brake: None, ..Settings::default() };
        Self { server: Server::builder(nodes.clone()).settings(settings).build(), nodes }
    }

    /// Serves xDS and the control interface, both, on one port.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        loop {
            let (socket, address) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let adapter = self.clone();
            tokio::spawn(async move {
                // What is not of the control interface goes on to the server.
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                tokio::spawn(
                    adapter.server.clone().serve_connection(theirs, Arc::new(Peer::plaintext(address))),
                );
                let onward = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
                let Ok((onward, connection)) = onward.handshake(TokioIo::new(ours)).await else { return };
                tokio::spawn(connection);
                let service = service_fn(|request: Request<Incoming>| {
                    let (adapter, onward) = (adapter.clone(), onward.clone());
                    async move { Ok::<_, Infallible>(adapter.respond(request, onward).await) }
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // It ends with the client.
                let _ = http2.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    async fn respond(&self, request: Request<Incoming>, mut onward: SendRequest<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if let Some(method) = path.strip_prefix(SERVICE) {
            return self.control(method, request).await;
        }
        let is_delta = path.rsplit('/').next().is_some_and(|method| method.starts_with("Delta"));
        match onward.send_request(request).await {
            Ok(response) => response.map(|body| rewritten(body, is_delta)),
            Err(_) => answered(Err("the server is gone")),
        }
    }

    async fn control(&self, method: &str, request: Request<Incoming>) -> Response<Body> {
        let Ok(body) = request.into_body().collect().await else { return answered(Err("the request broke")) };
        let body = body.to_bytes();
        let message = body.get(HEADER..).unwrap_or_default();
        let nodes = &self.nodes;
        let one = |act: &dyn Fn(&OneResource) -> Done| {
            OneResource::decode(message).map(|one| act(&one).encode_to_vec())
        };
        let answer = match method {
            "SetState" => SetState::decode(message).map(|state| nodes.set_state(&state).encode_to_vec()),
            "ClearState" => {
                ClearState::decode(message).map(|state| nodes.clear_state(&state).encode_to_vec())
            }
            "AddResource" => one(&|one| nodes.put(one, false)),
            "UpdateResource" => one(&|one| nodes.put(one, true)),
            "RemoveResource" => one(&|one| nodes.remove(one)),
            _ => return answered(Err("no such method")),
        };
        answered(answer.map_err(|_| "the request cannot be read"))
    }
}

/// The answer of a unary method.
fn answered(message: Result<Vec<u8>, &'static str>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    let (status, text) = match &message {
        Ok(_) => ("0", ""),
        Err(text) => ("3", *text),
    };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(text));
    let data = message.ok().map(|message| Ok(Frame::data(framed(&message))));
    let frames = data.into_iter().chain([Ok(Frame::trailers(trailers))]);
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEADER + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The body of an xDS stream with the versions of the harness.
fn rewritten(mut body: Incoming, is_delta: bool) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = sender.closed() => return,
            };
            let Some(Ok(frame)) = frame else { return };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { return };
                    return drop(sender.send(Ok(Frame::trailers(trailers))).await);
                }
            };
            buffer.put(data);
            while let Some(message) = next_message(&mut buffer) {
                let message = if is_delta { rewrite_delta(&message) } else { rewrite_sotw(&message) };
                if sender.send(Ok(Frame::data(framed(&message)))).await.is_err() {
                    return;
                }
            }
        }
    });
    StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync()
}

/// Takes a whole message out of the buffer, if there is one.
fn next_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..HEADER)?.get_u32() as usize;
    if buffer.len() < HEADER + length {
        return None;
    }
    buffer.advance(HEADER);
    Some(buffer.split_to(length).freeze())
}

fn rewrite_sotw(message: &Bytes) -> Vec<u8> {
    let Ok(mut response) = DiscoveryResponse::decode(message.clone()) else { return message.to_vec() };
    let versions = response.resources.iter().filter_map(|any| text(&any.value, VERSION_FIELD));
    if let Some(newest) = newest(versions) {
        response.version_info = newest;
    }
    response.encode_to_vec()
}

fn rewrite_delta(message: &Bytes) -> Vec<u8> {
    let Ok(mut response) = DeltaDiscoveryResponse::decode(message.clone()) else { return message.to_vec() };
    for resource in &mut response.resources {
        let version = resource.resource.as_ref().and_then(|any| text(&any.value, VERSION_FIELD));
        if let Some(version) = version.map(str::to_owned) {
            resource.version = version;
        }
    }
    if let Some(newest) = newest(response.resources.iter().map(|resource| resource.version.as_str())) {
        response.system_version_info = newest;
    }
    response.encode_to_vec()
}

/// The harness counts: `1`, `2`, `10`.
fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<String> {
    versions.max_by_key(|version| (version.len(), *version)).map(str::to_owned)
}

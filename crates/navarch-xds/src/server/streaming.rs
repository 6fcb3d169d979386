//! Methods that others bring to the port with any number of messages in both directions, found by their path.
//!
//! As with [`Service`](super::Service), the server sees to the transport; what the messages mean is up to the
//! [`StreamingService`].

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::call::{Call, End, Offer};
use super::grpc::{Status, framed};
use super::{Peer, Settings};

/// A gRPC method with streams in both directions. It counts before a method of the server itself with the
/// same path, so a relay can take all of discovery. The [`Authenticate`](super::Authenticate) of the server
/// is not asked.
pub trait StreamingService: Send + Sync + 'static {
    /// Serves a call until it ends.
    ///
    /// Calls run on the task of their connection, so the future must not block. It is dropped when the
    /// connection ends.
    ///
    /// # Errors
    /// The status that the client hears; without one, that all went well.
    fn serve<'c>(&'c self, call: &'c mut StreamingCall) -> BoxFuture<'c, Result<(), Status>>;
}

/// A call that is under way.
pub struct StreamingCall {
    call: Call,
    path: String,
    metadata: HeaderMap,
    peer: Arc<Peer>,
    has_room: bool,
}

/// What a call is ready for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A message has come; nothing when the client has closed its side.
    Message(Option<Bytes>),
    /// The transport has taken all that was sent.
    Room,
}

impl StreamingCall {
    /// The path of the method: `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The headers of the request. They may hold credentials.
    #[must_use]
    pub fn metadata(&self) -> &HeaderMap {
        &self.metadata
    }

    /// Who calls, as far as the transport knows.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether the transport has taken all that was sent. Who sends more without it decides to keep it in
    /// memory.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    /// Waits for the next message, or for room if there is none. May be dropped without losing anything.
    ///
    /// # Errors
    /// If the transport breaks, or the bytes are not messages within the limits.
    pub async fn ready(&mut self) -> Result<Ready, Status> {
        poll_fn(|cx| {
            if let Poll::Ready(message) = self.call.poll_message(cx) {
                return Poll::Ready(message.map(Ready::Message));
            }
            if self.has_room {
                return Poll::Pending;
            }
            self.call.poll_room(cx).map(|room| {
                self.has_room = true;
                room.map(|()| Ready::Room)
            })
        })
        .await
    }

    /// Sends a message. It goes out while [`StreamingCall::ready`] is waited for.
    pub fn send(&mut self, message: &[u8]) {
        self.has_room = false;
        self.call.send([framed(message)]);
    }

    /// Sends a message whose bytes come in pieces, which are not copied.
    pub fn send_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        let pieces: Vec<Bytes> = pieces.into_iter().collect();
        self.has_room = false;
        self.call.send([super::grpc::header(pieces.iter().map(Bytes::len).sum())]);
        self.call.send(pieces);
    }
}

/// Tokens are in the metadata.
impl fmt::Debug for StreamingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingCall").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The streaming services of a server, by path.
#[derive(Default)]
pub(super) struct Streaming(BTreeMap<String, Arc<dyn StreamingService>>);

impl Streaming {
    pub fn add(&mut self, path: String, service: Arc<dyn StreamingService>) {
        self.0.insert(path, service);
    }

    pub fn get(&self, path: &str) -> Option<&Arc<dyn StreamingService>> {
        self.0.get(path)
    }
}

/// Serves one call; how it ended.
pub(super) async fn serve(
    service: &dyn StreamingService,
    mut offer: Offer,
    peer: Arc<Peer>,
    settings: &Settings,
) -> Result<(), End> {
    let path = offer.request.uri().path().to_owned();
    let metadata = std::mem::take(offer.request.headers_mut());
    let Ok(call) = Call::accept(offer, settings.request_bytes_max) else { return Ok(()) };
    let mut call = StreamingCall { call, path, metadata, peer, has_room: true };
    let status = match service.serve(&mut call).await {
        Ok(()) => Status::new(super::Code::Ok, ""),
        Err(status) => status,
    };
    tracing::debug!(code = ?status.code, message = %status.message, path = call.path, "call ended");
    call.call.end(&status, settings.grace).await
}

//! One gRPC call on an HTTP/2 stream: messages in, messages out, a status at the end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};

use super::grpc::{self, Code, Messages, Status};

/// How the work on a call ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client is told.
    Told(Status),
    /// The client cannot be told anything: it does not read. Only the end of its connection ends such a call.
    NotRead,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        End::Told(status)
    }
}

/// A call that may be taken or refused.
pub(super) struct Offer {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

/// A call that was taken.
///
/// Messages are handed to the transport as they are, in pieces of shared bytes. tonic's encoder copies each
/// into a buffer of its own and keeps the buffer; for a thousand streams and messages of two megabytes that
/// is a gigabyte.
pub(super) struct Call {
    requests: RecvStream,
    messages: Messages,
    responses: SendStream<Bytes>,
    /// Pieces of messages that the transport has had no room for yet.
    unsent: VecDeque<Bytes>,
}

impl Call {
    /// Takes a call: the client hears that there will be messages.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn accept(mut offer: Offer, request_bytes_max: usize) -> Result<Self, h2::Error> {
        let responses = offer.respond.send_response(grpc::accept(), false)?;
        let requests = offer.request.into_body();
        Ok(Self { requests, messages: Messages::new(request_bytes_max), responses, unsent: VecDeque::new() })
    }

    /// The next message; `None` when the client has closed its side.
    ///
    /// # Errors
    /// If the transport breaks or the bytes are not a gRPC message within the limits.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.messages.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.requests.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(data) => {
                    let data = data.map_err(|error| broken(&error))?;
                    // What is read makes room for more; that the stream is closed shows with the next read.
                    let _ = self.requests.flow_control().release_capacity(data.len());
                    self.messages.put(data);
                }
            }
        }
    }

    /// [`Call::poll_message`], as a future. May be dropped without losing anything.
    ///
    /// # Errors
    /// The same.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Ready when the transport has taken all that was to be sent and has room for more. So what is sent is
    /// made when it can be sent, from the newest state.
    ///
    /// # Errors
    /// If the transport breaks.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            self.responses.reserve_capacity(1);
            while self.responses.capacity() == 0 {
                match ready!(self.responses.poll_capacity(cx)) {
                    Some(capacity) => _ = capacity.map_err(|error| broken(&error))?,
                    None => return Poll::Ready(Err(Status::cancelled())),
                }
            }
            let Some(piece) = self.unsent.pop_front() else { return Poll::Ready(Ok(())) };
            self.responses.send_data(piece, false).map_err(|error| broken(&error))?;
        }
    }

    /// [`Call::poll_room`], as a future.
    ///
    /// # Errors
    /// The same.
    pub async fn room(&mut self) -> Result<(), Status> {
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Resolves when the client wants no answer any more.
    pub async fn given_up(&mut self) {
        let _ = poll_fn(|cx| self.responses.poll_reset(cx)).await;
    }

    /// Sends a message, in pieces, as [`Call::poll_room`] is polled.
    pub fn send(&mut self, message: impl IntoIterator<Item = Bytes>) {
        self.unsent.extend(message);
    }

    /// Ends the call. Its last word waits for the transport like any other.
    ///
    /// # Errors
    /// If the client does not read it `within` this time.
    pub async fn end(mut self, status: &Status, within: Duration) -> Result<(), End> {
        match tokio::time::timeout(within, self.room()).await {
            Err(_) => Err(End::NotRead),
            Ok(room) => {
                let mut trailers = HeaderMap::new();
                status.write(&mut trailers);
                // A client that is gone does not listen.
                let _ = room.map(|()| self.responses.send_trailers(trailers));
                Ok(())
            }
        }
    }
}

fn broken(error: &h2::Error) -> Status {
    Status::new(Code::Unavailable, error.to_string())
}

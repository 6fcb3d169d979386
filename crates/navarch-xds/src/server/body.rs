//! The body of a streaming gRPC response.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::grpc::Status;

/// What the task of a stream hands to its body.
#[derive(Debug)]
pub(crate) enum Part {
    /// One gRPC message, in pieces. The permit is given back when the transport has taken them all.
    Message(Vec<Bytes>, OwnedSemaphorePermit),
    /// The end.
    End(Status),
}

/// The body of a response: messages in pieces of shared bytes, which are handed to the transport as they are.
///
/// tonic's encoder copies each message into a buffer of its own and keeps the buffer; for a thousand streams and
/// messages of two megabytes that is a gigabyte.
#[derive(Debug)]
pub struct Body {
    parts: Option<mpsc::Receiver<Part>>,
    pieces: VecDeque<Bytes>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self { parts: None, pieces: VecDeque::new(), permit: None }
    }

    pub(crate) fn new(parts: mpsc::Receiver<Part>) -> Self {
        Self { parts: Some(parts), pieces: VecDeque::new(), permit: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            // The transport asks for more: it has taken the last piece, and has room.
            self.permit = None;
            let Some(parts) = &mut self.parts else { return Poll::Ready(None) };
            match parts.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Part::Message(pieces, permit))) => {
                    self.pieces = pieces.into();
                    self.permit = Some(permit);
                }
                Poll::Ready(end) => {
                    self.parts = None;
                    let status = match end {
                        Some(Part::End(status)) => status,
                        _ => Status::cancelled(),
                    };
                    let mut trailers = HeaderMap::new();
                    status.write(&mut trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none() && self.pieces.is_empty()
    }
}

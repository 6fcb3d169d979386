//! The little of gRPC that a bidirectional stream needs: message framing and status.

use std::fmt::Display;
use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

use super::body::Body;
use crate::encode::GRPC_HEADER;

/// The gRPC status codes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The stream ended as it should.
    Ok = 0,
    /// It ended without a word.
    Cancelled = 1,
    /// The request cannot be understood.
    InvalidArgument = 3,
    /// The client took too long.
    DeadlineExceeded = 4,
    /// The client is not who it says it is.
    PermissionDenied = 7,
    /// A limit was passed.
    ResourceExhausted = 8,
    /// There is no such method, or it uses what is not supported.
    Unimplemented = 12,
    /// Try again, here or elsewhere.
    Unavailable = 14,
    /// The client has to say who it is.
    Unauthenticated = 16,
}

/// How a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Status {
    /// A status.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "stream ended")
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&percent_encode(&self.message))
        {
            headers.insert("grpc-message", message);
        }
    }
}

/// gRPC over HTTP/2, "Status-Message": printable ASCII except `%` as it is.
fn percent_encode(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The head of a streaming response.
pub(crate) fn accept(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A response that is only a status.
pub(crate) fn refuse(status: &Status) -> Response<Body> {
    let mut response = accept(Body::empty());
    status.write(response.headers_mut());
    response
}

/// Reads gRPC messages from a request body.
pub(crate) struct Messages<B> {
    body: B,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<B> Messages<B>
where
    B: http_body::Body + Unpin,
    B::Data: Buf,
    B::Error: Display,
{
    pub fn new(body: B, bytes_max: usize) -> Self {
        Self { body, buffer: BytesMut::new(), bytes_max }
    }

    /// The next message; `None` when the client has closed its side. May be dropped while waiting without losing
    /// anything.
    ///
    /// # Errors
    /// If the transport breaks or the bytes are not a gRPC message within the limits.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Status::new(Code::Unavailable, error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.put(data);
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((header, _)) = self.buffer.split_first_chunk::<GRPC_HEADER>() else { return Ok(None) };
        let [compressed, a, b, c, d] = *header;
        if compressed != 0 {
            return Err(Status::new(Code::Unimplemented, "compressed requests are not supported"));
        }
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.bytes_max {
            let message = format!("request of {len} bytes is over the limit of {}", self.bytes_max);
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        if self.buffer.len() < GRPC_HEADER + len {
            self.buffer.reserve(GRPC_HEADER + len - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(GRPC_HEADER);
        let message = self.buffer.split_to(len).freeze();
        // A stream is quiet most of the time; it must not hold on to what its longest request took.
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn read(bytes: &[u8], max: usize) -> Result<Vec<Bytes>, Code> {
        let mut messages = Messages::new(Full::new(Bytes::copy_from_slice(bytes)), max);
        let mut out = Vec::new();
        while let Some(message) = messages.next().await.map_err(|status| status.code)? {
            out.push(message);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn messages_are_cut_out_of_the_body() {
        assert_eq!(read(&[], 10).await, Ok(vec![]));
        let two = [0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0];
        assert_eq!(read(&two, 10).await, Ok(vec![Bytes::from_static(&[7]), Bytes::new()]));
        assert_eq!(read(&[0, 0, 0, 0, 9, 1], 10).await, Ok(vec![]));
        assert_eq!(read(&[0, 0, 0, 0, 11], 10).await, Err(Code::ResourceExhausted));
        assert_eq!(read(&[1, 0, 0, 0, 0], 10).await, Err(Code::Unimplemented));
    }

    #[test]
    fn status_messages_are_percent_encoded() {
        assert_eq!(percent_encode("a: 50%\né"), "a: 50%25%0A%C3%A9");
    }
}

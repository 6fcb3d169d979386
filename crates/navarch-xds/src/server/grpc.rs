//! The little of gRPC that a stream needs: message framing and status.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

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
    /// Something is wrong here, and not with the client.
    Internal = 13,
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

/// The head of a response that goes on.
pub(crate) fn accept() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A response that is only a status.
pub(crate) fn refuse(status: &Status) -> Response<()> {
    let mut response = accept();
    status.write(response.headers_mut());
    response
}

/// A message with its header.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(GRPC_HEADER + message.len());
    put_header(&mut framed, message.len());
    framed.put_slice(message);
    framed.freeze()
}

/// The header of a message of this many bytes.
pub(crate) fn header(len: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(GRPC_HEADER);
    put_header(&mut header, len);
    header.freeze()
}

fn put_header(out: &mut BytesMut, len: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Cuts messages out of the bytes of a body.
#[derive(Debug)]
pub struct Messages {
    buffer: BytesMut,
    bytes_max: usize,
}

impl Messages {
    /// Messages of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), bytes_max }
    }

    /// More of the body.
    pub fn put(&mut self, data: Bytes) {
        self.buffer.put(data);
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// If the bytes are not a gRPC message within the limits.
    pub fn take(&mut self) -> Result<Option<Bytes>, Status> {
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
    use super::*;

    /// The messages in `bytes`, which come in pieces of `size`.
    fn read(bytes: &[u8], size: usize, max: usize) -> Result<Vec<Bytes>, Code> {
        let mut messages = Messages::new(max);
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            messages.put(Bytes::copy_from_slice(piece));
            while let Some(message) = messages.take().map_err(|status| status.code)? {
                out.push(message);
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_are_cut_out_of_the_body() {
        for size in [1, 4, 100] {
            assert_eq!(read(&[], size, 10), Ok(vec![]));
            let two = [0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0];
            assert_eq!(read(&two, size, 10), Ok(vec![Bytes::from_static(&[7]), Bytes::new()]));
            assert_eq!(read(&[0, 0, 0, 0, 9, 1], size, 10), Ok(vec![]));
            assert_eq!(read(&[0, 0, 0, 0, 11], size, 10), Err(Code::ResourceExhausted));
            assert_eq!(read(&[1, 0, 0, 0, 0], size, 10), Err(Code::Unimplemented));
        }
    }

    #[test]
    fn status_messages_are_percent_encoded() {
        assert_eq!(percent_encode("a: 50%\né"), "a: 50%25%0A%C3%A9");
    }
}

//! The client side of gRPC calls: messages out, messages in, a status at the end.
//!
//! Framing and statuses are those of `navarch-xds`; the transport is HTTP/2 on a connection that somebody
//! else has made.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use navarch_xds::server::{Code, Messages, Status, framed};
use tokio::io::{AsyncRead, AsyncWrite};

/// HTTP/2 windows of the size that Envoy offers by default.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Bytes of one message that are taken: all clusters of a large mesh in one response.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// An HTTP/2 connection to a gRPC server. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Channel {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Channel {
    /// Starts HTTP/2 on a connection.
    ///
    /// # Errors
    /// If the other end does not speak it.
    pub async fn open<T>(io: T, authority: &str) -> Result<Self, h2::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (requests, connection) = builder.handshake::<_, Bytes>(io).await?;
        // It ends with its last call, once nobody can start another one.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the control plane ended");
            }
        });
        Ok(Self { requests: requests.ready().await?, authority: authority.to_owned() })
    }

    /// Whether the connection can still take calls.
    pub async fn is_usable(&self) -> bool {
        self.requests.clone().ready().await.is_ok()
    }

    /// Starts a call.
    ///
    /// # Errors
    /// If the connection does not take it.
    pub async fn call(&self, path: &str, metadata: HeaderMap) -> Result<Call, Status> {
        let mut requests = self.requests.clone().ready().await.map_err(|error| broken(&error))?;
        let uri = format!("http://{}{path}", self.authority);
        let mut head =
            Request::post(uri).body(()).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        *head.headers_mut() = metadata;
        let headers = head.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        let (response, out) = requests.send_request(head, false).map_err(|error| broken(&error))?;
        Ok(Call { out, state: State::Head(response), messages: Messages::new(MESSAGE_BYTES_MAX) })
    }
}

/// A call that is under way.
#[derive(Debug)]
pub struct Call {
    out: SendStream<Bytes>,
    state: State,
    messages: Messages,
}

#[derive(Debug)]
enum State {
    Head(ResponseFuture),
    Body(RecvStream),
    Ended(Status),
}

impl Call {
    /// Sends a message. What the server does not read yet is kept in memory.
    ///
    /// # Errors
    /// If the call has ended.
    pub fn send(&mut self, message: &[u8]) -> Result<(), Status> {
        self.out.send_data(framed(message), false).map_err(|error| broken(&error))
    }

    /// Says that no more messages come.
    ///
    /// # Errors
    /// If the call has ended.
    pub fn close(&mut self) -> Result<(), Status> {
        self.out.send_data(Bytes::new(), true).map_err(|error| broken(&error))
    }

    /// The next message. May be dropped without losing anything.
    ///
    /// # Errors
    /// How the call ended, [`Code::Ok`] included.
    pub async fn message(&mut self) -> Result<Bytes, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            match &mut self.state {
                State::Head(response) => {
                    let ended = match ready!(std::pin::Pin::new(response).poll(cx)) {
                        Err(error) => Some(broken(&error)),
                        Ok(response) if !response.status().is_success() => {
                            let text = format!("the server answers {}", response.status());
                            Some(Status::new(Code::Unavailable, text))
                        }
                        Ok(response) => {
                            let status = status(response.headers());
                            self.state = State::Body(response.into_body());
                            status
                        }
                    };
                    if let Some(status) = ended {
                        self.state = State::Ended(status);
                    }
                }
                State::Body(body) => {
                    if let Some(message) = self.messages.take()? {
                        return Poll::Ready(Ok(message));
                    }
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) => {
                            // Only a stream that has ended does not take it, and that shows with the next
                            // read.
                            let _ = body.flow_control().release_capacity(data.len());
                            self.messages.put(data);
                        }
                        Some(Err(error)) => self.state = State::Ended(broken(&error)),
                        None => {
                            let trailers = ready!(body.poll_trailers(cx)).ok().flatten();
                            let cut = || Status::new(Code::Unavailable, "the stream ended without a status");
                            self.state = State::Ended(trailers.as_ref().and_then(status).unwrap_or_else(cut));
                        }
                    }
                }
                State::Ended(status) => return Poll::Ready(Err(status.clone())),
            }
        }
    }
}

fn broken(error: &h2::Error) -> Status {
    Status::new(Code::Unavailable, error.to_string())
}

/// The status in headers or trailers, if it is there.
fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let code = match text("grpc-status")?.parse::<u16>().ok()? {
        0 => Code::Ok,
        1 => Code::Cancelled,
        3 => Code::InvalidArgument,
        4 => Code::DeadlineExceeded,
        7 => Code::PermissionDenied,
        8 => Code::ResourceExhausted,
        12 => Code::Unimplemented,
        13 => Code::Internal,
        16 => Code::Unauthenticated,
        _ => Code::Unavailable,
    };
    Some(Status::new(code, percent_decode(&text("grpc-message").unwrap_or_default())))
}

/// gRPC over HTTP/2, "Status-Message".
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = (byte == b'%').then(|| after.get(..2)).flatten();
        let decoded = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_from_headers() {
        let check = |headers: &[(&'static str, &str)], expected: Option<Status>| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().expect("a value"));
            }
            assert_eq!(status(&map), expected, "{headers:?}");
        };
        check(&[("content-type", "application/grpc")], None);
        check(&[("grpc-status", "0")], Some(Status::new(Code::Ok, "")));
        check(
            &[("grpc-status", "16"), ("grpc-message", "who%3F 50%25 %zz %")],
            Some(Status::new(Code::Unauthenticated, "who? 50% %zz %")),
        );
        check(&[("grpc-status", "99")], Some(Status::new(Code::Unavailable, "")));
    }
}

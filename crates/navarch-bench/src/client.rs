//! The connection of one simulated proxy: HTTP/2 on a TCP connection of its own, one task for both.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use crate::message::Protocol;
use crate::shared::Shared;
use crate::tls::Connectors;

/// HTTP/2 windows of the size that Envoy offers by default: a stream is not stopped by flow control before
/// the proxy is busy.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Envoy's `retry_back_off` of a gRPC service by default: the first interval, and the longest.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// What is kept of the buffer after a large message.
const BUFFER_KEPT: usize = 16 << 10;

/// Where proxies connect, and how.
#[derive(Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub tls: Option<Tls>,
}

/// What proxies connect with over TLS.
pub struct Tls {
    pub connectors: Connectors,
    /// Number of the namespace that a proxy is in.
    pub namespaces: Vec<usize>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    fn connector(&self, index: usize) -> Option<&TlsConnector> {
        self.connectors.get(*self.namespaces.get(index)?)
    }
}

/// Keeps a proxy connected until the task is aborted.
pub async fn run(index: usize, target: Rc<Target>, shared: Rc<RefCell<Shared>>, bell: Rc<Notify>) {
    loop {
        let error = match stream(index, &target, &shared, &bell).await {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let failures = shared.borrow_mut().broke(index, error);
        tokio::time::sleep(backoff(index, failures)).await;
    }
}

/// How long a proxy waits before it connects again after this many connections on which nothing came: as
/// Envoy does, any time below an interval that doubles. What is random in Envoy is the same in every run
/// here.
fn backoff(index: usize, failures: u32) -> Duration {
    let interval = FIRST_INTERVAL.saturating_mul(1 << failures.min(16)).min(LONGEST_INTERVAL);
    let mut hasher = DefaultHasher::new();
    (index, failures).hash(&mut hasher);
    interval.mul_f64(hasher.finish() as f64 / u64::MAX as f64)
}

/// One connection with one stream, until either ends.
async fn stream(index: usize, target: &Target, shared: &RefCell<Shared>, bell: &Notify) -> Result<()> {
    let address = target.address;
    let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    match &target.tls {
        None => exchange(index, target.protocol, socket, shared, bell).await,
        Some(tls) => {
            let connector = tls.connector(index).context("a proxy without a certificate")?;
            let socket = connector.connect(address.ip().into(), socket).await.context("the TLS handshake")?;
            exchange(index, target.protocol, socket, shared, bell).await
        }
    }
}

async fn exchange(
    index: usize,
    protocol: Protocol,
    socket: impl AsyncRead + AsyncWrite + Unpin,
    shared: &RefCell<Shared>,
    bell: &Notify,
) -> Result<()> {
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(socket)
        .await?;
    tokio::select! {
        ended = connection => ended.context("the connection broke"),
        ended = converse(index, protocol, requests, shared, bell) => ended,
    }
}

async fn converse(
    index: usize,
    protocol: Protocol,
    requests: SendRequest<Bytes>,
    shared: &RefCell<Shared>,
    bell: &Notify,
) -> Result<()> {
    let mut requests = requests.ready().await?;
    let head = Request::post(format!("http://xds{}", protocol.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut out) = requests.send_request(head, false)?;
    let first = shared.borrow_mut().connect(index);
    for request in first {
        out.send_data(request, false)?;
    }
    let response = response.await?;
    if !response.status().is_success() {
        bail!("the server answers {}", response.status());
    }
    // A refusal has no body, and so what is said at the end stands in the head.
    if let Some(refusal) = ended(response.headers()) {
        bail!(refusal);
    }
    let mut body = response.into_body();
    let mut buffer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        buffer.extend_from_slice(&chunk);
        let mut read = 0;
        while let Some(message) = next_message(buffer.get(read..).unwrap_or_default())? {
            read += 5 + message.len();
            let before = shared.borrow().synced_count();
            let outcome = shared.borrow_mut().receive(index, message);
            for request in outcome.requests {
                out.send_data(request, false)?;
            }
            let mut shared = shared.borrow_mut();
            if shared.acknowledged(index, &outcome.marks) || shared.all_synced_since(before) {
                bell.notify_one();
            }
        }
        buffer.drain(..read);
        if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT {
            buffer = Vec::new();
        }
    }
    match body.trailers().await?.as_ref().and_then(ended) {
        Some(reason) => bail!(reason),
        None => Ok(()),
    }
}

/// Why a call is over, in words, if these headers end one.
fn ended(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let (status, message) = (text("grpc-status")?, text("grpc-message").unwrap_or_default());
    Some(format!("the server ended the stream: grpc-status {status}: {message}"))
}

/// The first gRPC message of the buffer, once it is complete.
fn next_message(buffer: &[u8]) -> Result<Option<&[u8]>> {
    let Some((&[compressed, a, b, c, d], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    if compressed != 0 {
        bail!("the server compresses although it was not asked to");
    }
    Ok(rest.get(..u32::from_be_bytes([a, b, c, d]) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_back_at_different_times_and_ever_later() {
        for (failures, milliseconds) in
            [(0, 500.0), (1, 1_000.0), (5, 16_000.0), (6, 30_000.0), (u32::MAX, 30_000.0)]
        {
            let waits: Vec<f64> =
                (0..1_000).map(|index| backoff(index, failures).as_secs_f64() * 1e3 / milliseconds).collect();
            assert!(waits.iter().all(|wait| (0.0..=1.0).contains(wait)), "{failures}");
            for tenth in 0..10 {
                let found = waits.iter().filter(|wait| (**wait * 10.0) as usize == tenth).count();
                assert!((60..140).contains(&found), "{found} of 1,000 in tenth {tenth} after {failures}");
            }
        }
    }

    #[test]
    fn why_a_call_is_over() {
        for (headers, expected) in [
            (vec![("content-type", "application/grpc")], None),
            (vec![("grpc-status", "8"), ("grpc-message", "rate limit")], Some("grpc-status 8: rate limit")),
            (vec![("grpc-status", "14")], Some("grpc-status 14: ")),
        ] {
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let expected = expected.map(|text| format!("the server ended the stream: {text}"));
            assert_eq!(ended(&headers), expected);
        }
    }
}

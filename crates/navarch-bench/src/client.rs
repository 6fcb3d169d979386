//! The connection of one simulated proxy: HTTP/2 on a TCP connection of its own, one task for both.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::fleet::Shared;
use crate::message::Protocol;

/// HTTP/2 windows of the size that Envoy offers by default: a stream is not stopped by flow control before the proxy is busy.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// How long a proxy waits before it connects again.
const BACKOFF: Duration = Duration::from_millis(200);
/// What is kept of the buffer after a large message.
const BUFFER_KEPT: usize = 16 << 10;

/// Keeps a proxy connected until the task is aborted.
pub async fn run(
    index: usize,
    address: SocketAddr,
    protocol: Protocol,
    shared: Rc<RefCell<Shared>>,
    bell: Rc<Notify>,
) {
    loop {
        let error = match stream(index, address, protocol, &shared, &bell).await {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        {
            let mut shared = shared.borrow_mut();
            shared.counts.broken += 1;
            shared.last_error = Some(error);
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

/// One connection with one stream, until either ends.
async fn stream(
    index: usize,
    address: SocketAddr,
    protocol: Protocol,
    shared: &RefCell<Shared>,
    bell: &Notify,
) -> Result<()> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
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
    match body.trailers().await? {
        Some(trailers) => bail!(
            "the server ended the stream: grpc-status {}: {}",
            trailers.get("grpc-status").and_then(|value| value.to_str().ok()).unwrap_or("?"),
            trailers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default()
        ),
        None => Ok(()),
    }
}

/// The first gRPC message of the buffer, once it is complete.
fn next_message(buffer: &[u8]) -> Result<Option<&[u8]>> {
    let Some((&[compressed, a, b, c, d], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    if compressed != 0 {
        bail!("the server compresses although it was not asked to");
    }
    Ok(rest.get(..u32::from_be_bytes([a, b, c, d]) as usize))
}

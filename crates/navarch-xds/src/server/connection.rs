//! Transport connections: HTTP/2 with keepalive and a limited age.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::task::jittered;
use super::{Body, Peer, Server, grpc};

/// Streams one connection may have. An HTTP hop between puts the streams of many clients into one connection.
const STREAMS_MAX: u32 = 100_000;

/// Answers requests for other paths than those of xDS, for example a certificate authority on the same port.
pub type Fallback = Arc<dyn Fn(Request<Incoming>, Arc<Peer>) -> FallbackFuture + Send + Sync>;

type FallbackFuture = Pin<Box<dyn Future<Output = Response<tonic::body::Body>> + Send>>;

/// What stands between a socket and HTTP/2, and says who the peer is.
pub trait Transport: Send + Sync + 'static {
    /// What HTTP/2 is spoken over.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Takes a connection. Has as long as a client has for its first request.
    ///
    /// # Errors
    /// If the peer is not one to talk to. The connection is closed.
    fn accept(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

/// Nothing stands between.
#[derive(Clone, Copy, Debug)]
pub struct Plaintext;

impl Transport for Plaintext {
    type Io = TcpStream;

    async fn accept(&self, socket: TcpStream, address: SocketAddr) -> io::Result<(TcpStream, Peer)> {
        Ok((socket, Peer::plaintext(address)))
    }
}

impl Server {
    /// Accepts plaintext connections until the server is shut down.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(&self, listener: TcpListener, fallback: Option<Fallback>) -> io::Result<()> {
        self.serve_over(listener, Arc::new(Plaintext), fallback).await
    }

    /// Accepts connections until the server is shut down.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve_over<T: Transport>(
        &self,
        listener: TcpListener,
        transport: Arc<T>,
        fallback: Option<Fallback>,
    ) -> io::Result<()> {
        let mut shutdown = self.shared.shutdown.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.wait_for(Option::is_some) => return Ok(()),
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_transient(&error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Small responses matter: an endpoint change must not wait for the acknowledgement of the one before.
            let _ = socket.set_nodelay(true);
            let server = self.clone();
            let (transport, fallback) = (transport.clone(), fallback.clone());
            tokio::spawn(async move {
                let within = server.settings().first_timeout;
                match tokio::time::timeout(within, transport.accept(socket, address)).await {
                    Ok(Ok((io, peer))) => serve_connection(&server, io, Arc::new(peer), fallback).await,
                    Ok(Err(error)) => tracing::warn!(peer = %address, %error, "connection refused"),
                    Err(_) => tracing::warn!(peer = %address, "connection refused: no handshake in time"),
                }
            });
        }
    }
}

/// Out of file descriptors, or the client has gone already: the next one may do.
fn is_transient(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}

/// Serves one connection until it ends: by the client, by its age, by shutdown, or because the client stopped reading.
pub async fn serve_connection(
    server: &Server,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    fallback: Option<Fallback>,
) {
    let settings = server.settings().clone();
    // Cancelled here to end the streams, or by a stream whose client does not read: nothing else ends that one.
    let end = CancellationToken::new();
    let service = {
        let (server, end) = (server.clone(), end.clone());
        service_fn(move |request: Request<Incoming>| {
            let (server, end) = (server.clone(), end.clone());
            let (peer, fallback) = (peer.clone(), fallback.clone());
            async move { Ok::<_, Infallible>(respond(&server, request, peer, end, fallback).await) }
        })
    };
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 22);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let age = async {
        match settings.connection_age_max {
            Some(age) => tokio::time::sleep(jittered(age)).await,
            None => std::future::pending().await,
        }
    };
    let mut shutdown = server.shared.shutdown.subscribe();
    tokio::select! {
        _ = connection.as_mut() => return,
        () = end.cancelled() => return,
        () = age => end.cancel(),
        _ = shutdown.wait_for(Option::is_some) => {}
    }
    // GOAWAY keeps new streams away but ends none. They have been told to end, at once because of their age or each
    // at its time because of the shutdown, and what is left after that is cut.
    connection.as_mut().graceful_shutdown();
    let window = (*shutdown.borrow()).unwrap_or_default();
    let _ = tokio::time::timeout(window + settings.grace, connection).await;
    end.cancel();
}

async fn respond(
    server: &Server,
    request: Request<Incoming>,
    peer: Arc<Peer>,
    end: CancellationToken,
    fallback: Option<Fallback>,
) -> Response<AnyBody> {
    if Server::handles(request.uri().path()) {
        return server.call(request, peer, end).await.map(AnyBody::Xds);
    }
    match fallback {
        Some(fallback) => fallback(request, peer).await.map(AnyBody::Other),
        None => {
            let status = grpc::Status::new(grpc::Code::Unimplemented, "no such method");
            grpc::refuse(&status).map(AnyBody::Xds)
        }
    }
}

/// A body of this server or of the fallback.
enum AnyBody {
    Xds(Body),
    Other(tonic::body::Body),
}

impl http_body::Body for AnyBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            AnyBody::Xds(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            AnyBody::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnyBody::Xds(body) => body.is_end_stream(),
            AnyBody::Other(body) => body.is_end_stream(),
        }
    }
}

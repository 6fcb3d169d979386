//! Transport connections: HTTP/2 with keepalive and a limited age.
//!
//! A connection and all its calls are one task. A proxy has one connection with one call, and a change that
//! reaches ten thousand proxies wakes each of these tasks once.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::PingPong;
use h2::server::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::call::{End, Offer};
use super::{Ending, Peer, Server, Settings, jitter};

/// Streams one connection may have. An HTTP hop between puts the streams of many clients into one connection.
const STREAMS_MAX: u32 = 100_000;

/// Bytes of one stream and of one connection that a client may send before they are read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 22;

/// Bytes of the headers of a request. Those of xDS have a path and little more.
const HEADERS_MAX: u32 = 16 << 10;

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
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        self.serve_over(listener, Arc::new(Plaintext)).await
    }

    /// Accepts connections until the server is shut down.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve_over<T: Transport>(&self, listener: TcpListener, transport: Arc<T>) -> io::Result<()> {
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
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Small responses matter: an endpoint change must not wait for the acknowledgement of the one
            // before.
            let _ = socket.set_nodelay(true);
            let (server, transport) = (self.clone(), transport.clone());
            tokio::spawn(async move {
                let within = server.settings().first_timeout;
                match tokio::time::timeout(within, transport.accept(socket, address)).await {
                    // What it took to get here is not kept as long as the connection is.
                    Ok(Ok((io, peer))) => _ = tokio::spawn(server.serve_connection(io, Arc::new(peer))),
                    Ok(Err(error)) => tracing::warn!(peer = %address, %error, "connection refused"),
                    Err(_) => tracing::warn!(peer = %address, "connection refused: no handshake in time"),
                }
            });
        }
    }

    /// Serves one connection until it ends: by the client, by its age, by shutdown, or because the client
    /// stopped reading.
    pub async fn serve_connection(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Arc<Peer>,
    ) {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(STREAMS_MAX)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_MAX);
        let handshake = tokio::time::timeout(self.settings().first_timeout, builder.handshake(io));
        let Ok(Ok(mut connection)) = handshake.await else { return };
        let ending = watch::Sender::new(None);
        let mut jobs = FuturesUnordered::new();
        jobs.push(self.job(Job::EndInTime));
        jobs.extend(connection.ping_pong().map(|pings| self.job(Job::Ping(pings))));
        loop {
            match poll_fn(|cx| poll_next(&mut connection, &mut jobs, cx)).await {
                Next::Offer(offer) => {
                    jobs.push(self.job(Job::Call(offer, peer.clone(), ending.subscribe())));
                }
                Next::Done(Done::Served) => {}
                // GOAWAY keeps new streams away but ends none. They are told to end, at once because of their
                // age or each at its time because of the shutdown, and what is left after that is cut.
                Next::Done(Done::ToEnd(how)) => {
                    connection.graceful_shutdown();
                    ending.send_replace(Some(how));
                    jobs.push(self.job(Job::Cut(how)));
                }
                Next::Done(Done::Dead) | Next::Closed => return,
            }
        }
    }

    /// All work on a connection is of one type, so that it is kept in one place.
    async fn job(&self, job: Job) -> Done {
        match job {
            Job::Call(offer, peer, ending) => {
                // In a place of its own: it is large, and the others are as large as the largest.
                match Box::pin(self.shared.call(offer, peer, ending)).await {
                    Ok(()) | Err(End::Told(_)) => Done::Served,
                    Err(End::NotRead) => Done::Dead,
                }
            }
            Job::EndInTime => Done::ToEnd(self.end_in_time().await),
            Job::Ping(pings) => {
                no_answer(pings, self.settings()).await;
                Done::Dead
            }
            Job::Cut(how) => {
                let window = match how {
                    Ending::Aged => Duration::ZERO,
                    Ending::Shutdown(window) => window,
                };
                tokio::time::sleep(window + self.settings().grace).await;
                Done::Dead
            }
        }
    }

    /// Waits until the connection has to end.
    async fn end_in_time(&self) -> Ending {
        let age = async {
            match self.settings().connection_age_max {
                // Give or take a tenth.
                Some(age) => tokio::time::sleep(age.mul_f64(0.9 + 0.2 * jitter())).await,
                None => std::future::pending().await,
            }
        };
        let mut shutdown = self.shared.shutdown.subscribe();
        tokio::select! {
            () = age => Ending::Aged,
            window = shutdown.wait_for(Option::is_some) => {
                Ending::Shutdown(window.ok().and_then(|window| *window).unwrap_or_default())
            }
        }
    }
}

/// Out of file descriptors, or the client has gone already: the next one may do.
fn is_transient(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}

/// Something that is to be done while a connection is open.
enum Job {
    Call(Box<Offer>, Arc<Peer>, watch::Receiver<Option<Ending>>),
    /// Ends the connection because of its age or of a shutdown.
    EndInTime,
    /// Finds out that nobody is there any more.
    Ping(PingPong),
    /// Cuts what was told to end and has not.
    Cut(Ending),
}

/// What comes of a [`Job`].
enum Done {
    Served,
    ToEnd(Ending),
    /// Nobody reads at the other end.
    Dead,
}

/// What happens on a connection.
enum Next {
    Offer(Box<Offer>),
    Done(Done),
    Closed,
}

fn poll_next<T: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<T, Bytes>,
    jobs: &mut FuturesUnordered<impl Future<Output = Done>>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    match connection.poll_accept(cx) {
        Poll::Ready(Some(Ok((request, respond)))) => {
            return Poll::Ready(Next::Offer(Box::new(Offer { request, respond })));
        }
        Poll::Ready(_) => return Poll::Ready(Next::Closed),
        Poll::Pending => {}
    }
    // What the jobs hand to the transport wakes this task again.
    match jobs.poll_next_unpin(cx) {
        Poll::Ready(Some(done)) => Poll::Ready(Next::Done(done)),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    }
}

/// Returns when a ping is not answered.
async fn no_answer(mut pings: PingPong, settings: &Settings) {
    loop {
        tokio::time::sleep(settings.keepalive_interval).await;
        let answer = tokio::time::timeout(settings.keepalive_timeout, pings.ping(h2::Ping::opaque()));
        if !matches!(answer.await, Ok(Ok(_))) {
            return;
        }
    }
}

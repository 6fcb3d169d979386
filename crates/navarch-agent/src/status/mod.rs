//! What others ask the agent: whether the workload is ready, metrics of all that runs beside it, probes of
//! the application, and to end. The paths are those of Istio's agent.

mod health;
pub mod metrics;
pub mod probe;
pub mod standard;

pub use health::Health;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use self::metrics::{Subject, Target, Turns};
use self::probe::Probe;
use crate::envoy::HotRestartError;

/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the agent is told to do.
#[derive(Debug)]
pub enum Ask {
    /// End, as on SIGTERM.
    Quit,
    /// Start another Envoy, to which the one that runs hands over.
    HotRestart(oneshot::Sender<Result<(), HotRestartError>>),
    /// Let connections go, and stay.
    Drain,
}

/// The pages.
pub struct Pages {
    pub health: Arc<Health>,
    pub subject: Subject,
    /// Where the application has its metrics.
    pub targets: Vec<Target>,
    /// Who may have the metrics.
    pub turns: Turns,
    /// What is asked of the application, by the path that asks for it.
    pub probes: BTreeMap<String, Probe>,
    pub asks: mpsc::UnboundedSender<Ask>,
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a call for the status");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let pages = pages.clone();
        let service = service_fn(move |request| {
            let pages = pages.clone();
            async move { Ok::<_, Infallible>(pages.answer(&request, peer).await) }
        });
        let mut connection = hyper::server::conn::http1::Builder::new();
        connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        // How it ends is the caller's business.
        tokio::spawn(connection.serve_connection(TokioIo::new(socket), service));
    }
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET, "/healthz/ready") => match self.health.unready().await {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {reason}\n")),
            },
            (&Method::GET, "/stats/prometheus" | "/metrics") => self.metrics().await,
            (&Method::POST, "/quitquitquit") => self.ask(request, peer, Ask::Quit),
            (&Method::POST, "/drain") => self.ask(request, peer, Ask::Drain),
            (&Method::POST, "/hot-restart") => self.hot_restart(request, peer).await,
            (&Method::GET, path) if self.probes.contains_key(path) => self.probe(path, request).await,
            (_, "/quitquitquit" | "/drain" | "/hot-restart") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// Only from this machine, and not from a page in a browser on it.
    fn ask(&self, request: &Request<Incoming>, peer: SocketAddr, ask: Ask) -> Response<Full<Bytes>> {
        if !peer.ip().to_canonical().is_loopback() || request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "only from this machine\n");
        }
        match self.asks.send(ask) {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "it is ending\n"),
        }
    }

    /// Answers once the next Envoy has taken over, or has not.
    async fn hot_restart(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let (done, answer) = oneshot::channel();
        let taken = self.ask(request, peer, Ask::HotRestart(done));
        if taken.status() != StatusCode::OK {
            return taken;
        }
        match answer.await.unwrap_or(Err(HotRestartError::Ending)) {
            Ok(()) => taken,
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", crate::Chain(&error))),
        }
    }

    async fn probe(&self, path: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(probe) = self.probes.get(path) else { return text(StatusCode::NOT_FOUND, "not found\n") };
        match probe.run(request.headers()).await {
            Ok(status) => text(status, ""),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{}\n", crate::Chain(&error))),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let page = metrics::merged(&self.health, &self.subject, &self.targets, &self.turns).await;
        let Some(page) = page else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "others are being told the metrics\n");
        };
        let mut response = Response::new(Full::new(page));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

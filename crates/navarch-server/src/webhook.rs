//! The port that an API server asks about pods and configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use navarch_inject::{REVIEW_BYTES_MAX, answer};
use navarch_kubernetes::webhooks::Configuration;
use navarch_xds::Transport;
use prometheus::IntCounterVec;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::pod_settings::PodSettings;
use crate::secure::Tls;

/// Time for a handshake, and for the head of a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at a time. API servers keep a few each; somebody else can take no more.
const CONNECTIONS_MAX: usize = 512;

/// Questions of one connection at a time, each with at most [`REVIEW_BYTES_MAX`].
const STREAMS_MAX: u32 = 8;

/// After a connection that could not be taken.
const AGAIN: Duration = Duration::from_millis(50);

/// What is told of the webhooks.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    /// The configurations that lead to us, in which our roots are kept.
    pub configurations: Vec<Configuration>,
}

/// The webhooks.
pub struct Webhooks {
    settings: Arc<PodSettings>,
    answers: IntCounterVec,
}

impl Webhooks {
    pub fn new(settings: Arc<PodSettings>, answers: IntCounterVec) -> Arc<Self> {
        Arc::new(Webhooks { settings, answers })
    }

    /// Serves for ever.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<Tls>) -> std::io::Result<()> {
        let pages = Router::new()
            .route("/inject", post(asked))
            .route("/inject/{*more}", post(asked))
            .route("/validate", post(asked))
            .route("/validate/{*more}", post(asked))
            .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
            .with_state(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the webhooks cannot be taken");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (tls, pages) = (tls.clone(), pages.clone());
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok((io, _))) = timeout(PATIENCE, tls.accept(socket, address)).await else { return };
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                let mut http2 = server.http2();
                http2.timer(TokioTimer::new()).keep_alive_interval(Some(PATIENCE));
                http2.max_concurrent_streams(STREAMS_MAX);
                // That a connection breaks is nothing to tell: who asks, asks again.
                let _ = server.serve_connection(TokioIo::new(io), TowerToHyperService::new(pages)).await;
            });
        }
    }
}

async fn asked(State(webhooks): State<Arc<Webhooks>>, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let webhook = if path.starts_with("/inject") { "inject" } else { "validate" };
    let answers = webhooks.answers.clone();
    // An object may be large, and others wait for the threads of the runtime.
    let made = tokio::task::spawn_blocking(move || answer(&webhooks.settings.now(), &path, &body)).await;
    let made = made.unwrap_or_else(|error| Err(error.to_string()));
    let said = match &made {
        Err(_) => "error",
        Ok(review) if review["response"]["allowed"] == false => "refused",
        Ok(review) if review["response"].get("patch").is_some() => "injected",
        Ok(_) => "allowed",
    };
    answers.with_label_values(&[webhook, said]).inc();
    match made {
        Ok(review) => ([(header::CONTENT_TYPE, "application/json")], review.to_string()).into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, message).into_response(),
    }
}

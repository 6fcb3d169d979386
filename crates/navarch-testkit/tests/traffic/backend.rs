//! Small HTTP servers that say what they were asked, or fail on purpose.

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// How a backend answers.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    /// 200 with `{name, path, host, headers}` of the request.
    Echo,
    /// As `Echo`, but not before this time has passed.
    Slow(Duration),
    /// Always this status.
    Broken(StatusCode),
    /// 503 to the first request, then as `Echo`.
    FailsOnce,
}

/// A server on a free loopback port; dropping it stops it.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    accept: JoinHandle<()>,
}

impl Backend {
    pub async fn start(name: &'static str, behaviour: Behaviour) -> Result<Backend> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let accept = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let requests = Arc::clone(&counted);
                let service = service_fn(move |request| {
                    let nth = requests.fetch_add(1, Ordering::SeqCst);
                    async move { Ok::<_, Infallible>(answer(name, behaviour, nth, &request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Backend { address, requests, accept })
    }

    pub async fn echo(name: &'static str) -> Result<Backend> {
        Backend::start(name, Behaviour::Echo).await
    }

    /// How many requests have come.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Stops it: nobody listens any more and open connections are closed.
    pub async fn kill(mut self) {
        self.accept.abort();
        // It ends with "cancelled", which is what was asked for.
        let _ = (&mut self.accept).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn answer(
    name: &str,
    behaviour: Behaviour,
    nth: u64,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let status = match behaviour {
        Behaviour::Broken(status) => status,
        Behaviour::FailsOnce if nth == 0 => StatusCode::SERVICE_UNAVAILABLE,
        Behaviour::Slow(time) => {
            tokio::time::sleep(time).await;
            StatusCode::OK
        }
        Behaviour::Echo | Behaviour::FailsOnce => StatusCode::OK,
    };
    let text = |value: &http::HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let headers: Map<String, Value> =
        request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let body = json!({"name": name, "path": path, "host": headers.get("host"), "headers": headers});
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("x-internal", http::HeaderValue::from_static("from the backend"));
    response
}

//! Small HTTP servers that say what they were asked, or fail on purpose.

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::UPGRADE};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Map, Value, json};
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
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
    /// 200 with `{name, path, host, protocol, headers}` of the request. Sends back what comes in after an
    /// upgrade to WebSocket.
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
        Backend::start_at(Ipv4Addr::LOCALHOST, name, behaviour).await
    }

    /// On an address of the loopback, for a second endpoint of one service: addresses tell them apart.
    pub async fn start_at(address: Ipv4Addr, name: &'static str, behaviour: Behaviour) -> Result<Backend> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let accept = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let requests = Arc::clone(&counted);
                let service = service_fn(move |mut request: Request<Incoming>| {
                    let nth = requests.fetch_add(1, Ordering::SeqCst);
                    async move {
                        if request.headers().contains_key(UPGRADE) {
                            return Ok::<_, Infallible>(upgraded(&mut request));
                        }
                        Ok(answer(name, behaviour, nth, &request).await)
                    }
                });
                // HTTP/1.1 and HTTP/2 without TLS, whichever the client speaks.
                connections.spawn(async move {
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let stream = TokioIo::new(stream);
                    // It ends when the client closes; how is nobody's business here.
                    let _ = connection.serve_connection_with_upgrades(stream, service).await;
                });
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

/// Agrees to an upgrade and sends back what comes in. It is no WebSocket: nobody between looks at frames.
fn upgraded(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(stream));
        // It ends when the client closes.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
    response
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
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let headers: Map<String, Value> =
        request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let authority = request.uri().authority().map(|authority| Value::from(authority.as_str()));
    let host = headers.get("host").cloned().or(authority);
    let protocol = format!("{:?}", request.version());
    let body = json!({"name": name, "path": path, "host": host, "protocol": protocol, "headers": headers});
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("x-internal", HeaderValue::from_static("from the backend"));
    response
}

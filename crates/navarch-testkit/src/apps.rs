//! A bookinfo-like application for the demo and end-to-end tests: a front page that asks
//! `details` and `reviews`, and these two. Each instance is a small HTTP server on an address of
//! its own, and answers JSON that says who answered.

use crate::http::Call;
use ::http::{Request, Response, StatusCode};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, task::JoinHandle};

/// Headers that the front page hands on, as an application in a mesh must for routing by them.
const HANDED_ON: [&str; 2] = ["end-user", "x-request-id"];

/// What an instance does.
#[derive(Debug, Clone)]
pub enum Role {
    /// Answers `{service, version, instance, ...facts}` to every path.
    Leaf { facts: Value },
    /// Asks `details` and `reviews`, as `http://<name>:9080`, through `outbound`, the address
    /// where its sidecar takes outgoing calls.
    FrontPage { outbound: SocketAddr },
}

/// One instance of a service.
#[derive(Debug, Clone)]
pub struct App {
    pub service: String,
    pub version: String,
    /// Tells instances of one version apart.
    pub instance: String,
    pub role: Role,
}

/// A running instance; dropping it stops it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    accept: JoinHandle<()>,
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl App {
    /// What the sample's version `version` of `service` knows about its book.
    pub fn facts(service: &str, version: &str) -> Value {
        match (service, version) {
            ("details", _) => json!({"author": "William Shakespeare", "pages": 200}),
            ("reviews", "v1") => json!({"text": "An extremely entertaining play.", "stars": "none"}),
            ("reviews", "v2") => json!({"text": "An extremely entertaining play.", "stars": "black"}),
            ("reviews", _) => json!({"text": "An extremely entertaining play.", "stars": "red"}),
            _ => json!({}),
        }
    }

    /// Listens on `address`; port 0 takes a free one.
    pub async fn start(self, address: SocketAddr) -> Result<Running> {
        let what = format!("{} {} listening on {address}", self.service, self.version);
        let listener = TcpListener::bind(address).await.context(what)?;
        let address = listener.local_addr()?;
        let app = Arc::new(self);
        let accept = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let app = Arc::clone(&app);
                let service = service_fn(move |request| {
                    let app = Arc::clone(&app);
                    async move { Ok::<_, Infallible>(app.answer(&request).await) }
                });
                // It ends with the connection; an error is the caller's to notice.
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Running { address, accept })
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut body = json!({"service": self.service, "version": self.version, "instance": self.instance});
        let object = body.as_object_mut();
        match (&self.role, object) {
            (Role::Leaf { facts }, Some(object)) => {
                object.extend(facts.as_object().cloned().unwrap_or_default());
            }
            (Role::FrontPage { outbound }, Some(object)) => {
                let (details, reviews) =
                    tokio::join!(ask(*outbound, "details", request), ask(*outbound, "reviews", request));
                object.insert("details".to_owned(), details);
                object.insert("reviews".to_owned(), reviews);
            }
            (_, None) => {}
        }
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert("content-type", ::http::HeaderValue::from_static("application/json"));
        response
    }
}

/// The answer of another service, or `{error}`: the page does without it then.
async fn ask(outbound: SocketAddr, service: &str, request: &Request<Incoming>) -> Value {
    let mut call =
        Call::get(format!("http://{outbound}/{service}/0")).header("host", &format!("{service}:9080"));
    for name in HANDED_ON {
        if let Some(value) = request.headers().get(name).and_then(|value| value.to_str().ok()) {
            call = call.header(name, value);
        }
    }
    match call.send().await {
        Ok(answer) if answer.status.is_success() => {
            answer.json().unwrap_or_else(|error| json!({"error": format!("{error:#}")}))
        }
        Ok(answer) => json!({"error": format!("status {}: {}", answer.status.as_u16(), answer.text())}),
        Err(error) => json!({"error": format!("{error:#}")}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(service: &str, version: &str, role: Role) -> App {
        App { service: service.into(), version: version.into(), instance: "x".into(), role }
    }

    #[tokio::test]
    async fn the_front_page_asks_the_others() -> Result<()> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let leaf = Role::Leaf { facts: App::facts("reviews", "v2") };
        let reviews = app("reviews", "v2", leaf).start(any).await?;
        // Without a sidecar, one address answers for both names.
        let front = Role::FrontPage { outbound: reviews.address() };
        let front = app("productpage", "v1", front).start(any).await?;
        let url = format!("http://{}/productpage", front.address());
        let page = crate::http::get(&url).await?.ok()?.json()?;
        assert_eq!(page["reviews"]["stars"], "black", "{page}");
        assert_eq!(page["details"]["service"], "reviews", "{page}");

        // A child being forked by another test may keep the socket open for a moment.
        drop(reviews);
        crate::wait::until("the leaf to be gone", crate::wait::STEP, || async {
            let page = crate::http::get(&url).await?.ok()?.json()?;
            let error = page["reviews"]["error"].as_str().context("still there")?;
            anyhow::ensure!(error.contains("connecting"), "{error}");
            Ok(())
        })
        .await?;
        Ok(())
    }
}

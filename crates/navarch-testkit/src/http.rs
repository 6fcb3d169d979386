//! A small HTTP client for tests: one connection per call, bounded, no redirects.

use ::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
#[cfg(feature = "kubernetes")]
use std::sync::Arc;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// One response header, or "" without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// This answer, or an error unless the status is 2xx.
    pub fn ok(self) -> Result<Answer> {
        if !self.status.is_success() {
            bail!("status {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    within: Duration,
    http2: bool,
    #[cfg(feature = "kubernetes")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Call {
    pub fn get(url: impl Into<String>) -> Self {
        Call {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            within: Duration::from_secs(10),
            http2: false,
            #[cfg(feature = "kubernetes")]
            tls: None,
        }
    }

    pub fn post(url: impl Into<String>) -> Self {
        Call { method: Method::POST, ..Call::get(url) }
    }

    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Adds a header. `host` replaces the one made from the URL.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The bound for the whole exchange; ten seconds unless set.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Speaks HTTP/2 from the first byte on, as gRPC does.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Sends it over TLS.
    #[cfg(feature = "kubernetes")]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Sends it and reads the whole answer, whatever its status.
    pub async fn send(self) -> Result<Answer> {
        let (within, url) = (self.within, self.url.clone());
        match tokio::time::timeout(within, self.exchange()).await {
            Ok(result) => result.with_context(|| format!("calling {url}")),
            Err(_) => bail!("calling {url}: no answer within {within:?}"),
        }
    }

    async fn exchange(self) -> Result<Answer> {
        let uri: Uri = self.url.parse().context("bad URL")?;
        let host = uri.host().context("URL without a host")?;
        let port = uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.context("connecting")?;
        #[cfg(feature = "kubernetes")]
        if let Some(config) = self.tls.clone() {
            let name = rustls::pki_types::ServerName::try_from(host.to_owned())?;
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
            return self.exchange_over(stream, &uri).await;
        }
        self.exchange_over(stream, &uri).await
    }

    async fn exchange_over<S>(self, stream: S, uri: &Uri) -> Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        let stated = self.headers.iter().find(|(name, _)| name == "host");
        let authority = stated.map_or_else(|| format!("{host}:{port}"), |(_, host)| host.clone());
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let target = if self.http2 { format!("http://{authority}{path}") } else { path.to_owned() };
        let mut request = Request::builder().method(self.method).uri(target);
        if !self.http2 {
            request = request.header("host", authority);
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body))?;
        // The connection ends when its sender is dropped or the peer closes.
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            let connection = tokio::spawn(connection);
            let answer = read(sender.send_request(request).await?).await;
            connection.abort();
            answer
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            let connection = tokio::spawn(connection);
            let answer = read(sender.send_request(request).await?).await;
            connection.abort();
            answer
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.context("reading the body")?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// `GET url`, any status.
pub async fn get(url: impl Into<String>) -> Result<Answer> {
    Call::get(url).send().await
}

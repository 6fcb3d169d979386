//! Talking to the admin port of a running control plane.

use anyhow::{Context, Result, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

/// Where the admin port is.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address of the admin port of `navarch serve`
    #[arg(long, default_value = "127.0.0.1:15014", env = "NAVARCH_ADMIN_ADDR")]
    pub admin_addr: String,
}

impl AdminArgs {
    /// Gets a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path).await
    }

    /// Has something done; the answer is a JSON document.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::POST, path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let url = format!("http://{}{path}", self.admin_addr);
        let request = Request::builder().method(method).uri(&url).body(Empty::<Bytes>::new());
        let request = request.with_context(|| format!("{} is not an address", self.admin_addr))?;
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.with_context(|| {
            format!(
                "no control plane answers on {}; is `navarch serve` running? (--admin-addr)",
                self.admin_addr
            )
        })?;
        let status = response.status();
        let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
        if !status.is_success() {
            bail!("{url} answers {status}: {}", String::from_utf8_lossy(&body).trim());
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} did not answer as navarch does"))
    }
}

/// A value for the query of a URL.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

//! Talking to the admin port of a running control plane.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use navarch_identity::Secret;
use navarch_identity::store::StateDirectory;
use navarch_identity::tokens::admin::AdminToken;
use serde::de::DeserializeOwned;

/// Where the admin port is.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address of the admin port of `navarch serve`
    #[arg(long, default_value = "127.0.0.1:15014", env = "NAVARCH_ADMIN_ADDR")]
    pub admin_addr: String,
}

/// Where the admin port is, and the proof that somebody may change something.
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// State directory of the server, if it has one: who can read the token in it may change what the server
    /// does
    #[arg(long, value_name = "DIR", env = "NAVARCH_STATE")]
    state: Option<PathBuf>,
}

impl OperatorArgs {
    /// Has something done; the answer is a JSON document.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let token = match &self.state {
            Some(state) => Some(AdminToken::read(&StateDirectory::open_existing(state)?)?),
            None => None,
        };
        self.admin.ask(Method::POST, path, token.as_ref().map(AdminToken::secret)).await
    }
}

impl AdminArgs {
    /// Gets a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None).await
    }

    /// Has something done that anybody may; the answer is a JSON document.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::POST, path, None).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
    ) -> Result<T> {
        let url = format!("http://{}{path}", self.admin_addr);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = token.and_then(Secret::expose_text) {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new());
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

//! What keeps a page in somebody's browser away from the admin port.
//!
//! A browser on the same machine reaches loopback, and does what any page asks of it. Two things give such a
//! request away: the header `Origin`, which browsers send with every request that may change something (Fetch
//! Standard, "Origin header"), and, where the page made its own name resolve to 127.0.0.1 (DNS rebinding),
//! the name in the header `Host`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use navarch_identity::authenticate::bearer;
use tokio::net::TcpListener;

use crate::identity::Identity;

/// What somebody hears who may not change anything.
const NOT_ADMIN: &str = "this changes what the server does, and needs the token in the file admin-token of its state directory: \
     use the navarch command with --state\n";

/// What the port knows about who can reach it.
#[derive(Clone)]
pub struct Guard {
    /// Only this machine reaches the port, so that names other than its own are not meant for it.
    loopback: bool,
    /// Who knows the token of those that may change something. Without an authority there is none, and
    /// whoever reaches the port may.
    identity: Option<Arc<Identity>>,
}

impl Guard {
    /// The guard of a port.
    pub fn new(listener: &TcpListener, identity: Option<Arc<Identity>>) -> Self {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        Guard { loopback, identity }
    }

    /// Whether a request may change what the server does.
    fn is_admin(&self, headers: &HeaderMap) -> bool {
        let Some(identity) = &self.identity else { return true };
        let header = headers.get(header::AUTHORIZATION).map(|header| header.as_bytes());
        header.and_then(bearer).is_some_and(|presented| identity.is_admin(&presented))
    }

    /// Why a request is not answered.
    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !reads && headers.contains_key(header::ORIGIN) {
            return Some("pages in a browser may not change anything here; use the navarch command\n");
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if self.loopback && host.is_some_and(|host| !is_this_machine(host)) {
            return Some("this port is reached as localhost or by its address, not by another name\n");
        }
        None
    }
}

/// Refuses what comes from a page, and passes everything else on.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(reason) = guard.refusal(request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    if changes_something(request.method(), request.uri().path()) && !guard.is_admin(request.headers()) {
        return (StatusCode::UNAUTHORIZED, NOT_ADMIN).into_response();
    }
    next.run(request).await
}

/// To look at the sources of configuration now changes nothing that would not change anyway.
fn changes_something(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) && path != "/debug/refresh"
}

/// Whether the header `Host` holds an address or `localhost`, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_a_browser_are_refused() {
        let check = |loopback: bool, method: Method, headers: &[(&str, &str)], refused: bool| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let refusal = Guard { loopback, identity: None }.refusal(&method, &headers);
            assert_eq!(refusal.is_some(), refused, "{loopback} {method} {headers:?}");
        };
        check(true, Method::POST, &[("host", "127.0.0.1:15014")], false);
        check(true, Method::POST, &[("host", "[::1]:15014")], false);
        check(true, Method::POST, &[("host", "localhost:15014")], false);
        check(true, Method::POST, &[("host", "127.0.0.1:15014"), ("origin", "http://127.0.0.1:15014")], true);
        check(true, Method::POST, &[("host", "127.0.0.1:15014"), ("origin", "null")], true);
        check(true, Method::GET, &[("host", "evil.example.com:15014")], true);
        check(true, Method::GET, &[("host", "127.0.0.1.example.com")], true);
        check(true, Method::GET, &[("host", "::1")], false);
        check(true, Method::GET, &[], false);
        check(false, Method::GET, &[("host", "navarch.istio-system.svc:15014")], false);
        check(false, Method::POST, &[("origin", "https://evil.example.com")], true);
    }
}

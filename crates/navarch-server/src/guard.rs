//! Who gets what on the admin port, and what keeps a page in somebody's browser away from it.
//!
//! A browser on the same machine reaches loopback, and does what any page asks of it. Two things give such a
//! request away: the header `Origin`, which browsers send with every request that may change something (Fetch
//! Standard, "Origin header"), and, where the page made its own name resolve to 127.0.0.1 (DNS rebinding),
//! the name in the header `Host`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use navarch_identity::Secret;
use navarch_identity::authenticate::{Purpose, bearer};
use navarch_xds::Peer;
use tokio::net::TcpListener;

use crate::admin::Admin;
use crate::debug::Access;
use crate::fleet::Fleet;
use crate::identity::Identity;

/// What somebody hears who may not change anything.
const NOT_ADMIN: &str = "this changes what the server does, and needs the token in the file admin-token of its state directory: \
     use the navarch command with --state\n";

/// What somebody hears on another machine who has not said who they are.
const NOT_PROVEN: &str = "from another machine this needs a token of a workload of the mesh, or the token in the file admin-token of \
     the server's state directory (authorization: Bearer)\n";

/// Pages that tell nothing of the mesh: for load balancers, and for who collects metrics.
const PUBLIC: [&str; 5] = ["/", "/healthz", "/ready", "/version", "/metrics"];

/// Pages that show to a namespace what is its own.
const SCOPED: [&str; 5] =
    ["/debug/proxies", "/debug/syncz", "/debug/config_dump", "/debug/explain", "/debug/checksum"];

/// What the port knows about who can reach it.
#[derive(Clone)]
pub struct Guard {
    /// Only this machine reaches the port, so that names other than its own are not meant for it.
    loopback: bool,
    admin: Arc<Admin>,
}

impl Guard {
    /// The guard of a port.
    pub fn new(listener: &TcpListener, admin: Arc<Admin>) -> Self {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        Guard { loopback, admin }
    }
}

/// Whether a caller has the token of those that may change something. Without an authority there is none, and
/// whoever is on this machine may.
fn is_admin(identity: Option<&Arc<Identity>>, headers: &HeaderMap) -> bool {
    let Some(identity) = identity else { return true };
    token(headers).is_some_and(|presented| identity.is_admin(&presented))
}

/// What a caller may see.
async fn access(
    identity: Option<&Arc<Identity>>,
    fleet: &Fleet,
    address: SocketAddr,
    headers: &HeaderMap,
) -> Result<Access, &'static str> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(Access::Everything);
    }
    let known = identity.ok_or(NOT_PROVEN)?;
    if is_admin(identity, headers) {
        return Ok(Access::Everything);
    }
    let peer = Peer::plaintext(address);
    let caller = known.caller(headers, &peer, Purpose::Stream).await.map_err(|_| NOT_PROVEN)?;
    let peer = Peer { identities: vec![caller.identity.to_string()], ..peer };
    Access::of(&peer, fleet).map_err(|_| NOT_PROVEN)
}

/// Whether a page shows something to who may see so much.
fn shows(path: &str, access: &Access) -> bool {
    *access == Access::Everything || SCOPED.contains(&path)
}

fn token(headers: &HeaderMap) -> Option<Secret> {
    bearer(headers.get(header::AUTHORIZATION)?.as_bytes())
}

/// Why a request is not answered, whoever makes it.
fn refusal(loopback: bool, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads && headers.contains_key(header::ORIGIN) {
        return Some("pages in a browser may not change anything here; use the navarch command\n");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if loopback && host.is_some_and(|host| !is_this_machine(host)) {
        return Some("this port is reached as localhost or by its address, not by another name\n");
    }
    None
}

/// Refuses what comes from a page in a browser, and from who may not have what is asked for. What is passed
/// on says what the caller may see.
pub async fn check(
    State(guard): State<Guard>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(reason) = refusal(guard.loopback, request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    let path = request.uri().path().to_owned();
    if !PUBLIC.contains(&path.as_str()) {
        let Admin { identity, fleet, .. } = &*guard.admin;
        let access = match access(identity.as_ref(), fleet, address, request.headers()).await {
            Ok(access) => access,
            Err(reason) => return (StatusCode::UNAUTHORIZED, reason).into_response(),
        };
        if !shows(&path, &access) {
            return (StatusCode::FORBIDDEN, "this page is for the root namespace\n").into_response();
        }
        request.extensions_mut().insert(access);
    }
    if changes_something(request.method(), &path)
        && !is_admin(guard.admin.identity.as_ref(), request.headers())
    {
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
    use std::time::Duration;

    use navarch_identity::store::StateDirectory;
    use navarch_identity::tokens::admin::AdminToken;
    use navarch_identity::tokens::join::JoinTokens;
    use navarch_model::SpiffeId;

    use super::*;
    use crate::client::RouteForm;
    use crate::identity;

    #[tokio::test]
    async fn from_another_machine_nothing_is_told_to_nobody() {
        let temp = tempfile::tempdir().expect("a directory");
        let state = temp.path().join("state");
        let world = navarch_snapshot::World::new(Default::default());
        let metrics = crate::metrics::Metrics::new().expect("distinct names");
        let fleet = Fleet::start(world.snapshot().clone(), metrics, RouteForm::default()).expect("a thread");
        let options = identity::Options {
            state: state.clone(),
            new_authority: false,
            plugged: None,
            shared: false,
            life: Duration::from_secs(3600),
            jwt_rule: None,
            names: Vec::new(),
        };
        let claimed = identity::State::claim(&options).expect("a state directory");
        let known = Identity::open(&options, claimed, None, None, fleet.clone(), Arc::default());
        let known = known.await.expect("an authority");
        let directory = Arc::new(StateDirectory::open(&state).expect("open"));
        let admin = AdminToken::read(&directory).expect("a token");
        let tokens = JoinTokens::new(directory);
        let text = |token: &Secret| token.expose_text().expect("text").to_owned();
        let join = |namespace: &str| {
            let id = SpiffeId::new("cluster.local", namespace, "web").expect("an id");
            let made = tokens.create(&id, Duration::from_secs(60), false, identity::now());
            text(&made.expect("a token").1)
        };
        let check = async |address: &str, token: &str, expected: Option<Access>| {
            let mut headers = HeaderMap::new();
            if !token.is_empty() {
                let value = format!("Bearer {token}").parse().expect("a header");
                headers.insert(header::AUTHORIZATION, value);
            }
            let address = address.parse().expect("an address");
            let found = access(Some(&known), &fleet, address, &headers).await.ok();
            assert_eq!(found, expected, "{address} {token}");
            let without = access(None, &fleet, address, &headers).await.is_ok();
            assert_eq!(without, address.ip().to_canonical().is_loopback(), "nobody can prove anything");
        };
        let (here, there) = ("127.0.0.1:1", "10.0.0.1:1");
        check(here, "", Some(Access::Everything)).await;
        check("[::ffff:127.0.0.1]:1", "", Some(Access::Everything)).await;
        check(there, "", None).await;
        check(there, "guess", None).await;
        check(there, &text(admin.secret()), Some(Access::Everything)).await;
        check(there, &join("shop"), Some(Access::Namespace("shop".to_owned()))).await;
        check(there, &join("istio-system"), Some(Access::Everything)).await;
        let shop = Access::Namespace("shop".to_owned());
        for (path, shown) in [
            ("/debug/proxies", true),
            ("/debug/config_dump", true),
            ("/debug/configz", false),
            ("/debug/ca", false),
            ("/debug/ca/rotate", false),
            ("/debug/removals/confirm", false),
            ("/debug/issuers", false),
        ] {
            assert_eq!(shows(path, &shop), shown, "{path}");
            assert!(shows(path, &Access::Everything), "{path}");
        }
    }

    #[test]
    fn what_changes_something_needs_the_admin() {
        for (method, path, expected) in [
            (Method::GET, "/debug/ca", false),
            (Method::POST, "/debug/refresh", false),
            (Method::POST, "/debug/removals/confirm", true),
            (Method::POST, "/debug/ca/rotate", true),
            (Method::PUT, "/debug/refresh/x", true),
        ] {
            assert_eq!(changes_something(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn pages_in_a_browser_are_refused() {
        let check = |loopback: bool, method: Method, headers: &[(&str, &str)], refused: bool| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let refusal = refusal(loopback, &method, &headers);
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

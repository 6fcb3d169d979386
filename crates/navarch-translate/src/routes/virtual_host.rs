//! Virtual hosts, encoded with and without their domains.

use std::sync::Arc;

use bytes::Bytes;
use navarch_envoy::proto::envoy::config::route::v3 as envoy;
use navarch_envoy::wire::put_field;
use navarch_envoy::{Resource, XdsType, hosts};
use navarch_model::networking::{ConsistentHashLb, HttpRetry};
use navarch_model::service::{PersistentSession, Service};
use navarch_model::{Hashed, Name};
use prost::Message;

use super::domains::{self, Domain, DomainView};
use super::filter_config::{STATEFUL_SESSION_FILTER, stateful_session};
use super::input::{EncodedRoute, Routes};
use crate::pure::{Pure, Sealed};

/// Tag bytes of `envoy.config.route.v3.VirtualHost`.
const NAME: u8 = 0x0a;
const DOMAINS: u8 = 0x12;
const ROUTES: u8 = 0x1a;

/// A virtual host as one service or one host of a set of routes contributes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// `<host>:<port>`.
    pub name: String,
    /// The service behind it, whose full name is nobody else's; nothing for hosts that are not services.
    pub service: Option<Name>,
    pub domains: Vec<Domain>,
    /// The routes that somebody wrote for it, which know what they were made from.
    pub routes: Option<Routes>,
    /// The encoded message with all domains.
    complete: Bytes,
    /// The encoded message without name and domains.
    rest: Bytes,
}

/// What a virtual host consists of besides its name and domains.
#[derive(Clone, Debug, Default)]
pub struct Content<'a> {
    pub routes: &'a [EncodedRoute],
    pub session: Option<&'a PersistentSession>,
    /// `proxyHeaders.attemptCount`.
    pub include_request_attempt_count: bool,
    /// Requests without TLS are redirected.
    pub require_tls: bool,
}

impl Content<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut message = envoy::VirtualHost {
            include_request_attempt_count: self.include_request_attempt_count,
            ..envoy::VirtualHost::default()
        };
        if self.require_tls {
            message.require_tls = envoy::virtual_host::TlsRequirementType::All.into();
        }
        if let Some(session) = self.session {
            message
                .typed_per_filter_config
                .insert(STATEFUL_SESSION_FILTER.to_owned(), stateful_session(session));
        }
        let mut out = message.encode_to_vec();
        for route in self.routes {
            put_field(&mut out, ROUTES, &route.bytes);
        }
        out
    }
}

impl VirtualHost {
    /// Encodes a virtual host.
    pub fn new(name: String, service: Option<Name>, domains: Vec<Domain>, content: &Content<'_>) -> Self {
        let rest = content.encode();
        let complete = Bytes::from(encode(&name, domains.iter().map(|domain| domain.text.as_str()), &rest));
        // One buffer for both: the rest is the end of the whole.
        let rest = complete.slice(complete.len() - rest.len()..);
        VirtualHost { name, service, domains, routes: None, complete, rest }
    }

    /// The encoded message with all domains.
    pub fn bytes(&self) -> &Bytes {
        &self.complete
    }

    /// The encoded message with the domains that are left to it.
    pub fn with_domains<'d>(&self, domains: impl IntoIterator<Item = &'d str>) -> Vec<u8> {
        encode(&self.name, domains, &self.rest)
    }

    /// The resource that it is on its own, with the domains that are left to it.
    pub fn resource<'d>(&self, routes: &str, domains: impl IntoIterator<Item = &'d str>) -> Resource {
        let name = hosts::resource_name(routes, &self.name);
        let message = encode(&name, domains, &self.rest);
        Resource::of(XdsType::Vhds, name, &message)
    }
}

/// Where the routes of a virtual host come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteSource {
    /// Rules that somebody wrote.
    Routes(Routes),
    /// One route to the service itself.
    Default { retries: Option<Arc<Hashed<HttpRetry>>>, hash: Option<ConsistentHashLb> },
}

/// The key of [`SidecarVirtualHost`].
#[derive(Clone, Debug, Hash)]
pub struct SidecarVirtualHostInput {
    pub host: Name,
    pub port: u16,
    /// The service with that host; nothing for a host that only routes name.
    pub service: Option<Arc<Hashed<Service>>>,
    pub domains: DomainView,
    /// The listener serves all ports, so domains name theirs.
    pub all_ports: bool,
    pub routes: RouteSource,
    pub include_request_attempt_count: bool,
}

/// The virtual host of one port of one host, for sidecars.
pub struct SidecarVirtualHost;

impl Sealed for SidecarVirtualHost {}

impl Pure for SidecarVirtualHost {
    const NAME: &'static str = "routes.virtual_host";
    type Input = SidecarVirtualHostInput;
    type Output = Hashed<VirtualHost>;

    fn run(input: &SidecarVirtualHostInput) -> Hashed<VirtualHost> {
        let service = input.service.as_deref();
        let domains = match service {
            Some(service) => {
                domains::of_service(service, &input.domains, input.all_ports.then_some(input.port))
            }
            None => domains::of_host(&input.host),
        };
        let default;
        let routes = match &input.routes {
            RouteSource::Routes(routes) => routes.as_slice(),
            RouteSource::Default { retries, hash } => {
                let retries = retries.as_deref().map(|retries| &**retries);
                default = [super::default_route(&input.host, input.port, retries, hash.as_ref())];
                &default
            }
        };
        let content = Content {
            routes,
            session: service.and_then(|service| service.persistent_session.as_ref()),
            include_request_attempt_count: input.include_request_attempt_count,
            require_tls: false,
        };
        let name = domains::with_port(&input.host, input.port);
        let service = service.map(|service| service.hostname.clone());
        let host = VirtualHost::new(name, service, domains, &content);
        let routes = match &input.routes {
            RouteSource::Routes(routes) => Some(routes.clone()),
            RouteSource::Default { .. } => None,
        };
        Hashed::new(VirtualHost { routes, ..host })
    }
}

/// Writes name and domains before the rest, as a generated encoder would.
fn encode<'d>(name: &str, domains: impl IntoIterator<Item = &'d str>, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rest.len() + 256);
    put_field(&mut out, NAME, name.as_bytes());
    for domain in domains {
        put_field(&mut out, DOMAINS, domain.as_bytes());
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_make_the_message() {
        let route = envoy::Route { name: "r".into(), ..envoy::Route::default() };
        let routes = [EncodedRoute::without_rule(route.encode_to_vec(), false)];
        let session = PersistentSession::Header("x-session".into());
        let content = Content {
            routes: &routes,
            session: Some(&session),
            include_request_attempt_count: true,
            require_tls: true,
        };
        let domain = |text: &str| Domain { text: text.to_owned(), alternative: false };
        let host = VirtualHost::new("a:80".into(), None, vec![domain("a"), domain("b")], &content);
        let decoded = envoy::VirtualHost::decode(host.bytes().clone()).expect("a virtual host");
        assert_eq!(decoded.name, "a:80");
        assert_eq!(decoded.domains, ["a", "b"]);
        assert_eq!(decoded.routes, [route]);
        assert_eq!(decoded.require_tls(), envoy::virtual_host::TlsRequirementType::All);
        assert!(decoded.include_request_attempt_count);
        assert!(decoded.typed_per_filter_config.contains_key(STATEFUL_SESSION_FILTER));

        let fewer = envoy::VirtualHost::decode(host.with_domains(["*"]).as_slice()).expect("a virtual host");
        assert_eq!(fewer, envoy::VirtualHost { domains: vec!["*".into()], ..decoded });
    }
}

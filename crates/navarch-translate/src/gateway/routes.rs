//! Route configurations of gateways.

use std::collections::{BTreeMap, BTreeSet};

use navarch_envoy::Resource;
use navarch_envoy::proto::envoy::config::route::v3 as envoy;
use navarch_envoy::wire::put_field;
use navarch_model::Name;
use navarch_model::service::PersistentSession;
use prost::Message;

use crate::pure::{Pure, Sealed};
use crate::routes::domains::with_port;
use crate::routes::route_configuration::finish;
use crate::routes::virtual_host::Content;
use crate::routes::{Domain, EncodedRoute, Routes, VirtualHost};

/// Tag byte of `virtual_hosts` in `envoy.config.route.v3.RouteConfiguration`.
const VIRTUAL_HOSTS: u8 = 0x12;

/// A host that servers of a gateway serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayHost {
    /// The port of the first server with the host; part of the virtual host's name.
    pub port: u16,
    /// Routes of each set, in the order in which they are put together: indices into the routes of the input.
    pub routes: Vec<usize>,
    /// Plain requests are redirected to HTTPS.
    pub require_tls: bool,
    pub session: Option<PersistentSession>,
}

/// The key of [`GatewayRouteConfiguration`].
#[derive(Clone, Debug, Hash)]
pub struct GatewayRouteConfigurationInput {
    pub name: Name,
    /// The port in the name of the virtual host that answers 404 if there are no others.
    pub port: u16,
    /// Routes of the sets that hosts refer to.
    pub routes: Vec<Routes>,
    /// By host in lower case.
    pub hosts: BTreeMap<String, GatewayHost>,
    /// Hosts of other listeners that share the port. Who asks for them came on a connection that was made for
    /// another host, and is told to make one of its own (RFC 9110, section 15.5.20).
    pub misdirected: BTreeSet<String>,
    pub include_request_attempt_count: bool,
    pub ignore_port_in_host_matching: bool,
}

/// The route configuration of one or more servers of a gateway.
///
/// Hosts with the same routes share a virtual host, named after the most specific of them: a set with a
/// thousand hosts does not become a thousand copies of its routes.
pub struct GatewayRouteConfiguration;

impl Sealed for GatewayRouteConfiguration {}

impl Pure for GatewayRouteConfiguration {
    const NAME: &'static str = "routes.gateway_configuration";
    type Input = GatewayRouteConfigurationInput;
    type Output = Resource;

    fn run(input: &GatewayRouteConfigurationInput) -> Resource {
        let mut body = Vec::new();
        for host in virtual_hosts(input) {
            put_field(&mut body, VIRTUAL_HOSTS, host.made().bytes());
        }
        finish(&input.name, &body, input.ignore_port_in_host_matching)
    }
}

/// A virtual host of a gateway before it is made, with the routes that it has: the key of
/// [`GatewayHostResource`] together with the route configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayVirtualHost {
    name: String,
    domains: Vec<Domain>,
    routes: HostRoutes,
    require_tls: bool,
    session: Option<PersistentSession>,
    include_request_attempt_count: bool,
}

/// What a virtual host does with requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum HostRoutes {
    /// What sets of routes say, in the order in which they are put together.
    Of(Vec<Routes>),
    /// They are not found.
    Nobody,
    /// They came by the wrong listener.
    Misdirected,
}

impl GatewayVirtualHost {
    fn answering(name: &str, port: u16, domains: Vec<Domain>, routes: HostRoutes) -> Self {
        GatewayVirtualHost {
            name: with_port(name, port),
            domains,
            routes,
            require_tls: false,
            session: None,
            include_request_attempt_count: false,
        }
    }

    /// The most specific of its domains.
    pub fn domain(&self) -> Option<&str> {
        self.domains.first().map(|domain| domain.text.as_str())
    }

    fn made(self) -> VirtualHost {
        let routes = match &self.routes {
            HostRoutes::Of(routes) => ordered_routes(routes),
            HostRoutes::Nobody => Vec::new(),
            HostRoutes::Misdirected => vec![misdirected_route()],
        };
        let content = Content {
            routes: &routes,
            session: self.session.as_ref(),
            include_request_attempt_count: self.include_request_attempt_count,
            require_tls: self.require_tls,
        };
        VirtualHost::new(self.name, None, self.domains, &content)
    }
}

/// The virtual hosts of a route configuration: at least one, which answers 404 if there are no others.
fn virtual_hosts(input: &GatewayRouteConfigurationInput) -> Vec<GatewayVirtualHost> {
    let mut hosts = hosts_with_routes(input);
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let misdirected = input.misdirected.iter().filter(|host| !input.hosts.contains_key(*host)).collect();
    hosts.extend(other_hosts(input.port, hosts.is_empty(), misdirected));
    hosts
}

/// The virtual hosts beside those that listeners have routes for: one for hosts of other listeners that have
/// no routes here, and if there are no others at all, one that answers 404.
pub fn other_hosts(port: u16, no_routes: bool, misdirected: Vec<&String>) -> Vec<GatewayVirtualHost> {
    let misdirected: Vec<Domain> = misdirected.into_iter().map(|host| domain(host)).collect();
    let mut hosts = Vec::new();
    if no_routes && !misdirected.contains(&domain("*")) {
        let all = vec![domain("*")];
        hosts.push(GatewayVirtualHost::answering("blackhole", port, all, HostRoutes::Nobody));
    }
    if !misdirected.is_empty() {
        let routes = HostRoutes::Misdirected;
        hosts.push(GatewayVirtualHost::answering("misdirected", port, misdirected, routes));
    }
    hosts
}

/// The key of [`GatewayHostResource`].
#[derive(Clone, Debug, Hash)]
pub struct GatewayHostResourceInput {
    /// Name of the route configuration.
    pub routes: Name,
    pub host: GatewayVirtualHost,
}

/// A virtual host of a gateway as a resource of its own.
pub struct GatewayHostResource;

impl Sealed for GatewayHostResource {}

impl Pure for GatewayHostResource {
    const NAME: &'static str = "routes.gateway_host";
    type Input = GatewayHostResourceInput;
    type Output = Resource;

    fn run(input: &GatewayHostResourceInput) -> Resource {
        let host = input.host.clone().made();
        host.resource(&input.routes, host.domains.iter().map(|domain| domain.text.as_str()))
    }
}

/// Answers every request with 421.
fn misdirected_route() -> EncodedRoute {
    let everything = envoy::RouteMatch {
        path_specifier: Some(envoy::route_match::PathSpecifier::Prefix("/".to_owned())),
        ..envoy::RouteMatch::default()
    };
    let answer = envoy::DirectResponseAction { status: 421, ..envoy::DirectResponseAction::default() };
    let route = envoy::Route {
        r#match: Some(everything),
        action: Some(envoy::route::Action::DirectResponse(answer)),
        ..envoy::Route::default()
    };
    EncodedRoute::without_rule(route.encode_to_vec(), true)
}

fn domain(text: &str) -> Domain {
    Domain { text: text.to_owned(), alternative: false }
}

/// One virtual host for all hosts with equal routes and equal demands on TLS.
pub fn hosts_with_routes(input: &GatewayRouteConfigurationInput) -> Vec<GatewayVirtualHost> {
    let mut ordered: Vec<(&String, &GatewayHost)> = input.hosts.iter().collect();
    ordered.sort_by(|(a, _), (b, _)| by_specificity(a, b));
    let mut groups: Vec<GatewayVirtualHost> = Vec::new();
    // The latest group with these routes: an earlier one that differs in TLS is not looked at again, as in
    // istiod.
    let mut known: BTreeMap<&[usize], usize> = BTreeMap::new();
    for (name, host) in ordered {
        let same = known.get(host.routes.as_slice()).copied();
        if let Some(group) = same.and_then(|index| groups.get_mut(index))
            && group.require_tls == host.require_tls
        {
            group.domains.push(domain(name));
            continue;
        }
        known.insert(&host.routes, groups.len());
        let routes = host.routes.iter().filter_map(|index| input.routes.get(*index).cloned());
        groups.push(GatewayVirtualHost {
            name: with_port(name, host.port),
            domains: vec![domain(name)],
            routes: HostRoutes::Of(routes.collect()),
            require_tls: host.require_tls,
            session: host.session.clone(),
            include_request_attempt_count: input.include_request_attempt_count,
        });
    }
    groups
}

/// The routes of all sets of a host, those that match everything last.
fn ordered_routes(routes: &[Routes]) -> Vec<EncodedRoute> {
    let all = || routes.iter().flat_map(|routes| routes.iter());
    let specific = all().filter(|route| !route.catch_all);
    specific.chain(all().filter(|route| route.catch_all)).cloned().collect()
}

/// Plain hosts before wildcards, then longer before shorter, then by alphabet.
fn by_specificity(a: &str, b: &str) -> std::cmp::Ordering {
    let wildcard = |host: &str| host.starts_with('*');
    wildcard(a).cmp(&wildcard(b)).then(b.len().cmp(&a.len())).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use navarch_model::Hashed;

    fn route(name: &str, catch_all: bool) -> EncodedRoute {
        let route = envoy::Route { name: name.into(), ..envoy::Route::default() };
        EncodedRoute::without_rule(route.encode_to_vec(), catch_all)
    }

    /// Domains and route names of each virtual host.
    fn check(hosts: &[(&str, &[usize], bool)], expected: &[(&[&str], &[&str])]) {
        check_beside(hosts, &[], expected);
    }

    fn check_beside(hosts: &[(&str, &[usize], bool)], misdirected: &[&str], expected: &[(&[&str], &[&str])]) {
        let routes = [vec![route("a", false), route("a-all", true)], vec![route("b", false)]];
        let host = |(name, routes, require_tls): &(&str, &[usize], bool)| {
            let host =
                GatewayHost { port: 80, routes: routes.to_vec(), require_tls: *require_tls, session: None };
            ((*name).to_owned(), host)
        };
        let resource = GatewayRouteConfiguration::run(&GatewayRouteConfigurationInput {
            name: "http.80".into(),
            port: 80,
            routes: routes.into_iter().map(|routes| Arc::new(Hashed::new(routes))).collect(),
            hosts: hosts.iter().map(host).collect(),
            misdirected: misdirected.iter().map(|host| (*host).to_owned()).collect(),
            include_request_attempt_count: true,
            ignore_port_in_host_matching: true,
        });
        let message = envoy::RouteConfiguration::decode(resource.body()).expect("a route configuration");
        let got: Vec<(Vec<String>, Vec<String>)> = message
            .virtual_hosts
            .into_iter()
            .map(|host| (host.domains, host.routes.into_iter().map(|route| route.name).collect()))
            .collect();
        let expected: Vec<(Vec<String>, Vec<String>)> = expected
            .iter()
            .map(|(domains, routes)| {
                let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
                (owned(domains), owned(routes))
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn hosts_with_equal_routes_share_a_virtual_host() {
        check(
            &[("a.com", &[0], false), ("*.com", &[0], false), ("b.com", &[1], false)],
            &[(&["a.com", "*.com"], &["a", "a-all"]), (&["b.com"], &["b"])],
        );
        check(
            &[("a.com", &[0], false), ("b.com", &[0], true)],
            &[(&["a.com"], &["a", "a-all"]), (&["b.com"], &["a", "a-all"])],
        );
    }

    #[test]
    fn routes_that_match_everything_go_last() {
        check(&[("a.com", &[0, 1], false)], &[(&["a.com"], &["a", "b", "a-all"])]);
    }

    #[test]
    fn without_hosts_requests_are_not_found() {
        check(&[], &[(&["*"], &[])]);
    }
    #[test]
    fn hosts_of_other_listeners_are_answered_without_routes_of_these() {
        check_beside(
            &[("*.com", &[1], false)],
            &["a.com", "*.com"],
            &[(&["*.com"], &["b"]), (&["a.com"], &[""])],
        );
        check_beside(&[], &["a.com"], &[(&["*"], &[]), (&["a.com"], &[""])]);
        check_beside(&[], &["*"], &[(&["*"], &[""])]);
        assert!(misdirected_route().catch_all);
    }
}

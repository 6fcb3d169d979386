//! Routes of gateways: what VirtualServices say about the hosts of servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::PatchContext;
use navarch_model::service::{PersistentSession, Service};
use navarch_model::{Hashed, Name};
use navarch_snapshot::host::covers;
use navarch_translate::gateway::{
    GatewayHost, GatewayRouteConfiguration, GatewayRouteConfigurationInput, MergedGateways, MergedServer,
};
use navarch_translate::routes::patch::{
    PatchTarget, PatchedRoutes, PatchedRoutesInput, RoutePatches, gateway_port,
};
use navarch_translate::routes::{RouteContext, Routes};

use super::Client;
use super::lookup::{default_retries, destination_hosts, destination_service, routes_of};
use super::sidecar::{SharedRule, SharedService};
use crate::class::Class;
use crate::engine::{Cx, Gather};
use crate::gather::gateway::GatewaysOf;
use crate::parts::{BucketResources, Parts};

/// The routes of a gateway: one route configuration for all plain HTTP servers of a port, one for each HTTPS server.
pub(super) fn routes(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    client: &Arc<Hashed<Client>>,
    patches: &RoutePatches,
) -> Parts {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Parts::default() };
    let key = GatewayKey { client: client.clone(), gateways: gateways.clone() };
    let mut resources = BucketResources::new();
    for name in gateways.routes.keys() {
        let made =
            cx.gather::<RouteConfigurationOf>(&(key.clone(), Name::from(name.as_str()))).resource.clone();
        resources.push(if patches.is_empty() { made } else { patched(cx, gateways, made, patches) });
    }
    Parts::local(resources)
}

/// A route configuration with what EnvoyFilters change.
fn patched(
    cx: &Cx<'_>,
    gateways: &MergedGateways,
    resource: Arc<Resource>,
    patches: &RoutePatches,
) -> Arc<Resource> {
    let number = gateway_port(resource.name());
    let behind = gateways.routes.iter().filter(|(name, _)| gateway_port(name) == number);
    let server_ports = behind.flat_map(|(_, servers)| servers.iter().map(|server| server.port)).collect();
    let target = PatchTarget { context: PatchContext::Gateway, server_ports };
    cx.get::<PatchedRoutes>(&PatchedRoutesInput { resource, target, patches: patches.clone() })
}

#[derive(Clone, Debug, Hash)]
struct GatewayKey {
    client: Arc<Hashed<Client>>,
    gateways: Arc<Hashed<MergedGateways>>,
}

/// One route configuration.
struct RouteConfigurationOf;

#[derive(Clone)]
struct Configuration {
    resource: Arc<Resource>,
    /// Keeps translations in the memo as long as they are used.
    _routes: Vec<Routes>,
}

impl PartialEq for Configuration {
    fn eq(&self, other: &Self) -> bool {
        self.resource == other.resource
    }
}

impl Gather for RouteConfigurationOf {
    const NAME: &'static str = "gateway_route_configuration";
    type Key = (GatewayKey, Name);
    type Output = Configuration;

    fn run((key, name): &Self::Key, cx: &Cx<'_>) -> Configuration {
        let servers = key.gateways.routes.get(&**name).map_or(&[][..], Vec::as_slice);
        let mut collected = Collected {
            alt_svc: key.gateways.http3_routes.contains(&**name),
            client: &key.client,
            cx,
            routes: Vec::new(),
            known: BTreeMap::new(),
            hosts: BTreeMap::new(),
        };
        for server in servers {
            collected.add_server(server);
        }
        let Collected { routes, hosts, .. } = collected;
        let resource = cx.get::<GatewayRouteConfiguration>(&GatewayRouteConfigurationInput {
            name: name.clone(),
            port: servers.first().map_or(0, |server| server.port),
            routes: routes.clone(),
            hosts,
            include_request_attempt_count: key.client.include_request_attempt_count,
            ignore_port_in_host_matching: true,
        });
        Configuration { resource, _routes: routes }
    }
}

/// Hosts and routes of one route configuration while it is put together.
struct Collected<'a, 'e> {
    cx: &'a Cx<'e>,
    client: &'a Arc<Hashed<Client>>,
    alt_svc: bool,
    routes: Vec<Routes>,
    /// Routes by gateway and VirtualService: those of the first server count for all servers of the configuration.
    known: BTreeMap<(Name, Name, Name), (usize, Arc<RoutesOfRule>)>,
    hosts: BTreeMap<String, GatewayHost>,
}

impl Collected<'_, '_> {
    fn add_server(&mut self, server: &MergedServer) {
        for rule in self.client.scope.gateway_virtual_services(self.cx.view(), &server.gateway) {
            let hosts = intersection(&hosts_for_namespace(server, &rule.config.namespace), &rule.hosts);
            if hosts.is_empty() {
                continue;
            }
            let Some((index, found)) = self.routes_of(server, &rule) else { continue };
            for host in hosts {
                self.add_host(host.to_ascii_lowercase(), server, index, &found);
            }
        }
        if server.redirects_to_https() {
            for host in &server.server.hosts {
                self.entry(host.to_ascii_lowercase(), server).require_tls = true;
            }
        }
    }

    fn routes_of(&mut self, server: &MergedServer, rule: &SharedRule) -> Option<(usize, Arc<RoutesOfRule>)> {
        let id = (server.gateway.clone(), rule.config.namespace.clone(), rule.config.name.clone());
        if let Some(known) = self.known.get(&id) {
            return Some(known.clone());
        }
        let context = RouteContext {
            port: server.port,
            gateway: Some(server.gateway.clone()),
            tls: server.tls().is_some(),
            alt_svc: self.alt_svc,
            x_forwarded_host: self.client.x_forwarded_host,
            proxyless: false,
            default_retries: default_retries(self.cx),
        };
        let key = RuleKey { client: self.client.clone(), rule: rule.clone(), context };
        let found = self.cx.gather::<RoutesOfRule>(&key);
        if found.routes.is_empty() {
            return None;
        }
        let entry = (self.routes.len(), found);
        self.routes.push(entry.1.routes.clone());
        self.known.insert(id, entry.clone());
        Some(entry)
    }

    fn add_host(&mut self, host: String, server: &MergedServer, index: usize, found: &RoutesOfRule) {
        let is_new = !self.hosts.contains_key(&host);
        let session = found.sessions.get(host.as_str()).cloned();
        let entry = self.entry(host, server);
        entry.routes.push(index);
        if is_new {
            entry.session = session;
        }
        if server.redirects_to_https() {
            entry.require_tls = true;
        }
    }

    fn entry(&mut self, host: String, server: &MergedServer) -> &mut GatewayHost {
        self.hosts.entry(host).or_insert_with(|| GatewayHost {
            port: server.port,
            routes: Vec::new(),
            require_tls: false,
            session: None,
        })
    }
}

/// Hosts of a server that are meant for VirtualServices of a namespace.
fn hosts_for_namespace<'s>(server: &'s MergedServer, namespace: &str) -> Vec<&'s str> {
    server
        .server
        .hosts
        .iter()
        .filter_map(|host| match host.split_once('/') {
            Some((stated, name)) => (stated == namespace || stated == "*").then_some(name),
            None => Some(host.as_str()),
        })
        .collect()
}

/// What both lists stand for: of two hosts that overlap, the more specific one.
fn intersection<'a>(server: &[&'a str], rule: &'a [Name]) -> Vec<&'a str> {
    let mut out: Vec<&'a str> = Vec::new();
    for own in server {
        for other in rule {
            let both = if covers(other, own) {
                *own
            } else if covers(own, other) {
                &**other
            } else {
                continue;
            };
            if !out.contains(&both) {
                out.push(both);
            }
        }
    }
    out
}

/// The routes of one VirtualService at one gateway.
#[derive(Clone, Debug, PartialEq)]
struct RoutesOfRule {
    routes: Routes,
    /// Sessions of the destinations, by host.
    sessions: BTreeMap<Name, PersistentSession>,
}

#[derive(Clone, Debug, Hash)]
struct RuleKey {
    client: Arc<Hashed<Client>>,
    rule: SharedRule,
    context: RouteContext,
}

impl Gather for RoutesOfRule {
    const NAME: &'static str = "gateway_virtual_service";
    type Key = RuleKey;
    type Output = RoutesOfRule;

    fn run(key: &RuleKey, cx: &Cx<'_>) -> RoutesOfRule {
        let namespace = &key.rule.config.namespace;
        let lookup = |host: &str| service_for(cx, &key.client, namespace, host);
        let routes = routes_of(cx, &key.client, &key.rule, key.context.clone(), |host| {
            lookup(host).map(|service| destination_service(&service))
        });
        let sessions = destination_hosts(&key.rule.config.spec)
            .into_iter()
            .filter_map(|host| Some((Name::from(host), lookup(host)?.persistent_session.clone()?)))
            .collect();
        RoutesOfRule { routes, sessions }
    }
}

/// The service behind a host for a VirtualService of `namespace`: its own, if the gateway may see it, else the gateway's.
fn service_for(cx: &Cx<'_>, client: &Client, namespace: &Name, host: &str) -> Option<SharedService> {
    let own = cx.view().services(host).iter().find(|service: &&Arc<Hashed<Service>>| {
        service.namespace == *namespace && service.export_to.includes(client.scope.namespace())
    });
    own.cloned().or_else(|| client.scope.service(cx.view(), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_hosts_that_overlap_the_more_specific_is_served() {
        let check = |server: &[&str], rule: &[&str], expected: &[&str]| {
            let rule: Vec<Name> = rule.iter().copied().map(Name::from).collect();
            assert_eq!(intersection(server, &rule), expected);
        };
        check(&["*.com"], &["a.com", "b.org"], &["a.com"]);
        check(&["a.com", "b.com"], &["*.com"], &["a.com", "b.com"]);
        check(&["*"], &["*.com", "a.com"], &["*.com", "a.com"]);
        check(&["a.com"], &["a.com"], &["a.com"]);
        check(&["a.com"], &["b.com"], &[]);
    }
}

//! Listeners of gateways: one per port and address, with the chains of all servers there.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::mesh::ForwardClientCertDetails;
use navarch_model::networking::{
    Destination as RouteTarget, L4MatchAttributes, PatchContext, RouteDestination, ServerTlsMode,
    TlsMatchAttributes,
};
use navarch_model::service::{Protocol, Service};
use navarch_model::{EffectiveRule, Hashed, Labels, Name};
use navarch_snapshot::bound::BoundVirtualService;
use navarch_snapshot::host::{covers, overlap};
use navarch_snapshot::{BUCKETS, Bucket, Scope};
use navarch_translate::gateway::merge::{MergedPort, claim_hosts};
use navarch_translate::gateway::{
    GatewayChain, GatewayListener, GatewayListenerInput, GatewaySettings, MergedServer, Transport,
};
use navarch_translate::http_connection_manager::{Direction, connection_settings};
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::tcp::{Destination, TcpRoute};
use navarch_translate::names;

use super::GatewaysOf;
use crate::class::Class;
use crate::engine::{Cx, Gather};
use crate::gather::listeners::added_listeners;
use crate::gather::listeners::settings::common;
use crate::gather::listeners::tcp_routes::Traffic;
use crate::gather::routes::labels::mentioned;
use crate::parts::{BucketResources, Parts};

/// Ports below this need privileges.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The listeners of a gateway.
pub fn listeners(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Parts::default() };
    let settings = settings(cx, class);
    let labels = mentioned(cx, &class.facts.namespace, class.labels());
    let mut gathering = Gathering { cx, scope, labels: &labels, claimed: BTreeMap::new() };
    let mut listeners: BTreeMap<(Name, u16, Transport), GatewayListenerInput> = BTreeMap::new();
    for port in &gateways.ports {
        if class.facts.unprivileged && port.port.number < FIRST_UNPRIVILEGED_PORT {
            continue;
        }
        for transport in [Transport::Tcp, Transport::Quic] {
            let Some(merged) = gateways.port(transport, &port.port) else { continue };
            let (bind, extra_binds) = binds(class, &port.port.bind);
            let listener =
                listeners.entry((bind.clone(), port.port.number, transport)).or_insert_with(|| {
                    GatewayListenerInput {
                        settings: settings.clone(),
                        transport,
                        bind,
                        extra_binds,
                        port: port.port.number,
                        chains: Vec::new(),
                    }
                });
            listener.chains.extend(gathering.chains(merged, transport));
        }
    }
    let with_chains = listeners.values().filter(|input| !input.chains.is_empty());
    let made = with_chains.map(|input| cx.get::<GatewayListener>(input));
    let mut made: BucketResources = made.filter(|listener| !listener.name().is_empty()).collect();
    made.extend(added_listeners(cx, class, PatchContext::Gateway));
    made.sort_by(|a, b| a.name().cmp(b.name()));
    Parts::local(made)
}

/// The addresses to listen on: the stated one, else all of the workload's families.
fn binds(class: &Class, stated: &str) -> (Name, Vec<Name>) {
    if !stated.is_empty() {
        return (Name::from(stated), Vec::new());
    }
    let mut all = wildcards(class.facts.ip_mode()).iter().map(|address| Name::from(*address));
    (all.next().unwrap_or_else(|| Name::from("")), all.collect())
}

fn settings(cx: &Cx<'_>, class: &Class) -> Arc<Hashed<GatewaySettings>> {
    let mesh = &cx.view().mesh().config;
    let proxy = class.facts.proxy_config(mesh);
    let topology = proxy.gateway_topology.clone().unwrap_or_default();
    let mut listener = common(cx, class, Direction::Gateway);
    listener.http.stateful_sessions = *cx.gather::<AnySessions>(&());
    let connection = connection_settings(Direction::Gateway, mesh, &proxy);
    Arc::new(Hashed::new(GatewaySettings {
        listener: Arc::new(Hashed::new(listener)),
        tls_defaults: mesh.tls_defaults.clone(),
        files: class.facts.server_certificates.clone(),
        trusted_proxies: topology.num_trusted_proxies,
        forward_client_cert: match topology.forward_client_cert_details {
            ForwardClientCertDetails::Undefined => ForwardClientCertDetails::SanitizeSet,
            stated => stated,
        },
        proxy_protocol: topology.proxy_protocol.is_some(),
        buffer_limit_bytes: connection
            .and_then(|settings| settings.listener_per_connection_buffer_limit_bytes)
            .and_then(|bytes| u32::try_from(bytes).ok()),
    }))
}

/// Whether any service has persistent sessions, so that chains carry the filter that routes configure.
struct AnySessions;

impl Gather for AnySessions {
    const NAME: &'static str = "any_persistent_sessions";
    type Key = ();
    type Output = bool;

    fn run((): &(), cx: &Cx<'_>) -> bool {
        // Not `any`: all buckets are asked, so that the answer depends on each.
        (0..BUCKETS).fold(false, |found, bucket| found | *cx.gather::<BucketSessions>(&bucket))
    }
}

struct BucketSessions;

impl Gather for BucketSessions {
    const NAME: &'static str = "bucket_persistent_sessions";
    type Key = Bucket;
    type Output = bool;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> bool {
        cx.view().services_in(*bucket).values().flatten().any(|service| service.persistent_session.is_some())
    }
}

struct Gathering<'a, 'e> {
    cx: &'a Cx<'e>,
    scope: &'a Arc<Hashed<Scope>>,
    labels: &'a Labels,
    /// Server names that chains of a port match: Envoy would reject a second chain with the same.
    claimed: BTreeMap<(u16, String), String>,
}

impl Gathering<'_, '_> {
    fn chains(&mut self, merged: &MergedPort, transport: Transport) -> Vec<GatewayChain> {
        let protocol = merged.port.protocol();
        if transport == Transport::Tcp && protocol.is_http() {
            return vec![GatewayChain::Http { route_name: merged.route_name.clone(), protocol }];
        }
        let mut chains = Vec::new();
        for server in &merged.servers {
            if server.terminates_https() {
                chains.push(GatewayChain::Https { server: server.clone() });
            } else if !server.passes_tls_through() {
                chains.extend(self.tcp(server));
            } else if server.tls().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) {
                chains.extend(self.mesh_tls(server));
            } else {
                chains.extend(self.tls(server, merged.port.number));
            }
        }
        chains
    }

    /// VirtualServices of the server's gateway that share a host with it.
    fn rules(&self, server: &MergedServer) -> Vec<Arc<Hashed<BoundVirtualService>>> {
        let mut rules = self.scope.gateway_virtual_services(self.cx.view(), &server.gateway);
        rules.retain(|rule| {
            server.server.hosts.iter().any(|host| {
                let name = match host.split_once('/') {
                    Some((namespace, _)) if namespace != &*rule.config.namespace => return false,
                    Some((_, name)) => name,
                    None => host.as_str(),
                };
                rule.hosts.iter().any(|other| overlap(name, other))
            })
        });
        rules
    }

    /// Bytes, after TLS is terminated if the server says so: the first TCP route that fits the server.
    fn tcp(&self, server: &Arc<Hashed<MergedServer>>) -> Option<GatewayChain> {
        let rules = self.rules(server);
        let routes = rules.iter().flat_map(|rule| rule.config.spec.tcp.iter().map(move |tcp| (rule, tcp)));
        let (rule, tcp) = routes.filter(|(_, tcp)| !tcp.route.is_empty()).find(|(_, tcp)| {
            tcp.match_.is_empty() || tcp.match_.iter().any(|matched| fits_tcp(matched, server))
        })?;
        Some(GatewayChain::Tcp {
            sni_hosts: server.sni_hosts.clone(),
            tls: server.tls().is_some().then(|| server.clone()),
            port: server.port,
            route: self.route(&tcp.route, rule, server)?,
        })
    }

    /// TLS that is passed on by server name.
    fn tls(&mut self, server: &MergedServer, number: u16) -> Vec<GatewayChain> {
        let mut chains = Vec::new();
        for rule in self.rules(server) {
            for tls in rule.config.spec.tls.iter().filter(|tls| !tls.route.is_empty()) {
                for matched in tls.match_.iter().filter(|matched| fits_tls(matched, server)) {
                    if !claim_hosts(&mut self.claimed, number, &matched.sni_hosts, &server.server.bind) {
                        continue;
                    }
                    let Some(route) = self.route(&tls.route, &rule, server) else { continue };
                    chains.push(GatewayChain::Tcp {
                        sni_hosts: matched.sni_hosts.clone(),
                        tls: None,
                        port: server.port,
                        route,
                    });
                }
            }
        }
        chains
    }

    /// Mesh TLS that is passed on to the service, port and subset that its server name says.
    fn mesh_tls(&self, server: &MergedServer) -> Vec<GatewayChain> {
        let hosts = Arc::new(server.sni_hosts.clone());
        let mut chains = Vec::new();
        for bucket in 0..BUCKETS {
            let key = MeshTlsKey {
                scope: self.scope.clone(),
                labels: self.labels.clone(),
                hosts: hosts.clone(),
                bucket,
            };
            chains.extend(self.cx.gather::<MeshTlsChains>(&key).0.iter().cloned());
        }
        chains
    }

    fn route(
        &self,
        targets: &[RouteDestination],
        rule: &BoundVirtualService,
        server: &MergedServer,
    ) -> Option<TcpRoute> {
        let target = |to: &RouteDestination| to.destination.clone().unwrap_or_default();
        let first = target(targets.first()?);
        let service = self.service(&first.host);
        let effective = service.as_ref().and_then(|service| self.rule(service));
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        if targets.len() == 1 {
            let cluster = cluster(&first, service.as_deref().map(|service| &**service), server.port);
            let destination = Destination::Cluster(Name::from(cluster.as_str()));
            return Some(traffic.route(destination, &cluster, &first.subset, server.protocol));
        }
        let clusters: Vec<(Name, u32)> = targets
            .iter()
            .filter_map(|to| {
                let weight = u32::try_from(to.weight).ok().filter(|weight| *weight > 0)?;
                let target = target(to);
                let service = self.service(&target.host);
                let cluster = cluster(&target, service.as_deref().map(|service| &**service), server.port);
                Some((Name::from(cluster), weight))
            })
            .collect();
        if clusters.is_empty() {
            return None;
        }
        let stat_prefix = format!("{}.{}", rule.config.name, rule.config.namespace);
        Some(traffic.route(Destination::Weighted(clusters), &stat_prefix, "", server.protocol))
    }

    fn service(&self, host: &str) -> Option<Arc<Hashed<Service>>> {
        self.scope.service(self.cx.view(), host)
    }

    fn rule(&self, service: &Service) -> Option<Arc<Hashed<EffectiveRule>>> {
        self.scope.destination_rule(self.cx.view(), service, Some(self.labels))
    }
}

/// The cluster of a destination: its port is the stated one, else the only one of the service, else the server's.
fn cluster(destination: &RouteTarget, service: Option<&Service>, port: u16) -> String {
    let host = service.and_then(|service| service.external_name.as_deref()).unwrap_or(&destination.host);
    let port = match (&destination.port, service.map(|service| service.ports.as_slice())) {
        (Some(port), _) => u16::try_from(port.number).unwrap_or_default(),
        (None, Some([only])) => only.port,
        (None, _) => port,
    };
    names::outbound(port, &destination.subset, host)
}

fn fits(port: u32, gateways: &[String], server: &MergedServer) -> bool {
    (port == 0 || port == u32::from(server.port))
        && (gateways.is_empty() || gateways.iter().any(|gateway| *gateway == *server.gateway))
}

fn fits_tcp(matched: &L4MatchAttributes, server: &MergedServer) -> bool {
    fits(matched.port, &matched.gateways, server)
}

fn fits_tls(matched: &TlsMatchAttributes, server: &MergedServer) -> bool {
    fits(matched.port, &matched.gateways, server)
}

/// Chains for the services of a bucket that a server of mode AUTO_PASSTHROUGH reaches.
struct MeshTlsChains;

#[derive(Clone, Debug, Hash)]
struct MeshTlsKey {
    scope: Arc<Hashed<Scope>>,
    labels: Labels,
    hosts: Arc<Vec<String>>,
    bucket: Bucket,
}

#[derive(Clone, Debug, PartialEq)]
struct Chains(Vec<GatewayChain>);

impl Gather for MeshTlsChains {
    const NAME: &'static str = "auto_passthrough_chains";
    type Key = MeshTlsKey;
    type Output = Chains;

    fn run(key: &MeshTlsKey, cx: &Cx<'_>) -> Chains {
        let mut chains = Vec::new();
        for service in key.scope.services_in(cx.view(), key.bucket) {
            let reached = key.hosts.iter().any(|host| covers(host, &service.hostname));
            if service.mesh_external || !reached {
                continue;
            }
            let rule = key.scope.destination_rule(cx.view(), &service, Some(&key.labels));
            let spec = rule.as_deref().map(|rule| &rule.spec);
            let traffic = Traffic::of(spec).without_tunnel();
            let subsets = spec.into_iter().flat_map(|spec| &spec.subsets).map(|subset| subset.name.as_str());
            let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                for subset in &subsets {
                    let cluster = names::sni(port.port, subset, &service.hostname);
                    let destination = Destination::Cluster(Name::from(cluster.as_str()));
                    chains.push(GatewayChain::MeshTls {
                        sni: Name::from(cluster.as_str()),
                        port: port.port,
                        route: traffic.route(destination, &cluster, subset, port.protocol),
                    });
                }
            }
        }
        Chains(chains)
    }
}

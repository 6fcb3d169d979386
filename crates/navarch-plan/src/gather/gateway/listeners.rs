//! Listeners of gateways: one per port and address, with the chains of all servers there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::mesh::ForwardClientCertDetails;
use navarch_model::networking::{PatchContext, ServerTlsMode};
use navarch_model::route::{ClientMatch, Parent, RouteSet, StreamBackend};
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name};
use navarch_snapshot::host::{covers, overlap};
use navarch_snapshot::{BUCKETS, Bucket, ClientLabels, Scope};
use navarch_translate::gateway::{GatewayChain, GatewayPort, GatewayPortInput, GatewaySettings, Transport};
use navarch_translate::http_connection_manager::{Direction, connection_settings};
use navarch_translate::listeners::address::wildcards;
use navarch_translate::listeners::tcp::{Destination, TcpRoute};
use navarch_translate::names;

use super::merge::{MergedGateways, MergedListener, MergedPort, claim_hosts};
use super::selected::GatewaysOf;
use super::sets::sets_at;
use crate::class::Class;
use crate::composed::{BucketResources, Composed};
use crate::engine::{Cx, Gather};
use crate::gather::shared::listeners::{ChainOrigin, added_listeners, common};
use crate::gather::shared::sessions;
use crate::gather::shared::streams::{Streams, Traffic};

/// Ports below this need privileges.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The listeners of a gateway.
pub fn listeners(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Composed::default() };
    let inputs = inputs(cx, class, scope, gateways);
    let with_chains = inputs.iter().filter(|input| !input.chains.is_empty());
    let made = with_chains.map(|input| cx.get::<GatewayPort>(input).made.clone());
    let mut made: BucketResources = made.filter(|listener| !listener.name().is_empty()).collect();
    made.extend(added_listeners(cx, class, PatchContext::Gateway));
    made.sort_by(|a, b| a.name().cmp(b.name()));
    Composed::own(made)
}

/// What a listener was made from: the listeners of gateways that open it, and the rules behind its chains.
pub fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    listener: &str,
) -> Vec<ChainOrigin> {
    let Some(gateways) = &*cx.gather::<GatewaysOf>(class) else { return Vec::new() };
    let mut origins = Vec::new();
    for input in inputs(cx, class, scope, gateways).iter().filter(|input| input.name() == listener) {
        let opened = gateways
            .ports
            .iter()
            .filter(|port| port.port.number == input.port && binds(class, &port.port.bind).0 == input.bind);
        origins.extend(opened.flat_map(|port| &port.listeners).map(|opened| {
            let takes = opened.sni_hosts.clone();
            ChainOrigin { takes, origin: opened.listener.origin.clone(), opens: true }
        }));
        origins.extend(input.chains.iter().filter_map(|chain| match chain {
            GatewayChain::Tcp { sni_hosts, origin, .. } => {
                Some(ChainOrigin { takes: sni_hosts.clone(), origin: origin.clone(), opens: false })
            }
            GatewayChain::Datagrams { origin, .. } => {
                Some(ChainOrigin { takes: Vec::new(), origin: origin.clone(), opens: false })
            }
            GatewayChain::Http { .. } | GatewayChain::Https { .. } | GatewayChain::MeshTls { .. } => None,
        }));
    }
    origins
}

/// What the listeners are made of, by address, port and transport; also those that have no chains and are not
/// made.
fn inputs(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    gateways: &MergedGateways,
) -> Vec<GatewayPortInput> {
    let settings = settings(cx, class, gateways);
    let labels = cx.client_labels(class.labels());
    let mut gathering = Gathering { cx, scope, labels: &labels, claimed: claimed_by_https(gateways) };
    let mut listeners: BTreeMap<(Name, u16, Transport), GatewayPortInput> = BTreeMap::new();
    for port in &gateways.ports {
        if class.facts.unprivileged && port.port.number < FIRST_UNPRIVILEGED_PORT {
            continue;
        }
        let transports: &[Transport] = match port.port.is_udp() {
            true => &[Transport::Udp],
            false => &[Transport::Tcp, Transport::Quic],
        };
        for transport in transports.iter().copied() {
            let Some(merged) = gateways.port(transport, &port.port) else { continue };
            let (bind, extra_binds) = binds(class, &port.port.bind);
            let listener =
                listeners.entry((bind.clone(), port.port.number, transport)).or_insert_with(|| {
                    GatewayPortInput {
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
    listeners.into_values().collect()
}

/// The server names that HTTPS listeners have: a route by server name must not take one from them.
fn claimed_by_https(gateways: &MergedGateways) -> BTreeMap<(u16, Name), Name> {
    let ports = gateways.ports.iter().flat_map(|port| {
        let https = port.listeners.iter().filter(|listener| listener.terminates_https());
        https
            .flat_map(|listener| &listener.sni_hosts)
            .map(|name| ((port.port.number, name.clone()), port.port.bind.clone()))
    });
    ports.collect()
}

/// The addresses to listen on: the stated one, else all of the workload's families.
fn binds(class: &Class, stated: &Name) -> (Name, Vec<Name>) {
    if !stated.is_empty() {
        return (stated.clone(), Vec::new());
    }
    let mut all = wildcards(class.facts.ip_mode()).iter().map(|address| Name::from(*address));
    (all.next().unwrap_or_else(|| Name::from("")), all.collect())
}

fn settings(cx: &Cx<'_>, class: &Class, gateways: &MergedGateways) -> Arc<Hashed<GatewaySettings>> {
    let mesh = &cx.view().mesh().config;
    let proxy = class.facts.proxy_config(mesh);
    let topology = proxy.gateway_topology.clone().unwrap_or_default();
    let mut listener = common(cx, class, Direction::Gateway);
    let parents: BTreeSet<&Parent> =
        gateways.routes.values().flatten().map(|listener| listener.parent()).collect();
    listener.http.stateful_sessions =
        *cx.gather::<AnySessions>(&()) || parents.into_iter().any(|parent| sessions::at(cx, parent));
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
    const NAME: &'static str = "listeners.any_sessions";
    type Key = ();
    type Output = bool;

    fn run((): &(), cx: &Cx<'_>) -> bool {
        // Not `any`: all buckets are asked, so that the answer depends on each.
        (0..BUCKETS).fold(false, |found, bucket| found | *cx.gather::<BucketSessions>(&bucket))
    }
}

struct BucketSessions;

impl Gather for BucketSessions {
    const NAME: &'static str = "listeners.bucket_sessions";
    type Key = Bucket;
    type Output = bool;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> bool {
        cx.view().services_in(*bucket).values().flatten().any(|service| service.persistent_session.is_some())
    }
}

struct Gathering<'a, 'e> {
    cx: &'a Cx<'e>,
    scope: &'a Arc<Hashed<Scope>>,
    labels: &'a ClientLabels,
    /// Server names that chains of a port match: Envoy would reject a second chain with the same.
    claimed: BTreeMap<(u16, Name), Name>,
}

impl Gathering<'_, '_> {
    fn chains(&mut self, merged: &MergedPort, transport: Transport) -> Vec<GatewayChain> {
        let protocol = merged.port.protocol();
        if transport == Transport::Tcp && protocol.is_http() {
            return vec![GatewayChain::Http { route_name: merged.route_name.clone(), protocol }];
        }
        if transport == Transport::Udp {
            return merged.listeners.iter().find_map(|listener| self.udp(listener)).into_iter().collect();
        }
        let mut chains = Vec::new();
        for listener in &merged.listeners {
            if listener.terminates_https() {
                chains.push(GatewayChain::Https {
                    listener: listener.listener.clone(),
                    sni_hosts: listener.sni_hosts.clone(),
                    route_name: listener.route_name.clone(),
                });
            } else if !listener.passes_tls_through() {
                // Istio's Gateways have no routes by server name for TLS that they end.
                if listener.tls().is_some() && listener.listener.section().is_some() {
                    chains.extend(self.tls(listener, merged.port.number));
                }
                chains.extend(self.tcp(listener));
            } else if listener.tls().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) {
                chains.extend(self.mesh_tls(listener));
            } else {
                chains.extend(self.tls(listener, merged.port.number));
            }
        }
        chains
    }

    /// Routes of the listener's gateway that share a host with it.
    fn sets(&self, listener: &MergedListener) -> Vec<Arc<Hashed<RouteSet>>> {
        let mut sets = sets_at(self.cx, self.scope, &listener.listener);
        sets.retain(|set| {
            let mut hosts = listener.listener.hosts_for(set.namespace());
            hosts.any(|host| set.hosts.iter().any(|other| overlap(host, other)))
        });
        sets
    }

    /// Bytes, after TLS is terminated if the server says so: the first rule that fits the listener.
    fn tcp(&self, listener: &Arc<Hashed<MergedListener>>) -> Option<GatewayChain> {
        let sets = self.sets(listener);
        let mut rules = sets.iter().flat_map(|set| set.tcp.iter().map(move |tcp| (set, tcp)));
        let (set, tcp) = rules.find(|(_, tcp)| {
            tcp.matches.is_empty() || tcp.matches.iter().any(|matched| fits(&matched.client, listener))
        })?;
        Some(GatewayChain::Tcp {
            sni_hosts: listener.sni_hosts.clone(),
            tls: listener.tls().is_some().then(|| listener.listener.clone()),
            port: listener.port(),
            origin: tcp.origin.clone(),
            route: self.route(&tcp.backends, set, listener)?,
        })
    }

    /// Datagrams: the first rule.
    fn udp(&self, listener: &MergedListener) -> Option<GatewayChain> {
        let sets = self.sets(listener);
        let rule = sets.iter().flat_map(|set| &set.tcp).next()?;
        let clusters = rule.backends.iter().filter(|to| to.weight > 0).map(|to| {
            let service = to.backend.service();
            let cluster = service.and_then(|to| Some(names::datagrams(to.port?, &to.host)));
            (Name::from(cluster.unwrap_or_else(|| names::UNKNOWN_SERVICE.to_owned())), to.weight)
        });
        Some(GatewayChain::Datagrams { origin: rule.origin.clone(), clusters: clusters.collect() })
    }

    /// TLS by server name; passed on as it is, or after it has ended here.
    fn tls(&mut self, listener: &MergedListener, number: u16) -> Vec<GatewayChain> {
        let mut chains = Vec::new();
        for set in self.sets(listener) {
            for tls in &set.tls {
                for matched in tls.matches.iter().filter(|matched| fits(&matched.client, listener)) {
                    if !claim_hosts(&mut self.claimed, number, &matched.server_names, &listener.listener.bind)
                    {
                        continue;
                    }
                    let Some(route) = self.route(&tls.backends, &set, listener) else { continue };
                    let ends_here = !listener.passes_tls_through();
                    chains.push(GatewayChain::Tcp {
                        sni_hosts: matched.server_names.clone(),
                        tls: ends_here.then(|| listener.listener.clone()),
                        port: listener.port(),
                        origin: tls.origin.clone(),
                        route,
                    });
                }
            }
        }
        chains
    }

    /// Mesh TLS that is passed on to the service, port and subset that its server name says.
    fn mesh_tls(&self, listener: &MergedListener) -> Vec<GatewayChain> {
        let hosts = Arc::new(listener.sni_hosts.clone());
        let mut chains = Vec::new();
        for bucket in 0..BUCKETS {
            let (_, made) = self.cx.narrow::<MeshTlsChains>(self.labels, |labels| MeshTlsKey {
                scope: self.scope.clone(),
                labels: labels.clone(),
                hosts: hosts.clone(),
                bucket,
            });
            chains.extend(made.0.iter().cloned());
        }
        chains
    }

    fn route(
        &self,
        backends: &[StreamBackend],
        set: &RouteSet,
        listener: &MergedListener,
    ) -> Option<TcpRoute> {
        let streams = Streams {
            cx: self.cx,
            scope: self.scope,
            labels: self.labels,
            port: listener.port(),
            protocol: listener.protocol,
        };
        streams.route(backends, set, |_, _, cluster| cluster.to_owned())
    }
}

/// Whether conditions on the client hold for clients of a listener. Labels and namespaces of clients are not
/// known here.
fn fits(client: &ClientMatch, listener: &MergedListener) -> bool {
    client.holds_on(listener.port()) && client.holds_at(listener.parent())
}

/// Chains for the services of a bucket that a server of mode AUTO_PASSTHROUGH reaches.
struct MeshTlsChains;

#[derive(Clone, Debug, Hash)]
struct MeshTlsKey {
    scope: Arc<Hashed<Scope>>,
    labels: ClientLabels,
    hosts: Arc<Vec<Name>>,
    bucket: Bucket,
}

#[derive(Clone, Debug, PartialEq)]
struct Chains(Vec<GatewayChain>);

impl Gather for MeshTlsChains {
    const NAME: &'static str = "listeners.mesh_tls_chains";
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

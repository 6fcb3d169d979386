//! Merging the servers of all Gateways that select one workload, port by port.
//!
//! Servers on one port share a listener if Envoy can tell their traffic apart: plain HTTP by host, TLS by server name.
//! What cannot be told apart is left out; the oldest Gateway wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::networking::{Gateway, Server, ServerTlsMode, ServerTlsSettings};
use navarch_model::service::Protocol;
use navarch_model::{Config, Hashed, Name};

/// A Gateway that applies to a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SelectedGateway {
    pub config: Arc<Hashed<Config<Gateway>>>,
    /// The Gateway names its Service (Gateway API) instead of selecting workloads by label.
    pub by_service: bool,
    /// Ports of the Services that the workload backs, oldest Service first; for a Gateway that names its Service, only that.
    pub ports: Arc<Vec<ServicePortOfGateway>>,
}

/// A port of a Service that a gateway workload backs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePortOfGateway {
    pub port: u16,
    pub target_port: u16,
    pub protocol: Protocol,
    /// Label `experimental.istio.io/disable-gateway-port-translation` of the Service.
    pub translation_disabled: bool,
}

/// What tells listeners apart: protocols that cannot share a port still get separate entries if they bind elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerPort {
    /// The port that the workload listens on.
    pub number: u16,
    /// As the Gateway writes it.
    pub protocol: String,
    /// Address to listen on; empty for all.
    pub bind: String,
}

impl ServerPort {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.protocol)
    }
}

/// A server of one of the Gateways.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedServer {
    /// `<namespace>/<name>` of the Gateway.
    pub gateway: Name,
    /// With namespaces of hosts resolved: `<namespace>/<host>`, or the host alone for all namespaces.
    pub server: Server,
    /// The number in the server's port.
    pub port: u16,
    pub protocol: Protocol,
    /// Name of the route configuration; empty for servers that do not serve HTTP.
    pub route_name: String,
    /// Server names that the TLS chain matches, sorted.
    pub sni_hosts: Vec<String>,
}

impl MergedServer {
    /// The TLS settings.
    pub fn tls(&self) -> Option<&ServerTlsSettings> {
        self.server.tls.as_ref()
    }

    /// TLS is passed on, not terminated.
    pub fn passes_tls_through(&self) -> bool {
        self.tls().is_some_and(|tls| {
            matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        })
    }

    /// HTTPS that is terminated here.
    pub fn terminates_https(&self) -> bool {
        self.protocol == Protocol::Https && self.server.tls.is_some() && !self.passes_tls_through()
    }

    /// Has routes: HTTP, or HTTPS that is not passed through.
    fn serves_http(&self) -> bool {
        self.protocol.is_http() || (self.protocol == Protocol::Https && !self.passes_tls_through())
    }

    /// TLS on something that is not plain HTTP: `tls.httpsRedirect` alone makes no TLS server.
    fn serves_tls(&self) -> bool {
        self.server.tls.is_some() && !self.protocol.is_http()
    }

    /// HTTP/3 is possible.
    fn can_serve_http3(&self) -> bool {
        self.protocol == Protocol::Https && !self.passes_tls_through()
    }

    /// Plain requests are redirected to HTTPS.
    pub fn redirects_to_https(&self) -> bool {
        self.tls().is_some_and(|tls| tls.https_redirect)
    }
}

/// The servers of one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedPort {
    pub port: ServerPort,
    /// Route configuration of plain HTTP servers; TLS servers have one each.
    pub route_name: String,
    pub servers: Vec<Arc<Hashed<MergedServer>>>,
}

/// Transport protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    Quic,
}

/// All servers of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MergedGateways {
    /// In the order in which the ports appear in the Gateways.
    pub ports: Vec<MergedPort>,
    /// Servers that are also offered over QUIC.
    pub quic: Vec<MergedPort>,
    /// Servers by name of the route configuration.
    pub routes: BTreeMap<String, Vec<Arc<Hashed<MergedServer>>>>,
    /// Route configurations whose responses offer HTTP/3.
    pub http3_routes: BTreeSet<String>,
    /// Hosts that servers of mode AUTO_PASSTHROUGH pass on.
    pub auto_passthrough_hosts: BTreeSet<String>,
    /// Credentials that servers name. Gateways may be anywhere; what they name is looked up beside the workload.
    pub credentials: BTreeSet<String>,
}

impl MergedGateways {
    /// The servers of a port over one transport.
    pub fn port(&self, transport: Transport, port: &ServerPort) -> Option<&MergedPort> {
        let ports = match transport {
            Transport::Tcp => &self.ports,
            Transport::Quic => &self.quic,
        };
        ports.iter().find(|merged| merged.port == *port)
    }
}

/// Merges the servers of `gateways`, oldest first.
pub fn merge(gateways: &[SelectedGateway], http3: bool) -> MergedGateways {
    let mut merge = Merge { http3, ..Merge::default() };
    for gateway in gateways {
        for server in &gateway.config.spec.servers {
            let Some(port) = server.port.as_ref().and_then(|port| u16::try_from(port.number).ok()) else {
                continue;
            };
            let server = with_resolved_hosts(server, &gateway.config.namespace);
            merge.out.credentials.extend(credentials(&server));
            for resolved in resolve_ports(port, gateway) {
                merge.add(gateway, &server, port, resolved);
            }
        }
    }
    merge.out
}

#[derive(Default)]
struct Merge {
    out: MergedGateways,
    http3: bool,
    used: BTreeSet<u16>,
    /// The first plain-text server of each port.
    plain: BTreeMap<u16, ServerPort>,
    /// Where each TLS host is served, for each port: the last address.
    tls_hosts: BTreeMap<(u16, String), String>,
}

impl Merge {
    fn add(&mut self, gateway: &SelectedGateway, server: &Server, declared: u16, number: u16) {
        let config = &gateway.config;
        let Some(port) = &server.port else { return };
        let protocol = Protocol::parse(&port.protocol);
        let merged = MergedServer {
            gateway: format!("{}/{}", config.namespace, config.name).into(),
            port: declared,
            protocol,
            route_name: String::new(),
            sni_hosts: sni_hosts(server),
            server: server.clone(),
        };
        let route_name = route_name(&merged, number, config);
        let merged = Arc::new(Hashed::new(MergedServer { route_name, ..merged }));
        if server.tls.is_some() && !claim_hosts(&mut self.tls_hosts, number, &server.hosts, &server.bind) {
            return;
        }
        let key = ServerPort { number, protocol: port.protocol.clone(), bind: server.bind.clone() };
        let quic = self.http3
            && merged.can_serve_http3()
            && gateway.ports.iter().any(|port| port.port == declared && port.protocol == Protocol::Udp);
        let placed = if self.used.insert(number) {
            self.place_first(key.clone(), merged.clone());
            true
        } else if let Some(current) = self.plain.get(&number).cloned() {
            self.place_beside_plain(key.clone(), &current, merged.clone())
        } else {
            self.place_beside_tls(key.clone(), merged.clone())
        };
        if placed && merged.tls().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) {
            self.out.auto_passthrough_hosts.extend(server.hosts.iter().cloned());
        }
        if placed && quic {
            self.offer_http3(key, merged);
        }
    }

    fn place_first(&mut self, key: ServerPort, server: Arc<Hashed<MergedServer>>) {
        if !server.serves_tls() {
            self.plain.insert(key.number, key.clone());
        }
        let route_name = server.route_name.clone();
        if server.serves_http() {
            self.out.routes.insert(route_name.clone(), vec![server.clone()]);
        }
        self.out.ports.push(MergedPort { port: key, route_name, servers: vec![server] });
    }

    /// Another server on the port of a plain-text server: fine if both speak HTTP, or if it listens on another address.
    fn place_beside_plain(
        &mut self,
        key: ServerPort,
        current: &ServerPort,
        server: Arc<Hashed<MergedServer>>,
    ) -> bool {
        let same_bind = current.bind == key.bind;
        let both_http = current.protocol().is_http()
            && (server.protocol.is_http() || server.protocol == current.protocol());
        if same_bind && (!both_http || server.route_name.is_empty()) {
            return false;
        }
        let target = if same_bind { current } else { &key };
        match self.out.ports.iter_mut().find(|merged| merged.port == *target) {
            Some(merged) => {
                if !same_bind {
                    merged.route_name.clone_from(&server.route_name);
                }
                if !server.route_name.is_empty() {
                    self.out.routes.entry(server.route_name.clone()).or_default().push(server.clone());
                }
                merged.servers.push(server);
            }
            None => self.place_first(key, server),
        }
        true
    }

    /// Another server on the port of TLS servers: fine if it is told apart by server name and has routes of its own.
    fn place_beside_tls(&mut self, key: ServerPort, server: Arc<Hashed<MergedServer>>) -> bool {
        if !server.serves_tls() {
            self.place_first(key, server);
            return true;
        }
        if server.serves_http() {
            if server.route_name.is_empty() || self.out.routes.contains_key(&server.route_name) {
                return false;
            }
            self.out.routes.insert(server.route_name.clone(), vec![server.clone()]);
        }
        match self.out.ports.iter_mut().find(|merged| merged.port == key) {
            Some(merged) => merged.servers.push(server),
            None => self.out.ports.push(MergedPort {
                port: key,
                route_name: String::new(),
                servers: vec![server],
            }),
        }
        true
    }

    fn offer_http3(&mut self, key: ServerPort, server: Arc<Hashed<MergedServer>>) {
        self.out.http3_routes.insert(server.route_name.clone());
        match self.out.quic.iter_mut().find(|merged| merged.port == key) {
            Some(merged) => merged.servers.push(server),
            None => {
                self.out.quic.push(MergedPort { port: key, route_name: String::new(), servers: vec![server] })
            }
        }
    }
}

/// Takes TLS hosts for an address; false, and nothing taken, if one is taken on the same address. Also keeps server names of
/// TLS routes apart.
pub fn claim_hosts(
    taken: &mut BTreeMap<(u16, String), String>,
    port: u16,
    hosts: &[String],
    bind: &str,
) -> bool {
    let key = |host: &String| (port, host.clone());
    if hosts.iter().any(|host| taken.get(&key(host)).is_some_and(|other| other == bind)) {
        return false;
    }
    taken.extend(hosts.iter().map(|host| (key(host), bind.to_owned())));
    true
}

/// Resolves the namespaces of hosts: `./host` is the Gateway's own, `*/host` any.
fn with_resolved_hosts(server: &Server, namespace: &str) -> Server {
    let mut server = server.clone();
    if server.hosts.iter().any(|host| host == "*/*") {
        server.hosts = vec!["*".to_owned()];
        return server;
    }
    for host in &mut server.hosts {
        *host = match host.split_once('/') {
            Some((".", name)) => format!("{namespace}/{name}"),
            Some(("*", name)) => name.to_owned(),
            _ => continue,
        };
    }
    server
}

/// The names that clients state in the TLS handshake: hosts without namespaces.
fn sni_hosts(server: &Server) -> Vec<String> {
    if server.tls.is_none() {
        return Vec::new();
    }
    let names: BTreeSet<&str> = server
        .hosts
        .iter()
        .map(|host| host.split_once('/').map_or(host.as_str(), |(_, name)| name))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

/// `http.<port>[.<bind>]` is shared by all plain servers of a port; `https.<port>.<port name>.<gateway>.<namespace>[.<bind>]`
/// belongs to one server.
fn route_name(server: &MergedServer, number: u16, config: &Config<Gateway>) -> String {
    let bind = if server.server.bind.is_empty() { String::new() } else { format!(".{}", server.server.bind) };
    if server.protocol.is_http() {
        format!("http.{number}{bind}")
    } else if server.protocol == Protocol::Https && !server.passes_tls_through() {
        let port_name = server.server.port.as_ref().map_or("", |port| &port.name);
        format!("https.{}.{port_name}.{}.{}{bind}", server.port, config.name, config.namespace)
    } else {
        String::new()
    }
}

/// The ports that the workload listens on for a port of a Gateway: what the Service makes of it.
fn resolve_ports(number: u16, gateway: &SelectedGateway) -> Vec<u16> {
    if gateway.by_service {
        let ports: BTreeSet<u16> =
            gateway.ports.iter().filter(|port| port.port == number).map(|port| port.target_port).collect();
        return ports.into_iter().collect();
    }
    let translated = gateway.ports.iter().find(|port| port.port == number && !port.translation_disabled);
    vec![translated.map_or(number, |port| port.target_port)]
}

/// Credentials that a server needs as secrets; those of mutual TLS with their certificate authority.
fn credentials(server: &Server) -> Vec<String> {
    let Some(tls) = &server.tls else { return Vec::new() };
    let names: Vec<&String> = if tls.credential_names.is_empty() {
        vec![&tls.credential_name]
    } else {
        tls.credential_names.iter().collect()
    };
    let mutual = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let mut out = Vec::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        out.push(name.clone());
        if mutual {
            out.push(format!("{name}{}", crate::sds::CA_SUFFIX));
        }
    }
    if !tls.ca_cert_credential_name.is_empty() {
        out.push(tls.ca_cert_credential_name.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::networking::Port;

    fn server(number: u32, protocol: &str, name: &str, hosts: &[&str], tls: Option<ServerTlsMode>) -> Server {
        Server {
            port: Some(Port { number, protocol: protocol.into(), name: name.into(), ..Port::default() }),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tls: tls.map(|mode| ServerTlsSettings {
                mode,
                credential_name: "c".into(),
                ..ServerTlsSettings::default()
            }),
            ..Server::default()
        }
    }

    fn gateway(name: &str, servers: Vec<Server>, ports: &[(u16, u16)]) -> SelectedGateway {
        let config = Config {
            namespace: "edge".into(),
            name: name.into(),
            created_at: 0,
            labels: Default::default(),
            annotations: Default::default(),
            spec: Gateway { servers, ..Gateway::default() },
        };
        let port = |(port, target_port): &(u16, u16)| ServicePortOfGateway {
            port: *port,
            target_port: *target_port,
            protocol: Protocol::Http,
            translation_disabled: false,
        };
        SelectedGateway {
            config: Arc::new(Hashed::new(config)),
            by_service: false,
            ports: Arc::new(ports.iter().map(port).collect()),
        }
    }

    /// Listener port, route configuration and number of servers for each port; names of route configurations.
    fn check(gateways: &[SelectedGateway], ports: &[(u16, &str, usize)], routes: &[&str]) {
        let merged = merge(gateways, false);
        let got: Vec<_> =
            merged.ports.iter().map(|p| (p.port.number, p.route_name.as_str(), p.servers.len())).collect();
        assert_eq!(got, ports);
        assert_eq!(merged.routes.keys().map(String::as_str).collect::<Vec<_>>(), routes);
    }

    #[test]
    fn plain_http_servers_share_a_port_and_a_route_configuration() {
        let http = |host: &str| server(80, "HTTP", "http", &[host], None);
        check(
            &[
                gateway("a", vec![http("a.com")], &[(80, 8080)]),
                gateway("b", vec![http("b.com")], &[(80, 8080)]),
            ],
            &[(8080, "http.8080", 2)],
            &["http.8080"],
        );
        let grpc = server(80, "GRPC", "grpc", &["g.com"], None);
        check(&[gateway("a", vec![http("a.com"), grpc], &[])], &[(80, "http.80", 2)], &["http.80"]);
    }

    #[test]
    fn tls_servers_share_a_port_but_not_route_configurations() {
        let https = |name: &str, host: &str| server(443, "HTTPS", name, &[host], Some(ServerTlsMode::Simple));
        check(
            &[gateway("a", vec![https("x", "a.com"), https("y", "b.com")], &[])],
            &[(443, "https.443.x.a.edge", 2)],
            &["https.443.x.a.edge", "https.443.y.a.edge"],
        );
        // A host is served once, and a route configuration belongs to one server.
        check(
            &[gateway("a", vec![https("x", "a.com"), https("y", "a.com")], &[])],
            &[(443, "https.443.x.a.edge", 1)],
            &["https.443.x.a.edge"],
        );
        check(
            &[gateway("a", vec![https("x", "a.com"), https("x", "b.com")], &[])],
            &[(443, "https.443.x.a.edge", 1)],
            &["https.443.x.a.edge"],
        );
    }

    #[test]
    fn what_cannot_be_told_apart_is_left_to_the_oldest() {
        let http = server(80, "HTTP", "http", &["*"], None);
        let tcp = server(80, "TCP", "tcp", &["*"], None);
        check(
            &[gateway("a", vec![http.clone()], &[]), gateway("b", vec![tcp.clone()], &[])],
            &[(80, "http.80", 1)],
            &["http.80"],
        );
        check(&[gateway("a", vec![tcp], &[]), gateway("b", vec![http.clone()], &[])], &[(80, "", 1)], &[]);
        let elsewhere = Server { bind: "127.0.0.1".into(), ..server(80, "TCP", "tcp", &["*"], None) };
        check(&[gateway("a", vec![http, elsewhere], &[])], &[(80, "http.80", 1), (80, "", 1)], &["http.80"]);
    }

    #[test]
    fn namespaces_of_hosts_are_resolved() {
        let check = |hosts: &[&str], expected: &[&str]| {
            let server = server(80, "HTTP", "http", hosts, None);
            assert_eq!(with_resolved_hosts(&server, "edge").hosts, expected);
        };
        check(
            &["./a.com", "*/b.com", "other/c.com", "d.com"],
            &["edge/a.com", "b.com", "other/c.com", "d.com"],
        );
        check(&["a.com", "*/*"], &["*"]);
    }

    #[test]
    fn https_is_offered_over_quic_where_the_service_has_the_port_for_udp_too() {
        let check = |protocol, mode, http3, expected: usize| {
            let server = server(443, "HTTPS", "https", &["a.com"], Some(mode));
            let mut gateway = gateway("a", vec![server], &[(443, 8443)]);
            let udp =
                ServicePortOfGateway { port: 443, target_port: 8443, protocol, translation_disabled: false };
            gateway.ports = Arc::new(gateway.ports.iter().cloned().chain([udp]).collect());
            let merged = merge(&[gateway], http3);
            assert_eq!((merged.quic.len(), merged.http3_routes.len()), (expected, expected));
        };
        check(Protocol::Udp, ServerTlsMode::Simple, true, 1);
        check(Protocol::Udp, ServerTlsMode::Simple, false, 0);
        check(Protocol::Udp, ServerTlsMode::Passthrough, true, 0);
        check(Protocol::Tcp, ServerTlsMode::Simple, true, 0);
    }
}

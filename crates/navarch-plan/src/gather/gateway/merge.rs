//! Merging the listeners of all gateways that one workload serves, port by port.
//!
//! Listeners on one port share a socket if Envoy can tell their traffic apart: plain HTTP by host, TLS by
//! server name. What cannot be told apart is left out; the oldest gateway wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::listener::{GatewayListener, ListenerHost, ListenerSet};
use navarch_model::networking::{ServerTlsMode, ServerTlsSettings};
use navarch_model::route::Parent;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name, Origin};
use navarch_translate::gateway::Transport;
use navarch_translate::listeners::tls::file_secrets;
use navarch_translate::sds::CA_SUFFIX;

/// A gateway that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SelectedGateway {
    pub set: Arc<Hashed<ListenerSet>>,
    /// The gateway names its Service instead of selecting workloads by label.
    pub by_service: bool,
    /// Ports of the Services that the workload backs, oldest Service first; for a gateway that names its
    /// Service, only that.
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

/// What tells listeners apart: protocols that cannot share a port still get separate entries if they bind
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerPort {
    /// The port that the workload listens on.
    pub number: u16,
    /// As the gateway writes it.
    pub protocol: Name,
    /// Address to listen on; empty for all.
    pub bind: Name,
}

impl ListenerPort {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.protocol)
    }

    /// Whether it takes datagrams and not connections, which do not get into each other's way.
    pub fn is_udp(&self) -> bool {
        self.protocol() == Protocol::Udp
    }
}

/// A listener of one of the gateways, as it is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedListener {
    pub listener: Arc<Hashed<GatewayListener>>,
    pub protocol: Protocol,
    /// Name of the route configuration; empty for listeners that do not serve HTTP.
    pub route_name: Name,
    /// Server names that the TLS chain matches, sorted.
    pub sni_hosts: Vec<Name>,
}

impl MergedListener {
    fn new(listener: &Arc<Hashed<GatewayListener>>, number: u16) -> Self {
        let merged = MergedListener {
            protocol: listener.protocol(),
            route_name: Name::default(),
            sni_hosts: sni_hosts(listener),
            listener: listener.clone(),
        };
        MergedListener { route_name: merged.route_configuration(number), ..merged }
    }

    /// What routes name to be attached to it.
    pub fn parent(&self) -> &Parent {
        &self.listener.parent
    }

    /// The port that the gateway states.
    pub fn port(&self) -> u16 {
        self.listener.port
    }

    /// The TLS settings.
    pub fn tls(&self) -> Option<&ServerTlsSettings> {
        self.listener.tls.as_ref()
    }

    /// `http.<port>[.<bind>]` is shared by all plain listeners of a port; `https.<port>.<port
    /// name>.<gateway>.<namespace>[.<bind>]` belongs to one listener.
    fn route_configuration(&self, number: u16) -> Name {
        let GatewayListener { gateway_name, gateway_namespace, port, port_name, bind, .. } = &**self.listener;
        let bind = if bind.is_empty() { String::new() } else { format!(".{bind}") };
        if self.protocol.is_http() {
            format!("http.{number}{bind}").into()
        } else if self.protocol == Protocol::Https && !self.passes_tls_through() {
            format!("https.{port}.{port_name}.{gateway_name}.{gateway_namespace}{bind}").into()
        } else {
            Name::default()
        }
    }

    /// TLS is passed on, not terminated.
    pub fn passes_tls_through(&self) -> bool {
        self.tls().is_some_and(|tls| {
            matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        })
    }

    /// HTTPS that is terminated here.
    pub fn terminates_https(&self) -> bool {
        self.protocol == Protocol::Https && self.tls().is_some() && !self.passes_tls_through()
    }

    /// Has routes: HTTP, or HTTPS that is not passed through.
    fn serves_http(&self) -> bool {
        self.protocol.is_http() || (self.protocol == Protocol::Https && !self.passes_tls_through())
    }

    /// TLS on something that is not plain HTTP: `tls.httpsRedirect` alone makes no TLS server.
    fn serves_tls(&self) -> bool {
        self.tls().is_some() && !self.protocol.is_http()
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

/// The listeners of one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedPort {
    pub port: ListenerPort,
    /// Route configuration of plain HTTP listeners; TLS listeners have one each.
    pub route_name: Name,
    pub listeners: Vec<Arc<Hashed<MergedListener>>>,
}

/// All listeners of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MergedGateways {
    /// In the order in which the ports appear in the gateways.
    pub ports: Vec<MergedPort>,
    /// Listeners that are also offered over QUIC.
    pub quic: Vec<MergedPort>,
    /// Listeners by name of the route configuration.
    pub routes: BTreeMap<Name, Vec<Arc<Hashed<MergedListener>>>>,
    /// Route configurations whose responses offer HTTP/3.
    pub http3_routes: BTreeSet<Name>,
    /// Credentials that listeners name. Gateways may be anywhere; what they name is looked up beside the
    /// workload.
    pub credentials: BTreeSet<String>,
    /// Credentials of which it is known that the listeners may use them, wherever they are.
    pub granted_credentials: BTreeSet<String>,
    /// Names of the secrets that listeners take from files.
    pub files: BTreeSet<String>,
    /// The credential for backends, of the oldest gateway that names one.
    pub backend_certificate: Option<Name>,
}

impl MergedGateways {
    /// The listeners of a port over one transport.
    pub fn port(&self, transport: Transport, port: &ListenerPort) -> Option<&MergedPort> {
        let ports = match transport {
            Transport::Tcp | Transport::Udp => &self.ports,
            Transport::Quic => &self.quic,
        };
        ports.iter().find(|merged| merged.port == *port)
    }
}

/// A listener that proxies ignore, because another has its port or one of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostListener {
    pub loser: Origin,
    /// The one that came first, where it is one.
    pub winner: Option<Origin>,
    /// What the other one has, as "the host a.example is taken by".
    pub why: String,
}

/// The listeners that proxies ignore which serve all of `gateways`.
pub fn lost(gateways: &[SelectedGateway]) -> Vec<LostListener> {
    merged(gateways, false).lost
}

/// Merges the listeners of `gateways`, oldest first.
pub fn merge(gateways: &[SelectedGateway], http3: bool) -> MergedGateways {
    merged(gateways, http3).out
}

fn merged(gateways: &[SelectedGateway], http3: bool) -> Merge {
    let mut merge = Merge { http3, ..Merge::default() };
    for gateway in gateways {
        if let Some(name) = gateway.set.backend_certificate.as_ref() {
            let kept = merge.out.backend_certificate.get_or_insert_with(|| name.clone());
            merge.out.granted_credentials.insert(kept.to_string());
        }
        for listener in gateway.set.listeners.iter().filter(|listener| listener.served) {
            match gateway.set.is_of_gateway_api() {
                true => merge.out.granted_credentials.extend(credentials(listener)),
                false => merge.out.credentials.extend(credentials(listener)),
            }
            merge.out.files.extend(listener.tls.iter().flat_map(file_secrets));
            for number in resolve_ports(listener, gateway) {
                merge.add(gateway, listener, number);
            }
        }
    }
    merge
}

#[derive(Default)]
struct Merge {
    out: MergedGateways,
    http3: bool,
    /// Ports with listeners, for datagrams or for connections.
    used: BTreeSet<(u16, bool)>,
    /// The first plain-text listener of each.
    plain: BTreeMap<(u16, bool), ListenerPort>,
    /// Where each TLS host is served, for each port: the last address.
    tls_hosts: BTreeMap<(u16, ListenerHost), Name>,
    lost: Vec<LostListener>,
}

impl Merge {
    fn add(&mut self, gateway: &SelectedGateway, listener: &Arc<Hashed<GatewayListener>>, number: u16) {
        let GatewayListener { port, protocol, bind, hosts, tls, .. } = &***listener;
        let merged = Arc::new(Hashed::new(MergedListener::new(listener, number)));
        if tls.is_some() && !claim_hosts(&mut self.tls_hosts, number, hosts, bind) {
            self.lose_host(listener, number);
            return;
        }
        let key = ListenerPort { number, protocol: protocol.clone(), bind: bind.clone() };
        let quic = self.http3
            && merged.can_serve_http3()
            && gateway.ports.iter().any(|known| known.port == *port && known.protocol == Protocol::Udp);
        let socket = (number, key.is_udp());
        let placed = if self.used.insert(socket) {
            self.place_first(key.clone(), merged.clone());
            true
        } else if let Some(current) = self.plain.get(&socket).cloned() {
            self.place_beside_plain(key.clone(), &current, merged.clone())
        } else {
            self.place_beside_tls(key.clone(), merged.clone())
        };
        if !placed {
            let winner =
                self.at(number, key.is_udp()).next().map(|listener| listener.listener.origin.clone());
            let why = format!("port {number} speaks another protocol because of");
            self.lost.push(LostListener { loser: listener.origin.clone(), winner, why });
        }
        if placed && quic {
            self.offer_http3(key, merged);
        }
    }

    /// The listeners that have a port.
    fn at(&self, number: u16, udp: bool) -> impl Iterator<Item = &Arc<Hashed<MergedListener>>> {
        let same = move |port: &&MergedPort| port.port.number == number && port.port.is_udp() == udp;
        self.out.ports.iter().filter(same).flat_map(|port| &port.listeners)
    }

    fn lose_host(&mut self, loser: &GatewayListener, number: u16) {
        let shares = |winner: &&Arc<Hashed<MergedListener>>| {
            winner.listener.tls.is_some()
                && winner.listener.hosts.iter().any(|host| loser.hosts.contains(host))
        };
        let winner = self.at(number, false).find(shares).map(|winner| winner.listener.origin.clone());
        let taken = loser.hosts.iter().find(|host| self.tls_hosts.contains_key(&(number, (*host).clone())));
        let why = match taken {
            Some(host) => format!("the host {host} on port {number} is taken by"),
            None => format!("a host on port {number} is taken by"),
        };
        self.lost.push(LostListener { loser: loser.origin.clone(), winner, why });
    }

    fn place_first(&mut self, key: ListenerPort, listener: Arc<Hashed<MergedListener>>) {
        if !listener.serves_tls() {
            self.plain.insert((key.number, key.is_udp()), key.clone());
        }
        let route_name = listener.route_name.clone();
        if listener.serves_http() {
            self.out.routes.insert(route_name.clone(), vec![listener.clone()]);
        }
        self.out.ports.push(MergedPort { port: key, route_name, listeners: vec![listener] });
    }

    /// Another listener on the port of a plain-text one: fine if both speak HTTP, or if it listens on another
    /// address.
    fn place_beside_plain(
        &mut self,
        key: ListenerPort,
        current: &ListenerPort,
        listener: Arc<Hashed<MergedListener>>,
    ) -> bool {
        let same_bind = current.bind == key.bind;
        let both_http = current.protocol().is_http()
            && (listener.protocol.is_http() || listener.protocol == current.protocol());
        if same_bind && (!both_http || listener.route_name.is_empty()) {
            return false;
        }
        let target = if same_bind { current } else { &key };
        match self.out.ports.iter_mut().find(|merged| merged.port == *target) {
            Some(merged) => {
                if !same_bind {
                    merged.route_name.clone_from(&listener.route_name);
                }
                if !listener.route_name.is_empty() {
                    self.out.routes.entry(listener.route_name.clone()).or_default().push(listener.clone());
                }
                merged.listeners.push(listener);
            }
            None => self.place_first(key, listener),
        }
        true
    }

    /// Another listener on the port of TLS listeners: fine if it is told apart by server name and has routes
    /// of its own.
    fn place_beside_tls(&mut self, key: ListenerPort, listener: Arc<Hashed<MergedListener>>) -> bool {
        if !listener.serves_tls() {
            self.place_first(key, listener);
            return true;
        }
        if listener.serves_http() {
            if listener.route_name.is_empty() || self.out.routes.contains_key(&listener.route_name) {
                return false;
            }
            self.out.routes.insert(listener.route_name.clone(), vec![listener.clone()]);
        }
        match self.out.ports.iter_mut().find(|merged| merged.port == key) {
            Some(merged) => merged.listeners.push(listener),
            None => self.out.ports.push(MergedPort {
                port: key,
                route_name: Name::default(),
                listeners: vec![listener],
            }),
        }
        true
    }

    fn offer_http3(&mut self, key: ListenerPort, listener: Arc<Hashed<MergedListener>>) {
        self.out.http3_routes.insert(listener.route_name.clone());
        match self.out.quic.iter_mut().find(|merged| merged.port == key) {
            Some(merged) => merged.listeners.push(listener),
            None => self.out.quic.push(MergedPort {
                port: key,
                route_name: Name::default(),
                listeners: vec![listener],
            }),
        }
    }
}

/// Takes TLS hosts for an address; false, and nothing taken, if one is taken on the same address. Also keeps
/// server names of TLS routes apart.
pub fn claim_hosts<H: Ord + Clone>(
    taken: &mut BTreeMap<(u16, H), Name>,
    port: u16,
    hosts: &[H],
    bind: &Name,
) -> bool {
    let key = |host: &H| (port, host.clone());
    if hosts.iter().any(|host| taken.get(&key(host)) == Some(bind)) {
        return false;
    }
    taken.extend(hosts.iter().map(|host| (key(host), bind.clone())));
    true
}

/// The names that clients state in the TLS handshake: hosts without namespaces.
fn sni_hosts(listener: &GatewayListener) -> Vec<Name> {
    if listener.tls.is_none() {
        return Vec::new();
    }
    let names: BTreeSet<&Name> = listener.hosts.iter().map(|host| &host.name).collect();
    names.into_iter().cloned().collect()
}

/// The ports that the workload listens on for a port of a gateway: what the Service makes of it.
fn resolve_ports(listener: &GatewayListener, gateway: &SelectedGateway) -> Vec<u16> {
    let number = listener.port;
    if gateway.by_service {
        let is_udp = listener.protocol() == Protocol::Udp;
        let same =
            |port: &&ServicePortOfGateway| port.port == number && (port.protocol == Protocol::Udp) == is_udp;
        let ports: BTreeSet<u16> = gateway.ports.iter().filter(same).map(|port| port.target_port).collect();
        return ports.into_iter().collect();
    }
    let translated = gateway.ports.iter().find(|port| port.port == number && !port.translation_disabled);
    vec![translated.map_or(number, |port| port.target_port)]
}

/// Credentials that a listener needs as secrets; those of mutual TLS with their certificate authority.
fn credentials(listener: &GatewayListener) -> Vec<String> {
    let Some(tls) = &listener.tls else { return Vec::new() };
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
            out.push(format!("{name}{}", CA_SUFFIX));
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
    use navarch_model::listener::GatewayProxies;
    use navarch_model::route::Parent;
    use navarch_model::{Kind, Labels, ObjectKey, Origin, Precedence};

    /// A listener before its gateway is known.
    fn listener(
        port: u16,
        protocol: &str,
        name: &str,
        hosts: &[&str],
        tls: Option<ServerTlsMode>,
    ) -> GatewayListener {
        let host = |name: &&str| ListenerHost { name: Name::from(*name), routes_of: None };
        GatewayListener {
            origin: Origin::object(ObjectKey::new(Kind::Gateway, "", "")),
            parent: Parent::Mesh,
            kinds: Vec::new(),
            served: true,
            gateway_name: "".into(),
            gateway_namespace: "".into(),
            name: "".into(),
            port,
            port_name: name.into(),
            protocol: protocol.into(),
            bind: "".into(),
            hosts: hosts.iter().map(host).collect(),
            tls: tls.map(|mode| ServerTlsSettings {
                mode,
                credential_name: "c".into(),
                ..ServerTlsSettings::default()
            }),
        }
    }

    fn gateway(name: &str, listeners: Vec<GatewayListener>, ports: &[(u16, u16)]) -> SelectedGateway {
        let key = ObjectKey::new(Kind::Gateway, "edge", name);
        let own = |listener| {
            let (gateway_name, gateway_namespace) = (key.name.clone(), key.namespace.clone());
            let origin = Origin::object(key.clone());
            Arc::new(Hashed::new(GatewayListener { origin, gateway_name, gateway_namespace, ..listener }))
        };
        let listeners = listeners.into_iter().map(own).collect();
        let port = |(port, target_port): &(u16, u16)| ServicePortOfGateway {
            port: *port,
            target_port: *target_port,
            protocol: Protocol::Http,
            translation_disabled: false,
        };
        let set = ListenerSet {
            gateway: key.clone(),
            precedence: Precedence { created_at: 0, key, position: 0 },
            proxies: GatewayProxies::Labelled(Labels::default()),
            provisioned: false,
            admitted: false,
            backend_certificate: None,
            listeners,
        };
        SelectedGateway {
            set: Arc::new(Hashed::new(set)),
            by_service: false,
            ports: Arc::new(ports.iter().map(port).collect()),
        }
    }

    /// Listener port, route configuration and number of listeners for each port; names of route
    /// configurations.
    fn check(gateways: &[SelectedGateway], ports: &[(u16, &str, usize)], routes: &[&str]) {
        let merged = merge(gateways, false);
        let got: Vec<_> =
            merged.ports.iter().map(|p| (p.port.number, &*p.route_name, p.listeners.len())).collect();
        assert_eq!(got, ports);
        assert_eq!(merged.routes.keys().map(|name| &**name).collect::<Vec<_>>(), routes);
    }

    #[test]
    fn plain_http_listeners_share_a_port_and_a_route_configuration() {
        let http = |host: &str| listener(80, "HTTP", "http", &[host], None);
        check(
            &[
                gateway("a", vec![http("a.com")], &[(80, 8080)]),
                gateway("b", vec![http("b.com")], &[(80, 8080)]),
            ],
            &[(8080, "http.8080", 2)],
            &["http.8080"],
        );
        let grpc = listener(80, "GRPC", "grpc", &["g.com"], None);
        check(&[gateway("a", vec![http("a.com"), grpc], &[])], &[(80, "http.80", 2)], &["http.80"]);
    }

    #[test]
    fn tls_listeners_share_a_port_but_not_route_configurations() {
        let https =
            |name: &str, host: &str| listener(443, "HTTPS", name, &[host], Some(ServerTlsMode::Simple));
        check(
            &[gateway("a", vec![https("x", "a.com"), https("y", "b.com")], &[])],
            &[(443, "https.443.x.a.edge", 2)],
            &["https.443.x.a.edge", "https.443.y.a.edge"],
        );
        // A host is served once, and a route configuration belongs to one listener.
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
        let http = listener(80, "HTTP", "http", &["*"], None);
        let tcp = listener(80, "TCP", "tcp", &["*"], None);
        check(
            &[gateway("a", vec![http.clone()], &[]), gateway("b", vec![tcp.clone()], &[])],
            &[(80, "http.80", 1)],
            &["http.80"],
        );
        check(&[gateway("a", vec![tcp], &[]), gateway("b", vec![http.clone()], &[])], &[(80, "", 1)], &[]);
        let elsewhere =
            GatewayListener { bind: "127.0.0.1".into(), ..listener(80, "TCP", "tcp", &["*"], None) };
        check(&[gateway("a", vec![http, elsewhere], &[])], &[(80, "http.80", 1), (80, "", 1)], &["http.80"]);
    }

    #[test]
    fn https_is_offered_over_quic_where_the_service_has_the_port_for_udp_too() {
        let check = |protocol, mode, http3, expected: usize| {
            let listener = listener(443, "HTTPS", "https", &["a.com"], Some(mode));
            let mut gateway = gateway("a", vec![listener], &[(443, 8443)]);
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

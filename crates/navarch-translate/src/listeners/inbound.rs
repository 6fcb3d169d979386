//! Inbound listeners: what a workload accepts.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3::TrafficDirection;
use navarch_envoy::proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use navarch_envoy::proto::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
    route_match,
};
use navarch_envoy::wkt;
use navarch_model::networking::{HttpRetry, PatchContext};
use navarch_model::proxy::InterceptionMode;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name, ObjectKey};

use crate::encoded::messages;
use crate::filters::network::http_chain;
use crate::http_connection_manager::{self as hcm, Options, Routes};
use crate::listeners::contribution::{ListenerProtocol, listener_protocol};
use crate::listeners::outbound::{PLAINTEXT_HTTP, RAW_BUFFER};
use crate::listeners::patch::{PatchedListener, encode_patched};
use crate::listeners::settings::ListenerSettings;
use crate::listeners::tcp::{self, TcpRoute};
use crate::listeners::tls::{self, MutualTls};
use crate::listeners::{
    CONNECTIONS_PER_SOCKET_EVENT, VIRTUAL_INBOUND, address, balance, chain_metadata, inspectors,
};
use crate::names;
use crate::patching::{Fates, Trace};
use crate::pure::{Pure, Sealed};
use crate::routes::patch::{PatchTarget, RoutePatches};
use crate::routes::retry::inbound_policy;

/// Application protocols by which mesh clients mark HTTP over mutual TLS.
const MESH_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Application protocols by which mesh clients mark mutual TLS of unknown content.
const MESH_TCP: &[&str] = &["istio-peer-exchange", "istio"];
/// All application protocols of mesh mutual TLS.
const MESH: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
const TLS: &str = "tls";

/// Which connections a port accepts (PeerAuthentication).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutualTlsMode {
    /// Plaintext; TLS is passed on as it is.
    Disable,
    /// Mutual TLS and plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// What all inbound listeners of a sidecar have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundSettings {
    pub listener: ListenerSettings,
    pub tls: MutualTls,
    /// MeshConfig `defaultInboundHttpRetryPolicy`.
    pub retries: Option<HttpRetry>,
    /// What EnvoyFilters change in routes.
    pub route_patches: RoutePatches,
}

/// A port that a workload accepts connections on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// Port of the service, for names.
    pub service_port: u16,
    /// Port of the workload.
    pub target_port: u16,
    pub protocol: Protocol,
    pub cluster: Name,
    /// Addresses, primary first; they are listened on only by a socket of the port's own.
    pub binds: Vec<Name>,
    /// Host of the service, for traces.
    pub host: Name,
    /// Prefix of TCP statistics.
    pub stat_prefix: Name,
    pub mode: MutualTlsMode,
    /// The Sidecar that the port stems from, as metadata names it: as if it were in the namespace of the
    /// workload.
    pub config: Option<ObjectKey>,
}

/// Everything the virtual inbound listener is made of.
#[derive(Clone, Debug, Hash)]
pub struct VirtualInboundInput {
    pub settings: Arc<Hashed<InboundSettings>>,
    /// How ports that no service has are treated.
    pub other_ports: MutualTlsMode,
    /// Ports without a service that a policy names.
    pub policy_ports: Vec<(u16, MutualTlsMode)>,
    /// By target port, each once.
    pub ports: Vec<InboundPort>,
}

/// Makes the virtual inbound listener: it takes every redirected connection.
pub struct VirtualInbound;

impl Sealed for VirtualInbound {}

impl Pure for VirtualInbound {
    const NAME: &'static str = "listeners.virtual_inbound";
    type Input = VirtualInboundInput;
    type Output = PatchedListener;

    fn run(input: &VirtualInboundInput) -> PatchedListener {
        let trace = Trace::default();
        let listener = virtual_inbound(input, &trace);
        encode_patched(listener, &input.settings.listener.patches).and(trace.into_fates())
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// A port with a socket of its own.
#[derive(Clone, Debug, Hash)]
pub struct BoundPortInput {
    pub settings: Arc<Hashed<InboundSettings>>,
    pub port: InboundPort,
}

/// Makes the listener of a port with a socket of its own.
pub struct BoundPort;

impl Sealed for BoundPort {}

impl Pure for BoundPort {
    const NAME: &'static str = "listeners.bound_inbound";
    type Input = BoundPortInput;
    type Output = PatchedListener;

    fn run(input: &BoundPortInput) -> PatchedListener {
        let trace = Trace::default();
        let listener = bound_port(input, &trace);
        encode_patched(listener, &input.settings.listener.patches).and(trace.into_fates())
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// The virtual inbound listener.
pub fn virtual_inbound(input: &VirtualInboundInput, trace: &Trace) -> Listener {
    let settings = &**input.settings;
    let mut chains = fixed_chains(input, trace);
    for port in &input.ports {
        chains.extend(ServiceChains { settings, port, passthrough: false, trace }.chains());
    }
    let wildcards = address::names(address::wildcards(settings.listener.ip_mode));
    let port = settings.listener.listen_port;
    listener(settings, VIRTUAL_INBOUND.to_owned(), &wildcards, port, false, chains)
}

/// The listener of a port with a socket of its own.
pub fn bound_port(input: &BoundPortInput, trace: &Trace) -> Listener {
    let (settings, port) = (&**input.settings, &input.port);
    let chains = ServiceChains { settings, port, passthrough: false, trace }.chains();
    let name = address::listener_name(port.binds.first().map_or("", |bind| bind), port.target_port);
    listener(settings, name, &port.binds, port.target_port, true, chains)
}

/// Chains that do not stem from services: against loops, and for ports that no service has.
fn fixed_chains(input: &VirtualInboundInput, trace: &Trace) -> Vec<FilterChain> {
    let settings = &**input.settings;
    let mut chains = vec![black_hole(settings)];
    let others = std::iter::once((0, input.other_ports)).chain(input.policy_ports.iter().copied());
    for (target_port, mode) in others {
        let port = InboundPort {
            service_port: 0,
            target_port,
            protocol: Protocol::Unsupported,
            cluster: Name::from(names::INBOUND_PASSTHROUGH),
            binds: Vec::new(),
            host: Name::from(""),
            stat_prefix: Name::from(names::INBOUND_PASSTHROUGH),
            mode,
            config: None,
        };
        chains.extend(ServiceChains { settings, port: &port, passthrough: true, trace }.chains());
    }
    chains
}

fn listener(
    settings: &InboundSettings,
    name: String,
    binds: &[Name],
    port: u16,
    bind_to_port: bool,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    let common = &settings.listener;
    let transparent = !bind_to_port && common.interception == InterceptionMode::Tproxy;
    let mut listener_filters = Vec::new();
    if !bind_to_port {
        listener_filters.push(inspectors::original_destination());
    }
    if transparent {
        listener_filters.push(inspectors::original_source());
    }
    listener_filters.extend(inspectors::for_chains(&filter_chains));
    Listener {
        name,
        address: binds.first().map(|bind| address::address(bind, port)),
        additional_addresses: address::additional(binds.get(1..).unwrap_or_default(), port),
        traffic_direction: TrafficDirection::Inbound as i32,
        continue_on_listener_filters_timeout: true,
        max_connections_to_accept_per_socket_event: Some(CONNECTIONS_PER_SOCKET_EVENT),
        connection_balance_config: balance(common.exact_balance),
        transparent: transparent.then_some(true),
        access_log: messages(&common.listener_access_log),
        listener_filters,
        listener_filters_timeout: common.protocol_detection_timeout.map(wkt::duration),
        filter_chains,
        ..Listener::default()
    }
}

/// Connections to the listener's own port were not redirected; passing them on would come back here forever.
fn black_hole(settings: &InboundSettings) -> FilterChain {
    FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(u32::from(settings.listener.listen_port)),
            ..FilterChainMatch::default()
        }),
        filters: tcp::refuse(&settings.listener, names::BLACK_HOLE),
        ..FilterChain::default()
    }
}

/// One row of the table of chains: which connections are taken and what is done with them.
struct ChainKind {
    application_protocols: &'static [&'static str],
    transport: &'static str,
    http: bool,
    /// TLS is terminated.
    terminates: bool,
}

const fn chain_kind(
    application_protocols: &'static [&'static str],
    transport: &'static str,
    http: bool,
    terminates: bool,
) -> ChainKind {
    ChainKind { application_protocols, transport, http, terminates }
}

/// The chains of a port, by mode and protocol (Istio: PeerAuthentication modes and protocol selection). In
/// PERMISSIVE mode, mutual TLS of the mesh is told from the application's own TLS by its application
/// protocols.
fn chain_kinds(mode: MutualTlsMode, listener_protocol: ListenerProtocol) -> &'static [ChainKind] {
    const STRICT_HTTP: &[ChainKind] = &[chain_kind(&[], TLS, true, true)];
    const STRICT_TCP: &[ChainKind] = &[chain_kind(&[], TLS, false, true)];
    const STRICT_DETECT: &[ChainKind] =
        &[chain_kind(MESH_HTTP, TLS, true, true), chain_kind(&[], TLS, false, true)];
    const PERMISSIVE_HTTP: &[ChainKind] =
        &[chain_kind(MESH, TLS, true, true), chain_kind(&[], RAW_BUFFER, true, false)];
    const PERMISSIVE_TCP: &[ChainKind] = &[
        chain_kind(MESH, TLS, false, true),
        chain_kind(&[], TLS, false, false),
        chain_kind(&[], RAW_BUFFER, false, false),
    ];
    const PERMISSIVE_DETECT: &[ChainKind] = &[
        chain_kind(MESH_HTTP, TLS, true, true),
        chain_kind(PLAINTEXT_HTTP, RAW_BUFFER, true, false),
        chain_kind(MESH_TCP, TLS, false, true),
        chain_kind(&[], RAW_BUFFER, false, false),
        chain_kind(&[], TLS, false, false),
    ];
    const PLAIN_HTTP: &[ChainKind] = &[chain_kind(&[], RAW_BUFFER, true, false)];
    const PLAIN_TCP: &[ChainKind] = &[chain_kind(&[], RAW_BUFFER, false, false)];
    const PLAIN_DETECT: &[ChainKind] =
        &[chain_kind(PLAINTEXT_HTTP, RAW_BUFFER, true, false), chain_kind(&[], RAW_BUFFER, false, false)];
    match (mode, listener_protocol) {
        (MutualTlsMode::Strict, ListenerProtocol::Http) => STRICT_HTTP,
        (MutualTlsMode::Strict, ListenerProtocol::Tcp) => STRICT_TCP,
        (MutualTlsMode::Strict, ListenerProtocol::Detect) => STRICT_DETECT,
        (MutualTlsMode::Permissive, ListenerProtocol::Http) => PERMISSIVE_HTTP,
        (MutualTlsMode::Permissive, ListenerProtocol::Tcp) => PERMISSIVE_TCP,
        (MutualTlsMode::Permissive, ListenerProtocol::Detect) => PERMISSIVE_DETECT,
        (MutualTlsMode::Disable, ListenerProtocol::Http) => PLAIN_HTTP,
        (MutualTlsMode::Disable, ListenerProtocol::Tcp) => PLAIN_TCP,
        (MutualTlsMode::Disable, ListenerProtocol::Detect) => PLAIN_DETECT,
    }
}

/// The chains of one port.
struct ServiceChains<'a> {
    settings: &'a InboundSettings,
    port: &'a InboundPort,
    passthrough: bool,
    /// What patches of routes do.
    trace: &'a Trace,
}

impl ServiceChains<'_> {
    fn chains(&self) -> Vec<FilterChain> {
        // What listeners cannot treat (UDP) is passed on as bytes.
        let listener_protocol = listener_protocol(self.port.protocol).unwrap_or(ListenerProtocol::Tcp);
        chain_kinds(self.port.mode, listener_protocol).iter().map(|kind| self.chain(kind)).collect()
    }

    fn chain(&self, kind: &ChainKind) -> FilterChain {
        let alpn = if kind.http { tls::ALPN_HTTP } else { tls::ALPN_TCP };
        FilterChain {
            name: self.name(kind.http),
            filter_chain_match: Some(FilterChainMatch {
                application_protocols: kind
                    .application_protocols
                    .iter()
                    .map(|protocol| (*protocol).to_owned())
                    .collect(),
                transport_protocol: kind.transport.to_owned(),
                destination_port: (self.port.target_port != 0).then_some(u32::from(self.port.target_port)),
                ..FilterChainMatch::default()
            }),
            filters: if kind.http { self.http_filters() } else { self.tcp_filters() },
            transport_socket: kind
                .terminates
                .then(|| tls::transport_socket(&self.settings.tls.context(alpn))),
            metadata: self.port.config.as_ref().map(chain_metadata),
            ..FilterChain::default()
        }
    }

    fn name(&self, http: bool) -> String {
        match (self.passthrough, http) {
            (true, true) => "virtualInbound-catchall-http".to_owned(),
            (true, false) => VIRTUAL_INBOUND.to_owned(),
            (false, _) => {
                address::listener_name(self.port.binds.first().map_or("", |bind| bind), self.port.target_port)
            }
        }
    }

    fn http_filters(&self) -> Vec<Filter> {
        let settings = &self.settings.listener;
        let stat_prefix = if self.passthrough {
            format!("{};", self.port.cluster)
        } else {
            format!("inbound_{};", self.name(true))
        };
        let mut options = Options::new(&settings.http, stat_prefix, Routes::Inline(Box::new(self.routes())));
        let headers = &settings.http.headers;
        options.client_certificates = Some((headers.forwarded_client_cert, headers.client_cert));
        options.port = self.port.target_port;
        options.protocol = self.port.protocol;
        http_chain(&settings.network_filters, self.port.target_port, hcm::filter(options))
    }

    fn tcp_filters(&self) -> Vec<Filter> {
        let route = TcpRoute {
            stat_prefix: self.port.stat_prefix.clone(),
            protocol: self.port.protocol,
            ..TcpRoute::to(&self.port.cluster)
        };
        route.filters(&self.settings.listener, self.port.service_port)
    }

    /// Everything goes to the workload: the client's routes have already decided.
    fn routes(&self) -> RouteConfiguration {
        let cluster = self.port.cluster.to_string();
        let zero = Some(wkt::duration_secs(0));
        let action = RouteAction {
            timeout: zero,
            max_stream_duration: Some(route_action::MaxStreamDuration {
                max_stream_duration: zero,
                grpc_timeout_header_max: zero,
                ..route_action::MaxStreamDuration::default()
            }),
            // A retry after a reset would repeat messages of a gRPC stream.
            retry_policy: if self.port.protocol.is_grpc() {
                None
            } else {
                inbound_policy(self.settings.retries.as_ref())
            },
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.clone())),
            ..RouteAction::default()
        };
        let route = Route {
            name: "default".to_owned(),
            r#match: Some(RouteMatch {
                path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            decorator: Some(Decorator {
                operation: format!("{}:{}/*", self.port.host, self.port.service_port),
                ..Decorator::default()
            }),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        };
        let mut configuration = RouteConfiguration {
            name: cluster,
            virtual_hosts: vec![VirtualHost {
                name: format!("inbound|http|{}", self.port.service_port),
                domains: vec!["*".to_owned()],
                routes: vec![route],
                ..VirtualHost::default()
            }],
            validate_clusters: Some(false),
            ..RouteConfiguration::default()
        };
        let target = PatchTarget { context: PatchContext::SidecarInbound, server_ports: BTreeSet::new() };
        self.trace.extend(target.apply(&self.settings.route_patches, &mut configuration));
        configuration
    }
}

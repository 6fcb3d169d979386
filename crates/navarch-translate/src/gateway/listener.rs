//! Listeners of gateways.

use std::sync::Arc;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::TrafficDirection;
use navarch_envoy::proto::envoy::config::core::v3::{
    Address, TransportSocket, UdpSocketConfig, address, socket_address, transport_socket,
};
use navarch_envoy::proto::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, QuicProtocolOptions,
    UdpListenerConfig,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use navarch_envoy::wkt;
use navarch_model::listener::GatewayListener;
use navarch_model::mesh::{ForwardClientCertDetails, TlsConfig};
use navarch_model::proxy::CertificateFiles;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name, Origin};

use crate::encoded::messages;
use crate::filters::NetworkPhase;
use crate::filters::network::http_chain;
use crate::http_connection_manager::{self as hcm, ClientCertDetails};
use crate::listeners::address as addresses;
use crate::listeners::inspectors;
use crate::listeners::patch::{PatchedListener, encode_patched};
use crate::listeners::settings::ListenerSettings;
use crate::listeners::tcp::TcpRoute;
use crate::listeners::tls::{ServerContext, server_context, transport_socket as tls_socket};
use crate::listeners::udp;
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// Clients that do not complete a handshake in this time are dropped: they hold memory.
const HANDSHAKE_TIMEOUT_SECS: u32 = 15;

/// Connections accepted per event of a socket: one, so that connections are spread evenly over the worker
/// threads.
const CONNECTIONS_PER_SOCKET_EVENT: u32 = 1;

/// Protocols by which mesh mutual TLS announces itself; passed on by servers of mode AUTO_PASSTHROUGH.
pub const MESH_ALPN: &[&str] =
    &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What the listeners of one gateway workload have in common.
#[derive(Clone, Debug, Hash)]
pub struct GatewaySettings {
    pub listener: Arc<Hashed<ListenerSettings>>,
    /// TLS parameters of the mesh, for servers that state none.
    pub tls_defaults: Option<TlsConfig>,
    /// Certificates that the workload brings itself.
    pub files: CertificateFiles,
    /// `gatewayTopology.numTrustedProxies`.
    pub trusted_proxies: u32,
    /// `gatewayTopology.forwardClientCertDetails`, or the default.
    pub forward_client_cert: ForwardClientCertDetails,
    /// `gatewayTopology.proxyProtocol`: a load balancer in front tells the address of the client.
    pub proxy_protocol: bool,
    /// `connectionSettings.listenerPerConnectionBufferLimitBytes`.
    pub buffer_limit_bytes: Option<u32>,
}

/// Transport protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    Quic,
    /// Datagrams that are passed on.
    Udp,
}

/// One filter chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayChain {
    /// All plain HTTP listeners of the port.
    Http { route_name: Name, protocol: Protocol },
    /// A listener that terminates HTTPS.
    Https { listener: Arc<Hashed<GatewayListener>>, sni_hosts: Vec<Name>, route_name: Name },
    /// A listener that passes on bytes, after terminating TLS if `tls` is set. `port` is the one that the
    /// gateway states, `origin` the rule that says where they go.
    Tcp {
        sni_hosts: Vec<Name>,
        tls: Option<Arc<Hashed<GatewayListener>>>,
        port: u16,
        origin: Origin,
        route: TcpRoute,
    },
    /// Datagrams that are passed on to clusters, by weight; `origin` is the rule that says so. It is not a
    /// chain of Envoy's: a listener for UDP has none.
    Datagrams { origin: Origin, clusters: Vec<(Name, u32)> },
    /// Mesh mutual TLS that is passed on to where its server name says. Policies apply at the other end.
    MeshTls { sni: Name, port: u16, route: TcpRoute },
}

/// The key of [`GatewayPort`].
#[derive(Clone, Debug, Hash)]
pub struct GatewayPortInput {
    pub settings: Arc<Hashed<GatewaySettings>>,
    pub transport: Transport,
    pub bind: Name,
    /// Further addresses, of the other family.
    pub extra_binds: Vec<Name>,
    pub port: u16,
    pub chains: Vec<GatewayChain>,
}

/// The listener of a gateway on one port and address. Envoy rejects one without chains, so there has to be
/// one. Without a name if an EnvoyFilter removes it.
pub struct GatewayPort;

impl Sealed for GatewayPort {}

impl Pure for GatewayPort {
    const NAME: &'static str = "listeners.gateway";
    type Input = GatewayPortInput;
    type Output = PatchedListener;

    fn run(input: &GatewayPortInput) -> PatchedListener {
        encode_patched(input.build(), &input.settings.listener.patches)
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

impl GatewayPortInput {
    /// The name of the listener.
    pub fn name(&self) -> String {
        match self.transport {
            Transport::Tcp => addresses::listener_name(&self.bind, self.port),
            Transport::Quic | Transport::Udp => {
                format!("udp_{}", addresses::listener_name(&self.bind, self.port))
            }
        }
    }

    fn build(&self) -> Listener {
        let settings = &self.settings;
        let unguarded = without_policies(&settings.listener);
        let udp = self.transport != Transport::Tcp;
        let quic = self.transport == Transport::Quic;
        let mut listener_filters = Vec::new();
        if settings.proxy_protocol && !udp {
            listener_filters.push(inspectors::proxy_protocol());
        }
        if !udp && self.chains.iter().any(|chain| self.inspects_tls(chain)) {
            listener_filters.push(inspectors::tls_inspector());
        }
        listener_filters.extend(self.chains.iter().find_map(|chain| match chain {
            GatewayChain::Datagrams { clusters, .. } => Some(udp::proxy(&self.name(), clusters)),
            _ => None,
        }));
        let mut additional_addresses = addresses::additional(&self.extra_binds, self.port);
        let mut address = addresses::address(&self.bind, self.port);
        if udp {
            use_udp(&mut address);
            additional_addresses
                .iter_mut()
                .filter_map(|extra: &mut AdditionalAddress| extra.address.as_mut())
                .for_each(use_udp);
        }
        Listener {
            name: self.name(),
            address: Some(address),
            additional_addresses,
            traffic_direction: TrafficDirection::Outbound as i32,
            listener_filters,
            filter_chains: self
                .chains
                .iter()
                .filter_map(|chain| self.filter_chain(chain, &unguarded))
                .collect(),
            max_connections_to_accept_per_socket_event: (self.transport != Transport::Udp)
                .then_some(CONNECTIONS_PER_SOCKET_EVENT),
            per_connection_buffer_limit_bytes: settings.buffer_limit_bytes,
            connection_balance_config: crate::listeners::balance(settings.listener.exact_balance && !udp),
            udp_listener_config: udp.then(|| UdpListenerConfig {
                quic_options: quic.then(QuicProtocolOptions::default),
                downstream_socket_config: Some(UdpSocketConfig::default()),
                ..UdpListenerConfig::default()
            }),
            access_log: messages(&settings.listener.listener_access_log),
            ..Listener::default()
        }
    }

    /// The server name or the application protocol has to be known before a chain is chosen.
    fn inspects_tls(&self, chain: &GatewayChain) -> bool {
        match chain {
            GatewayChain::Http { .. } | GatewayChain::Datagrams { .. } => false,
            GatewayChain::Https { .. } | GatewayChain::MeshTls { .. } => true,
            GatewayChain::Tcp { sni_hosts, tls, .. } => !sni_hosts.is_empty() || tls.is_some(),
        }
    }

    fn filter_chain(&self, chain: &GatewayChain, unguarded: &ListenerSettings) -> Option<FilterChain> {
        let (matched, tls) = match chain {
            GatewayChain::Datagrams { .. } => return None,
            GatewayChain::Http { .. } => (None, None),
            GatewayChain::Https { listener, sni_hosts, .. } => (chain_match(sni_hosts, &[]), Some(listener)),
            GatewayChain::Tcp { sni_hosts, tls, .. } => (chain_match(sni_hosts, &[]), tls.as_ref()),
            GatewayChain::MeshTls { sni, .. } => (chain_match(std::slice::from_ref(sni), MESH_ALPN), None),
        };
        let context = tls.and_then(|listener| self.tls_context(listener));
        Some(FilterChain {
            filter_chain_match: matched,
            transport_socket: context.map(|context| self.socket(&context)),
            transport_socket_connect_timeout: Some(wkt::duration_secs(HANDSHAKE_TIMEOUT_SECS)),
            filters: self.filters(chain, unguarded),
            ..FilterChain::default()
        })
    }

    fn tls_context(&self, listener: &GatewayListener) -> Option<DownstreamTlsContext> {
        let protocol = listener.protocol();
        let context = ServerContext {
            defaults: self.settings.tls_defaults.as_ref(),
            files: &self.settings.files,
            quic: self.transport == Transport::Quic,
            terminates_tcp: !protocol.is_http() && protocol != Protocol::Https,
        };
        listener.tls.as_ref().map(|tls| server_context(tls, context))
    }

    fn socket(&self, context: &DownstreamTlsContext) -> TransportSocket {
        if self.transport == Transport::Tcp {
            return tls_socket(context);
        }
        let transport = QuicDownstreamTransport {
            downstream_tls_context: Some(context.clone()),
            ..QuicDownstreamTransport::default()
        };
        TransportSocket {
            name: "envoy.transport_sockets.quic".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&transport))),
        }
    }

    fn filters(&self, chain: &GatewayChain, unguarded: &ListenerSettings) -> Vec<Filter> {
        match chain {
            GatewayChain::Http { route_name, protocol } => self.http_filters(route_name, *protocol, ""),
            GatewayChain::Https { listener, route_name, .. } => {
                self.http_filters(route_name, listener.protocol(), &listener.name)
            }
            GatewayChain::Tcp { route, port, .. } => route.filters(&self.settings.listener, *port),
            GatewayChain::MeshTls { route, port, .. } => route.filters(unguarded, *port),
            GatewayChain::Datagrams { .. } => Vec::new(),
        }
    }

    fn http_filters(&self, route_name: &str, protocol: Protocol, stat_prefix: &str) -> Vec<Filter> {
        let settings = &self.settings;
        let stat_prefix =
            if stat_prefix.is_empty() { format!("outbound_{}", self.name()) } else { stat_prefix.to_owned() };
        let routes = hcm::Routes::Rds(route_name.to_owned());
        let mut options = hcm::Options::new(&settings.listener.http, stat_prefix, routes);
        options.port = self.port;
        options.protocol = protocol;
        options.use_remote_address = true;
        options.xff_trusted_hops = settings.trusted_proxies;
        options.http3_only = self.transport == Transport::Quic;
        options.client_certificates = Some((
            settings.forward_client_cert,
            ClientCertDetails { subject: true, cert: true, chain: false, dns: true, uri: true },
        ));
        http_chain(&settings.listener.network_filters, self.port, hcm::filter(options))
    }
}

/// The settings without filters that authorize.
fn without_policies(settings: &ListenerSettings) -> ListenerSettings {
    let mut settings = settings.clone();
    settings.network_filters.filters.retain(|entry| {
        !matches!(entry.phase, NetworkPhase::CustomAuthorization | NetworkPhase::Authorization)
    });
    settings
}

fn use_udp(address: &mut Address) {
    if let Some(address::Address::SocketAddress(socket)) = &mut address.address {
        socket.protocol = socket_address::Protocol::Udp as i32;
    }
}

/// Matches server names and application protocols; `*` is every name, and a chain for everything has no
/// match.
fn chain_match(sni_hosts: &[Name], alpn: &[&str]) -> Option<FilterChainMatch> {
    let any_name = sni_hosts.is_empty() || sni_hosts.iter().any(|host| &**host == "*");
    if any_name && alpn.is_empty() {
        return None;
    }
    let names = sni_hosts.iter().filter(|_| !any_name);
    let mut server_names: Vec<String> = names.map(|host| host.to_string()).collect();
    server_names.sort();
    Some(FilterChainMatch {
        server_names,
        application_protocols: alpn.iter().map(|text| (*text).to_owned()).collect(),
        ..FilterChainMatch::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_for_every_name_has_no_match() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let names = |texts: &[&str]| texts.iter().copied().map(Name::from).collect::<Vec<Name>>();
        assert_eq!(chain_match(&names(&["*"]), &[]), None);
        assert_eq!(chain_match(&names(&["a.com", "*"]), &[]), None);
        let matched = chain_match(&names(&["b.com", "a.com"]), &[]).map(|matched| matched.server_names);
        assert_eq!(matched, Some(strings(&["a.com", "b.com"])));
        let with_alpn = chain_match(&names(&["*"]), MESH_ALPN);
        assert_eq!(with_alpn.map(|matched| matched.application_protocols), Some(strings(MESH_ALPN)));
    }
}

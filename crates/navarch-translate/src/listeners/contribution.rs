//! What services ask of listeners.

use navarch_model::service::Protocol;
use navarch_model::{Name, Origin};

use super::tcp::{DnsCache, TcpRoute};

/// What one port of one service asks of the listener on one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Contribution {
    /// Addresses to listen on, primary first; the primary address and the port name the listener.
    pub binds: Vec<Name>,
    /// The listener has a socket of its own; otherwise the virtual outbound listener hands over connections.
    pub bind_to_port: bool,
    /// Zero for Unix domain sockets.
    pub port: u16,
    /// Protocol of the service port.
    pub protocol: Protocol,
    /// Chains for bytes; none for HTTP ports.
    pub tcp: Vec<TcpChain>,
    /// The chain for HTTP; none for TCP ports.
    pub http: Option<HttpChain>,
}

/// How a listener treats a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    Http,
    Tcp,
    /// HTTP or TCP, whatever the first bytes look like.
    Detect,
}

/// How listeners treat a protocol; nothing for protocols without listeners (UDP).
pub fn listener_protocol(protocol: Protocol) -> Option<ListenerProtocol> {
    Some(match protocol {
        Protocol::Http | Protocol::Http2 | Protocol::HttpProxy | Protocol::Grpc | Protocol::GrpcWeb => {
            ListenerProtocol::Http
        }
        Protocol::Tcp
        | Protocol::Https
        | Protocol::Tls
        | Protocol::Mongo
        | Protocol::Redis
        | Protocol::Mysql => ListenerProtocol::Tcp,
        Protocol::Udp => return None,
        Protocol::Http3 | Protocol::Hbone | Protocol::Unsupported => ListenerProtocol::Detect,
    })
}

/// A chain for bytes, and which connections it takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpChain {
    pub server_names: Vec<Name>,
    pub destination_blocks: Vec<Name>,
    /// The route that it stems from; `None` for the service itself.
    pub origin: Option<Origin>,
    /// Whether its metadata names that, as istiod does for some chains.
    pub names_origin: bool,
    pub route: TcpRoute,
}

/// A chain for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpChain {
    /// Name of the route configuration.
    pub routes: Name,
    pub protocol: Protocol,
    /// Takes only what the HTTP inspector recognises, because other bytes may arrive on the address too.
    pub detect: bool,
    /// Absolute URLs are accepted: an HTTP proxy.
    pub absolute_urls: bool,
    /// All its routes lead to mesh services, so that connections can be marked as HTTP for servers that
    /// detect the protocol.
    pub mesh_alpn: bool,
    /// Requests for hosts of a wildcard service are resolved by name.
    pub dns_cache: Option<DnsCache>,
}

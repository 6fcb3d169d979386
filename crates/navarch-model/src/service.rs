//! `Service`: what Kubernetes Services and ServiceEntries have in common.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::SmallMap;

/// A short immutable string that is shared rather than copied: names, hosts, namespaces.
pub type Name = Arc<str>;

/// Labels or annotations.
pub type Labels = SmallMap<Name, Name>;

/// The name with a text. An empty one, which most optional names are, needs no memory.
pub fn name(text: &str) -> Name {
    if text.is_empty() { Name::default() } else { Name::from(text) }
}

/// A host with ports that clients can call, whatever declared it.
///
/// Kubernetes Services and ServiceEntries both become this noun, one per (hostname, namespace) and, for a
/// ServiceEntry, per host; everything behind it asks for properties, never for the origin, except where Istio
/// itself makes a difference (`registry`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Fully qualified: `reviews.default.svc.cluster.local`, or the host of a ServiceEntry (may start with
    /// `*.`).
    pub hostname: Name,
    /// Name and namespace of the declaring object.
    pub name: Name,
    pub namespace: Name,
    pub registry: Registry,
    /// Seconds since the epoch; decides conflicts: the oldest service wins.
    pub created_at: i64,
    /// Addresses that clients dial: cluster IPs, or the addresses (also CIDR blocks) of a ServiceEntry, in
    /// declared order. Empty for headless services and for entries without addresses.
    pub addresses: Vec<Name>,
    /// Addresses that were allocated for the host because it declares none (`status.addresses`).
    pub auto_allocated_addresses: Vec<Name>,
    pub ports: Vec<ServicePort>,
    pub resolution: Resolution,
    /// `location: MESH_EXTERNAL`, or an ExternalName service: no mutual TLS is assumed.
    pub mesh_external: bool,
    /// Who may see the service.
    pub export_to: Visibility,
    /// Labels of the declaring object.
    pub labels: Labels,
    /// Which workloads back the service (`spec.selector`, `workloadSelector`); empty: none are selected by
    /// label.
    pub selector: Labels,
    /// `subjectAltNames` of a ServiceEntry, or the service accounts that annotations of a Service name.
    pub subject_alt_names: BTreeSet<Name>,
    /// Other hosts that resolve to this one: ExternalName services that point here.
    pub aliases: Vec<Name>,
    /// Where an ExternalName service points to.
    pub external_name: Option<Name>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Endpoints that are not ready count as ready.
    pub publish_not_ready_addresses: bool,
    /// `internalTrafficPolicy: Local`: only endpoints on the client's node.
    pub node_local: bool,
    pub traffic_distribution: TrafficDistribution,
    /// Label `istio.io/persistent-session` (cookie) or its header form, if set.
    pub persistent_session: Option<PersistentSession>,
    /// A DNS ServiceEntry whose annotation asks to race connections to all resolved addresses: LOGICAL_DNS
    /// with every address family.
    pub dns_race_first_tcp_connect: bool,
}

impl Service {
    /// The port with a number, for datagrams (UDP) or for connections: one of each may have the number.
    pub fn port(&self, number: u16, datagrams: bool) -> Option<&ServicePort> {
        let matching =
            |port: &&ServicePort| port.port == number && (port.protocol == Protocol::Udp) == datagrams;
        self.ports.iter().find(matching)
    }

    /// The port, if there is exactly one.
    pub fn only_port(&self) -> Option<u16> {
        match self.ports.as_slice() {
            [port] => Some(port.port),
            _ => None,
        }
    }
}

/// Which kind of object declared a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    Kubernetes,
    ServiceEntry,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name of the port; a nameless port of a ServiceEntry has the empty name.
    pub name: Name,
    /// The port that clients dial.
    pub port: u16,
    pub protocol: Protocol,
    /// `targetPort` of a ServiceEntry port, or the numeric target port of a Kubernetes Service; named target
    /// ports are resolved per endpoint.
    pub target_port: Option<TargetPort>,
}

/// The port of the workload behind a service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    Number(u16),
    Name(Name),
}

/// The application protocol of a port (Istio: "Protocol Selection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Http,
    Http2,
    Https,
    Http3,
    HttpProxy,
    Grpc,
    GrpcWeb,
    Tcp,
    Tls,
    Udp,
    Mongo,
    Redis,
    Mysql,
    Hbone,
    /// Neither declared nor well known: sniffed per connection.
    Unsupported,
}

impl Protocol {
    /// The protocol that configuration names, in any letter case; unknown names mean
    /// [`Protocol::Unsupported`].
    pub fn parse(name: &str) -> Self {
        Self::known(name).unwrap_or(Protocol::Unsupported)
    }

    /// The protocol that configuration names, in any letter case; `None` if it is none that a mesh knows.
    pub fn known(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "http" => Protocol::Http,
            "http_proxy" => Protocol::HttpProxy,
            "http2" => Protocol::Http2,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "mongo" => Protocol::Mongo,
            "redis" => Protocol::Redis,
            "mysql" => Protocol::Mysql,
            _ => return None,
        })
    }

    /// HTTP of any version, terminated by the proxy: HTTP, HTTP/2, HTTP/3, gRPC, gRPC-Web, HTTP_PROXY.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http
                | Protocol::Http2
                | Protocol::Http3
                | Protocol::HttpProxy
                | Protocol::Grpc
                | Protocol::GrpcWeb
        )
    }

    /// Always spoken as HTTP/2: HTTP/2, gRPC, gRPC-Web.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// gRPC or gRPC-Web.
    pub fn is_grpc(self) -> bool {
        matches!(self, Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Opaque bytes to the proxy: TCP, TLS, HTTPS, MongoDB, Redis, MySQL.
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Protocol::Tcp
                | Protocol::Https
                | Protocol::Tls
                | Protocol::Mongo
                | Protocol::Redis
                | Protocol::Mysql
        )
    }

    /// TLS whose server name can be matched: HTTPS, TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// To be detected by looking at the first bytes.
    pub fn is_sniffed(self) -> bool {
        self == Protocol::Unsupported
    }
}

/// How a proxy finds the addresses of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// From the control plane: EDS (Kubernetes Services, ServiceEntry STATIC).
    ClientSide,
    /// STRICT_DNS (ServiceEntry DNS).
    Dns,
    /// LOGICAL_DNS (ServiceEntry DNS_ROUND_ROBIN).
    DnsRoundRobin,
    /// The address that the application dialled: ORIGINAL_DST (ServiceEntry NONE, headless Services).
    Passthrough,
    /// By name at request time (ServiceEntry DYNAMIC_DNS).
    DynamicDns,
    /// Another name for another service (ExternalName).
    Alias,
}

/// Which namespaces see an object (`exportTo`), after defaults have been applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// `*`
    #[default]
    Public,
    /// `~`
    Nobody,
    /// `.` (its own namespace) and explicit names, resolved to names.
    Namespaces(BTreeSet<Name>),
}

impl Visibility {
    /// Whether clients in `namespace` see the object.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Visibility::Public => true,
            Visibility::Nobody => false,
            Visibility::Namespaces(names) => names.iter().any(|name| &**name == namespace),
        }
    }
}

/// `spec.trafficDistribution` or the annotation `networking.istio.io/traffic-distribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    #[default]
    Any,
    /// `PreferClose`, `PreferSameZone`: network, region, zone.
    PreferSameZone,
    /// `PreferSameNode`: also sub-zone and node.
    PreferSameNode,
    /// Region only.
    PreferSameRegion,
    /// Network only.
    PreferSameNetwork,
}

/// Persistent sessions of a service (labels `istio.io/persistent-session[-header]`) or of a route (Gateway
/// API, `SessionPersistence`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PersistentSession {
    Cookie {
        name: Name,
        path: Name,
        /// How long the cookie lives; without one, as long as the browser runs.
        ttl: Option<Duration>,
    },
    Header(Name),
}

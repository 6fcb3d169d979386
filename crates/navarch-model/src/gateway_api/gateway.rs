//! Gateway: ports that proxies of a class open, and which routes may be attached to them.

use std::collections::BTreeMap;

use super::{GROUP, RouteKind};
use crate::mesh::LabelSelector;
use crate::service::Name;
use crate::yaml::{closed_enum, message};

message! {
    /// Ports of one instance of proxies. Gateway API: `GatewaySpec`.
    pub struct Gateway {
        /// The GatewayClass, which says who serves the gateway.
        gateway_class_name: String,
        listeners: Vec<Listener>,
        addresses: Vec<GatewayAddress>,
        infrastructure: Option<GatewayInfrastructure>,
        /// Which ListenerSets may add listeners.
        allowed_listeners: Option<AllowedListeners>,
        tls: Option<GatewayTlsConfig>,
        /// Whether routes that name no parent are attached. Experimental.
        default_scope: String,
    }
}

message! {
    /// One port, or one host on a port. Gateway API: `Listener`, and `ListenerEntry` of a ListenerSet.
    pub struct Listener {
        /// What routes name as `sectionName`.
        name: Name,
        /// May be a wildcard; without one the listener is for all hosts.
        hostname: Option<Name>,
        /// Zero if it is not stated.
        port: u32,
        /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP`, or one of somebody else's.
        protocol: Name,
        tls: Option<ListenerTlsConfig>,
        allowed_routes: Option<AllowedRoutes>,
    }
}

message! {
    /// TLS on a listener. Gateway API: `ListenerTLSConfig`.
    pub struct ListenerTlsConfig {
        mode: Option<TlsMode>,
        certificate_refs: Vec<SecretObjectReference>,
        options: BTreeMap<String, String>,
    }
}

closed_enum! {
    /// Who ends TLS. Gateway API: `TLSModeType`.
    pub enum TlsMode {
        Terminate = 0 "Terminate",
        Passthrough = 1 "Passthrough",
    }
}

message! {
    /// Which routes may be attached to a listener. Gateway API: `AllowedRoutes`.
    pub struct AllowedRoutes {
        namespaces: Option<NamespaceChoice>,
        kinds: Vec<RouteGroupKind>,
    }
}

message! {
    /// Which ListenerSets may be attached to a gateway. Gateway API: `AllowedListeners`.
    pub struct AllowedListeners {
        namespaces: Option<NamespaceChoice>,
    }
}

message! {
    /// Namespaces. Gateway API: `RouteNamespaces` and `ListenerNamespaces`.
    pub struct NamespaceChoice {
        from: Option<NamespacesFrom>,
        selector: Option<LabelSelector>,
    }
}

closed_enum! {
    /// Which namespaces. Gateway API: `FromNamespaces`.
    pub enum NamespacesFrom {
        All = 0 "All",
        Selector = 1 "Selector",
        Same = 2 "Same",
        None = 3 "None",
    }
}

message! {
    /// A kind of routes.
    pub struct RouteGroupKind {
        group: Option<String>,
        kind: String,
    }
}

message! {
    /// A Secret, mostly.
    pub struct SecretObjectReference {
        group: Option<String>,
        kind: Option<String>,
        name: Name,
        namespace: Option<Name>,
    }
}

message! {
    /// Any object.
    pub struct ObjectReference {
        group: String,
        kind: String,
        name: Name,
        namespace: Option<Name>,
    }
}

message! {
    /// Where a gateway is to be reached. Gateway API: `GatewaySpecAddress`.
    pub struct GatewayAddress {
        /// `IPAddress` if it is not stated.
        type_: Option<String>,
        value: String,
    }
}

message! {
    /// What is made to run a gateway. Gateway API: `GatewayInfrastructure`.
    pub struct GatewayInfrastructure {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        parameters_ref: Option<LocalParametersReference>,
    }
}

message! {
    /// An object of the same namespace that says more.
    pub struct LocalParametersReference {
        group: String,
        kind: String,
        name: String,
    }
}

message! {
    /// TLS of a gateway as a whole. Gateway API: `GatewayTLSConfig`.
    pub struct GatewayTlsConfig {
        backend: Option<GatewayBackendTls>,
        frontend: Option<FrontendTlsConfig>,
    }
}

message! {
    /// TLS with backends. Gateway API: `GatewayBackendTLS`.
    pub struct GatewayBackendTls {
        client_certificate_ref: Option<SecretObjectReference>,
    }
}

message! {
    /// TLS with clients. Gateway API: `FrontendTLSConfig`.
    pub struct FrontendTlsConfig {
        default: TlsConfig,
        per_port: Vec<TlsPortConfig>,
    }
}

message! {
    /// TLS with clients of one port, in place of the default.
    pub struct TlsPortConfig {
        port: u32,
        tls: TlsConfig,
    }
}

message! {
    /// TLS with clients. Gateway API: `TLSConfig`.
    pub struct TlsConfig {
        validation: Option<FrontendTlsValidation>,
    }
}

message! {
    /// Certificates of clients. Gateway API: `FrontendTLSValidation`.
    pub struct FrontendTlsValidation {
        ca_certificate_refs: Vec<ObjectReference>,
        mode: FrontendValidationMode,
    }
}

closed_enum! {
    /// Whether clients without a valid certificate are served. Gateway API: `FrontendValidationModeType`.
    pub enum FrontendValidationMode {
        AllowValidOnly = 0 "AllowValidOnly",
        AllowInsecureFallback = 1 "AllowInsecureFallback",
    }
}

impl Gateway {
    /// TLS with the clients of a port.
    pub fn frontend(&self, port: u32) -> Option<&TlsConfig> {
        let frontend = self.tls.as_ref()?.frontend.as_ref()?;
        let own = frontend.per_port.iter().find(|own| own.port == port).map(|own| &own.tls);
        Some(own.unwrap_or(&frontend.default))
    }
}

impl Listener {
    /// The port. A ListenerSet may leave it to the protocol; zero if the protocol says none.
    pub fn port(&self) -> u32 {
        match (self.port, &*self.protocol) {
            (0, "HTTP") => 80,
            (0, "HTTPS") => 443,
            (port, _) => port,
        }
    }

    /// The host; `*` for all.
    pub fn host(&self) -> &str {
        self.hostname.as_deref().filter(|host| !host.is_empty()).unwrap_or("*")
    }

    /// Routes of which namespaces may be attached: those of the same one, unless something else is said.
    pub fn allowed_namespaces(&self) -> (NamespacesFrom, Option<&LabelSelector>) {
        let namespaces = self.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.and_then(|namespaces| namespaces.from).unwrap_or(NamespacesFrom::Same);
        (from, namespaces.and_then(|namespaces| namespaces.selector.as_ref()))
    }

    /// The kinds of routes that a listener of the protocol serves.
    fn carried_kinds(&self) -> &'static [RouteKind] {
        let mode = self.tls.as_ref().and_then(|tls| tls.mode);
        match &*self.protocol {
            "HTTP" | "HTTPS" => &[RouteKind::Http, RouteKind::Grpc],
            "TCP" => &[RouteKind::Tcp],
            "UDP" => &[RouteKind::Udp],
            "TLS" if mode == Some(TlsMode::Terminate) => &[RouteKind::Tls, RouteKind::Tcp],
            "TLS" => &[RouteKind::Tls],
            _ => &[],
        }
    }

    /// The kinds of routes that may be attached, and whether that is all that is asked for.
    pub fn kinds(&self) -> (Vec<RouteKind>, bool) {
        let carried = self.carried_kinds();
        let asked = self.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
        if asked.is_empty() {
            return (carried.to_vec(), true);
        }
        let is_asked = |kind: &RouteKind| asked.iter().any(|asked| asked.names(*kind));
        let kinds: Vec<RouteKind> = carried.iter().copied().filter(is_asked).collect();
        let complete = kinds.len() == asked.len();
        (kinds, complete)
    }
}

impl RouteGroupKind {
    fn names(&self, kind: RouteKind) -> bool {
        self.group.as_deref().unwrap_or(GROUP) == GROUP && self.kind == kind.as_str()
    }
}

impl ListenerTlsConfig {
    /// Who ends TLS: the gateway, unless it is said.
    pub fn mode(&self) -> TlsMode {
        self.mode.unwrap_or_default()
    }
}

impl SecretObjectReference {
    /// Whether it is a Secret of Kubernetes.
    pub fn is_secret(&self) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().unwrap_or("Secret") == "Secret"
    }
}

impl GatewayAddress {
    /// `IPAddress`, `Hostname`, or one of somebody else's.
    pub fn kind(&self) -> &str {
        self.type_.as_deref().unwrap_or("IPAddress")
    }
}

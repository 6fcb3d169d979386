//! What is special about each kind of client. Everything that depends on who is asking is decided here.

use navarch_envoy::XdsType;

use crate::node::Node;
use crate::response::{Dialect, Protocol};

/// Kinds of xDS clients with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Envoy, with or without an agent between.
    Envoy,
    /// A gRPC library in a proxyless workload.
    Grpc,
    /// Anything else, ztunnel included: it does not name itself, but only it asks for its types.
    Other,
}

/// What it means that a returning delta client names a resource and says that it holds it at the current
/// version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing: it may wait for it all the same, and who subscribes is answered (xDS spec, "Subscribing to
    /// Resources").
    Nothing,
    /// It need not be sent.
    Enough,
    /// It need not be sent unless something is sent on this stream that refers to it.
    UnlessReferrerSent,
    /// The same, if also nothing of the client warms.
    UnlessWarming,
}

/// The rules for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRules {
    kind: ClientKind,
    /// Major and minor.
    version: (u32, u32),
}

/// The first Envoy known (by test) to let a cluster whose warming timed out go on with the assignment
/// that it had. One that comes up empty says that it holds the assignment, and needs it.
const CACHES_ENDPOINTS: (u32, u32) = (1, 40);

/// The first Envoy whose access loggers count into one scope with a limit (`stats_scope`) is 1.39; the first
/// that is known (by test) to count as we have it do is 1.40.
const COUNTS: (u32, u32) = (1, 40);

/// See [`ClientRules::takes_split_routes`].
const SPLITS_ROUTES: (u32, u32) = (1, 40);

impl ClientRules {
    /// Reads the kind from the user agent.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let agent = node.user_agent_name.to_ascii_lowercase();
        let kind = match () {
            () if agent == "envoy" => ClientKind::Envoy,
            () if agent.starts_with("grpc") => ClientKind::Grpc,
            () => ClientKind::Other,
        };
        let mut numbers = node.user_agent_version.split('.').map_while(|number| number.parse().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { kind, version }
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> ClientKind {
        self.kind
    }

    /// Whether a first request without names asks for everything. gRPC always asks by name, and its Go
    /// version may send an empty first request after a reconnect (grpc-go#7013) that must not be taken for a
    /// wildcard.
    #[must_use]
    pub fn implicit_wildcard(&self, ty: XdsType, protocol: Protocol) -> bool {
        match self.kind {
            ClientKind::Envoy => ty.root() || self.asks_for_all_hosts(ty, protocol),
            ClientKind::Other => ty.root(),
            ClientKind::Grpc => false,
        }
    }

    /// Whether the first request without names is for the virtual hosts of all route configurations that the
    /// client names. Envoy asks so for hosts once it has a route configuration with `vhds`, and takes what it
    /// is sent; names follow only where a filter looks for hosts on demand.
    #[must_use]
    pub fn asks_for_all_hosts(&self, ty: XdsType, protocol: Protocol) -> bool {
        self.kind == ClientKind::Envoy && ty == XdsType::Vhds && protocol == Protocol::Delta
    }

    /// Whether virtual hosts may be resources of their own, all of them sent at once. From the first Envoy
    /// that is known (by test) to lose no request and to wait for nothing that does not come. They come over
    /// the stream of everything else.
    #[must_use]
    pub fn takes_split_routes(&self, dialect: Dialect) -> bool {
        let can = self.kind == ClientKind::Envoy && self.version >= SPLITS_ROUTES;
        can && dialect == Dialect { protocol: Protocol::Delta, aggregated: true }
    }

    /// Whether it has access loggers that count.
    #[must_use]
    pub fn has_counting_loggers(&self) -> bool {
        self.kind == ClientKind::Envoy && self.version >= COUNTS
    }

    /// Whether, in state-of-the-world, naming a resource after an implicit wildcard keeps the wildcard. The
    /// protocol document says it ends; Envoy with on-demand clusters names one and still wants all others,
    /// and would lose them.
    #[must_use]
    pub fn keeps_wildcard_when_naming(&self, ty: XdsType) -> bool {
        self.kind == ClientKind::Envoy && ty.root()
    }

    /// Whether a missing route configuration is answered with an empty one where one of our listeners waits
    /// for it.
    #[must_use]
    pub fn waits_for_routes(&self) -> bool {
        self.kind != ClientKind::Grpc
    }

    /// Whether the endpoints of a new cluster may be sent before they are asked for. Envoy takes them: it has
    /// read the cluster by then.
    #[must_use]
    pub fn asks_for_endpoints_of_clusters(&self) -> bool {
        self.kind == ClientKind::Envoy
    }

    /// Whether a route configuration whose virtual hosts are discovered waits for news of them that it does
    /// not ask for.
    #[must_use]
    pub fn asks_for_hosts_on_demand(&self) -> bool {
        self.kind == ClientKind::Envoy
    }

    /// Whether every removal is said as one, as the protocol document has it. For Envoy and gRPC some do harm
    /// and some do nothing, see [`navarch_envoy::Removal`].
    #[must_use]
    pub fn removal_is_removal(&self) -> bool {
        self.kind == ClientKind::Other
    }

    /// Whether names that do not exist are worth a `resource_errors` entry (xRFC TP3). Others ignore it.
    #[must_use]
    pub fn wants_errors(&self) -> bool {
        self.kind == ClientKind::Grpc
    }

    /// Bytes of resources a response may have. Envoy takes any size, and its first cluster and listener
    /// responses must be complete; gRPC libraries refuse messages over 4 MiB unless told otherwise.
    #[must_use]
    pub fn response_bytes_max(&self, ty: XdsType) -> usize {
        match (self.kind, ty) {
            (ClientKind::Envoy, _) => usize::MAX,
            // ztunnel accepts 200 MiB.
            (_, XdsType::Address | XdsType::Authorization) => 64 << 20,
            (ClientKind::Grpc | ClientKind::Other, _) => (4 << 20) - (64 << 10),
        }
    }

    /// Whether `initial_resource_versions` also says what is subscribed to: ztunnel repeats its on-demand
    /// names only there.
    #[must_use]
    pub fn held_is_subscribed(&self, ty: XdsType) -> bool {
        matches!(ty, XdsType::Address | XdsType::Authorization)
    }

    /// Whether what a returning delta client names and says it holds, at the current version, has to be sent
    /// again.
    ///
    /// Envoy lists what it holds also where something waits for it: a cluster that was changed waits for an
    /// assignment that comes after it, a new provider of a secret or of a filter for its first answer. Only
    /// of two types can be seen from the stream that nobody waits:
    /// - *Route configurations.* Listeners with the same `Rds` message share a provider, which has had its
    ///   answer before it lists a version. Only a listener that is sent now can bring another one.
    /// - *Assignments.* Envoy asks for no clusters while one of them warms. If it asks for them before it
    ///   asks for assignments, and for listeners (it has started: before that it asks for clusters all the
    ///   time), none does. Only a cluster that is sent now can.
    #[must_use]
    pub fn holds(&self, ty: XdsType) -> Holds {
        match (self.kind, ty) {
            // For names only the agent asks, which lists what it has.
            (_, XdsType::Address | XdsType::Authorization | XdsType::Nds) => Holds::Enough,
            (ClientKind::Envoy, XdsType::Rds) => Holds::UnlessReferrerSent,
            (ClientKind::Envoy, XdsType::Eds) if self.version >= CACHES_ENDPOINTS => Holds::UnlessWarming,
            _ => Holds::Nothing,
        }
    }
}

//! What the admin port says about the fleet: plain values, shared with the command line.

use std::collections::BTreeMap;

use navarch_envoy::XdsType;
use navarch_identity::Timestamp;
use navarch_identity::rotation::{Phase, Waiting};
use navarch_xds::StreamStatus;
use navarch_xds::running::{Running, Warming};
use serde::{Deserialize, Serialize};

/// The state of every connected proxy, as one replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Name of the replica that answers (the ISTIOD column).
    pub replica: String,
    /// Version of navarch.
    pub version: String,
    /// The newest revision of the configuration that has been planned for every class of proxies.
    pub revision: u64,
    /// A hash of what is configured in that revision: the same on every replica and after every restart.
    #[serde(default)]
    pub content: String,
    /// Since which revision something is configured, by the hashes of what was configured lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, u64>,
    /// Number of findings of severity error in the configuration.
    pub errors: usize,
    /// Sources that may be out of reach, and how well they are heard.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<SourceStatus>,
    /// One entry per stream, in the order of names.
    pub proxies: Vec<ProxyStatus>,
}

impl FleetStatus {
    /// The newest revision with the hash of its content, by which other replicas know it: `7-3fa9c1d2e4b0`.
    pub fn revision_name(&self) -> String {
        match self.content.as_str() {
            "" => self.revision.to_string(),
            content => format!("{}-{content}", self.revision),
        }
    }
}

/// A hash of what is configured as people see it.
pub fn content_name(content: u128) -> String {
    format!("{:012x}", content & 0xffff_ffff_ffff)
}

/// How well a source is heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    /// Number of things that are followed in it, such as kinds.
    pub parts: usize,
    /// Those that are not heard now. What they said last stays in force.
    pub unheard: Vec<String>,
    /// Milliseconds that the first of them has not been heard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unheard_for_ms: Option<u64>,
    /// Why, of that one.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// Attempts that failed since the start.
    pub failures: u64,
    /// How often something was read again as a whole since the start.
    pub relists: u64,
}

/// The state of one connected proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// `<pod>.<namespace>`, as in the node id.
    pub name: String,
    /// The cluster (registry) the proxy says it is in.
    pub cluster: String,
    /// Identifies the stream; a proxy has two during a hot restart.
    pub connection: String,
    /// `ISTIO_VERSION` of the node, or its Envoy version.
    pub version: String,
    /// Address the stream comes from.
    pub peer: String,
    /// The newest revision that is in effect: everything in it that concerns this proxy has been
    /// acknowledged.
    pub revision: u64,
    /// Revisions between that one and the newest.
    pub lag: u64,
    /// By short name: CDS, LDS, EDS, RDS, ECDS, SDS...
    pub types: BTreeMap<String, TypeStatus>,
    /// Removals that are held back, because they would take most of what the proxy has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_removals: Option<HeldRemovals>,
    /// What the proxy's agent sees in Envoy; absent if nobody tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<RunningStatus>,
}

/// What Envoy runs of what it has accepted, as the agent beside it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningStatus {
    /// Whether the agent has looked since the proxy accepted what it has accepted last.
    pub current: bool,
    /// What is accepted and not in use yet, by short name: CDS, LDS.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub warming: BTreeMap<String, WarmingStatus>,
}

impl RunningStatus {
    /// What is known of a stream.
    pub fn of(stream: &StreamStatus) -> Option<Self> {
        let Running { clusters, listeners } = stream.running.as_deref()?;
        let mut status = RunningStatus { current: true, warming: BTreeMap::new() };
        for (ty, in_use) in [(XdsType::Cds, clusters), (XdsType::Lds, listeners)] {
            let acked = stream.types.iter().find(|status| status.ty == ty).and_then(|ty| ty.acked.as_ref());
            status.current &= acked.map_or("", |mark| &mark.nonce) == in_use.nonce;
            if in_use.warming > 0 {
                let warming = WarmingStatus { count: in_use.warming, resources: in_use.named.clone() };
                status.warming.insert(ty.short().to_owned(), warming);
            }
        }
        Some(status)
    }

    /// Resources that warm.
    pub fn warming_count(&self) -> usize {
        self.warming.values().map(|warming| warming.count).sum()
    }
}

/// Resources that a proxy has accepted and does not use yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmingStatus {
    pub count: usize,
    /// The first of them, and what each waits for.
    pub resources: Vec<Warming>,
}

/// Removals that are held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRemovals {
    /// Milliseconds since they are held.
    pub for_ms: u64,
    /// Milliseconds until they go, unless they are confirmed before or what was to go comes back.
    pub left_ms: u64,
    /// Number of resources that would go, by short name.
    pub resources: BTreeMap<String, usize>,
}

/// What looking at the sources of configuration came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshedSources {
    /// The revision that holds everything that was written before.
    pub revision: u64,
    /// Sources that could not be read, and why; what they said before stays in force.
    pub errors: Vec<String>,
}

/// What the confirmation of removals did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedRemovals {
    /// Removals up to this revision are confirmed.
    pub revision: u64,
    /// Number of streams on which some were held.
    pub proxies: usize,
}

/// How far a proxy is in sync for one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStatus {
    pub state: SyncState,
    /// Version (content hash) that was sent last.
    pub sent: String,
    /// Version that was acknowledged last.
    pub acked: String,
    /// Milliseconds since the last response was sent.
    pub sent_age_ms: u64,
    /// Why the proxy rejected what was sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Rejection>,
    /// Secrets that the proxy asks for and that are not there: whatever uses them does not work.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<String>,
    /// Why the proxy gets no keys, if it is the permissions of its service account.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub withheld: String,
}

/// The words of `istioctl proxy-status`. What is less in sync is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyncState {
    /// The proxy has not asked, or there was nothing to send.
    #[default]
    #[serde(rename = "NOT SENT")]
    NotSent,
    /// Acknowledged.
    #[serde(rename = "SYNCED")]
    Synced,
    /// Sent and not yet acknowledged.
    #[serde(rename = "STALE")]
    Stale,
    /// Rejected.
    #[serde(rename = "ERROR")]
    Error,
}

impl SyncState {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncState::Synced => "SYNCED",
            SyncState::Stale => "STALE",
            SyncState::NotSent => "NOT SENT",
            SyncState::Error => "ERROR",
        }
    }
}

/// A rejection (NACK): the proxy's words, the resources they are about, and where those come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// What the proxy said, shortened.
    pub message: String,
    /// Resources that the message names.
    pub resources: Vec<RejectedResource>,
}

/// A rejected resource and the objects it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedResource {
    pub name: String,
    /// `file:line:column Kind namespace/name`
    pub sources: Vec<String>,
}

impl ProxyStatus {
    /// How far the proxy is with a type, as people count types: routes are in sync when their virtual hosts
    /// are, where those are resources of their own (VHDS).
    pub fn state(&self, ty: &str) -> SyncState {
        let of = |ty: &str| self.types.get(ty).map_or(SyncState::NotSent, |status| status.state);
        if ty == "RDS" { of(ty).max(of("VHDS")) } else { of(ty) }
    }

    /// Secrets that the proxy asks for and that are not there.
    pub fn missing_secrets(&self) -> &[String] {
        self.types.get("SDS").map_or(&[], |secrets| &secrets.missing)
    }

    /// Why the proxy gets no keys, if it is the permissions of its service account.
    pub fn withheld(&self) -> &str {
        self.types.get("SDS").map_or("", |secrets| &secrets.withheld)
    }

    /// Whether Envoy is known to run all that it has acknowledged.
    pub fn is_active(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.current && running.warming.is_empty())
    }

    /// Whether the proxy has acknowledged everything of `revision` that concerns it.
    pub fn is_live(&self, revision: u64) -> bool {
        self.revision >= revision
    }
}

/// Why a resource is what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedResource {
    pub resource: String,
    /// Short name: CDS, RDS...
    #[serde(rename = "type")]
    pub ty: String,
    pub parts: Vec<ExplainedPart>,
}

/// A part of a resource: a virtual host, a filter chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPart {
    pub what: String,
    /// What it was made from.
    pub sources: Vec<Place>,
    /// What could have shaped it and did not, and why.
    pub lost: Vec<Place>,
}

/// An object, or a field of one, and where it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `file:line:column`
    pub place: String,
    /// `Kind namespace/name`
    pub object: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub field: String,
    /// What it decides, or why it does not.
    pub text: String,
}

/// Whom an object reaches, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReach {
    /// `Kind namespace/name`
    pub object: String,
    /// `file:line:column`; empty if it is not in force.
    pub place: String,
    /// A hash of its specification; empty if it is not in force.
    pub content: String,
    /// Proxies that get the same, with the resources that the object has to do with.
    #[serde(default)]
    pub proxies: Vec<ReachedProxies>,
    /// Number of connected proxies that were looked at.
    #[serde(default)]
    pub connected: usize,
    /// Whether everything was looked at that proxies get.
    #[serde(default)]
    pub is_whole: bool,
}

/// Proxies that get the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedProxies {
    pub names: Vec<String>,
    /// The resources that the object shapes, or loses in, with the parts that it does so in.
    pub resources: Vec<ExplainedResource>,
}

/// The certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Those that are trusted.
    pub roots: Vec<RootStatus>,
    /// Absent if the operator provides the authority: then its files are what rotates.
    pub rotation: Option<RotationStatus>,
    /// When what signs ends, its chain included; absent if nobody has asked a server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signer_until: Option<Timestamp>,
    /// When the certificate of the server's own port ends; absent if it is not of the authority.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port_until: Option<Timestamp>,
    /// When the first of the revocation lists ends; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lists_until: Option<Timestamp>,
}

/// A root that is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatus {
    pub id: String,
    pub subject: String,
    pub signs: bool,
    pub not_after: Timestamp,
    /// No leaf of it is valid after that; absent if it has signed none.
    pub leaves_until: Option<Timestamp>,
}

/// How one root follows another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    pub phase: Phase,
    pub paused: bool,
    /// What it waits for; absent if the next step is due, or no server says.
    pub waiting: Option<Waiting>,
    /// Proxies that are connected.
    #[serde(default)]
    pub connected: usize,
    /// Those of them that have not acknowledged the roots.
    #[serde(default)]
    pub missing: Vec<String>,
}

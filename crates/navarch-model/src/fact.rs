//! Facts: what the world is told beside objects.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::key::ObjectKey;
use crate::mesh::MeshSettings;
use crate::origin::Origin;
use crate::service::Name;

/// Something that holds and is not an object: settings that somebody gave, keys that were fetched, names that
/// were resolved.
///
/// Facts come through the same door as objects ([`crate::change::ChangeSet`]), so that they take effect in
/// one revision with them, and are parts of a snapshot whose readers are recorded. What reads the network or
/// the clock makes facts; nothing below asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// Mesh settings that were given outside of objects, such as in a file. While they hold, the mesh's
    /// ConfigMap does not count.
    MeshConfig(Arc<MeshSettings>),
    /// The public keys (JWKS, RFC 7517) that an issuer of tokens signs with.
    Jwks {
        /// The URL that they are found with: `jwksUri`, or the discovery document of the issuer.
        source: Name,
        keys: Arc<str>,
    },
    /// What should have been fetched could not be, the last time that it was tried. What was fetched before
    /// still holds.
    Unfetched {
        /// From where.
        source: Name,
        /// For people.
        reason: Arc<str>,
    },
    /// What certificates of a trust domain are verified by. What is fetched is known by its URL
    /// (`caCertificates[].spiffeBundleUrl`).
    TrustBundle { domain: Name, bundle: TrustBundle },
    /// Which day it is: days since 1970-01-01. For what is said of things that end.
    Day(u64),
    /// The addresses of a host name.
    Resolved { host: Name, addresses: Vec<IpAddr> },
    /// The present version of an object cannot be used.
    Refused { object: ObjectKey, refusal: Refusal },
    /// What proxies have refused, in order: by namespace and by where it is written.
    Rejected(Arc<Vec<Rejected>>),
    /// Nobody here issues certificates.
    NoAuthority,
    /// Whether a service account may read the Secrets of its namespace.
    SecretReader { account: Account, access: SecretAccess },
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    pub namespace: Name,
    pub name: Name,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether somebody may read Secrets, by the API server that has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretAccess {
    Allowed,
    Denied,
    /// It has never answered.
    Unanswered {
        /// For people.
        reason: Name,
    },
}

/// Something that a user wrote and that proxies refused a resource for. It is left out of what proxies of the
/// namespace get, as long as it says the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rejected {
    /// Of the proxies.
    pub namespace: Name,
    pub origin: Origin,
    /// A stable hash of what is written there.
    pub content: u128,
    /// The resource that was refused, such as `listener 0.0.0.0_80`.
    pub resource: Name,
    /// What the proxy said.
    pub words: Name,
}

/// What certificates are verified by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustBundle {
    /// Roots, in PEM.
    pub roots: Arc<str>,
    /// What their authorities have revoked, in PEM.
    pub lists: Option<Arc<str>>,
}

/// Why the present version of an object is not used, and what is instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// What is wrong with it.
    pub message: String,
    /// Its last good version stays in use.
    pub last_good: bool,
}

/// What a fact is about. There is one fact with a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    MeshConfig,
    /// By source.
    Jwks(Name),
    /// By source.
    Unfetched(Name),
    /// By trust domain, or by URL.
    TrustBundle(Name),
    Day,
    /// By host.
    Resolved(Name),
    Refused(ObjectKey),
    Rejected,
    NoAuthority,
    /// By account.
    SecretReader(Account),
}

impl Fact {
    /// What the fact is about.
    pub fn key(&self) -> FactKey {
        match self {
            Fact::MeshConfig(_) => FactKey::MeshConfig,
            Fact::Jwks { source, .. } => FactKey::Jwks(source.clone()),
            Fact::Unfetched { source, .. } => FactKey::Unfetched(source.clone()),
            Fact::TrustBundle { domain, .. } => FactKey::TrustBundle(domain.clone()),
            Fact::Day(_) => FactKey::Day,
            Fact::Resolved { host, .. } => FactKey::Resolved(host.clone()),
            Fact::Refused { object, .. } => FactKey::Refused(object.clone()),
            Fact::Rejected(_) => FactKey::Rejected,
            Fact::NoAuthority => FactKey::NoAuthority,
            Fact::SecretReader { account, .. } => FactKey::SecretReader(account.clone()),
        }
    }
}

//! What is fetched, and from where.

use std::sync::Arc;
use std::time::Duration;

use navarch_model::Name;
use navarch_model::fact::{Fact, FactKey, TrustBundle};
use navarch_model::mesh::{CertificateSource, MeshConfig, bundle_url};
use serde::{Deserialize, Serialize};

/// How long keys are good before they are fetched again, give or take a tenth.
pub const REFRESH: Duration = Duration::from_secs(20 * 60);

/// What somebody publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Keys that tokens of an issuer are signed with.
    Keys,
    /// Roots of a trust domain.
    Roots,
}

/// What is fetched, and from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub what: What,
    pub url: String,
}

impl Published {
    pub fn keys(url: String) -> Self {
        Published { what: What::Keys, url }
    }

    /// The roots that a mesh trusts and does not state itself.
    pub fn roots_of(mesh: &MeshConfig) -> impl Iterator<Item = Self> {
        mesh.ca_certificates.iter().filter_map(|data| match data.certificate_data.as_ref()? {
            CertificateSource::SpiffeBundleUrl(url) => {
                Some(Published { what: What::Roots, url: bundle_url(url) })
            }
            CertificateSource::Pem(_) => None,
        })
    }

    fn name(&self) -> Name {
        Name::from(self.url.as_str())
    }

    /// What the world is told once it is there.
    pub fn fact(&self, text: &Arc<str>) -> Fact {
        match self.what {
            What::Keys => Fact::Jwks { source: self.name(), keys: text.clone() },
            What::Roots => {
                let bundle = TrustBundle { roots: text.clone(), lists: None };
                Fact::TrustBundle { domain: self.name(), bundle }
            }
        }
    }

    /// What the world was told of it.
    pub fn fact_key(&self) -> FactKey {
        match self.what {
            What::Keys => FactKey::Jwks(self.name()),
            What::Roots => FactKey::TrustBundle(self.name()),
        }
    }

    /// What the world was told if it cannot be fetched.
    pub fn unfetched_key(&self) -> FactKey {
        FactKey::Unfetched(self.name())
    }

    /// What the world is told if it cannot be fetched.
    pub fn unfetched(&self, reason: Arc<str>) -> Fact {
        Fact::Unfetched { source: self.name(), reason }
    }
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// A key set, or roots as PEM.
    pub text: Arc<str>,
    /// Grows with every change, if there is one.
    pub sequence: Option<u64>,
    /// How long it is good before it is fetched again.
    pub refresh: Duration,
}

impl Default for Fetched {
    fn default() -> Self {
        Fetched { text: Arc::from(""), sequence: None, refresh: REFRESH }
    }
}

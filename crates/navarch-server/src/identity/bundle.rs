//! The roots of the authority as a fact: they go the way of everything else, so that the watermark of a
//! proxy says whether it has them.

use std::sync::Arc;

use navarch_model::document::WrittenIn;
use navarch_model::fact::{Fact, FactKey};
use navarch_model::{ClusterId, Name};
use navarch_sources::Source;
use navarch_sources::memory::Memory;
use parking_lot::Mutex;

/// States which roots are trusted.
pub struct Bundle {
    facts: Memory,
    stated: Mutex<Option<(Name, Arc<str>)>>,
}

impl Bundle {
    /// A bundle of which nothing is known yet, and which nobody waits for.
    #[must_use]
    pub fn new() -> Self {
        let name = "certificate authority";
        let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
        facts.complete();
        Bundle { facts, stated: Mutex::default() }
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.facts.clone())
    }

    /// The roots of a trust domain are these, and of no other one is anything known. Says whether that is
    /// news.
    pub fn state(&self, domain: &str, roots: &str) -> bool {
        let mut stated = self.stated.lock();
        if let Some((known, pem)) = &*stated {
            if **known == *domain && **pem == *roots {
                return false;
            }
            if **known != *domain {
                self.facts.retract(FactKey::TrustBundle(known.clone()));
            }
        }
        let (domain, roots): (Name, Arc<str>) = (domain.into(), roots.into());
        self.facts.state(Fact::TrustBundle { domain: domain.clone(), roots: roots.clone() });
        *stated = Some((domain, roots));
        true
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

//! The roots of the authority as a fact: they go the way of everything else, so that the watermark of a
//! proxy says whether it has them.

use std::sync::Arc;

use navarch_model::document::WrittenIn;
use navarch_model::fact::{Fact, FactKey, TrustBundle};
use navarch_model::{ClusterId, Name};
use navarch_sources::Source;
use navarch_sources::memory::Memory;
use parking_lot::Mutex;

/// States which roots are trusted.
pub struct Bundle {
    facts: Memory,
    stated: Mutex<Option<(Name, TrustBundle)>>,
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

    /// A trust domain is verified by this, and of no other one is anything known. Says whether that is news.
    pub fn state(&self, domain: &str, roots: &str, lists: Option<&Arc<str>>) -> bool {
        let mut stated = self.stated.lock();
        if let Some((known, bundle)) = &*stated {
            let same = *bundle.roots == *roots && bundle.lists.as_ref() == lists;
            if **known == *domain && same {
                return false;
            }
            if **known != *domain {
                self.facts.retract(FactKey::TrustBundle(known.clone()));
            }
        }
        let domain = Name::from(domain);
        let bundle = TrustBundle { roots: roots.into(), lists: lists.cloned() };
        self.facts.state(Fact::TrustBundle { domain: domain.clone(), bundle: bundle.clone() });
        *stated = Some((domain, bundle));
        true
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

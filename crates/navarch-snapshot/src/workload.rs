//! What the registry knows of a proxy: its labels, its locality and the services it backs.

use std::collections::BTreeMap;

use navarch_model::Name;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;

use crate::bound::Instance;
use crate::view::View;

/// A proxy as configuration sees it, put together from its own statement and the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyWorkload {
    /// Labels for selectors, with those of its topology.
    pub labels: BTreeMap<Name, Name>,
    pub locality: Locality,
    /// What it serves, in the order that decides conflicts.
    pub instances: Vec<Instance>,
}

/// Looks a proxy up.
pub fn of_proxy(_view: &View<'_>, facts: &ProxyFacts) -> ProxyWorkload {
    ProxyWorkload { labels: facts.labels.clone(), locality: facts.locality.clone(), instances: Vec::new() }
}

//! What a change made anew.

use std::collections::BTreeSet;

use navarch_model::Name;

/// Hosts whose parts were put together again.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub service_hosts: BTreeSet<Name>,
    pub endpoint_hosts: BTreeSet<Name>,
    pub route_hosts: BTreeSet<Name>,
    pub rule_hosts: BTreeSet<Name>,
    /// Hosts that routes send traffic to.
    pub destinations: BTreeSet<Name>,
}

impl Touched {
    /// How many there are; a host counts once for each kind of part.
    pub fn len(&self) -> usize {
        let Touched { service_hosts, endpoint_hosts, route_hosts, rule_hosts, destinations } = self;
        [service_hosts, endpoint_hosts, route_hosts, rule_hosts, destinations].map(BTreeSet::len).iter().sum()
    }
}

//! Where sets of routes send the traffic of sidecars.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::route::{HttpRule, RouteSet};
use navarch_model::{Hashed, Name};

use crate::bound::DestinationUse;

/// Which hosts the routes send traffic to, on which ports, for clients in which namespaces.
pub(super) fn destination_uses(set: &RouteSet) -> Vec<Arc<Hashed<DestinationUse>>> {
    type Sources = Option<BTreeSet<Name>>;
    let mut uses: BTreeMap<(Name, Sources), BTreeSet<u16>> = BTreeMap::new();
    for destination in set.destinations() {
        let sources = destination.http.and_then(source_namespaces);
        let ports = uses.entry((destination.to.host.clone(), sources)).or_default();
        ports.insert(destination.to.port.unwrap_or(0));
    }
    let uses = uses.into_iter().map(|((host, source_namespaces), ports)| DestinationUse {
        host,
        ports,
        source_namespaces,
        precedence: set.precedence.clone(),
        route_hosts: set.hosts.clone(),
        export_to: set.export_to.clone(),
    });
    uses.map(Hashed::new).map(Arc::new).collect()
}

/// The namespaces of clients that a rule is for, if one of its conditions names one.
fn source_namespaces(rule: &HttpRule) -> Option<BTreeSet<Name>> {
    let stated = rule.matches.iter().filter_map(|matched| matched.client.namespace.clone());
    let names: BTreeSet<Name> = stated.collect();
    (!names.is_empty()).then_some(names)
}

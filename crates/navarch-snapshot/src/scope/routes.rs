//! Which routes apply to a client, in the order in which they decide conflicts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use navarch_model::route::{Audience, Parent, RouteSet};
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

use super::{EgressListener, Scope};
use crate::host::{by_specificity, covers, is_wildcard};
use crate::part::Bucket;
use crate::view::View;

type SharedRoutes = Arc<Hashed<RouteSet>>;

impl Scope {
    /// Routes for exactly this host that the client uses, those that count first; the sets after them have
    /// lost.
    ///
    /// Private ones of the client's namespace come before those exported to the namespace, and those before
    /// public ones; each oldest first.
    pub fn routes(&self, view: &View<'_>, host: &str) -> Vec<SharedRoutes> {
        self.ordered(view, view.routes(host), |set| self.imports_routes(set))
    }

    /// As [`Scope::routes`], for what one egress listener imports.
    pub fn listener_routes(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        host: &str,
    ) -> Vec<SharedRoutes> {
        self.ordered(view, view.routes(host), |set| listener.imports_routes(set))
    }

    /// Routes by exact host, for all hosts of a bucket, also those that no service has.
    pub fn listener_routes_in(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        bucket: Bucket,
    ) -> BTreeMap<Name, Vec<SharedRoutes>> {
        let hosts = view
            .routes_in(bucket)
            .iter()
            .map(|(host, sets)| (host.clone(), self.ordered(view, sets, |set| listener.imports_routes(set))));
        hosts.filter(|(_, sets)| !sets.is_empty()).collect()
    }

    /// Routes with a wildcard host that the client uses, in the order of precedence.
    pub fn wildcard_routes(&self, view: &View<'_>) -> Vec<SharedRoutes> {
        self.ordered(view, view.wildcard_routes(), |set| self.imports_routes(set))
    }

    /// As [`Scope::wildcard_routes`], for what one egress listener imports.
    pub fn listener_wildcard_routes(&self, view: &View<'_>, listener: &EgressListener) -> Vec<SharedRoutes> {
        self.ordered(view, view.wildcard_routes(), |set| listener.imports_routes(set))
    }

    /// The set that routes a service's traffic: the first for its exact host, else the first of the most
    /// specific wildcard. Without a listener: of all that the client imports.
    pub fn route_set_for(
        &self,
        view: &View<'_>,
        listener: Option<&EgressListener>,
        host: &str,
    ) -> Option<SharedRoutes> {
        let imported = |set: &RouteSet| match listener {
            Some(listener) => listener.imports_routes(set),
            None => self.imports_routes(set),
        };
        if let Some(set) = self.ordered(view, view.routes(host), imported).into_iter().next() {
            return Some(set);
        }
        let mut best: Option<(Name, SharedRoutes)> = None;
        for set in self.ordered(view, view.wildcard_routes(), imported) {
            let covering = set.hosts.iter().filter(|pattern| is_wildcard(pattern) && covers(pattern, host));
            let Some(pattern) = covering.min_by(|a, b| by_specificity(a, b)).cloned() else { continue };
            if best.as_ref().is_none_or(|(known, _)| by_specificity(&pattern, known).is_lt()) {
                best = Some((pattern, set));
            }
        }
        best.map(|(_, set)| set)
    }

    /// Routes bound to a gateway or a listener that this client uses, in the order in which they are put
    /// together.
    pub fn gateway_routes(&self, view: &View<'_>, gateway: &Parent) -> Vec<SharedRoutes> {
        self.ordered(view, &view.gateway_routes(gateway), |_| true)
    }

    /// The same for some of those routes, oldest first.
    pub fn routes_in_order(&self, view: &View<'_>, sets: &[SharedRoutes]) -> Vec<SharedRoutes> {
        self.ordered(view, sets, |_| true)
    }

    fn imports_routes(&self, set: &RouteSet) -> bool {
        self.of_sidecar()
            .is_none_or(|imports| imports.egress.iter().any(|listener| listener.imports_routes(set)))
    }

    fn ordered(
        &self,
        view: &View<'_>,
        sets: &[SharedRoutes],
        accept: impl Fn(&RouteSet) -> bool,
    ) -> Vec<SharedRoutes> {
        let visible = sets.iter().filter(|set| self.may_use(view, &set.export_to) && accept(set));
        let mut visible: Vec<SharedRoutes> = visible.cloned().collect();
        // Stable: of those that reach as far the oldest stays first.
        visible.sort_by_key(|set| self.reach(view, set));
        visible
    }

    /// How far routes reach, from the point of view of the client.
    fn reach(&self, view: &View<'_>, set: &RouteSet) -> Reach {
        let consumers = set.audience == Audience::ProducerOrConsumer;
        match &set.export_to {
            Visibility::Public if consumers && self.is_in(view, set.namespace()) => Reach::Consumer,
            Visibility::Public => Reach::Public,
            _ if self.is_in(view, set.namespace()) => Reach::Private,
            _ => Reach::Exported,
        }
    }

    /// Why, of two sets that the client uses, the first routes a host: what [`Scope::route_set_for`] decides
    /// by, step by step.
    pub fn why_before(&self, view: &View<'_>, host: &str, first: &RouteSet, second: &RouteSet) -> String {
        let [ours, theirs] = [first, second].map(|set| most_specific(set, host));
        let [near, far] = [first, second].map(|set| self.reach(view, set));
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if by_specificity(ours, theirs).is_lt() => {
                format!("its host {ours} is more specific than {theirs}")
            }
            _ if near != far => format!("it is {near}, and this one is {far}"),
            _ if first.precedence.created_at < second.precedence.created_at => "it is older".to_owned(),
            _ => "both are as old, and it comes first by name".to_owned(),
        }
    }
}

/// How far routes reach. Those that reach less far come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Private,
    Exported,
    /// Public routes that the client's namespace made for itself.
    Consumer,
    Public,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Private => "private to the client's namespace",
            Reach::Exported => "exported to the client's namespace",
            Reach::Consumer => "a consumer route of the client's namespace",
            Reach::Public => "public",
        })
    }
}

/// The most specific of the hosts that covers a host.
fn most_specific<'s>(set: &'s RouteSet, host: &str) -> Option<&'s Name> {
    let covering = set.hosts.iter().filter(|own| covers(own, host));
    covering.min_by(|a, b| by_specificity(a, b))
}

impl EgressListener {
    fn imports_routes(&self, set: &RouteSet) -> bool {
        self.hosts.includes_routes(&set.hosts, set.namespace())
    }
}

//! From a set of routes to the input of its translation: what its backends are, and how requests stick to
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::networking::{ConsistentHashLb, HttpRetry};
use navarch_model::route::{HttpRule, RouteSet};
use navarch_model::service::Service;
use navarch_model::{EffectiveRule, Hashed, Name};
use navarch_translate::routes::hash_policy;
use navarch_translate::routes::{
    DestinationService, HttpRoutes, HttpRoutesInput, RouteContext, Routes, Source,
};

use super::route_client::Client;
use crate::engine::Cx;

/// The retry policy of the mesh.
pub(crate) fn default_retries(cx: &Cx<'_>) -> Option<Arc<Hashed<HttpRetry>>> {
    cx.view().mesh().config.default_http_retry_policy.clone().map(|retries| Arc::new(Hashed::new(retries)))
}

/// What routes need to know of a service.
pub(crate) fn destination_service(service: &Service) -> DestinationService {
    DestinationService {
        only_port: service.only_port(),
        external_name: service.external_name.clone(),
        session: service.persistent_session.clone(),
    }
}

/// The routes of a set in a context. `lookup` says what is behind the host of a destination.
pub(crate) fn routes_of(
    cx: &Cx<'_>,
    client: &Client,
    set: &Arc<Hashed<RouteSet>>,
    context: RouteContext,
    lookup: impl Fn(&str) -> Option<DestinationService>,
) -> Routes {
    for namespace in set.http_clients().filter_map(|matched| matched.namespace.as_ref()) {
        client.scope.ask(cx.view(), namespace);
    }
    let mut services = BTreeMap::new();
    for host in destination_hosts(set) {
        if let Some(service) = lookup(host).filter(|service| *service != DestinationService::default()) {
            services.insert(host.clone(), service);
        }
    }
    cx.get::<HttpRoutes>(&HttpRoutesInput {
        set: set.clone(),
        context,
        source: source(cx, client, set),
        services,
        hashes: hashes(cx, client, set),
    })
}

/// Who the client is, as far as the conditions of a set look at it.
fn source(cx: &Cx<'_>, client: &Client, set: &RouteSet) -> Source {
    let keys = set.http_clients().flat_map(|matched| matched.labels.keys()).map(|key| &**key);
    let labels = client.labels.of(cx.view(), keys);
    let by_namespace = set.http_clients().any(|matched| matched.namespace.is_some());
    let namespace = (by_namespace || cx.is_exact()).then(|| client.namespace.clone());
    Source { namespace, labels }
}

/// Hosts that requests are sent to, each once.
pub(crate) fn destination_hosts(set: &RouteSet) -> BTreeSet<&Name> {
    set.http_destinations().map(|destination| &destination.to.host).collect()
}

/// Consistent hashing of the backends, by index of rule and backend.
fn hashes(cx: &Cx<'_>, client: &Client, set: &RouteSet) -> BTreeMap<(usize, usize), ConsistentHashLb> {
    let mut found = BTreeMap::new();
    let forwarding = set.http.iter().map(HttpRule::forward).enumerate();
    for (index, forward) in forwarding.filter_map(|(index, forward)| Some((index, forward?))) {
        for (position, to) in forward.backends.iter().enumerate() {
            let Some(to) = to.backend.service() else { continue };
            let Some(rule) = destination_rule(cx, client, &to.host) else { continue };
            if let Some(hash) = hash_policy::for_backend(&rule.spec, to) {
                found.insert((index, position), hash.clone());
            }
        }
    }
    found
}

/// The DestinationRule for a host, if the client knows a service with that host.
pub(crate) fn destination_rule(
    cx: &Cx<'_>,
    client: &Client,
    host: &str,
) -> Option<Arc<Hashed<EffectiveRule>>> {
    let service = client.scope.service(cx.view(), host)?;
    client.scope.destination_rule(cx.view(), &service, Some(&client.labels))
}

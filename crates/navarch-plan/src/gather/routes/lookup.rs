//! From a VirtualService to the input of its translation: what destinations are, and how requests stick to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::networking::{ConsistentHashLb, HttpRetry, VirtualService};
use navarch_model::service::Service;
use navarch_model::{EffectiveRule, Hashed, Name};
use navarch_snapshot::bound::BoundVirtualService;
use navarch_translate::routes::hash_policy;
use navarch_translate::routes::{
    DestinationService, HttpRoutes, HttpRoutesInput, RouteContext, Routes, Source,
};

use super::Client;
use crate::engine::Cx;

/// The retry policy of the mesh.
pub(super) fn default_retries(cx: &Cx<'_>) -> Option<Arc<Hashed<HttpRetry>>> {
    cx.view().mesh().config.default_http_retry_policy.clone().map(|retries| Arc::new(Hashed::new(retries)))
}

/// What routes need to know of a service.
pub(super) fn destination_service(service: &Service) -> DestinationService {
    let only_port = match service.ports.as_slice() {
        [port] => Some(port.port),
        _ => None,
    };
    DestinationService {
        only_port,
        external_name: service.external_name.clone(),
        session: service.persistent_session.clone(),
    }
}

/// The routes of a VirtualService in a context. `lookup` says what is behind the host of a destination.
pub(super) fn routes_of(
    cx: &Cx<'_>,
    client: &Client,
    rule: &BoundVirtualService,
    context: RouteContext,
    lookup: impl Fn(&str) -> Option<DestinationService>,
) -> Routes {
    let spec = &rule.config.spec;
    for matched in spec.http.iter().flat_map(|route| &route.match_) {
        if !matched.source_namespace.is_empty() {
            client.scope.ask(cx.view(), &matched.source_namespace);
        }
    }
    let mut services = BTreeMap::new();
    for host in destination_hosts(spec) {
        if let Some(service) = lookup(host).filter(|service| *service != DestinationService::default()) {
            services.insert(Name::from(host), service);
        }
    }
    cx.get::<HttpRoutes>(&HttpRoutesInput {
        virtual_service: rule.config.clone(),
        context,
        source: Source::mentioned(spec, &client.namespace, &client.labels),
        services,
        hashes: hashes(cx, client, spec),
    })
}

/// Hosts that requests are sent to, each once.
pub(super) fn destination_hosts(spec: &VirtualService) -> BTreeSet<&str> {
    spec.http
        .iter()
        .flat_map(|route| {
            let forwarded = route.route.iter().filter_map(|to| to.destination.as_ref());
            let mirrored = route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref());
            forwarded.chain(&route.mirror).chain(mirrored)
        })
        .map(|destination| destination.host.as_str())
        .collect()
}

/// Consistent hashing of the destinations, by index of route and destination.
fn hashes(cx: &Cx<'_>, client: &Client, spec: &VirtualService) -> BTreeMap<(usize, usize), ConsistentHashLb> {
    let mut found = BTreeMap::new();
    for (index, route) in spec.http.iter().enumerate() {
        for (position, to) in route.route.iter().enumerate() {
            let Some(destination) = &to.destination else { continue };
            let Some(rule) = destination_rule(cx, client, &destination.host) else { continue };
            if let Some(hash) = hash_policy::for_destination(&rule.spec, destination) {
                found.insert((index, position), hash.clone());
            }
        }
    }
    found
}

/// The DestinationRule for a host, if the client knows a service with that host.
pub(super) fn destination_rule(
    cx: &Cx<'_>,
    client: &Client,
    host: &str,
) -> Option<Arc<Hashed<EffectiveRule>>> {
    let service = client.scope.service(cx.view(), host)?;
    client.scope.destination_rule(cx.view(), &service, Some(&client.labels))
}

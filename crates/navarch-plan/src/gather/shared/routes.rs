//! Routes: what they depend on of a client, and from a set of routes to the input of its translation: what
//! its backends are, and how requests stick to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::networking::{ConsistentHashLb, HttpRetry};
use navarch_model::route::{HttpRule, RouteSet};
use navarch_model::service::Service;
use navarch_model::{EffectiveRule, Hashed, Name};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::http_connection_manager::{Direction, Headers};
use navarch_translate::routes::domains::{self, DomainView};
use navarch_translate::routes::hash_policy;
use navarch_translate::routes::{
    DestinationService, HttpRoutes, HttpRoutesInput, MergedRoutes, MergedRoutesInput, RouteContext, Routes,
    Source,
};

use crate::class::Class;
use crate::engine::Cx;

/// Services and sets of routes shared with the snapshot.
pub type SharedService = Arc<Hashed<Service>>;
pub type SharedRoutes = Arc<Hashed<RouteSet>>;

/// What routes depend on of a client. Clients that differ in nothing else share their route configurations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteClient {
    pub scope: Arc<Hashed<Scope>>,
    pub namespace: Name,
    /// Labels of the client, as far as they are known.
    pub labels: ClientLabels,
    pub domains: DomainView,
    pub include_request_attempt_count: bool,
    pub x_forwarded_host: bool,
    /// The proxy has a listener for requests with absolute URLs.
    pub http_proxy: bool,
    /// Requests say in a header whose they are, for the metrics of servers.
    pub tells_peers: bool,
}

impl RouteClient {
    /// The client that a class is.
    pub fn of(cx: &Cx<'_>, class: &Class, scope: &Arc<Hashed<Scope>>) -> Arc<Hashed<Self>> {
        let facts = &class.facts;
        let mesh = &cx.view().mesh().config;
        let headers = Headers::new(Direction::Outbound, &facts.proxy_config(mesh));
        Arc::new(Hashed::new(RouteClient {
            scope: scope.clone(),
            namespace: facts.namespace.clone(),
            labels: cx.client_labels(class.labels()),
            domains: DomainView {
                dns_domain: facts.dns_domain.clone(),
                ip_mode: facts.ip_mode(),
                auto_allocated_addresses: facts.dns_capture.is_some(),
            },
            include_request_attempt_count: headers.include_request_attempt_count,
            x_forwarded_host: headers.append_x_forwarded_host,
            http_proxy: facts.http_proxy_port(mesh).is_some(),
            tells_peers: facts.standard_metrics,
        }))
    }

    /// The same with these known labels.
    pub fn with(&self, labels: &ClientLabels) -> Self {
        RouteClient { labels: labels.clone(), ..self.clone() }
    }

    /// The client elsewhere that has most in common with this one.
    pub fn elsewhere(&self, cx: &Cx<'_>) -> Option<Arc<Hashed<Self>>> {
        let dns_domain = domains::elsewhere(&self.domains.dns_domain, &self.namespace)?;
        let scope = cx.elsewhere(&self.scope)?;
        let namespace = scope.namespace().clone();
        Some(Arc::new(Hashed::new(RouteClient {
            scope,
            domains: DomainView { dns_domain, ..self.domains.clone() },
            namespace,
            ..self.clone()
        })))
    }
}

/// The retry policy of the mesh.
pub fn default_retries(cx: &Cx<'_>) -> Option<Arc<Hashed<HttpRetry>>> {
    cx.view().mesh().config.default_http_retry_policy.clone().map(|retries| Arc::new(Hashed::new(retries)))
}

/// What routes need to know of a service.
pub fn destination_service(service: &Service) -> DestinationService {
    DestinationService {
        only_port: service.only_port(),
        external_name: service.external_name.clone(),
        session: service.persistent_session.clone(),
        mesh_external: service.mesh_external,
    }
}

/// The routes of a set in a context. `lookup` says what is behind the host of a destination.
pub fn routes_of(
    cx: &Cx<'_>,
    client: &RouteClient,
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
    // What is not known here may be anywhere.
    let is_untold = |host: &Name| lookup(host).is_none_or(|service| service.mesh_external);
    let mirrored = client.tells_peers.then(|| mirrored_hosts(set)).into_iter().flatten();
    let untold = mirrored.filter(|&host| is_untold(host)).cloned().collect();
    cx.get::<HttpRoutes>(&HttpRoutesInput {
        set: set.clone(),
        context,
        source: source(cx, client, set),
        services,
        hashes: hashes(cx, client, set),
        untold,
    })
}

/// Who the client is, as far as the conditions of a set look at it.
fn source(cx: &Cx<'_>, client: &RouteClient, set: &RouteSet) -> Source {
    let keys = set.http_clients().flat_map(|matched| matched.labels.keys()).map(|key| &**key);
    let labels = client.labels.of(cx.view(), keys);
    let by_namespace = set.http_clients().any(|matched| matched.namespace.is_some());
    let namespace = (by_namespace || cx.is_exact()).then(|| client.namespace.clone());
    Source { namespace, labels }
}

/// Hosts that requests are sent to, each once.
pub fn destination_hosts(set: &RouteSet) -> BTreeSet<&Name> {
    set.http_destinations().map(|destination| &destination.to.host).collect()
}

/// Hosts that copies of requests are sent to.
fn mirrored_hosts(set: &RouteSet) -> impl Iterator<Item = &Name> {
    let forwards = set.http.iter().filter_map(HttpRule::forward);
    let backends = forwards.flat_map(|forward| &forward.mirrors).map(|mirror| &mirror.backend);
    backends.filter_map(|backend| backend.service()).map(|to| &to.host)
}

/// Consistent hashing of the backends, by index of rule and backend.
fn hashes(cx: &Cx<'_>, client: &RouteClient, set: &RouteSet) -> BTreeMap<(usize, usize), ConsistentHashLb> {
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
pub fn destination_rule(cx: &Cx<'_>, client: &RouteClient, host: &str) -> Option<Arc<Hashed<EffectiveRule>>> {
    let service = client.scope.service(cx.view(), host)?;
    client.scope.destination_rule(cx.view(), &service, Some(&client.labels))
}

/// The routes of sets that are put together: those of each host, the most specific host first.
pub fn merged_routes(cx: &Cx<'_>, groups: Vec<Vec<Routes>>) -> Routes {
    match groups.as_slice() {
        [group] if group.len() == 1 => group.first().cloned().unwrap_or_default(),
        _ => cx.get::<MergedRoutes>(&MergedRoutesInput { groups }),
    }
}

//! Gathering of routes.
//!
//! For sidecars, every bucket of hosts contributes encoded virtual hosts to route configurations, one per
//! port; a configuration is put together again only if one of its contributions differs. For gateways, every
//! set of routes contributes routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::proxy::ProxyKind;
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::http_connection_manager::{Direction, Headers};
use navarch_translate::routes::domains::{self, DomainView};

use super::envoy_filters::{FilterTarget, RoutePatchesOf};
use crate::class::Class;
use crate::engine::Cx;
use crate::gather::{gateway, sidecar};
use crate::parts::Parts;

/// What routes depend on of a client. Clients that differ in nothing else share their route configurations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub scope: Arc<Hashed<Scope>>,
    pub namespace: Name,
    /// Labels of the client, as far as they are known.
    pub labels: ClientLabels,
    pub domains: DomainView,
    pub include_request_attempt_count: bool,
    pub x_forwarded_host: bool,
    /// The proxy has a listener for requests with absolute URLs.
    pub http_proxy: bool,
}

impl Client {
    pub fn of(cx: &Cx<'_>, class: &Class, scope: &Arc<Hashed<Scope>>) -> Arc<Hashed<Self>> {
        let facts = &class.facts;
        let mesh = &cx.view().mesh().config;
        let headers = Headers::new(Direction::Outbound, &facts.proxy_config(mesh));
        Arc::new(Hashed::new(Client {
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
        }))
    }
}

impl Client {
    /// The same of which these labels are known.
    pub fn with(&self, labels: &ClientLabels) -> Self {
        Client { labels: labels.clone(), ..self.clone() }
    }

    /// The client elsewhere that has most in common with this one.
    pub fn elsewhere(&self, cx: &Cx<'_>) -> Option<Arc<Hashed<Self>>> {
        let dns_domain = domains::elsewhere(&self.domains.dns_domain, &self.namespace)?;
        let scope = cx.elsewhere(&self.scope)?;
        let namespace = scope.namespace().clone();
        Some(Arc::new(Hashed::new(Client {
            scope,
            domains: DomainView { dns_domain, ..self.domains.clone() },
            namespace,
            ..self.clone()
        })))
    }
}

/// The rules that the virtual hosts of a route configuration were made from, by name of the virtual host or
/// by domain.
pub(crate) fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    configuration: &str,
) -> BTreeMap<String, BTreeSet<Origin>> {
    match class.facts.kind {
        ProxyKind::Sidecar => sidecar::routes::origins(cx, &Client::of(cx, class, scope), configuration),
        ProxyKind::Router => {
            gateway::routes::origins(cx, class, &Client::of(cx, class, scope), configuration)
        }
        ProxyKind::Waypoint | ProxyKind::Ztunnel => BTreeMap::new(),
    }
}

/// The routes of a class.
pub fn routes(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    match class.facts.kind {
        ProxyKind::Sidecar => {
            let patches = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
            sidecar::routes::routes(cx, &Client::of(cx, class, scope), &patches)
        }
        ProxyKind::Router => {
            let patches = cx.gather::<RoutePatchesOf>(&FilterTarget::of(&class.facts));
            gateway::routes::routes(cx, class, &Client::of(cx, class, scope), &patches)
        }
        ProxyKind::Waypoint | ProxyKind::Ztunnel => Parts::default(),
    }
}

//! What has to be sent because something else is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_envoy::{ProxyResources, Resource, XdsType};

use super::{Gate, Stream};
use crate::order;
use crate::response::Protocol;
use crate::type_state::{Context, Outgoing};

impl Stream {
    /// What has to be sent because this is sent.
    pub(super) fn follow_up(&mut self, ty: XdsType, outgoing: &Outgoing, cx: &Context<'_>) {
        if ty == XdsType::Cds {
            self.follow_clusters(outgoing, cx);
        }
        if ty == XdsType::Lds && self.state(XdsType::Rds).returning.is_unanswered() {
            let sent: Vec<_> = outgoing.news.iter().cloned().collect();
            self.need_routes_of(&sent);
        }
        if ty == XdsType::Rds {
            self.follow_routes(outgoing, cx);
        }
        if ty == XdsType::Eds {
            self.follow_assignments(outgoing);
        }
        let secrets = &self.state(XdsType::Sds).subscription;
        if matches!(ty, XdsType::Cds | XdsType::Lds) && secrets.names().len() > 0 {
            // A provider that is created anew waits for its secret, even if Envoy has the secret already.
            let wanted: Vec<_> = secrets.names().cloned().collect();
            let mentioned = wanted
                .iter()
                .filter(|name| outgoing.news.iter().any(|resource| order::mentions(resource, name)))
                .map(|name| &**name);
            self.types[XdsType::Sds].resend(mentioned, cx.resources.set(XdsType::Sds));
        }
    }

    /// A cluster that is created anew waits for the endpoints of its localities, even if Envoy follows the
    /// collections already, for another cluster or the one before.
    fn follow_assignments(&mut self, outgoing: &Outgoing) {
        let mentioned = |glob: &&Arc<str>| outgoing.news.iter().any(|load| order::mentions(load, glob));
        let collections = self.state(XdsType::Leds).subscription.globs();
        let again: Vec<_> = collections.filter(mentioned).cloned().collect();
        if !again.is_empty() {
            self.types[XdsType::Leds].resend_globs(again);
        }
    }

    /// A changed route configuration has lost the virtual hosts that were discovered for it,
    /// `<routes>/<host>`.
    fn follow_routes(&mut self, outgoing: &Outgoing, cx: &Context<'_>) {
        if !self.state(XdsType::Vhds).requested {
            return;
        }
        let hosts = &mut self.types[XdsType::Vhds];
        let of = |name: &Arc<str>| name.rsplit_once('/').map(|(routes, _)| Arc::<str>::from(routes));
        let changed: BTreeSet<_> = outgoing.news.iter().map(|routes| routes.name()).collect();
        let lost = hosts.subscription.names().filter(|name| of(name).is_some_and(|r| changed.contains(&r)));
        let lost: Vec<_> = lost.cloned().collect();
        hosts.resend(lost.iter().map(|name| &**name), cx.resources.set(XdsType::Vhds));
        let alone =
            |routes: &&Arc<Resource>| !lost.iter().any(|name| of(name).as_ref() == Some(routes.name()));
        let alone: Vec<_> = outgoing.news.iter().filter(alone).cloned().collect();
        self.release_routes(&alone, cx.resources);
    }

    /// The client has asked for virtual hosts for the first time: the routes that it names wait for them.
    pub(super) fn release_known_routes(&mut self) {
        let Some(resources) = self.resources.clone() else { return };
        let known = resources.set(XdsType::Rds);
        let routes = self.state(XdsType::Rds).subscription.names().filter_map(|name| known.get(name));
        let routes: Vec<_> = routes.cloned().collect();
        self.release_routes(&routes, &resources);
    }

    /// Envoy takes a route configuration with VHDS into use when it has heard of any name under it,
    /// `<routes>/...`, be it that of a host or of something that is gone. It names a host when a request
    /// needs one, so before that there is nothing to send; and it asks for nothing but for the type, once on
    /// a stream.
    fn release_routes(&mut self, routes: &[Arc<Resource>], resources: &ProxyResources) {
        if self.protocol != Protocol::Delta || !self.client.asks_for_hosts_on_demand() {
            return;
        }
        for routes in routes.iter().filter(|routes| order::discovers_hosts(&routes.body())) {
            let hosts = resources.set(XdsType::Vhds);
            self.types[XdsType::Vhds].anticipate(&format!("{}/", routes.name()), hosts);
        }
    }

    fn follow_clusters(&mut self, outgoing: &Outgoing, cx: &Context<'_>) {
        let before = outgoing.before.as_ref();
        let substitutes: Vec<_> = match cx.protocol {
            Protocol::Sotw => self.state(XdsType::Cds).substitutes().cloned().collect(),
            Protocol::Delta => Vec::new(),
        };
        // A client that had no cluster with endpoints yet has not asked for any, but will on this stream.
        let aggregated = self.state(XdsType::Lds).requested || self.state(XdsType::Rds).requested;
        let is_first = before.is_none();
        let endpoints = &mut self.types[XdsType::Eds];
        let follows = endpoints.requested || (aggregated && !is_first);
        let mut slow = false;
        for cluster in outgoing.news.iter().chain(&substitutes) {
            let body = cluster.body();
            let facts = order::cluster_facts(cluster.name(), &body);
            slow |= facts.slow_to_warm && before.is_none_or(|before| before.get(cluster.name()).is_none());
            let Some(name) = facts.endpoints else { continue };
            let known = cx.resources.set(XdsType::Eds);
            if !follows {
                self.endpoints_unasked = true;
            } else if endpoints.subscription.covers(name) {
                // A changed cluster warms until an assignment arrives after it, and delta Envoy does not ask
                // for it.
                endpoints.resend([name], known);
            } else if cx.client.asks_for_endpoints_of_clusters() {
                // The client would ask for them, but routes to the cluster must not be there before it is
                // warm.
                endpoints.anticipate(name, known);
            }
        }
        endpoints.clusters_sent |= (follows || !is_first) && !outgoing.news.is_empty();
        if slow {
            self.gate = Some(Gate { number: self.number, until: cx.now + order::WAIT_MAX, is_first });
        }
    }
}

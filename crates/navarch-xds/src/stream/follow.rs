//! What has to be sent because something else is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_envoy::{ProxyResources, Resource, XdsType, hosts};

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
        if matches!(ty, XdsType::Cds | XdsType::Lds) && secrets.explicit() > 0 {
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

    /// Virtual hosts follow the route configuration that they are for, `<routes>/<host>`: one that is new to
    /// the client has none yet, and one that has changed may have lost those that were discovered for it.
    fn follow_routes(&mut self, outgoing: &Outgoing, cx: &Context<'_>) {
        if !self.state(XdsType::Vhds).requested {
            return;
        }
        let known = cx.resources.set(XdsType::Vhds);
        let hosts = &mut self.types[XdsType::Vhds];
        let changed: BTreeSet<&str> = outgoing.news.iter().map(|routes| &**routes.name()).collect();
        let is_lost = |name: &str| hosts::routes_of(name).is_some_and(|of| changed.contains(of));
        let asked = hosts.subscription.names().filter(|name| is_lost(name)).cloned();
        let all = changed.iter().flat_map(|routes| hosts::of_routes(known, routes));
        let wanted = all.filter(|host| hosts.subscription.wants(host)).map(|host| host.name().clone());
        let lost: BTreeSet<Arc<str>> = asked.chain(wanted).collect();
        hosts.resend(lost.iter().map(|name| &**name), known);
        let alone = |routes: &&Arc<Resource>| {
            !lost.iter().any(|name| hosts::routes_of(name) == Some(&**routes.name()))
        };
        let alone: Vec<_> = outgoing.news.iter().filter(alone).cloned().collect();
        self.release_routes(&alone, cx.resources);
    }

    /// The client has asked for virtual hosts for the first time: the routes that it names wait for them.
    pub(super) fn follow_known_routes(&mut self) {
        let named: Vec<_> = self.state(XdsType::Rds).subscription.names().cloned().collect();
        // Routes that are new to a client that has come back have none of the hosts that it says it holds.
        let sent: BTreeSet<Arc<str>> =
            self.state(XdsType::Rds).unanswered().map(|routes| routes.name().clone()).collect();
        let state = &mut self.types[XdsType::Vhds];
        state.returning.doubt_if(|host| hosts::routes_of(host).is_some_and(|of| sent.contains(of)));
        state.follow_routes(&named, &[]);
        let Some(resources) = self.resources.clone() else { return };
        let known = resources.set(XdsType::Rds);
        let routes: Vec<_> = named.iter().filter_map(|name| known.get(name)).cloned().collect();
        self.release_routes(&routes, &resources);
    }

    /// Envoy takes a route configuration with VHDS into use when it has heard of any name under it,
    /// `<routes>/...`, be it that of a host or of something that is gone. If none of its hosts is sent
    /// because of it, there is nothing to send: Envoy names a host when a request needs one, and before that
    /// it asks for nothing but for the type, once on a stream.
    fn release_routes(&mut self, routes: &[Arc<Resource>], resources: &ProxyResources) {
        if self.protocol != Protocol::Delta || !self.client.asks_for_hosts_on_demand() {
            return;
        }
        let hosts = resources.set(XdsType::Vhds);
        let state = &mut self.types[XdsType::Vhds];
        for routes in routes.iter().filter(|routes| order::discovers_hosts(&routes.body())) {
            let is_sent = |host: &Arc<Resource>| state.subscription.wants(host);
            if !hosts::of_routes(hosts, routes.name()).any(is_sent) {
                state.anticipate(&format!("{}/", routes.name()), hosts);
            }
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

//! Clients that come back with what they hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, XdsType};

use super::Stream;
use crate::client::Holds;
use crate::order;

impl Stream {
    /// Decides whether what the client says it holds has to be sent, see [`ClientRules::holds`].
    pub(super) fn judge_held(&mut self, ty: XdsType, now: Instant) {
        if !self.state(ty).returning.is_unanswered() {
            return;
        }
        match self.client.holds(ty) {
            Holds::Nothing => {}
            Holds::Enough => self.types[ty].returning.keep_held([]),
            Holds::UnlessReferrerSent => {
                self.types[ty].returning.keep_held([]);
                let sent: Vec<_> = self.state(XdsType::Lds).unanswered().cloned().collect();
                self.need_routes_of(&sent);
            }
            Holds::UnlessWarming if self.state(XdsType::Cds).requested => {
                let needed = self.endpoints_of_unanswered_clusters();
                let started = self.state(XdsType::Lds).requested;
                let returning = &mut self.types[ty].returning;
                returning.keep_held(needed.iter().map(String::as_str));
                returning.start_unknown_until = (!started).then(|| now + order::STARTUP_WAIT_MAX);
            }
            Holds::UnlessWarming => {}
        }
    }

    /// A listener that is sent may bring a provider of routes that waits for them.
    pub(super) fn need_routes_of(&mut self, listeners: &[Arc<Resource>]) {
        let is_needed = |name: &str| listeners.iter().any(|listener| order::mentions(listener, name));
        self.types[XdsType::Rds].returning.need_if(is_needed);
    }

    pub(super) fn endpoints_of_unanswered_clusters(&self) -> BTreeSet<String> {
        let endpoints = |cluster: &Arc<Resource>| {
            order::cluster_facts(cluster.name(), &cluster.body()).endpoints.map(str::to_owned)
        };
        self.state(XdsType::Cds).unanswered().filter_map(endpoints).collect()
    }

    /// A client that has lost a cluster drops its endpoints, and may not have read yet that the cluster is
    /// back. It will ask again, but routes to the cluster must not be there before it is warm.
    pub(super) fn keep_endpoints_of_sent_clusters(&mut self, dropped: &[Arc<str>]) {
        let Some(resources) = &self.resources else { return };
        if dropped.is_empty() || !self.client.asks_for_endpoints_of_clusters() {
            return;
        }
        let dropped: BTreeSet<&str> = dropped.iter().map(|name| &**name).collect();
        let mut back = self.endpoints_of_unanswered_clusters();
        back.retain(|name| dropped.contains(&**name));
        let known = resources.set(XdsType::Eds);
        let state = &mut self.types[XdsType::Eds];
        back.iter().for_each(|name| state.anticipate(name, known));
    }
}

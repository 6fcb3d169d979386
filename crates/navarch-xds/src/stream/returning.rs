//! Clients that come back with what they hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, XdsType};

use super::Stream;
use crate::client::Holds;
use crate::order;
use crate::type_state::TypeState;

impl Stream {
    /// The client has asked for a type for the first time.
    pub(super) fn has_asked(&mut self, ty: XdsType, now: Instant) {
        if self.returned.is_some() || self.state(ty).returning.may_hold_something() {
            self.returned = Some(now);
        }
        if ty == XdsType::Eds && self.returned.is_some() && self.endpoints_unasked {
            self.anticipate_endpoints_of_sent_clusters();
        }
    }

    /// Whether the client has come back and may hold something of a type that it has not asked for yet.
    pub(super) fn may_still_ask(&self, ty: XdsType, now: Instant) -> bool {
        !self.state(ty).requested && self.returned.is_some_and(|at| now < at + order::RETURN_WAIT_MAX)
    }

    /// When the client will not ask for another type any more, if something waits for that.
    pub(super) fn has_asked_for_all_at(&self) -> Option<Instant> {
        let waits = |state: &TypeState| !state.leaving().is_empty() || state.waiting_since.is_some();
        let returned = self.returned.filter(|_| self.types.iter().any(waits))?;
        Some(returned + order::RETURN_WAIT_MAX)
    }

    /// Whether a client that has come back may lack clusters that new routes and listeners refer to.
    ///
    /// An Envoy that returns while a cluster warms asks for its endpoints, and for clusters only when they
    /// have come. And which of the clusters that it is sent first are new to it, it says only with its
    /// request for endpoints.
    pub(super) fn awaits_clusters(&self, now: Instant) -> bool {
        let warms = || self.state(XdsType::Eds).requested && self.may_still_ask(XdsType::Cds, now);
        let is_sent_new = || self.endpoints_unasked && self.may_still_ask(XdsType::Eds, now);
        self.client.asks_for_endpoints_of_clusters() && (warms() || is_sent_new())
    }

    /// The client has asked for the endpoints of the clusters that it has. It will ask for those of new ones,
    /// but routes to them must not be there before they are warm.
    fn anticipate_endpoints_of_sent_clusters(&mut self) {
        let Some(resources) = self.resources.clone() else { return };
        let names = self.endpoints_of_unanswered_clusters();
        let endpoints = &mut self.types[XdsType::Eds];
        for name in names.iter().filter(|name| !endpoints.subscription.covers(name)).collect::<Vec<_>>() {
            endpoints.anticipate(name, resources.set(XdsType::Eds));
        }
    }

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
        self.state(XdsType::Cds).unanswered().filter_map(|cluster| order::assignment_of(cluster)).collect()
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

//! Resources with a time to live: the client drops them unless it hears of them again (xRFC/xDS "TTL").

use super::{Context, Outgoing, TypeState};
use crate::response::{Batch, Protocol};

impl TypeState {
    /// Refreshes resources with a time to live that are due.
    pub fn make_refresh(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        let mut alive = Vec::new();
        for name in self.refreshes.take_due(cx.now) {
            let current = self.base.as_ref().and_then(|base| base.get(&name)).cloned();
            let Some((resource, ttl)) = current.and_then(|r| r.ttl().map(|ttl| (r, ttl))) else { continue };
            if !self.subscription.wants(&resource) || self.quarantine.holds_back(&resource) {
                continue;
            }
            // The body is left out only if the client has it for sure: a heartbeat for content that it does
            // not have is rejected with everything else in the response. And state-of-the-world Envoy deletes
            // the cluster or listener that a heartbeat without body is meant to keep.
            let is_answered = self.inflight.is_empty() && self.progress.error().is_none();
            let is_certain = is_answered && self.due.has_no_globs() && !self.due.has_name(&name);
            if is_certain && cx.protocol == Protocol::Delta {
                self.refreshes.refreshed(name, ttl, cx.now);
                alive.push(resource);
            } else {
                self.due.name(name);
            }
        }
        if alive.is_empty() {
            return None;
        }
        let mut outgoing = self.outgoing(Batch::empty(), Batch::empty(), self.base.clone());
        outgoing.heartbeats = alive;
        Some(outgoing)
    }
}

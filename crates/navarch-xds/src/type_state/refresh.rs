//! Resources with a time to live: the client drops them unless it hears of them again (xRFC/xDS "TTL").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Context, Outgoing, TypeState};
use crate::response::{Batch, Protocol};

/// When the client has to hear next of resources with a time to live: after a third of it.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    at: BTreeMap<Arc<str>, Instant>,
}

impl Refreshes {
    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.at.values().min().copied()
    }

    /// A resource is not refreshed any more.
    pub fn stop(&mut self, name: &str) {
        self.at.remove(name);
    }

    /// These resources are sent now, with their bodies.
    pub fn sent(&mut self, news: &Batch, now: Instant) {
        for resource in news.iter() {
            match resource.ttl() {
                Some(ttl) => _ = self.at.insert(resource.name().clone(), now + ttl / 3),
                None if self.at.is_empty() => break,
                None => _ = self.at.remove(resource.name()),
            }
        }
    }

    /// Those that are due. They have to be started again.
    fn take_due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let due = self.at.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone());
        let due: Vec<_> = due.collect();
        due.iter().for_each(|name| self.stop(name));
        due
    }
}

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
                self.refreshes.at.insert(name, cx.now + ttl / 3);
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

//! When resources with a time to live are due to be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::response::Batch;

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

    /// A heartbeat of a resource is sent now.
    pub fn refreshed(&mut self, name: Arc<str>, ttl: Duration, now: Instant) {
        self.at.insert(name, now + ttl / 3);
    }

    /// These resources are sent now, with their bodies.
    pub fn sent(&mut self, news: &Batch, now: Instant) {
        for resource in news.iter() {
            match resource.ttl() {
                Some(ttl) => self.refreshed(resource.name().clone(), ttl, now),
                None if self.at.is_empty() => break,
                None => _ = self.at.remove(resource.name()),
            }
        }
    }

    /// Those that are due. They have to be started again.
    pub fn take_due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let due = self.at.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone());
        let due: Vec<_> = due.collect();
        due.iter().for_each(|name| self.stop(name));
        due
    }
}

//! What the connections of all proxies share: what is known, what is waited for, what is counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use navarch_envoy::XdsType;

use crate::known::{Id, Known};
use crate::proxy::Proxy;

/// What the connections share.
#[derive(Debug)]
pub struct Shared {
    pub known: Known,
    pub proxies: Vec<Member>,
    pub counts: Counts,
    pub pending: Vec<Pending>,
    /// Changes that have reached everyone.
    pub delivered: Vec<Delivery>,
    pub synced: usize,
    /// The last error of a connection.
    pub last_error: Option<String>,
}

/// A proxy and what is kept about it.
#[derive(Debug)]
pub struct Member {
    pub proxy: Proxy,
    /// Connections in a row that broke before anything came.
    pub failures: u32,
    pub synced: bool,
    /// The last change seen, by the place that was edited.
    pub seen: HashMap<u32, u32>,
}

/// What all connections together have received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub messages: u64,
    pub resources: u64,
    pub bytes: u64,
    pub connections: u64,
    /// Connections that ended without being told to.
    pub broken: u64,
}

impl Counts {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            messages: self.messages - earlier.messages,
            resources: self.resources - earlier.resources,
            bytes: self.bytes - earlier.bytes,
            connections: self.connections - earlier.connections,
            broken: self.broken - earlier.broken,
        }
    }
}

/// A change that proxies are waited for.
#[derive(Debug)]
pub struct Pending {
    pub ty: XdsType,
    /// The resource in which it shows, if that is known before.
    pub name: Option<Id>,
    pub number: u32,
    pub place: u32,
    pub at: Instant,
    pub expected: usize,
    pub delays: Vec<Duration>,
}

/// How long a change took to the proxies that it concerns.
#[derive(Debug)]
pub struct Delivery {
    pub number: u32,
    /// When it was about to be written.
    pub at: Instant,
    pub expected: usize,
    /// One for each proxy that has acknowledged it.
    pub delays: Vec<Duration>,
}

impl From<Pending> for Delivery {
    fn from(change: Pending) -> Self {
        Delivery { number: change.number, at: change.at, expected: change.expected, delays: change.delays }
    }
}

impl Shared {
    /// A connection opens: what is sent first.
    pub fn connect(&mut self, index: usize) -> Vec<bytes::Bytes> {
        self.counts.connections += 1;
        let Shared { known, proxies, .. } = self;
        proxies.get_mut(index).map(|member| member.proxy.connect(known)).unwrap_or_default()
    }

    /// A connection ended without being told to. Gives how many did before it on which nothing came either.
    pub fn broke(&mut self, index: usize, error: String) -> u32 {
        self.counts.broken += 1;
        self.last_error = Some(error);
        let Some(member) = self.proxies.get_mut(index) else { return 0 };
        member.failures += 1;
        member.failures - 1
    }

    /// A message came: what is sent back, and the changes that the acknowledgement is for.
    pub fn receive(&mut self, index: usize, message: &[u8]) -> crate::proxy::Outcome {
        let Shared { known, proxies, .. } = self;
        let Some(member) = proxies.get_mut(index) else { return crate::proxy::Outcome::default() };
        member.failures = 0;
        let outcome = member.proxy.receive(message, known);
        self.counts.messages += 1;
        self.counts.resources += outcome.resources as u64;
        self.counts.bytes += message.len() as u64;
        let synced = member.proxy.synced();
        if synced && !member.synced {
            member.synced = true;
            self.synced += 1;
        }
        outcome
    }

    /// How many proxies have had everything that they asked for.
    #[must_use]
    pub fn synced_count(&self) -> usize {
        self.synced
    }

    /// Whether the last proxy came in sync since there were `before` of them.
    #[must_use]
    pub fn all_synced_since(&self, before: usize) -> bool {
        self.synced > before && self.synced == self.proxies.len()
    }

    /// The acknowledgement of these changes has been handed to the connection. Says whether somebody may be
    /// waiting for that.
    pub fn acknowledged(&mut self, index: usize, marks: &[(XdsType, Id, u32)]) -> bool {
        let now = Instant::now();
        let Shared { proxies, pending, delivered, .. } = self;
        let Some(member) = proxies.get_mut(index) else { return false };
        let mut complete = false;
        for (ty, name, number) in marks {
            let mut places = Vec::new();
            for change in pending.iter_mut().filter(|change| {
                change.ty == *ty
                    && change.name.is_none_or(|wanted| wanted == *name)
                    && change.number <= *number
            }) {
                if member.seen.get(&change.place).is_some_and(|seen| *seen >= change.number) {
                    continue;
                }
                change.delays.push(now.saturating_duration_since(change.at));
                complete |= change.delays.len() >= change.expected;
                places.push(change.place);
            }
            for place in places {
                let seen = member.seen.entry(place).or_default();
                *seen = (*seen).max(*number);
            }
        }
        if complete {
            // Nobody looks through what has arrived for the changes that have not.
            let arrived = pending.extract_if(.., |change| change.delays.len() >= change.expected);
            delivered.extend(arrived.map(Delivery::from));
        }
        complete
    }
}

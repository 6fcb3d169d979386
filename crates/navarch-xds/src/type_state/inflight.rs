//! Responses that were sent and not answered, and whether one more may go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, ResourceSet, XdsType};

use super::leaving::Going;
use crate::nack::Held;
use crate::order;
use crate::response::{Batch, Cause, Protocol};

/// A response that was sent.
#[derive(Debug)]
pub(crate) struct Inflight {
    pub number: u64,
    pub revision: u64,
    pub sent_at: Instant,
    /// What made it necessary.
    pub cause: Cause,
    /// The resources in it that are news to the client.
    pub news: Batch,
    /// Everything in it, where that is the whole state; otherwise nothing.
    pub whole: Batch,
    /// Whether something in it that is not news may be bad.
    pub has_doubts: bool,
    pub removed: Vec<Arc<str>>,
    /// What it takes away at last.
    pub taken: Going,
    /// What the client held before.
    pub before: Option<ResourceSet>,
    /// Where `before` is not what it held.
    pub held_before: BTreeMap<Arc<str>, Held>,
    /// Whether the client is up to date with `revision` once it has accepted this.
    pub complete: bool,
}

/// The responses of one type, oldest first. Each in a place of its own, so that a stream that has nothing
/// under way, which is nearly always, keeps no room for some.
#[derive(Debug, Default)]
pub(crate) struct InflightQueue {
    responses: VecDeque<Box<Inflight>>,
}

impl InflightQueue {
    /// Whether everything that was sent is answered.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Inflight> {
        self.responses.iter().map(|response| &**response)
    }

    /// A response is sent.
    pub fn push(&mut self, response: Inflight) {
        // A client that never acknowledges clusters keeps only the newest ones under watch.
        while self.responses.len() > 4 * order::CLUSTER_RESPONSES_MAX {
            self.responses.pop_front();
        }
        self.responses.push_back(Box::new(response));
    }

    /// The response with this number, and those before it that it answers too: state-of-the-world clients
    /// answer only the last of several responses, and mean all of them.
    pub fn answered(&mut self, number: Option<u64>, protocol: Protocol) -> Option<(Vec<Inflight>, Inflight)> {
        let position =
            number.and_then(|n| self.responses.iter().position(|response| response.number == n))?;
        match protocol {
            Protocol::Sotw => {
                let mut answered: Vec<_> =
                    self.responses.drain(..=position).map(|response| *response).collect();
                let last = answered.pop()?;
                Some((answered, last))
            }
            Protocol::Delta => Some((Vec::new(), *self.responses.remove(position)?)),
        }
    }

    /// The client does not hold these: responses that are under way were made as if it had taken them, and
    /// may be rejected because of them.
    pub fn not_held<'a>(&mut self, suspects: impl Iterator<Item = &'a (Arc<Resource>, Held)> + Clone) {
        for later in &mut self.responses {
            for (resource, held) in suspects.clone() {
                later.held_before.entry(resource.name().clone()).or_insert_with(|| held.clone());
            }
            let versions: BTreeMap<_, _> = suspects.clone().map(|(r, _)| (r.name(), r.version())).collect();
            let is_suspect = |r: &&Arc<Resource>| versions.get(r.name()) == Some(&r.version());
            let is_news = |r: &Arc<Resource>| later.news.iter().any(|news| news.name() == r.name());
            let beside = later.whole.iter().filter(is_suspect).any(|resource| !is_news(resource));
            later.has_doubts |= beside;
        }
    }

    /// Whether one more response may go. After a rejection, one at a time: the verdict on two would say
    /// nothing about either.
    pub fn may_send(&self, ty: XdsType, is_rejected: bool, now: Instant) -> bool {
        let Some(last) = self.responses.back() else { return true };
        let waited = now.saturating_duration_since(last.sent_at);
        match ty {
            _ if is_rejected => waited >= order::WAIT_MAX,
            // Envoy withholds the acknowledgement of clusters while one of them warms.
            XdsType::Cds => {
                self.responses.len() < order::CLUSTER_RESPONSES_MAX
                    || waited >= order::CLUSTER_RESPONSE_INTERVAL
            }
            _ => false,
        }
    }

    /// When [`InflightQueue::may_send`] becomes true without an acknowledgement.
    pub fn may_send_at(&self, ty: XdsType, is_rejected: bool) -> Option<Instant> {
        let last = self.responses.back()?;
        match ty {
            _ if is_rejected => Some(last.sent_at + order::WAIT_MAX),
            XdsType::Cds => Some(last.sent_at + order::CLUSTER_RESPONSE_INTERVAL),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue(numbers: &[u64], now: Instant) -> InflightQueue {
        let mut queue = InflightQueue::default();
        for number in numbers {
            queue.push(Inflight {
                number: *number,
                revision: 1,
                sent_at: now,
                cause: Cause::Revision,
                news: Batch::empty(),
                whole: Batch::empty(),
                has_doubts: false,
                removed: Vec::new(),
                taken: Going::default(),
                before: None,
                held_before: BTreeMap::new(),
                complete: true,
            });
        }
        queue
    }

    #[test]
    fn sotw_answers_all_up_to_one_and_delta_only_that_one() {
        let check = |protocol, number, skipped: &[u64], left: &[u64]| {
            let mut queue = queue(&[1, 2, 3], Instant::now());
            let (answered, last) = queue.answered(Some(number), protocol).expect("an answer");
            assert_eq!(last.number, number);
            assert_eq!(answered.iter().map(|r| r.number).collect::<Vec<_>>(), skipped);
            assert_eq!(queue.iter().map(|r| r.number).collect::<Vec<_>>(), left);
        };
        check(Protocol::Sotw, 2, &[1], &[3]);
        check(Protocol::Delta, 2, &[], &[1, 3]);
        assert!(queue(&[1], Instant::now()).answered(Some(2), Protocol::Sotw).is_none());
        assert!(queue(&[1], Instant::now()).answered(None, Protocol::Delta).is_none());
    }

    #[test]
    fn flow_control_says_when_it_opens() {
        let now = Instant::now();
        let check = |ty, numbers: &[u64], is_rejected, at_once, after: Option<Duration>| {
            let queue = queue(numbers, now);
            assert_eq!(queue.may_send(ty, is_rejected, now), at_once, "{ty} {numbers:?}");
            assert_eq!(
                queue.may_send_at(ty, is_rejected),
                after.map(|after| now + after),
                "{ty} {numbers:?}"
            );
            let opens =
                queue.may_send_at(ty, is_rejected).is_none_or(|at| queue.may_send(ty, is_rejected, at));
            assert!(opens, "{ty} {numbers:?}");
        };
        check(XdsType::Rds, &[], true, true, None);
        check(XdsType::Rds, &[1], false, false, None);
        check(XdsType::Rds, &[1], true, false, Some(order::WAIT_MAX));
        check(XdsType::Cds, &[1, 2], false, true, Some(order::CLUSTER_RESPONSE_INTERVAL));
        check(XdsType::Cds, &[1, 2, 3], false, false, Some(order::CLUSTER_RESPONSE_INTERVAL));
        check(XdsType::Cds, &[1], true, false, Some(order::WAIT_MAX));
    }

    #[test]
    fn a_client_that_never_answers_costs_little() {
        let queue = queue(&(0..1000).collect::<Vec<_>>(), Instant::now());
        assert!(queue.iter().count() <= 4 * order::CLUSTER_RESPONSES_MAX + 1);
        assert_eq!(queue.iter().last().map(|response| response.number), Some(999));
    }
}

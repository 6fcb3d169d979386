//! What a client says about a response, and what follows from it.

use std::time::Instant;

use navarch_envoy::{Resource, XdsType};

use super::{Feed, Inflight, Mark, Verdict};
use crate::nack::{self, Blame, Held, Rejected, redact};
use crate::request::Error;
use crate::response::Protocol;

/// What has to be known to judge an answer.
pub(crate) struct VerdictContext<'a> {
    pub protocol: Protocol,
    pub now: Instant,
    pub nonce: &'a dyn Fn(u64) -> String,
}

/// Why a rejection says nothing new.
#[derive(Clone, Copy, Debug)]
enum Explained {
    /// The response was sent before the bad resource of an earlier one was set aside.
    ByOneBefore,
    /// It names a resource that is set aside but may not be left out.
    ByOneAside,
}

impl Feed {
    /// Settles the response that a request answers.
    pub fn settle(&mut self, number: Option<u64>, error: Option<Error>, cx: &VerdictContext<'_>) -> Verdict {
        let position = number.and_then(|n| self.inflight.iter().position(|inflight| inflight.number == n));
        let Some(position) = position else {
            let last = self.sent.as_ref().map(|mark| mark.number);
            return Verdict::None { repeats_last: self.inflight.is_empty() && number == last };
        };
        // State-of-the-world clients answer only the last of several responses.
        if cx.protocol == Protocol::Sotw {
            self.inflight.drain(..position);
        }
        let position = if cx.protocol == Protocol::Sotw { 0 } else { position };
        let Some(settled) = self.inflight.remove(position) else {
            return Verdict::None { repeats_last: false };
        };
        match error {
            None => self.accepted(settled, cx.now),
            Some(error) => self.rejected(settled, &error, cx),
        }
    }

    fn accepted(&mut self, response: Inflight, now: Instant) -> Verdict {
        self.quarantine.accepted();
        if response.complete && self.quarantine.is_empty() {
            self.acked_revision = self.acked_revision.max(response.revision);
        }
        // The acceptance of an older response says nothing about a newer one that was rejected.
        if self.quarantine.is_empty()
            && self.error.as_ref().is_some_and(|(number, _)| *number < response.number)
        {
            self.error = None;
        }
        let version = match &self.sent {
            Some(sent) if sent.number == response.number => sent.version.clone(),
            _ => String::new(),
        };
        self.acked = Some(Mark { number: response.number, revision: response.revision, version, at: now });
        Verdict::Accepted { revision: response.revision, sent_at: response.sent_at }
    }

    fn rejected(&mut self, response: Inflight, error: &Error, cx: &VerdictContext<'_>) -> Verdict {
        self.rejected_total += 1;
        let suspects = response.news.iter().map(|r| (r.clone(), self.held_before(&response, r))).collect();
        let text = redact_for_search(&error.text);
        let Blame { names, innocent } = match self.explained(&response, &text, cx.protocol) {
            Some(Explained::ByOneAside) => Blame::default(),
            Some(Explained::ByOneBefore) => Blame { names: Vec::new(), innocent: suspects },
            None => {
                self.blind_until = self.sent.as_ref().map_or(0, |sent| sent.number);
                self.quarantine.reject(&text, suspects)
            }
        };
        let departing =
            response.news.iter().map(|r| r.name()).filter(|name| self.departing.contains_key(*name));
        self.uncertain.extend(departing.cloned());
        self.forget_rejected_departing(cx.protocol);
        // What has been replaced by a later response is judged by that one, and what is not wanted any more by nobody.
        if let Some(base) = &self.base {
            let subscription = &self.subscription;
            self.quarantine.retain(|name, aside| {
                base.get(name).is_some_and(|r| subscription.wants(r) && r.version() == aside.version)
            });
        }
        for (resource, held) in innocent {
            self.resend.insert(resource.name().clone());
            self.carried.insert(resource.name().clone(), held);
        }
        // Removals of a rejected response may have been applied or not. To repeat them does no harm.
        self.resend.extend(response.removed);
        let rejected = Rejected {
            text: redact(self.ty, &error.text),
            code: error.code,
            nonce: (cx.nonce)(response.number),
            at: cx.now,
            names,
        };
        self.error = Some((response.number, rejected));
        Verdict::Rejected { revision: response.revision }
    }

    /// Whether a rejection says nothing new. A response that is the whole state contains what an unanswered one before
    /// it brought, and is rejected for the same reason.
    fn explained(&self, response: &Inflight, text: &str, protocol: Protocol) -> Option<Explained> {
        if protocol == Protocol::Delta || !self.ty.root() {
            return None;
        }
        let mut words = nack::words(text);
        if words.clone().any(|word| response.news.iter().any(|resource| &**resource.name() == word)) {
            return None;
        }
        if response.number <= self.blind_until {
            return Some(Explained::ByOneBefore);
        }
        words.any(|word| self.quarantine.get(word).is_some()).then_some(Explained::ByOneAside)
    }

    /// What is about to go and was rejected meanwhile cannot stay until then.
    fn forget_rejected_departing(&mut self, protocol: Protocol) {
        if protocol == Protocol::Delta || !self.ty.root() {
            return;
        }
        for (name, aside) in self.quarantine.iter() {
            if self.departing.get(name).is_none_or(|resource| resource.version() != aside.version) {
                continue;
            }
            match &aside.held {
                Held::Nothing => _ = self.departing.remove(name),
                Held::LastGood(good) => _ = self.departing.insert(name.clone(), good.clone()),
                Held::Unknown => {}
            }
        }
    }

    fn held_before(&self, response: &Inflight, resource: &Resource) -> Held {
        if let Some(held) = response.held.get(resource.name()) {
            return held.clone();
        }
        match &response.before {
            Some(before) => before.get(resource.name()).cloned().map_or(Held::Nothing, Held::LastGood),
            None if self.resumed.is_some() || self.held.is_some() => Held::Unknown,
            None => Held::Nothing,
        }
    }
}

/// The part of an error text in which names are looked for.
fn redact_for_search(text: &str) -> String {
    redact(XdsType::Cds, text)
}

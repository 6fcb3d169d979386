//! What a client says about a response, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, XdsType};

use super::{Inflight, TypeState, Verdict};
use crate::nack::{self, Blame, Held, Nack, redact};
use crate::request::Error;
use crate::response::Protocol;

/// What has to be known to judge an answer.
pub(crate) struct VerdictContext<'a> {
    pub protocol: Protocol,
    pub now: Instant,
    pub nonce: &'a dyn Fn(u64) -> String,
    /// Names that the client asks for in the same message: it had read what it answers before that.
    pub asked_now: &'a [Arc<str>],
}

/// Why a rejection says nothing new.
#[derive(Clone, Copy, Debug)]
enum Explained {
    /// The response was sent before the bad resource of an earlier one was set aside.
    ByOneBefore,
    /// It names a resource that is set aside but may not be left out.
    ByOneAside,
}

impl TypeState {
    /// Settles the response that a request answers.
    pub fn settle(&mut self, number: Option<u64>, error: Option<Error>, cx: &VerdictContext<'_>) -> Verdict {
        let Some((skipped, settled)) = self.inflight.answered(number, cx.protocol) else {
            let last = self.progress.sent().map(|mark| mark.number);
            return Verdict::None { repeats_last: self.inflight.is_empty() && number == last };
        };
        match error {
            None => self.accepted(settled, cx),
            Some(error) => self.rejected(settled, &skipped, &error, cx),
        }
    }

    fn accepted(&mut self, response: Inflight, cx: &VerdictContext<'_>) -> Verdict {
        self.quarantine.accepted();
        if self.is_whole(cx.protocol) {
            let good = response.whole.iter().filter(|resource| self.quarantine.is_good(resource)).count();
            // A later response may have left them out.
            self.due.full_state |= good > 0 && !self.inflight.is_empty();
        }
        // Nearly always there is none, and a response may be large.
        if self.due.has_asked_since() {
            let asked_now: BTreeSet<&str> = cx.asked_now.iter().map(|name| &**name).collect();
            let base = self.base.as_ref();
            for resource in response.news.iter() {
                let name = resource.name();
                if base.is_some_and(|base| base.get(name) == Some(resource)) && !asked_now.contains(&**name) {
                    self.due.accepted_ahead(name);
                }
            }
        }
        if self.quarantine.is_empty() {
            if response.complete {
                self.progress.reach(response.revision);
            }
            self.progress.make_good(response.number);
        }
        self.progress.accept(response.number, response.revision, cx.now);
        Verdict::Accepted { revision: response.revision, sent_at: response.sent_at, cause: response.cause }
    }

    fn rejected(
        &mut self,
        response: Inflight,
        skipped: &[Inflight],
        error: &Error,
        cx: &VerdictContext<'_>,
    ) -> Verdict {
        let suspects = self.suspects(&response, skipped);
        let is_secret = self.is_secret(&response, skipped);
        let text = redact_for_search(&error.text);
        let Blame { names, innocent } = match self.explained(&response, &text, cx.protocol) {
            Some(Explained::ByOneAside) => Blame::default(),
            Some(Explained::ByOneBefore) => self.suspect_others(suspects),
            None => {
                self.progress.judge();
                self.blame(&text, suspects, cx.protocol)
            }
        };
        // Content that came back in a later response came after what was sent between the two.
        let later = self.inflight.iter().filter(|later| later.number > response.number);
        for between in later.flat_map(|later| later.news.iter()) {
            self.quarantine.is_replaced_by(between);
        }
        self.leaving.doubt(response.news.iter().map(|resource| resource.name()));
        // Without a name, what is about to go stays until then, the bad one too: a route may need the others.
        if !names.is_empty() {
            self.forget_rejected_leaving(cx.protocol);
        }
        // What has been replaced by a later response is judged by that one, and what is not wanted any more
        // by nobody.
        if let Some(base) = &self.base {
            let subscription = &self.subscription;
            self.quarantine.retain(|name, aside| {
                base.get(name).is_some_and(|r| subscription.wants(r) && r.version() == aside.version)
            });
        }
        for (resource, held) in innocent {
            self.due.name(resource.name().clone());
            self.held_before.insert(resource.name().clone(), held);
        }
        // Removals of a rejected response may have been applied or not. To repeat them does no harm.
        self.due.names(response.removed);
        let nack = Nack {
            text: redact(is_secret, &error.text),
            code: error.code,
            nonce: (cx.nonce)(response.number),
            at: cx.now,
            names,
        };
        self.progress.reject(response.number, nack);
        Verdict::Rejected { revision: response.revision }
    }

    /// Whether the client's words may quote a secret. Secrets that only name files are none.
    fn is_secret(&self, response: &Inflight, skipped: &[Inflight]) -> bool {
        let mut news = skipped.iter().chain([response]).flat_map(|response| response.news.iter()).peekable();
        self.ty == XdsType::Sds && (news.peek().is_none() || news.any(|resource| resource.is_secret()))
    }

    /// What the client may have rejected, and what it holds instead.
    fn suspects(&self, response: &Inflight, skipped: &[Inflight]) -> Vec<(Arc<Resource>, Held)> {
        let mut suspects: BTreeMap<Arc<str>, (Arc<Resource>, Held)> = BTreeMap::new();
        for response in skipped.iter().chain([response]) {
            for resource in response.news.iter() {
                // What is sent in place of a rejected one is the last good one.
                let aside = self.quarantine.get(resource.name());
                if aside.is_some_and(|aside| aside.version != resource.version()) {
                    continue;
                }
                let held = match suspects.remove(resource.name()) {
                    Some((_, held)) => held,
                    None => self.held_before(response, resource),
                };
                suspects.insert(resource.name().clone(), (resource.clone(), held));
            }
        }
        suspects.into_values().collect()
    }

    fn blame(&mut self, text: &str, suspects: Vec<(Arc<Resource>, Held)>, protocol: Protocol) -> Blame {
        let names_one = nack::words(text).any(|word| suspects.iter().any(|(r, _)| &**r.name() == word));
        if !names_one && self.is_whole(protocol) {
            // No trial can tell as long as something must be in every response that may be bad itself. The
            // client applies what is good in them anyway.
            let unknown = suspects.iter().any(|(_, held)| *held == Held::Unknown);
            if unknown || self.has_doubts() {
                return self.doubt(suspects);
            }
        }
        let blame = self.quarantine.reject(text, suspects.clone());
        let is_innocent = |name: &str| blame.innocent.iter().any(|(innocent, _)| &**innocent.name() == name);
        self.inflight.not_held(suspects.iter().filter(|(resource, _)| !is_innocent(resource.name())));
        blame
    }

    /// One of these may be bad too, beside the one that is set aside.
    fn suspect_others(&mut self, mut suspects: Vec<(Arc<Resource>, Held)>) -> Blame {
        suspects.retain(|(resource, _)| !self.quarantine.holds_back(resource));
        if self.has_doubts() {
            return self.doubt(suspects);
        }
        self.inflight.not_held(suspects.iter());
        self.quarantine.suspect(suspects);
        Blame::default()
    }

    /// One of these may be bad, and no trial can tell which.
    fn doubt(&mut self, suspects: Vec<(Arc<Resource>, Held)>) -> Blame {
        let doubtful: Vec<_> = suspects.into_iter().map(|(r, _)| (r, Held::Unknown)).collect();
        self.inflight.not_held(doubtful.iter());
        self.quarantine.doubt(doubtful);
        Blame::default()
    }

    /// Whether a rejection says nothing new. A response that is the whole state contains what an unanswered
    /// one before it brought, and is rejected for the same reason.
    fn explained(&self, response: &Inflight, text: &str, protocol: Protocol) -> Option<Explained> {
        if !self.is_whole(protocol) {
            return None;
        }
        let mut words = nack::words(text);
        if words.clone().any(|word| response.news.iter().any(|resource| &**resource.name() == word)) {
            return None;
        }
        let is_judged = self.progress.is_judged(response.number);
        if is_judged || (response.has_doubts && !self.has_doubts()) {
            return Some(Explained::ByOneBefore);
        }
        words.any(|word| self.quarantine.get(word).is_some()).then_some(Explained::ByOneAside)
    }

    /// What is about to go and was rejected meanwhile cannot stay until then.
    fn forget_rejected_leaving(&mut self, protocol: Protocol) {
        if !self.is_whole(protocol) {
            return;
        }
        for (name, aside) in self.quarantine.iter() {
            if self.leaving.get(name).is_none_or(|resource| resource.version() != aside.version) {
                continue;
            }
            match &aside.held {
                // The client may hold an older one after all, if a rejection left it unclear: it is told.
                Held::Nothing => {
                    self.leaving.forget(name);
                    self.due.full_state = true;
                }
                Held::LastGood(good) => self.leaving.stay(name.clone(), good.clone()),
                Held::Unknown => {}
            }
        }
    }

    fn held_before(&self, response: &Inflight, resource: &Resource) -> Held {
        if let Some(held) = response.held_before.get(resource.name()) {
            return held.clone();
        }
        match &response.before {
            Some(before) => before.get(resource.name()).cloned().map_or(Held::Nothing, Held::LastGood),
            None if self.returning.may_hold_something() => Held::Unknown,
            None => Held::Nothing,
        }
    }
}

/// The part of an error text in which names are looked for.
fn redact_for_search(text: &str) -> String {
    redact(false, text)
}

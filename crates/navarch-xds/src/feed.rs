//! What one stream has been told of one type, and what it has to be told next.
//!
//! There is no list of what the client holds. It is the set that the last response was made from (shared with all
//! streams of the class), restricted to the subscription, with a few exceptions beside it: names that must be sent
//! again, resources that stay until nothing refers to them, resources that the client rejected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::{ProxyResources, Removal, Resource, ResourceSet, Version, XdsType};

use crate::class::DiffCache;
use crate::client::Client;
use crate::missing::{self, Answer};
use crate::nack::{self, Blame, Held, Quarantine, Rejected, redact};
use crate::names;
use crate::order;
use crate::request::Error;
use crate::response::{Batch, Protocol};
use crate::subscription::{Change, Subscription};

/// Everything a feed has to know that is not its own.
pub(crate) struct Context<'a> {
    pub resources: &'a ProxyResources,
    pub diffs: &'a DiffCache,
    pub client: &'a Client,
    pub protocol: Protocol,
    pub now: Instant,
}

/// A response that has been sent and not been answered.
#[derive(Debug)]
pub(crate) struct Inflight {
    pub number: u64,
    pub revision: u64,
    pub sent_at: Instant,
    /// The resources in it that are news to the client.
    news: Batch,
    removed: Vec<Arc<str>>,
    /// What it takes away at last.
    taken: Vec<Arc<Resource>>,
    /// What the client held before.
    before: Option<ResourceSet>,
    /// Where `before` is not what it held.
    held: BTreeMap<Arc<str>, Held>,
    /// Whether the client is up to date with `revision` once it has accepted this.
    complete: bool,
}

/// What a feed wants sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// All resources of the response.
    pub payload: Batch,
    /// Those among them that are news to the client.
    pub news: Batch,
    pub removed: Vec<Arc<str>>,
    pub missing: Vec<Arc<str>>,
    pub heartbeats: Vec<Arc<Resource>>,
    pub before: Option<ResourceSet>,
    taken: Vec<Arc<Resource>>,
    held: BTreeMap<Arc<str>, Held>,
}

/// What the client said about a response.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It answers no response that is under way.
    None {
        repeats_last: bool,
    },
    Accepted {
        revision: u64,
        sent_at: Instant,
    },
    Rejected {
        revision: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Feed {
    pub ty: XdsType,
    pub subscription: Subscription,
    /// The client has asked for the type at least once.
    pub requested: bool,
    /// All that is wanted has to be sent.
    everything: bool,
    /// What a delta client says it holds from an earlier stream. Until the first answer.
    held: Option<BTreeMap<Arc<str>, Option<Version>>>,
    /// The version a state-of-the-world client says it holds. Until the first answer.
    resumed: Option<String>,
    /// The set that was brought to the client last.
    base: Option<ResourceSet>,
    base_revision: u64,
    /// Names to be sent whatever was sent before.
    resend: BTreeSet<Arc<str>>,
    globs: Vec<Arc<str>>,
    /// Resources that are no longer in the set but stay with the client until nothing can refer to them.
    departing: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Those among them that the client may hold in another version, because a response with them was rejected.
    uncertain: BTreeSet<Arc<str>>,
    quarantine: Quarantine,
    /// What the client holds of resources about to be sent, where it is not what `base` says.
    carried: BTreeMap<Arc<str>, Held>,
    pub inflight: VecDeque<Inflight>,
    /// When the client has to hear next of resources with a time to live.
    refresh: BTreeMap<Arc<str>, Instant>,
    /// Since when something cannot be sent although it is due.
    pub waiting_since: Option<Instant>,
    /// Clusters have been sent since the client's last endpoint request.
    pub clusters_sent: bool,
    pub sent: Option<Mark>,
    pub acked: Option<Mark>,
    pub acked_revision: u64,
    pub error: Option<(u64, Rejected)>,
    /// The last response that was sent before the last bad resource was known.
    blind_until: u64,
    pub sent_total: u64,
    pub rejected_total: u64,
}

/// A response, for the status view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub number: u64,
    pub revision: u64,
    pub version: String,
    pub at: Instant,
}

impl Feed {
    pub fn new(ty: XdsType) -> Self {
        Self {
            ty,
            subscription: Subscription::default(),
            requested: false,
            everything: false,
            held: None,
            resumed: None,
            base: None,
            base_revision: 0,
            resend: BTreeSet::new(),
            globs: Vec::new(),
            departing: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            quarantine: Quarantine::default(),
            carried: BTreeMap::new(),
            inflight: VecDeque::new(),
            refresh: BTreeMap::new(),
            waiting_since: None,
            clusters_sent: false,
            sent: None,
            acked: None,
            acked_revision: 0,
            error: None,
            blind_until: 0,
            sent_total: 0,
            rejected_total: 0,
        }
    }

    // --- requests

    /// What the client held when it connected, as a state-of-the-world version.
    pub fn resume(&mut self, version: &str) {
        self.resumed = (!version.is_empty()).then(|| version.to_owned());
    }

    /// What the client held when it connected, as delta versions. An unreadable version counts as none.
    pub fn resume_held(&mut self, held: BTreeMap<String, String>, subscribed: bool) {
        let held: BTreeMap<Arc<str>, Option<Version>> = held
            .into_iter()
            .map(|(name, version)| (Arc::from(&*names::canonical(&name)), Version::parse(&version)))
            .collect();
        if subscribed && !self.subscription.is_wildcard() {
            self.subscription.adopt(held.keys().cloned());
            self.resend.extend(held.keys().cloned());
        }
        if !held.is_empty() {
            self.held = Some(held);
        }
    }

    /// A change of the subscription.
    pub fn subscribe(&mut self, change: Change, protocol: Protocol) {
        self.everything |= change.everything;
        self.resend.extend(change.named);
        self.globs.extend(change.globbed);
        for name in change.dropped {
            match (self.subscription.is_wildcard(), protocol) {
                // It is still covered by the wildcard, or not there at all; the client is told which
                // (xDS spec, "Unsubscribing from Resources").
                (true, Protocol::Delta) => _ = self.resend.insert(name),
                (true, Protocol::Sotw) => {}
                (false, _) => self.forget(&name),
            }
        }
        if !self.subscription.is_wildcard() && self.everything {
            self.everything = false;
        }
        if !self.departing.is_empty() {
            let subscription = &self.subscription;
            self.departing.retain(|name, _| subscription.covers(name));
        }
        if !self.quarantine.is_empty() {
            let subscription = &self.subscription;
            self.quarantine.retain(|name, _| subscription.covers(name));
        }
    }

    fn forget(&mut self, name: &str) {
        self.resend.remove(name);
        self.departing.remove(name);
        self.quarantine.release(name);
        self.refresh.remove(name);
    }

    /// Asks for resources to be sent again, if they are subscribed to.
    pub fn resend<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, known: &ResourceSet) {
        for name in names {
            if self.subscription.covers(name) {
                self.resend.insert(crate::subscription::shared(name, known));
            }
        }
    }

    /// Asks for all resources subscribed to by name to be sent again, unless some are about to be.
    pub fn resend_names(&mut self) {
        if self.resend.is_empty() {
            self.resend.extend(self.subscription.names().cloned());
        }
    }

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
                subscription.covers(name) && base.get(name).is_some_and(|r| r.version() == aside.version)
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

    // --- what there is to do

    /// Whether something other than removals has to be sent, or at least looked at.
    pub fn has_work(&self, resources: &ProxyResources) -> bool {
        self.has_news(resources) || (self.requested && self.quarantine.has_suspects())
    }

    /// Whether something has to be sent that was not sent before, or is asked for.
    pub fn has_news(&self, resources: &ProxyResources) -> bool {
        self.requested
            && (self.everything
                || !self.resend.is_empty()
                || !self.globs.is_empty()
                || (!self.subscription.is_empty()
                    && self.base.as_ref().is_some_and(|base| base != resources.set(self.ty))))
    }

    /// Whether resources stay only until nothing can refer to them.
    pub fn has_departing(&self) -> bool {
        !self.departing.is_empty()
    }

    /// Whether the client has accepted all there is.
    fn is_settled(&self, resources: &ProxyResources) -> bool {
        !self.has_work(resources) && self.inflight.is_empty() && self.quarantine.is_empty()
    }

    /// Whether nothing that the client uses can refer to what `ty` is about to lose.
    pub fn has_let_go(&self, ty: XdsType, resources: &ProxyResources) -> bool {
        let rejected = ty == XdsType::Cds && !self.quarantine.is_empty();
        !self.requested
            || (!self.has_work(resources)
                && self.inflight.is_empty()
                && self.departing.is_empty()
                && !rejected)
    }

    /// The newest revision of which the client has accepted everything that concerns it.
    pub fn synced_revision(&self, resources: &ProxyResources) -> u64 {
        if self.is_settled(resources) && self.departing.is_empty() {
            resources.revision()
        } else {
            self.acked_revision
        }
    }

    /// What state-of-the-world sends in place of resources that were rejected. The client may see a change in it.
    pub fn substitutes(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.quarantine.iter().filter_map(|(_, aside)| match &aside.held {
            Held::LastGood(good) => Some(good),
            Held::Nothing | Held::Unknown => None,
        })
    }

    /// Names set aside because the client rejected them.
    pub fn set_aside(&self) -> impl Iterator<Item = &Arc<str>> {
        self.quarantine.iter().map(|(name, _)| name)
    }

    /// Whether flow control lets a response go.
    pub fn may_send(&self, now: Instant) -> bool {
        match self.inflight.back() {
            None => true,
            // One at a time after a rejection: the verdict on two would say nothing about either.
            Some(last) if self.error.is_some() => {
                now.saturating_duration_since(last.sent_at) >= order::WAIT_MAX
            }
            // Envoy holds back the acknowledgement of clusters while one of them warms.
            Some(last) if self.ty == XdsType::Cds => {
                self.inflight.len() < order::CLUSTER_RESPONSES_MAX
                    || now.saturating_duration_since(last.sent_at) >= order::CLUSTER_RESPONSE_INTERVAL
            }
            Some(_) => false,
        }
    }

    /// When [`Feed::may_send`] becomes true without an acknowledgement.
    pub fn may_send_at(&self) -> Option<Instant> {
        let last = self.inflight.back()?;
        if self.error.is_some() {
            return Some(last.sent_at + order::WAIT_MAX);
        }
        (self.ty == XdsType::Cds).then(|| last.sent_at + order::CLUSTER_RESPONSE_INTERVAL)
    }

    /// When a resource with a time to live has to be refreshed.
    pub fn refresh_at(&self) -> Option<Instant> {
        self.refresh.values().min().copied()
    }

    // --- responses

    /// Makes the next response, removals aside. Nothing if what there was to do turns out to be nothing.
    pub fn make(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        if self.quarantine.has_suspects()
            && let Some(outgoing) = self.make_trial(cx)
        {
            return Some(outgoing);
        }
        self.expand_globs(cx);
        let target = cx.resources.set(self.ty).clone();
        let before = self.base.clone();
        let first = mem::take(&mut self.everything);
        let mut draft = Draft::default();
        let whole = if first {
            let Some(whole) = self.draft_everything(&target, cx, &mut draft) else {
                self.resumed_at(&target, cx);
                return None;
            };
            whole
        } else {
            self.draft_changes(&target, cx, &mut draft)
        };
        self.draft_resends(&target, cx, &mut draft);
        self.base = Some(target.clone());
        self.base_revision = cx.resources.revision();
        let news = match whole {
            Some(batch) if draft.resources.is_empty() => batch,
            Some(batch) => Batch::List(batch.iter().cloned().chain(draft.unique_to(&batch)).collect()),
            None => Batch::List(mem::take(&mut draft.resources).into_values().collect()),
        };
        let full_state = cx.protocol == Protocol::Sotw && self.ty.root();
        let news = if full_state { news } else { self.split(news, cx) };
        let Draft { mut removed, missing, immediate, .. } = draft;
        if cx.protocol == Protocol::Sotw {
            removed.clear();
        }
        let anything = !news.is_empty()
            || !removed.is_empty()
            || !missing.is_empty()
            || (full_state && immediate)
            || (first && self.subscription.is_wildcard());
        if !anything {
            return None;
        }
        let payload = if full_state { self.full_state(&target) } else { news.clone() };
        Some(self.outgoing(payload, news, removed, missing, before))
    }

    /// A response with one group of suspects of a rejected response.
    fn make_trial(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        let base = self.base.clone()?;
        let target = cx.resources.set(self.ty);
        while self.quarantine.has_suspects() {
            let mut group = Vec::new();
            for (name, aside) in self.quarantine.next_suspects() {
                let current = base.get(&name).filter(|r| target.get(&name) == Some(r));
                match current.filter(|_| self.subscription.covers(&name)) {
                    Some(resource) => {
                        group.push(resource.clone());
                        self.carried.insert(name, aside.held);
                    }
                    // Other content is tried with the other changes.
                    None => self.quarantine.put_back(name, aside),
                }
            }
            if group.is_empty() {
                continue;
            }
            let news = Batch::List(group.into());
            let full_state = cx.protocol == Protocol::Sotw && self.ty.root();
            let payload = if full_state { self.full_state(&base) } else { news.clone() };
            return Some(self.outgoing(payload, news, Vec::new(), Vec::new(), Some(base)));
        }
        None
    }

    /// Takes away what nothing refers to any more; what is `pinned` stays.
    pub fn make_removal(&mut self, cx: &Context<'_>, pinned: impl Fn(&str) -> bool) -> Option<Outgoing> {
        let base = self.base.clone()?;
        let (staying, going) = mem::take(&mut self.departing).into_iter().partition(|(name, _)| pinned(name));
        self.departing = staying;
        self.uncertain.retain(|name| self.departing.contains_key(name));
        let taken: Vec<Arc<Resource>> =
            BTreeMap::into_values(going).filter(|r| self.subscription.covers(r.name())).collect();
        if taken.is_empty() {
            return None;
        }
        let mut removed = Vec::new();
        let mut empties = Vec::new();
        for name in taken.iter().map(|resource| resource.name().clone()) {
            self.refresh.remove(&name);
            match self.ty {
                // A removal would leave an active cluster its endpoints.
                XdsType::Eds => empties.push(missing::empty_assignment(&name)),
                _ => removed.push(name),
            }
        }
        let news = Batch::List(empties.into());
        let payload = match (cx.protocol, self.ty.root()) {
            (Protocol::Sotw, true) => self.full_state(&base),
            (Protocol::Sotw, false) if news.is_empty() => return None,
            _ => news.clone(),
        };
        if cx.protocol == Protocol::Sotw {
            removed.clear();
        }
        let mut outgoing = self.outgoing(payload, news, removed, Vec::new(), Some(base));
        outgoing.taken = taken;
        Some(outgoing)
    }

    /// Resources that the client may still hold although they are no longer in the set.
    pub fn leaving(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.departing.values().chain(self.inflight.iter().flat_map(|inflight| &inflight.taken))
    }

    /// Refreshes resources with a time to live that are due.
    pub fn make_refresh(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        let due: Vec<Arc<str>> =
            self.refresh.iter().filter(|(_, at)| **at <= cx.now).map(|(name, _)| name.clone()).collect();
        let mut alive = Vec::new();
        for name in due {
            self.refresh.remove(&name);
            let current = self.base.as_ref().and_then(|base| base.get(&name)).cloned();
            let Some((resource, ttl)) = current.and_then(|r| r.ttl().map(|ttl| (r, ttl))) else { continue };
            if !self.subscription.covers(&name) || self.quarantine.holds_back(&resource) {
                continue;
            }
            // The body is left out only if the client has it for sure: a heartbeat for content that it does not have
            // is rejected with everything else in the response. And state-of-the-world Envoy deletes the cluster or
            // listener that a heartbeat without body is meant to keep.
            let certain = cx.protocol == Protocol::Delta && self.inflight.is_empty() && self.error.is_none();
            if certain {
                self.refresh.insert(name, cx.now + ttl / 3);
                alive.push(resource);
            } else {
                self.resend.insert(name);
            }
        }
        if alive.is_empty() {
            return None;
        }
        let mut outgoing =
            self.outgoing(Batch::empty(), Batch::empty(), Vec::new(), Vec::new(), self.base.clone());
        outgoing.heartbeats = alive;
        Some(outgoing)
    }

    fn outgoing(
        &mut self,
        payload: Batch,
        news: Batch,
        removed: Vec<Arc<str>>,
        missing: Vec<Arc<str>>,
        before: Option<ResourceSet>,
    ) -> Outgoing {
        let held = mem::take(&mut self.carried);
        Outgoing { payload, news, removed, missing, heartbeats: Vec::new(), before, taken: Vec::new(), held }
    }

    /// Records that a response has been sent.
    pub fn record(&mut self, number: u64, version: String, outgoing: &Outgoing, revision: u64, now: Instant) {
        for resource in outgoing.news.iter() {
            match resource.ttl() {
                Some(ttl) => _ = self.refresh.insert(resource.name().clone(), now + ttl / 3),
                None if self.refresh.is_empty() => break,
                None => _ = self.refresh.remove(resource.name()),
            }
        }
        let complete = self.base_revision == revision
            && self.resend.is_empty()
            && self.departing.is_empty()
            && !self.everything;
        // A client that never acknowledges clusters keeps only the newest ones under watch.
        while self.inflight.len() > 4 * order::CLUSTER_RESPONSES_MAX {
            self.inflight.pop_front();
        }
        self.inflight.push_back(Inflight {
            number,
            revision,
            sent_at: now,
            news: outgoing.news.clone(),
            removed: outgoing.removed.clone(),
            taken: outgoing.taken.clone(),
            before: outgoing.before.clone(),
            held: outgoing.held.clone(),
            complete,
        });
        self.sent_total += 1;
        self.waiting_since = None;
        self.sent = Some(Mark { number, revision, version, at: now });
    }

    /// Hash of what the client holds after this response. In state-of-the-world the client carries it to other
    /// servers, where it must mean the same.
    pub fn version(&self, protocol: Protocol) -> Version {
        let Some(base) = &self.base else { return Version::default() };
        if protocol == Protocol::Delta || (self.subscription.is_wildcard() && self.has_no_exceptions()) {
            return base.version();
        }
        if self.subscription.is_wildcard() || self.ty.root() {
            return hash_of(self.full_state(base).iter());
        }
        hash_of(self.subscription.names().filter_map(|name| base.get(name)))
    }

    fn has_no_exceptions(&self) -> bool {
        self.departing.is_empty() && self.quarantine.is_empty()
    }

    // --- parts of responses

    /// The first answer to a wildcard. `None` if the client has it all already.
    fn draft_everything(
        &mut self,
        target: &ResourceSet,
        cx: &Context<'_>,
        draft: &mut Draft,
    ) -> Option<Option<Batch>> {
        self.departing.clear();
        self.quarantine = Quarantine::default();
        match (cx.protocol, self.held.take()) {
            (Protocol::Sotw, _) => {
                let same =
                    self.resumed.as_ref().is_some_and(|version| *version == target.version().to_string());
                // Only for a pure wildcard is the version a hash of exactly what the client holds.
                if same && self.ty.root() && self.subscription.explicit() == 0 && self.sent.is_none() {
                    return None;
                }
                Some(Some(Batch::Set(target.clone())))
            }
            (Protocol::Delta, None) => Some(Some(Batch::Set(target.clone()))),
            (Protocol::Delta, Some(held)) => {
                let differs = |r: &&Arc<Resource>| held.get(r.name()) != Some(&Some(r.version()));
                let gone = held.keys().filter(|name| target.get(name).is_none());
                draft.removed.extend(gone.cloned());
                Some(Some(Batch::List(target.iter().filter(differs).cloned().collect())))
            }
        }
    }

    /// The client came back with exactly what it would be sent.
    fn resumed_at(&mut self, target: &ResourceSet, cx: &Context<'_>) {
        self.base = Some(target.clone());
        self.base_revision = cx.resources.revision();
        self.acked_revision = self.base_revision;
        let version = target.version().to_string();
        self.acked = Some(Mark { number: 0, revision: self.base_revision, version, at: cx.now });
        self.sent = self.acked.clone();
    }

    /// What has changed since the last response. Returns a batch if it can be shared with other streams.
    fn draft_changes(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) -> Option<Batch> {
        // Without a last response there is nothing but names to be answered.
        let base = self.base.clone()?;
        if base == *target || self.subscription.is_empty() {
            return None;
        }
        let delta = cx.diffs.diff(&base, target);
        for name in &delta.removed {
            self.draft_removed(name, &base, cx.protocol, draft);
        }
        if self.subscription.is_wildcard() && self.has_no_exceptions() && self.resend.is_empty() {
            return Some(Batch::Changed(delta));
        }
        for resource in delta.changed.iter().filter(|r| self.subscription.covers(r.name())) {
            // It was about to go and comes back: the client has it still.
            let came_back = self.departing.remove(resource.name()).is_some_and(|old| old == *resource);
            if came_back && !self.uncertain.remove(resource.name()) {
                continue;
            }
            if self.quarantine.holds_back(resource) {
                continue;
            }
            if let Some(aside) = self.quarantine.release(resource.name()) {
                self.carried.insert(resource.name().clone(), aside.held);
            }
            draft.resources.insert(resource.name().clone(), resource.clone());
        }
        None
    }

    fn draft_removed(&mut self, name: &Arc<str>, base: &ResourceSet, protocol: Protocol, draft: &mut Draft) {
        if !self.subscription.covers(name) {
            return;
        }
        let released = self.quarantine.release(name);
        if released.is_some() {
            self.uncertain.insert(name.clone());
        }
        let held = match released.map(|aside| aside.held) {
            // Left out of the whole state all the time.
            Some(Held::Nothing) if protocol == Protocol::Sotw && self.ty.root() => return,
            Some(Held::LastGood(resource)) => Some(resource),
            // Named resources may be held from an earlier stream. To remove what is not there does no harm.
            None | Some(Held::Unknown | Held::Nothing) => base.get(name).cloned(),
        };
        match self.ty.removal() {
            _ if order::removed_last(self.ty) => {
                if let Some(resource) = held {
                    self.departing.insert(name.clone(), resource);
                }
            }
            Removal::Deletes => {
                draft.immediate = true;
                self.refresh.remove(name);
                draft.removed.push(name.clone());
            }
            // The client will drop it itself, when nothing of its own refers to it.
            Removal::EndsWaiting | Removal::Ignored | Removal::Breaks => {}
        }
    }

    /// Names that have to be answered.
    fn draft_resends(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) {
        let held = self.held.take();
        for name in mem::take(&mut self.resend) {
            if !self.subscription.covers(&name) {
                continue;
            }
            let known = held.as_ref().and_then(|held| held.get(&name)).copied().flatten();
            match target.get(&name).or_else(|| self.departing.get(&name)) {
                Some(resource)
                    if cx.client.held_is_subscribed(self.ty) && known == Some(resource.version()) => {}
                Some(resource) => {
                    let resource = match self.quarantine.get(&name) {
                        Some(aside) if aside.version == resource.version() => match &aside.held {
                            Held::LastGood(good) => good.clone(),
                            Held::Nothing | Held::Unknown => continue,
                        },
                        _ => resource.clone(),
                    };
                    draft.resources.insert(name, resource);
                }
                None => self.draft_missing(name, cx, draft),
            }
        }
    }

    fn draft_missing(&self, name: Arc<str>, cx: &Context<'_>, draft: &mut Draft) {
        match missing::answer(self.ty, &name, cx.protocol, cx.client, cx.resources) {
            Answer::Empty(resource) => _ = draft.resources.insert(name, resource),
            Answer::Removed => draft.removed.push(name),
            Answer::Silence if cx.client.wants_errors() => draft.missing.push(name),
            Answer::Silence => {}
        }
    }

    fn expand_globs(&mut self, cx: &Context<'_>) {
        for glob in mem::take(&mut self.globs) {
            let set = cx.resources.set(self.ty);
            let members: Vec<_> = set
                .iter()
                .map(|r| r.name())
                .filter(|name| names::glob_matches(&glob, name))
                .cloned()
                .collect();
            if members.is_empty() {
                // An empty collection is answered with its own name (xRFC TP1).
                self.resend.insert(glob);
            }
            self.resend.extend(members);
        }
    }

    /// What the client holds if it is given `set` now.
    fn full_state(&self, set: &ResourceSet) -> Batch {
        if self.subscription.is_wildcard() && self.has_no_exceptions() {
            return Batch::Set(set.clone());
        }
        let mut resources = Vec::new();
        for resource in set.iter().filter(|r| self.subscription.covers(r.name())) {
            match self.quarantine.get(resource.name()).filter(|aside| aside.version == resource.version()) {
                None => resources.push(resource.clone()),
                Some(aside) => match &aside.held {
                    Held::LastGood(good) => resources.push(good.clone()),
                    // To leave it out would delete what the client may have from before it connected.
                    Held::Unknown => resources.push(resource.clone()),
                    Held::Nothing => {}
                },
            }
        }
        let staying = self.departing.iter().filter(|(name, _)| self.subscription.covers(name));
        resources.extend(staying.map(|(_, resource)| resource.clone()));
        Batch::List(resources.into())
    }

    /// Cuts a batch to what the client accepts in one message; the rest is sent later.
    fn split(&mut self, batch: Batch, cx: &Context<'_>) -> Batch {
        let max = cx.client.response_bytes_max(self.ty);
        if max == usize::MAX || batch.iter().map(|r| r.len()).sum::<usize>() <= max {
            return batch;
        }
        let mut bytes = 0;
        let mut now = Vec::new();
        for resource in batch.iter() {
            bytes += resource.len();
            if bytes <= max || now.is_empty() {
                now.push(resource.clone());
            } else {
                self.resend.insert(resource.name().clone());
            }
        }
        Batch::List(now.into())
    }
}

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

/// A response being put together.
#[derive(Debug, Default)]
struct Draft {
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
    removed: Vec<Arc<str>>,
    missing: Vec<Arc<str>>,
    /// Something was removed that a state-of-the-world response shows by leaving it out.
    immediate: bool,
}

impl Draft {
    /// The resources that are not in the batch.
    fn unique_to(&mut self, batch: &Batch) -> Vec<Arc<Resource>> {
        let mut resources = mem::take(&mut self.resources);
        for resource in batch.iter() {
            resources.remove(resource.name());
        }
        resources.into_values().collect()
    }
}

fn hash_of<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Version {
    Version(resources.fold(0, |hash, resource| hash.wrapping_add(resource.set_hash())))
}

/// The part of an error text in which names are looked for.
fn redact_for_search(text: &str) -> String {
    redact(XdsType::Cds, text)
}

/// How long a client that does not acknowledge is left alone before its state counts as stale.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

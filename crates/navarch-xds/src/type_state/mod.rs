//! What one stream has been told of one type, and what it has to be told next.
//!
//! There is no list of what the client holds. It is the set that the last response was made from (shared with all
//! streams of the class), restricted to the subscription, with a few exceptions beside it: names that must be sent
//! again, resources that stay until nothing refers to them, resources that the client rejected.

mod make;
mod states;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{ProxyResources, Resource, ResourceSet, Version, XdsType};

use crate::brake::{Brake, Recent};
use crate::class::DiffCache;
use crate::client::ClientRules;
use crate::nack::{Held, Nack, Quarantine};
use crate::names;
use crate::order;
use crate::response::{Batch, Protocol};
use crate::subscription::{Subscription, SubscriptionChange};

pub(crate) use states::TypeStates;
pub(crate) use verdict::VerdictContext;

/// Everything a type has to know that is not its own.
pub(crate) struct Context<'a> {
    pub resources: &'a ProxyResources,
    pub diffs: &'a DiffCache,
    pub client: &'a ClientRules,
    pub protocol: Protocol,
    pub now: Instant,
    /// Removals are held back.
    pub removals_held: bool,
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

/// What is to be sent of a type.
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
pub(crate) struct TypeState {
    pub ty: XdsType,
    pub subscription: Subscription,
    /// The client has asked for the type at least once.
    pub requested: bool,
    /// All that is wanted has to be sent.
    everything: bool,
    /// What a delta client says it holds from an earlier stream. Until the first answer.
    held: Option<BTreeMap<Arc<str>, Option<Version>>>,
    /// What it holds at the current version need not be sent, although it asks for it by name.
    keeps_held: bool,
    /// Nothing is sent until then: whether `keeps_held` is right is not known yet.
    pub start_unknown_until: Option<Instant>,
    /// The version a state-of-the-world client says it holds. Until the first answer.
    resumed: Option<String>,
    /// The set that was brought to the client last.
    base: Option<ResourceSet>,
    base_revision: u64,
    /// Names to be sent whatever was sent before.
    resend: BTreeSet<Arc<str>>,
    /// Those among them that the client is about to ask for.
    anticipated: BTreeSet<Arc<str>>,
    globs: Vec<Arc<str>>,
    /// Resources that are no longer in the set but stay with the client until nothing can refer to them.
    leaving: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Names of what is not in the set, and the client may hold from an earlier stream. It stays while removals are held.
    leaving_by_name: BTreeSet<Arc<str>>,
    /// What the client has lost in the last seconds.
    recent: Recent,
    /// Those among them that the client may hold in another version, because a response with them was rejected.
    maybe_other_version: BTreeSet<Arc<str>>,
    /// Something was taken out of the whole state that no later change will show.
    full_state_due: bool,
    quarantine: Quarantine,
    /// What the client holds of resources about to be sent, where it is not what `base` says.
    held_before: BTreeMap<Arc<str>, Held>,
    pub inflight: VecDeque<Inflight>,
    /// When the client has to hear next of resources with a time to live.
    refresh: BTreeMap<Arc<str>, Instant>,
    /// Since when something cannot be sent although it is due.
    pub waiting_since: Option<Instant>,
    /// Clusters have been sent since the client's last endpoint request.
    pub clusters_sent: bool,
    pub sent: Option<ResponseMark>,
    pub acked: Option<ResponseMark>,
    pub acked_revision: u64,
    pub error: Option<(u64, Nack)>,
    /// The last response that was sent before the last bad resource was known.
    judged_until: u64,
    pub sent_total: u64,
    pub rejected_total: u64,
}

/// A response, for the status view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResponseMark {
    pub number: u64,
    pub revision: u64,
    pub version: String,
    pub at: Instant,
}

impl TypeState {
    pub fn new(ty: XdsType) -> Self {
        Self {
            ty,
            subscription: Subscription::default(),
            requested: false,
            everything: false,
            held: None,
            keeps_held: false,
            start_unknown_until: None,
            resumed: None,
            base: None,
            base_revision: 0,
            resend: BTreeSet::new(),
            anticipated: BTreeSet::new(),
            globs: Vec::new(),
            leaving: BTreeMap::new(),
            leaving_by_name: BTreeSet::new(),
            recent: Recent::default(),
            maybe_other_version: BTreeSet::new(),
            full_state_due: false,
            quarantine: Quarantine::default(),
            held_before: BTreeMap::new(),
            inflight: VecDeque::new(),
            refresh: BTreeMap::new(),
            waiting_since: None,
            clusters_sent: false,
            sent: None,
            acked: None,
            acked_revision: 0,
            error: None,
            judged_until: 0,
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

    /// What the client says it holds need not be sent again, except `needed`.
    pub fn keep_held<'a>(&mut self, needed: impl IntoIterator<Item = &'a str>) {
        self.keeps_held = true;
        self.need(needed);
    }

    /// What the client says it holds is sent again.
    pub fn send_held(&mut self) {
        self.keeps_held = false;
        self.start_unknown_until = None;
    }

    /// The client needs these, whether or not it says that it holds them.
    fn need<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        if let Some(held) = &mut self.held {
            names.into_iter().for_each(|name| _ = held.remove(name));
        }
    }

    /// The client needs those of which `is_needed` says so, whether or not it says that it holds them.
    pub fn need_if(&mut self, is_needed: impl Fn(&str) -> bool) {
        if let Some(held) = &mut self.held {
            held.retain(|name, _| !is_needed(name));
        }
    }

    /// Whether the client has said what it holds, and has not been answered yet.
    pub fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// A change of the subscription.
    pub fn subscribe(&mut self, change: SubscriptionChange, protocol: Protocol) {
        // What is asked for on this stream for the second time was dropped meanwhile.
        self.need(change.named.iter().chain(&change.dropped).map(|name| &**name));
        self.everything |= change.everything;
        self.resend.extend(change.named);
        self.globs.extend(change.globbed);
        for name in change.dropped {
            match (self.subscription.covers(&name), protocol) {
                // It is still covered by a wildcard or a collection, or not there at all; the client is told which
                // (xDS spec, "Unsubscribing from Resources").
                (true, Protocol::Delta) => _ = self.resend.insert(name),
                (true, Protocol::Sotw) => {}
                (false, _) => self.forget(&name),
            }
        }
        if !self.subscription.is_wildcard() && self.everything {
            self.everything = false;
        }
        if !self.leaving.is_empty() {
            let subscription = &self.subscription;
            self.leaving.retain(|_, resource| subscription.wants(resource));
        }
        if !self.quarantine.is_empty() {
            let subscription = &self.subscription;
            let base = self.base.as_ref();
            self.quarantine.retain(|name, _| {
                base.and_then(|base| base.get(name)).is_some_and(|resource| subscription.wants(resource))
            });
        }
    }

    fn forget(&mut self, name: &str) {
        self.resend.remove(name);
        self.leaving.remove(name);
        self.leaving_by_name.remove(name);
        self.quarantine.release(name);
        self.refresh.remove(name);
    }

    /// Asks for resources to be sent again, if they are subscribed to.
    pub fn resend<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, known: &ResourceSet) {
        for name in names {
            if self.subscription.covers(name) {
                self.need([name]);
                self.resend.insert(crate::subscription::shared(name, known));
            }
        }
    }

    /// Asks for a resource to be sent that the client will ask for when it has read what was sent before. Once: when
    /// the client asks, it is answered like any other request.
    pub fn anticipate(&mut self, name: &str, known: &ResourceSet) {
        let name = crate::subscription::shared(name, known);
        self.requested = true;
        self.resend.insert(name.clone());
        self.anticipated.insert(name);
    }

    /// Asks for the members of collections to be sent again, or word that there are none.
    pub fn resend_globs(&mut self, globs: impl IntoIterator<Item = Arc<str>>) {
        self.globs.extend(globs);
    }

    /// Asks for all resources subscribed to by name to be sent again, unless some are about to be.
    pub fn resend_names(&mut self) {
        if self.resend.is_empty() {
            self.resend.extend(self.subscription.names().cloned());
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
                || self.full_state_due
                || !self.resend.is_empty()
                || !self.globs.is_empty()
                || (!self.subscription.is_empty()
                    && self.base.as_ref().is_some_and(|base| base != resources.set(self.ty))))
    }

    /// Whether resources stay only until nothing can refer to them.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty() || !self.leaving_by_name.is_empty()
    }

    /// Whether resources stay of which only the names are known.
    pub fn has_leaving_by_name(&self) -> bool {
        !self.leaving_by_name.is_empty()
    }

    /// Number of resources that stay only until they may go.
    pub fn leaving_count(&self) -> usize {
        self.leaving.len() + self.leaving_by_name.len()
    }

    /// How many resources the client would lose, and of how many, if that is too much.
    pub fn loses_too_much(&mut self, cx: &Context<'_>, brake: &Brake) -> Option<(usize, usize)> {
        let target = cx.resources.set(self.ty);
        let wanted = |resource: &Resource| self.subscription.wants(resource);
        let (lost, size) = match (&self.base, &self.held) {
            (None, Some(held)) if self.everything => {
                let is_there = |name: &str| target.get(name).is_some_and(|resource| wanted(resource));
                (held.keys().filter(|name| !is_there(name)).count(), held.len())
            }
            (Some(base), _) => {
                let mut lost = self.leaving_count();
                if base != target {
                    let delta = cx.diffs.diff(base, target);
                    let goes = |name: &Arc<str>| base.get(name).is_some_and(|resource| wanted(resource));
                    lost += delta.removed.iter().filter(|name| goes(name)).count();
                    let back = |name: &Arc<str>| {
                        self.leaving.contains_key(name) || self.leaving_by_name.contains(name)
                    };
                    lost -= delta.changed.iter().filter(|resource| back(resource.name())).count();
                }
                // Clients of the wildcard, which are most, must not each count what they share.
                let held = match lost {
                    0 => 0,
                    _ if self.subscription.is_wildcard() => base.wildcard_len(),
                    _ => base.iter().filter(|resource| wanted(resource)).count(),
                };
                (lost, held + self.leaving_count())
            }
            (None, _) => return None,
        };
        (lost > 0 && self.recent.is_too_much(lost, size, brake, cx.removals_held, cx.now))
            .then_some((lost, size))
    }

    /// Whether the client has accepted all there is.
    fn is_settled(&self, resources: &ProxyResources) -> bool {
        !self.has_work(resources) && self.inflight.is_empty() && self.quarantine.is_empty()
    }

    /// Whether nothing that the client uses can refer to what `ty` is about to lose.
    pub fn has_let_go(&self, ty: XdsType, resources: &ProxyResources) -> bool {
        let rejected = ty == XdsType::Cds && !self.quarantine.is_empty();
        !self.requested
            || (!self.has_work(resources) && self.inflight.is_empty() && !self.has_leaving() && !rejected)
    }

    /// The newest revision of which the client has accepted everything that concerns it.
    pub fn synced_revision(&self, resources: &ProxyResources) -> u64 {
        if self.is_settled(resources) && !self.has_leaving() {
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

    /// When [`TypeState::may_send`] becomes true without an acknowledgement.
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
            && !self.has_leaving()
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
        self.sent = Some(ResponseMark { number, revision, version, at: now });
    }

    /// Hash of what the client holds after this response. In state-of-the-world the client carries it to other
    /// servers, where it must mean the same.
    pub fn version(&self, protocol: Protocol) -> Version {
        let Some(base) = &self.base else { return Version::default() };
        if self.subscription.is_wildcard() && (protocol == Protocol::Delta || self.is_plain(base)) {
            return base.wildcard_version();
        }
        if protocol == Protocol::Delta {
            return base.version();
        }
        if self.subscription.is_wildcard() || self.ty.root() {
            return hash_of(self.full_state(base).iter());
        }
        hash_of(self.subscription.names().filter_map(|name| base.get(name)))
    }

    fn has_no_exceptions(&self) -> bool {
        !self.has_leaving() && self.quarantine.is_empty()
    }

    /// Whether what the client holds of the set is the wildcard and nothing else.
    fn is_plain(&self, set: &ResourceSet) -> bool {
        let only_wildcard = self.subscription.explicit() == 0 || set.is_all_wildcard();
        self.subscription.is_wildcard() && only_wildcard && self.has_no_exceptions()
    }

    /// All of the set that the client gets because it asked for everything.
    fn wildcard_of(set: &ResourceSet) -> Batch {
        if set.is_all_wildcard() {
            return Batch::Set(set.clone());
        }
        Batch::List(set.iter().filter(|resource| !resource.is_on_demand()).cloned().collect())
    }

    /// What the client holds if it is given `set` now.
    fn full_state(&self, set: &ResourceSet) -> Batch {
        if self.is_plain(set) {
            return Self::wildcard_of(set);
        }
        let mut resources = Vec::new();
        for resource in set.iter().filter(|r| self.subscription.wants(r)) {
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
        let staying = self.leaving.values().filter(|r| self.subscription.wants(r));
        resources.extend(staying.cloned());
        Batch::List(resources.into())
    }
}

fn hash_of<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Version {
    Version(resources.fold(0, |hash, resource| hash.wrapping_add(resource.set_hash())))
}

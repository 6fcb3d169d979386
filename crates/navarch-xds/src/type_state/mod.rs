//! What one stream has been told of one type, and what it has to be told next.
//!
//! Envoy keeps the same on its side of the stream and calls it the state of a subscription; here a
//! [`Subscription`] is what the client wants, and the rest is beside it.
//!
//! There is no list of what the client holds. It is the set that the last response was made from (`base`,
//! shared with all streams of the class), restricted to the subscription, with a few exceptions beside it:
//!
//! | Word | What the client has | File |
//! |---|---|---|
//! | returning | what it says it holds from an earlier stream, until the first answer | `returning.rs` |
//! | due | something has to be sent whatever was sent before: everything, a name, a collection | `due.rs` |
//! | anticipated | a name is due that the client has not asked for yet, and will | `due.rs` |
//! | unsent | a name is due of which the client was sent nothing: what `base` has does not count | `due.rs` |
//! | sent ahead | a name was sent before the client asked for it | `due.rs` |
//! | asked since | sent ahead, and asked for before that was answered: an acceptance answers it | `due.rs` |
//! | leaving | a resource that left the set, and stays until nothing refers to it | `leaving.rs` |
//! | leaving by name | the same, from an earlier stream: there is only the name | `leaving.rs` |
//! | maybe other version | it leaves, and a rejection left it unclear which one is there | `leaving.rs` |
//! | orphaned | a virtual host that stays since its routes do, which are gone | `orphans.rs` |
//! | in flight | it was sent and not answered: the client has it or what it had before | `inflight.rs` |
//! | held before | what the client had before a response, where that is not what `base` was | `inflight.rs` |
//! | set aside | it was rejected, and is not sent again until its content changes | `nack.rs` |
//! | judged | a response was sent before something bad was known: its rejection is no news | `progress.rs` |

mod answers;
mod due;
mod due_refreshes;
mod first;
mod inflight;
mod leaving;
mod orphans;
mod progress;
mod refresh;
mod removal;
mod respond;
mod returning;
mod states;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{ProxyResources, Resource, ResourceSet, Version, XdsType, hosts};

use crate::brake::Brake;
use crate::class::DiffCache;
use crate::client::ClientRules;
use crate::nack::{Held, Quarantine};
use crate::response::{Batch, Cause, Protocol};
use crate::subscription::{Subscription, SubscriptionChange};
use due::Due;
use due_refreshes::Refreshes;
use inflight::{Inflight, InflightQueue};
use leaving::{Going, Leaving};
use orphans::Orphans;
use progress::Progress;
use returning::Returning;

pub(crate) use progress::ResponseMark;
pub(crate) use states::TypeStates;
pub(crate) use verdict::VerdictContext;

/// Everything a type has to know that is not its own.
pub(crate) struct Context<'a> {
    pub resources: &'a ProxyResources,
    pub diffs: &'a DiffCache,
    pub client: &'a ClientRules,
    pub protocol: Protocol,
    pub now: Instant,
    /// The brake holds removals.
    pub removals_held: bool,
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
    taken: Going,
    held_before: BTreeMap<Arc<str>, Held>,
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
        cause: Cause,
    },
    Rejected {
        revision: u64,
    },
}

/// The state of one type on one stream.
#[derive(Debug)]
pub(crate) struct TypeState {
    pub ty: XdsType,
    pub subscription: Subscription,
    /// The client has asked for the type at least once.
    pub requested: bool,
    pub returning: Returning,
    /// The set that was brought to the client last.
    base: Option<ResourceSet>,
    base_revision: u64,
    due: Due,
    leaving: Leaving,
    orphans: Orphans,
    quarantine: Quarantine,
    /// What the client holds of resources about to be sent, where it is not what `base` says.
    held_before: BTreeMap<Arc<str>, Held>,
    inflight: InflightQueue,
    refreshes: Refreshes,
    /// Since when something cannot be sent although it is due.
    pub waiting_since: Option<Instant>,
    /// When the client asked for something that it has not been sent yet.
    pub asked_at: Option<Instant>,
    /// Clusters have been sent since the client's last endpoint request.
    pub clusters_sent: bool,
    pub progress: Progress,
}

impl TypeState {
    pub fn new(ty: XdsType) -> Self {
        Self {
            ty,
            subscription: Subscription::default(),
            requested: false,
            returning: Returning::default(),
            base: None,
            base_revision: 0,
            due: Due::default(),
            leaving: Leaving::default(),
            orphans: Orphans::default(),
            quarantine: Quarantine::default(),
            held_before: BTreeMap::new(),
            inflight: InflightQueue::default(),
            refreshes: Refreshes::default(),
            waiting_since: None,
            asked_at: None,
            clusters_sent: false,
            progress: Progress::default(),
        }
    }

    // --- requests

    /// What the client held when it connected, as delta versions.
    pub fn resume_held(&mut self, held: BTreeMap<String, String>, subscribed: bool) {
        let names = self.returning.with(held);
        if subscribed && !self.subscription.is_wildcard() {
            let names: Vec<_> = names.cloned().collect();
            self.subscription.adopt(names.iter().cloned());
            self.due.names(names);
        }
    }

    /// A change of the subscription.
    pub fn subscribe(&mut self, change: SubscriptionChange, protocol: Protocol) {
        // What is asked for on this stream for the second time was dropped meanwhile.
        self.returning.need(change.named.iter().chain(&change.dropped).map(|name| &**name));
        self.due.everything |= change.everything;
        // Mostly all of them are new.
        if change.named.len() != change.added.len() {
            let added: BTreeSet<&Arc<str>> = change.added.iter().collect();
            self.due.names(change.named.into_iter().filter(|name| !added.contains(name)));
        }
        self.due.ask(change.added);
        self.due.globs(change.globbed);
        for name in change.dropped {
            match (self.subscription.covers(&name), protocol) {
                // It is still covered by a wildcard or a collection, or not there at all; the client is told
                // which (xDS spec, "Unsubscribing from Resources").
                (true, Protocol::Delta) => self.due.name(name),
                (true, Protocol::Sotw) => {}
                (false, _) => self.forget(&name),
            }
        }
        self.due.everything &= self.subscription.is_wildcard();
        let subscription = &self.subscription;
        self.leaving.retain(|resource| subscription.wants(resource));
        if !self.quarantine.is_empty() {
            let base = self.base.as_ref();
            self.quarantine.retain(|name, _| {
                base.and_then(|base| base.get(name)).is_some_and(|resource| subscription.wants(resource))
            });
        }
    }

    /// Virtual hosts: the client names these route configurations, and no longer those.
    ///
    /// What it was sent for others says nothing of the hosts of these. What it holds of the hosts of those
    /// has gone with them, and it is told so: it goes on listing what it was sent, and would be taken to hold
    /// it if it named the routes again.
    pub fn follow_routes(&mut self, named: &[Arc<str>], dropped: &[Arc<str>]) {
        self.subscription.add_routes(named.iter().cloned());
        let Some(base) = self.base.clone() else {
            dropped.iter().for_each(|routes| _ = self.subscription.drop_routes(routes));
            return;
        };
        if self.subscription.follows_routes() {
            let hosts = named.iter().flat_map(|routes| hosts::of_routes(&base, routes));
            self.due.ask(hosts.map(|host| host.name().clone()));
        }
        for routes in
            dropped.iter().filter(|routes| self.subscription.drop_routes(routes)).collect::<Vec<_>>()
        {
            for host in hosts::of_routes(&base, routes) {
                if !self.subscription.wants(host) {
                    self.forget(host.name());
                    self.due.take_back(host.name().clone());
                }
            }
            self.orphans.take_of(routes).into_iter().for_each(|host| self.due.take_back(host));
        }
    }

    fn forget(&mut self, name: &str) {
        self.due.forget(name);
        self.leaving.forget(name);
        self.quarantine.release(name);
        self.refreshes.stop(name);
    }

    /// Asks for resources to be sent again, if they are subscribed to.
    pub fn resend<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, known: &ResourceSet) {
        for name in names {
            if self.subscription.covers(name) {
                self.returning.need([name]);
                self.due.name(crate::subscription::shared(name, known));
            }
        }
    }

    /// Asks for a resource to be sent that the client will ask for when it has read what was sent before.
    /// Once: when the client asks, it is answered like any other request.
    pub fn anticipate(&mut self, name: &str, known: &ResourceSet) {
        self.requested = true;
        self.due.anticipate(crate::subscription::shared(name, known));
    }

    /// Asks for the members of collections to be sent again, or word that there are none.
    pub fn resend_globs(&mut self, globs: impl IntoIterator<Item = Arc<str>>) {
        self.due.globs(globs);
    }

    /// Asks for all resources subscribed to by name to be sent again, unless some are about to be.
    pub fn resend_names(&mut self) {
        if self.due.has_no_names() {
            self.due.names(self.subscription.names().cloned());
        }
    }

    // --- what there is to do

    /// Whether something other than removals has to be sent, or at least looked at.
    pub fn has_work(&self, resources: &ProxyResources) -> bool {
        self.has_news(resources) || (self.requested && self.quarantine.has_suspects())
    }

    /// Whether the client is to be told that it does not hold something.
    pub fn takes_back(&self) -> bool {
        self.due.has_taken_back()
    }

    /// Whether something has to be sent that was not sent before, or is asked for.
    pub fn has_news(&self, resources: &ProxyResources) -> bool {
        let differs = || self.base.as_ref().is_some_and(|base| base != resources.set(self.ty));
        self.requested && (!self.due.is_empty() || (!self.subscription.is_empty() && differs()))
    }

    /// What stays with the client only until it may go.
    pub fn leaving(&self) -> &Leaving {
        &self.leaving
    }

    /// Whether the client has accepted all there is.
    fn is_settled(&self, resources: &ProxyResources) -> bool {
        !self.has_work(resources) && self.inflight.is_empty() && self.quarantine.is_empty()
    }

    /// Whether nothing that the client uses can refer to what `ty` is about to lose.
    pub fn has_let_go(&self, ty: XdsType, resources: &ProxyResources) -> bool {
        let rejected = ty == XdsType::Cds && !self.quarantine.is_empty();
        let settled = !self.has_work(resources) && self.inflight.is_empty() && self.leaving.is_empty();
        !self.requested || (settled && !rejected)
    }

    /// The newest revision that the client has fully accepted, as far as it concerns it.
    pub fn synced_revision(&self, resources: &ProxyResources) -> u64 {
        if self.is_settled(resources) && self.leaving.is_empty() {
            resources.revision()
        } else {
            self.progress.acked_revision()
        }
    }

    /// The resources are about to be replaced by others: how far the client is with these counts.
    pub fn reach(&mut self, resources: &ProxyResources) {
        self.progress.reach(self.synced_revision(resources));
    }

    /// Resources that the client was sent and has not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.inflight.iter().flat_map(|inflight| inflight.news.iter())
    }

    /// Whether everything that was sent is answered.
    pub fn is_answered(&self) -> bool {
        self.inflight.is_empty()
    }

    /// What state-of-the-world sends in place of resources that were rejected. The client may see a change in
    /// it.
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
        self.inflight.may_send(self.ty, self.progress.error().is_some(), now)
    }

    /// When [`TypeState::may_send`] becomes true without an acknowledgement.
    pub fn may_send_at(&self) -> Option<Instant> {
        self.inflight.may_send_at(self.ty, self.progress.error().is_some())
    }

    /// When a resource with a time to live has to be refreshed.
    pub fn refresh_at(&self) -> Option<Instant> {
        self.refreshes.next()
    }

    // --- what is sent

    /// Records that a response has been sent.
    pub fn record(&mut self, number: u64, version: String, outgoing: &Outgoing, cx: &Context<'_>) {
        let (revision, protocol, now) = (cx.resources.revision(), cx.protocol, cx.now);
        self.refreshes.sent(&outgoing.news, now);
        let complete = self.base_revision == revision
            && self.due.has_no_names()
            && self.leaving.is_empty()
            && !self.due.everything;
        let is_new = self.progress.sent().is_none_or(|mark| mark.revision < revision);
        let cause = match self.asked_at.take() {
            Some(at) => Cause::Asked(at),
            None if is_new => Cause::Revision,
            None => Cause::Rest,
        };
        self.inflight.push(Inflight {
            number,
            revision,
            sent_at: now,
            cause,
            news: outgoing.news.clone(),
            whole: if self.is_whole(protocol) { outgoing.payload.clone() } else { Batch::empty() },
            has_doubts: self.has_doubts(),
            removed: outgoing.removed.clone(),
            taken: outgoing.taken.clone(),
            before: outgoing.before.clone(),
            held_before: outgoing.held_before.clone(),
            complete,
        });
        self.waiting_since = None;
        self.progress.send(ResponseMark { number, revision, version, at: now });
    }

    /// Hash of what the client holds after this response. In state-of-the-world the client carries it to
    /// other servers, where it must mean the same.
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

    /// The content of a resource that is not sent again until it changes.
    pub fn aside_version(&self, name: &str) -> Option<Version> {
        self.quarantine.get(name).map(|aside| aside.version)
    }

    /// Whether something that may be bad is in every whole state, because to leave it out might delete what
    /// the client has.
    fn has_doubts(&self) -> bool {
        self.leaving.is_any_version_unknown() || self.quarantine.has_doubts()
    }

    /// Whether a response is the whole state: what is not in it is deleted.
    fn is_whole(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Sotw && self.ty.root()
    }

    /// Whether what the client holds of the set is the wildcard and nothing else.
    fn is_plain(&self, set: &ResourceSet) -> bool {
        let only_wildcard = self.subscription.explicit() == 0 || set.is_all_wildcard();
        let no_exceptions = self.leaving.is_empty() && self.quarantine.is_empty();
        let is_everything = self.subscription.is_wildcard() && !self.subscription.follows_routes();
        is_everything && only_wildcard && no_exceptions
    }

    /// All of the set that the client gets because it asked for everything.
    fn wildcard_of(&self, set: &ResourceSet) -> Batch {
        let mut wanted = self.subscription.everything();
        // Nearly always a client names all route configurations that there are, and gets all virtual hosts.
        let follows = self.subscription.follows_routes();
        if set.is_all_wildcard() && (!follows || set.iter().all(|host| wanted(host))) {
            return Batch::Set(set.clone());
        }
        Batch::List(set.iter().filter(|resource| wanted(resource)).cloned().collect())
    }

    /// What the client holds if it is given `set` now.
    fn full_state(&self, set: &ResourceSet) -> Batch {
        if self.is_plain(set) {
            return self.wildcard_of(set);
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
        let staying = self.leaving.resources().filter(|r| self.subscription.wants(r));
        resources.extend(staying.cloned());
        Batch::List(resources.into())
    }

    /// How many resources the client would lose, and of how many, if that is too much.
    pub fn loses_too_much(&mut self, cx: &Context<'_>, brake: &Brake) -> Option<(usize, usize)> {
        let (lost, size) = self.losses(cx)?;
        let is_too_much =
            |leaving: &mut Leaving| leaving.recent.is_too_much(lost, size, brake, cx.removals_held, cx.now);
        (lost > 0 && is_too_much(&mut self.leaving)).then_some((lost, size))
    }

    /// How many resources the client would lose, and how many it holds.
    fn losses(&self, cx: &Context<'_>) -> Option<(usize, usize)> {
        let target = cx.resources.set(self.ty);
        let wanted = |resource: &Resource| self.subscription.wants(resource);
        let Some(base) = &self.base else {
            let held = self.returning.names().filter(|_| self.due.everything)?;
            let size = held.len();
            let is_there = |name: &str| target.get(name).is_some_and(|resource| wanted(resource));
            return Some((held.filter(|name| !is_there(name)).count(), size));
        };
        let mut lost = self.leaving.len();
        if base != target {
            let delta = cx.diffs.diff(base, target);
            let goes = |name: &Arc<str>| base.get(name).is_some_and(|resource| wanted(resource));
            lost += delta.removed.iter().filter(|name| goes(name)).count();
            lost -= delta.changed.iter().filter(|resource| self.leaving.has(resource.name())).count();
        }
        // Clients of the wildcard, which are most, must not each count what they share.
        let held = match lost {
            0 => 0,
            _ if self.subscription.is_wildcard() => base.wildcard_len(),
            _ => base.iter().filter(|resource| wanted(resource)).count(),
        };
        Some((lost, held + self.leaving.len()))
    }
}

fn hash_of<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Version {
    Version(resources.fold(0, |hash, resource| hash.wrapping_add(resource.set_hash())))
}

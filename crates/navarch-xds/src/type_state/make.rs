//! Responses: which resources go into the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use navarch_envoy::{Removal, Resource, ResourceSet, XdsType};

use super::{Context, Outgoing, ResponseMark, TypeState};
use crate::missing::{self, Answer};
use crate::nack::{Held, Quarantine};
use crate::names;
use crate::order;
use crate::response::{Batch, Protocol};

impl TypeState {
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
        if first && self.is_resumed_at(&target, cx.protocol) {
            self.resumed_at(&target, cx);
            return None;
        }
        let mut draft = Draft { immediate: mem::take(&mut self.full_state_due), ..Draft::default() };
        let whole = if first {
            Some(self.draft_everything(&target, cx, &mut draft))
        } else {
            self.draft_changes(&target, cx, &mut draft)
        };
        let kept = self.draft_resends(&target, cx, &mut draft);
        // What the client holds of an earlier stream may be that there is nothing, and it may ask again.
        draft.removed.retain(|name| !draft.resources.contains_key(name));
        // Nor is what is sent taken away later.
        draft.resources.keys().for_each(|name| _ = self.leaving_by_name.remove(name));
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
            if kept && self.sent.is_none() {
                self.resumed_at(&target, cx);
            }
            return None;
        }
        let payload = if full_state { self.full_state(&target) } else { news.clone() };
        Some(self.outgoing(payload, news, removed, missing, before))
    }

    /// A response with one group of suspects of a rejected response.
    fn make_trial(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        let base = self.base.clone()?;
        let target = cx.resources.set(self.ty);
        for _ in 0..self.quarantine.groups() {
            let mut group = Vec::new();
            let mut later = Vec::new();
            for (name, aside) in self.quarantine.next_suspects() {
                let Some(resource) = base.get(&name).filter(|r| self.subscription.wants(r)) else { continue };
                if target.get(&name) == Some(resource) {
                    group.push(resource.clone());
                    self.held_before.insert(name, aside.held);
                } else {
                    // Other content is tried with the other changes; this one, should it come back until then.
                    later.push((name, aside));
                }
            }
            self.quarantine.put_back(later);
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
        let (staying, going) = mem::take(&mut self.leaving).into_iter().partition(|(name, _)| pinned(name));
        self.leaving = staying;
        self.maybe_other_version.retain(|name| self.leaving.contains_key(name));
        let taken: Vec<Arc<Resource>> =
            BTreeMap::into_values(going).filter(|r| self.subscription.wants(r)).collect();
        let (staying, leaving_by_name) =
            mem::take(&mut self.leaving_by_name).into_iter().partition(|name| pinned(name));
        self.leaving_by_name = staying;
        let leaving_by_name: BTreeSet<Arc<str>> = leaving_by_name;
        if taken.is_empty() && leaving_by_name.is_empty() {
            return None;
        }
        let mut removed = Vec::new();
        let mut empties = Vec::new();
        for name in taken.iter().map(|resource| resource.name().clone()).chain(leaving_by_name) {
            self.refresh.remove(&name);
            match self.ty {
                // A removal would leave an active cluster its endpoints, and state-of-the-world has none.
                XdsType::Eds if cx.protocol == Protocol::Sotw || !cx.client.removal_is_removal() => {
                    empties.push(missing::empty_assignment(&name))
                }
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
    pub fn still_held(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.leaving.values().chain(self.inflight.iter().flat_map(|inflight| &inflight.taken))
    }

    /// Resources that the client was sent and has not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.inflight.iter().flat_map(|inflight| inflight.news.iter())
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
            if !self.subscription.wants(&resource) || self.quarantine.holds_back(&resource) {
                continue;
            }
            // The body is left out only if the client has it for sure: a heartbeat for content that it does not have
            // is rejected with everything else in the response. And state-of-the-world Envoy deletes the cluster or
            // listener that a heartbeat without body is meant to keep.
            let settled = self.inflight.is_empty() && self.error.is_none() && self.globs.is_empty();
            let certain = cx.protocol == Protocol::Delta && settled && !self.resend.contains(&name);
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
        let held = mem::take(&mut self.held_before);
        Outgoing { payload, news, removed, missing, heartbeats: Vec::new(), before, taken: Vec::new(), held }
    }

    /// Whether the client came back with exactly what it would be sent. Only for a pure wildcard in state-of-the-world
    /// is its version a hash of what it holds.
    fn is_resumed_at(&self, target: &ResourceSet, protocol: Protocol) -> bool {
        let pure = self.ty.root() && self.subscription.explicit() == 0 && self.sent.is_none();
        protocol == Protocol::Sotw
            && pure
            && self.resumed.as_ref().is_some_and(|version| *version == target.wildcard_version().to_string())
    }

    /// The first answer to a wildcard.
    fn draft_everything(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) -> Batch {
        self.catch_up_on_names(target, cx, draft);
        self.quarantine = Quarantine::default();
        let held = if cx.protocol == Protocol::Delta { self.held.take() } else { None };
        let Some(held) = held else { return Self::wildcard_of(target) };
        // What has a time to live must be sent: nothing else starts its refreshes.
        let is_held = |r: &Resource| r.ttl().is_none() && held.get(r.name()) == Some(&Some(r.version()));
        let differs = |r: &&Arc<Resource>| !r.is_on_demand() && !is_held(r);
        let is_there = |name: &str| target.get(name).is_some_and(|r| self.subscription.wants(r));
        let gone: Vec<_> = held.keys().filter(|name| !is_there(name)).cloned().collect();
        match cx.removals_held {
            true => self.leaving_by_name.extend(gone),
            false => draft.removed.extend(gone),
        }
        Batch::List(target.iter().filter(differs).cloned().collect())
    }

    /// What the client asked for by name before it asked for everything, and what changed of it meanwhile and is not
    /// part of everything: what is gone, which in state-of-the-world the whole state says, and what is on demand.
    fn catch_up_on_names(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) {
        let Some(base) = self.base.clone() else { return self.leaving.clear() };
        if cx.protocol == Protocol::Delta {
            self.leaving.retain(|name, _| target.get(name).is_none());
            for name in &cx.diffs.diff(&base, target).removed {
                self.draft_removed(name, &base, cx, draft);
            }
        } else {
            self.leaving.clear();
        }
        let named = self.subscription.names().filter_map(|name| target.get(name));
        let changed = named.filter(|r| r.is_on_demand() && base.get(r.name()) != Some(r));
        draft.resources.extend(changed.map(|resource| (resource.name().clone(), resource.clone())));
    }

    fn resumed_at(&mut self, target: &ResourceSet, cx: &Context<'_>) {
        self.base = Some(target.clone());
        self.base_revision = cx.resources.revision();
        self.acked_revision = self.base_revision;
        let version = target.wildcard_version().to_string();
        self.acked = Some(ResponseMark { number: 0, revision: self.base_revision, version, at: cx.now });
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
            self.draft_removed(name, &base, cx, draft);
        }
        let shared = self.is_plain(target) && base.is_all_wildcard() && target.is_all_wildcard();
        if shared && self.resend.is_empty() {
            return Some(Batch::Changed(delta));
        }
        for resource in &delta.changed {
            if !self.subscription.wants(resource) {
                // It is no longer part of the wildcard.
                self.draft_removed(resource.name(), &base, cx, draft);
                continue;
            }
            self.leaving_by_name.remove(resource.name());
            // It was about to go and comes back: the client has it still.
            let came_back = self.leaving.remove(resource.name()).is_some_and(|old| old == *resource);
            if came_back && !self.maybe_other_version.remove(resource.name()) {
                continue;
            }
            if self.quarantine.holds_back(resource) {
                continue;
            }
            if let Some(aside) = self.quarantine.release(resource.name()) {
                self.held_before.insert(resource.name().clone(), aside.held);
            }
            draft.resources.insert(resource.name().clone(), resource.clone());
        }
        self.give_way(target, draft);
        None
    }

    /// A listener that is only kept because removals are held goes when another one needs its address: Envoy would reject
    /// that one.
    fn give_way(&mut self, target: &ResourceSet, draft: &mut Draft) {
        if self.ty != XdsType::Lds || self.leaving.is_empty() {
            return;
        }
        let taken: BTreeSet<_> = target.iter().filter_map(|r| order::listener_address(&r.body())).collect();
        let gives_way = |r: &Arc<Resource>| {
            order::listener_address(&r.body()).is_some_and(|address| taken.contains(&address))
        };
        let (going, staying) = mem::take(&mut self.leaving).into_iter().partition(|(_, r)| gives_way(r));
        self.leaving = staying;
        draft.immediate |= !BTreeMap::is_empty(&going);
        draft.removed.extend(BTreeMap::into_keys(going));
    }

    fn draft_removed(&mut self, name: &Arc<str>, base: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) {
        if !base.get(name).is_some_and(|resource| self.subscription.wants(resource)) {
            return;
        }
        let released = self.quarantine.release(name);
        if released.is_some() {
            self.maybe_other_version.insert(name.clone());
        }
        let held = match released.map(|aside| aside.held) {
            // Left out of the whole state all the time.
            Some(Held::Nothing) if cx.protocol == Protocol::Sotw && self.ty.root() => return,
            Some(Held::LastGood(resource)) => Some(resource),
            // Named resources may be held from an earlier stream. To remove what is not there does no harm.
            None | Some(Held::Unknown | Held::Nothing) => base.get(name).cloned(),
        };
        match self.ty.removal() {
            _ if order::removed_last(self.ty)
                || (cx.removals_held && self.ty.removal() == Removal::Deletes) =>
            {
                if let Some(resource) = held {
                    self.leaving.insert(name.clone(), resource);
                }
            }
            Removal::Deletes => {
                draft.immediate = true;
                self.refresh.remove(name);
                draft.removed.push(name.clone());
            }
            _ if cx.client.removal_is_removal() => {
                self.refresh.remove(name);
                draft.removed.push(name.clone());
            }
            // The client will drop it itself, when nothing of its own refers to it.
            Removal::EndsWaiting | Removal::Ignored | Removal::Breaks => {}
        }
    }

    /// Names that have to be answered. Says whether one was left out because the client holds it.
    fn draft_resends(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) -> bool {
        let held = self.held.take().filter(|_| self.keeps_held);
        let mut kept = false;
        let anticipated = mem::take(&mut self.anticipated);
        let mut missing = Vec::new();
        for name in mem::take(&mut self.resend) {
            let anticipated = anticipated.contains(&name);
            let is_asked = |resource: &&Arc<Resource>| anticipated || self.subscription.wants(resource);
            let mut found = target.resolve(&name).filter(is_asked).peekable();
            if found.peek().is_some() {
                let known = held.as_ref().and_then(|held| held.get(&name)).copied().flatten();
                for resource in found {
                    if known == Some(resource.version()) && resource.ttl().is_none() {
                        kept = true;
                    } else {
                        self.draft_resend(resource, draft);
                    }
                }
            } else if let Some(staying) = self.leaving.get(&name) {
                self.draft_resend(staying, draft);
            } else if self.ty != XdsType::Eds && self.leaving_by_name.contains(&name) {
                // The client holds it, and keeps it for now.
            } else if anticipated || self.subscription.covers(&name) {
                missing.push(name.clone());
            }
        }
        missing.into_iter().for_each(|name| self.draft_missing(name, cx, draft));
        kept
    }

    fn draft_resend(&self, resource: &Arc<Resource>, draft: &mut Draft) {
        let resource = match self.quarantine.get(resource.name()) {
            Some(aside) if aside.version == resource.version() => match &aside.held {
                Held::LastGood(good) => good,
                Held::Nothing | Held::Unknown => return,
            },
            _ => resource,
        };
        draft.resources.insert(resource.name().clone(), resource.clone());
    }

    fn draft_missing(&mut self, name: Arc<str>, cx: &Context<'_>, draft: &mut Draft) {
        // The assignment of a cluster that the client holds and nobody knows here any more. An empty one would take its
        // endpoints, and goes when the cluster does; a removal ends waiting and takes nothing.
        if cx.removals_held && self.ty == XdsType::Eds && !order::has_cluster_of(cx.resources, &name) {
            self.leaving_by_name.insert(name.clone());
            return draft.removed.push(name);
        }
        self.leaving_by_name.remove(&name);
        match missing::answer(self.ty, &name, cx.protocol, cx.client, cx.resources) {
            Answer::Empty(resource) => _ = draft.resources.insert(name, resource),
            Answer::Removed => {
                // Whoever uses names with an authority understands errors about them.
                if names::is_xdstp(&name) {
                    draft.missing.push(name.clone());
                }
                draft.removed.push(name);
            }
            Answer::Silence if cx.client.wants_errors() || names::is_xdstp(&name) => draft.missing.push(name),
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

//! Responses: which resources go into the next one.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use navarch_envoy::{Removal, Resource, ResourceSet, XdsType};

use super::leaving::Going;
use super::{Context, Outgoing, TypeState};
use crate::nack::Held;
use crate::order;
use crate::response::{Batch, Protocol};

/// A response being put together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub resources: BTreeMap<Arc<str>, Arc<Resource>>,
    pub removed: Vec<Arc<str>>,
    pub missing: Vec<Arc<str>>,
    /// Something was removed that a state-of-the-world response shows by leaving it out.
    pub immediate: bool,
}

impl Draft {
    /// All resources, those of the batch included.
    fn join(&mut self, batch: Option<Batch>) -> Batch {
        let mut resources = mem::take(&mut self.resources);
        let Some(batch) = batch else { return Batch::List(resources.into_values().collect()) };
        if resources.is_empty() {
            return batch;
        }
        batch.iter().for_each(|resource| _ = resources.remove(resource.name()));
        Batch::List(batch.iter().cloned().chain(resources.into_values()).collect())
    }
}

impl TypeState {
    /// Makes the next response, removals aside. Nothing if what there was to do turns out to be nothing.
    pub fn make(&mut self, cx: &Context<'_>) -> Option<Outgoing> {
        if self.quarantine.has_suspects()
            && let Some(outgoing) = self.make_trial(cx)
        {
            return Some(outgoing);
        }
        self.expand_globs(cx);
        self.settle_orphans(cx);
        let target = cx.resources.set(self.ty).clone();
        let before = self.base.clone();
        let first = mem::take(&mut self.due.everything);
        if first && self.is_resumed_at(&target, cx.protocol) {
            self.resumed_at(&target, cx);
            return None;
        }
        let mut draft = Draft { immediate: mem::take(&mut self.due.full_state), ..Draft::default() };
        let batch = if first {
            Some(self.draft_everything(&target, cx, &mut draft))
        } else {
            self.draft_changes(&target, cx, &mut draft)
        };
        let kept = self.draft_names(&target, cx, &mut draft);
        // What the client holds of an earlier stream may be that there is nothing, and it may ask again.
        draft.removed.retain(|name| !draft.resources.contains_key(name));
        draft.resources.keys().for_each(|name| self.leaving.is_sent(name));
        self.base = Some(target.clone());
        self.base_revision = cx.resources.revision();
        let news = draft.join(batch);
        let is_whole = self.is_whole(cx.protocol);
        let news = if is_whole { news } else { self.split(news, cx) };
        if cx.protocol == Protocol::Sotw {
            draft.removed.clear();
        }
        let Draft { removed, missing, immediate, .. } = draft;
        let anything = !news.is_empty()
            || !removed.is_empty()
            || !missing.is_empty()
            || (is_whole && immediate)
            || (first && self.subscription.is_wildcard());
        if !anything {
            if kept && self.progress.sent().is_none() {
                self.resumed_at(&target, cx);
            }
            return None;
        }
        let payload = if is_whole { self.full_state(&target) } else { news.clone() };
        Some(Outgoing { removed, missing, ..self.outgoing(payload, news, before) })
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
                    // Other content is tried with the other changes; this one, should it come back until
                    // then.
                    later.push((name, aside));
                }
            }
            self.quarantine.put_back(later);
            if group.is_empty() {
                continue;
            }
            let news = Batch::List(group.into());
            let payload = if self.is_whole(cx.protocol) { self.full_state(&base) } else { news.clone() };
            return Some(self.outgoing(payload, news, Some(base)));
        }
        None
    }

    /// A response that removes nothing.
    pub(super) fn outgoing(&mut self, payload: Batch, news: Batch, before: Option<ResourceSet>) -> Outgoing {
        Outgoing {
            payload,
            news,
            removed: Vec::new(),
            missing: Vec::new(),
            heartbeats: Vec::new(),
            before,
            taken: Going::default(),
            held_before: mem::take(&mut self.held_before),
        }
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
        if shared && self.due.has_no_names() {
            return Some(Batch::Changed(delta));
        }
        for resource in &delta.changed {
            if !self.subscription.wants(resource) {
                // It is no longer part of the wildcard.
                self.draft_removed(resource.name(), &base, cx, draft);
                continue;
            }
            // It was about to go, and the client has it still.
            if self.leaving.come_back(resource) || self.quarantine.holds_back(resource) {
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

    /// A listener that is only kept because removals are held goes when another needs its address.
    fn give_way(&mut self, target: &ResourceSet, draft: &mut Draft) {
        if self.ty != XdsType::Lds || self.leaving.is_empty() {
            return;
        }
        let going = self.leaving.give_way(target.iter());
        draft.immediate |= !going.is_empty();
        draft.removed.extend(going);
    }

    pub(super) fn draft_removed(
        &mut self,
        name: &Arc<str>,
        base: &ResourceSet,
        cx: &Context<'_>,
        draft: &mut Draft,
    ) {
        let has_it = !self.due.is_unsent(name);
        if !(has_it && base.get(name).is_some_and(|resource| self.subscription.wants(resource))) {
            return;
        }
        if self.keep_orphan(name, cx) {
            return;
        }
        let released = self.quarantine.release(name);
        let was_rejected = released.is_some();
        let held = match released.map(|aside| aside.held) {
            // Left out of the whole state all the time.
            Some(Held::Nothing) if self.is_whole(cx.protocol) => return,
            Some(Held::LastGood(resource)) => Some(resource),
            // Named resources may be held from an earlier stream. To remove what is not there does no harm.
            None | Some(Held::Unknown | Held::Nothing) => base.get(name).cloned(),
        };
        let may_be_held = self.ty.removal() == Removal::Deletes && order::may_be_held(self.ty);
        let held_back = cx.removals_held && may_be_held;
        match self.ty.removal() {
            _ if order::removed_last(self.ty) || held_back => {
                if let Some(resource) = held {
                    self.leaving.stay(name.clone(), resource);
                }
                if was_rejected {
                    self.leaving.doubt([name]);
                }
            }
            Removal::Deletes => {
                draft.immediate = true;
                self.refreshes.stop(name);
                draft.removed.push(name.clone());
            }
            _ if cx.client.removal_is_removal() => {
                self.refreshes.stop(name);
                draft.removed.push(name.clone());
            }
            // The client will drop it itself, when nothing of its own refers to it.
            Removal::EndsWaiting | Removal::Ignored | Removal::Breaks => {}
        }
    }

    /// Keeps a host that is gone if its routes are. Whether it does.
    pub(super) fn keep_orphan(&mut self, name: &Arc<str>, cx: &Context<'_>) -> bool {
        let follows = self.subscription.follows_routes();
        let is_orphan = follows && self.orphans.keep(name, cx.resources.set(XdsType::Rds));
        if is_orphan {
            self.quarantine.release(name);
        }
        is_orphan
    }

    /// Routes that are configured again have the hosts that they are configured with.
    fn settle_orphans(&mut self, cx: &Context<'_>) {
        let back = self.orphans.take_configured(cx.resources.set(XdsType::Rds));
        self.due.names(back);
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
                self.due.name(resource.name().clone());
            }
        }
        Batch::List(now.into())
    }
}

//! The first answer to a client that asks for everything, and to one that comes back.

use navarch_envoy::ResourceSet;

use super::respond::Draft;
use super::{Context, ResponseMark, TypeState};
use crate::nack::Quarantine;
use crate::order;
use crate::response::{Batch, Protocol};

impl TypeState {
    /// Whether the client came back with exactly what it would be sent. Only for a pure wildcard in
    /// state-of-the-world is its version a hash of what it holds.
    pub(super) fn is_resumed_at(&self, target: &ResourceSet, protocol: Protocol) -> bool {
        let is_pure = self.subscription.explicit() == 0 && self.progress.sent().is_none();
        self.is_whole(protocol) && is_pure && self.returning.is_at(target)
    }

    /// The client holds the set without having been sent it.
    pub(super) fn resumed_at(&mut self, target: &ResourceSet, cx: &Context<'_>) {
        self.base = Some(target.clone());
        self.base_revision = cx.resources.revision();
        let version = target.wildcard_version().to_string();
        self.progress.resume(ResponseMark { number: 0, revision: self.base_revision, version, at: cx.now });
    }

    /// The first answer to a wildcard.
    pub(super) fn draft_everything(
        &mut self,
        target: &ResourceSet,
        cx: &Context<'_>,
        draft: &mut Draft,
    ) -> Batch {
        self.catch_up_on_names(target, cx, draft);
        self.quarantine = Quarantine::default();
        let held = if cx.protocol == Protocol::Delta { self.returning.take() } else { None };
        let Some(held) = held else { return self.wildcard_of(target) };
        let is_there = |name: &str| target.get(name).is_some_and(|r| self.subscription.wants(r));
        // Hosts of routes that the client has not named are none of its own: when it does, it is sent them.
        let is_gone = |name: &str| self.subscription.covers(name) && !is_there(name);
        let mut gone: Vec<_> = held.names().filter(|name| is_gone(name)).cloned().collect();
        gone.retain(|name| !self.keep_orphan(name, cx));
        // What the client holds beside it may refer to what is gone, until it has been told otherwise.
        if (cx.removals_held && order::may_be_held(self.ty)) || order::removed_last(self.ty) {
            gone.into_iter().for_each(|name| self.leaving.stay_by_name(name));
        } else {
            draft.removed.extend(gone);
        }
        let mut wanted = self.subscription.everything();
        Batch::List(target.iter().filter(|r| wanted(r) && !held.keeps(r)).cloned().collect())
    }

    /// What the client asked for by name before it asked for everything, and what changed of it meanwhile and
    /// does not belong to everything: what is gone, which in state-of-the-world the whole state says, and
    /// what is on demand.
    fn catch_up_on_names(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) {
        let Some(base) = self.base.clone() else { return self.leaving.forget_resources() };
        if cx.protocol == Protocol::Delta {
            self.leaving.retain(|resource| target.get(resource.name()).is_none());
            for name in &cx.diffs.diff(&base, target).removed {
                self.draft_removed(name, &base, cx, draft);
            }
        } else {
            self.leaving.forget_resources();
        }
        let named = self.subscription.names().filter_map(|name| target.get(name));
        let changed = named.filter(|r| r.is_on_demand() && base.get(r.name()) != Some(r));
        draft.resources.extend(changed.map(|resource| (resource.name().clone(), resource.clone())));
    }
}

//! Removals: the last response of a change, when nothing refers any more to what goes.

use std::sync::Arc;

use navarch_envoy::{Resource, XdsType};

use super::leaving::Going;
use super::{Context, Outgoing, TypeState};
use crate::missing;
use crate::response::{Batch, Protocol};

impl TypeState {
    /// Takes away what nothing refers to any more; what is `pinned` stays.
    pub fn make_removal(&mut self, cx: &Context<'_>, pinned: impl Fn(&str) -> bool) -> Option<Outgoing> {
        let base = self.base.clone()?;
        let Going { resources, names } = self.leaving.go(pinned);
        let taken: Vec<_> = resources.into_iter().filter(|r| self.subscription.wants(r)).collect();
        if taken.is_empty() && names.is_empty() {
            return None;
        }
        let mut removed = Vec::new();
        let mut empties = Vec::new();
        for name in taken.iter().map(|resource| resource.name().clone()).chain(names.iter().cloned()) {
            self.refreshes.stop(&name);
            match self.ty {
                // A removal would leave an active cluster its endpoints, and state-of-the-world has none.
                XdsType::Eds if cx.protocol == Protocol::Sotw || !cx.client.removal_is_removal() => {
                    empties.push(missing::empty_assignment(&name));
                }
                _ => removed.push(name),
            }
        }
        let news = Batch::List(empties.into());
        let payload = match cx.protocol {
            Protocol::Sotw if self.ty.root() => self.full_state(&base),
            Protocol::Sotw if news.is_empty() => return None,
            _ => news.clone(),
        };
        let mut outgoing = self.outgoing(payload, news, Some(base));
        if cx.protocol == Protocol::Delta {
            outgoing.removed = removed;
        }
        outgoing.taken = Going { resources: taken, names };
        Some(outgoing)
    }

    /// Tells the client that it does not hold what went with something else of its own.
    pub fn make_taken_back(&mut self) -> Option<Outgoing> {
        let removed = self.due.take_taken_back();
        if removed.is_empty() {
            return None;
        }
        let outgoing = self.outgoing(Batch::empty(), Batch::empty(), self.base.clone());
        Some(Outgoing { removed: removed.into_iter().collect(), ..outgoing })
    }

    /// Whether the client may still hold resources of an earlier stream that only the names are known of.
    pub fn is_losing_by_name(&self) -> bool {
        self.leaving.has_names_only() || self.inflight.iter().any(|inflight| !inflight.taken.names.is_empty())
    }

    /// Resources that the client may still hold although they are no longer in the set.
    pub fn still_held(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.leaving.resources().chain(self.inflight.iter().flat_map(|inflight| &inflight.taken.resources))
    }
}

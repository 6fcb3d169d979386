//! Answers to names: those that were asked for, and those that have to be sent again.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_envoy::{Resource, ResourceSet, XdsType};

use super::leaving::Leaving;
use super::respond::Draft;
use super::returning::HeldVersions;
use super::{Context, TypeState};
use crate::missing::{self, Answer};
use crate::nack::Held;
use crate::names;
use crate::order;
use crate::response::Protocol;

impl TypeState {
    /// Names that have to be answered. Says whether one was left out because the client holds it.
    pub(super) fn draft_names(&mut self, target: &ResourceSet, cx: &Context<'_>, draft: &mut Draft) -> bool {
        let held = self.returning.take_by_name();
        let mut kept = false;
        let mut missing = Vec::new();
        for (name, anticipated) in self.due.take_names() {
            let is_asked = |resource: &&Arc<Resource>| anticipated || self.subscription.wants(resource);
            let mut found = target.resolve(&name).filter(is_asked).peekable();
            if found.peek().is_some() {
                for resource in found {
                    if held.keeps(resource) && *resource.name() == name {
                        kept = true;
                    } else {
                        self.draft_good(resource, cx, draft);
                    }
                }
            } else if let Some(staying) = self.leaving.get(&name) {
                self.draft_good(staying, cx, draft);
            } else if self.ty != XdsType::Eds && self.leaving.has_name_only(&name) {
                // The client holds it, and keeps it for now.
            } else if anticipated || self.subscription.covers(&name) {
                missing.push(name.clone());
            }
        }
        if !missing.is_empty() {
            self.draft_missing(missing, &held, cx, draft);
        }
        kept
    }

    /// A resource, or the last good one if the client rejected it.
    fn draft_good(&self, resource: &Arc<Resource>, cx: &Context<'_>, draft: &mut Draft) {
        let name = resource.name();
        let aside = self.quarantine.get(name).filter(|aside| aside.version == resource.version());
        let good = match aside.map(|aside| &aside.held) {
            None => resource.clone(),
            Some(Held::LastGood(good)) => good.clone(),
            // A cluster that waits for better endpoints than those that were rejected holds up all others:
            // Envoy acknowledges none as long as one of them warms.
            Some(Held::Nothing) if self.ty == XdsType::Eds && cx.protocol == Protocol::Sotw => {
                missing::empty_assignment(name)
            }
            Some(_) if self.ty == XdsType::Eds && cx.protocol == Protocol::Delta => {
                return draft.removed.push(name.clone());
            }
            Some(_) => return,
        };
        draft.resources.insert(name.clone(), good);
    }

    fn draft_missing(
        &mut self,
        missing: Vec<Arc<str>>,
        held: &HeldVersions,
        cx: &Context<'_>,
        draft: &mut Draft,
    ) {
        // Assignments of clusters that the client holds and nobody knows here any more. An empty one would
        // take the endpoints, and goes when the cluster does; a removal ends waiting and takes nothing.
        let is_delta = self.ty == XdsType::Eds && cx.protocol == Protocol::Delta;
        let may_stay = |leaving: &Leaving, name: &str| {
            is_delta && (cx.removals_held || held.has_name(name) || leaving.has_name_only(name))
        };
        let used = if missing.iter().any(|name| may_stay(&self.leaving, name)) {
            order::assignments(cx.resources)
        } else {
            BTreeSet::new()
        };
        for name in missing {
            if may_stay(&self.leaving, &name) && !used.contains(&*name) {
                self.leaving.stay_by_name(name.clone());
                draft.removed.push(name);
            } else {
                self.answer_missing(name, cx, draft);
            }
        }
    }

    fn answer_missing(&mut self, name: Arc<str>, cx: &Context<'_>, draft: &mut Draft) {
        self.leaving.is_sent(&name);
        // Of what nobody asked for by name, nobody waits for word that there is none.
        let is_host_of_routes = self.subscription.follows_routes() && !self.subscription.has_name(&name);
        let answer = match is_host_of_routes {
            true => Answer::Removed,
            false => missing::answer(self.ty, &name, cx.protocol, cx.client, cx.resources),
        };
        match answer {
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

    /// Makes the members of collections due that have to be answered.
    pub(super) fn expand_globs(&mut self, cx: &Context<'_>) {
        for glob in self.due.take_globs() {
            let names = cx.resources.set(self.ty).iter().map(|resource| resource.name());
            let members = names.filter(|name| names::glob_matches(&glob, name)).cloned();
            let mut members = members.peekable();
            match members.peek() {
                Some(_) => self.due.names(members),
                // An empty collection is answered with its own name (xRFC TP1).
                None => self.due.name(glob),
            }
        }
    }
}

//! When removals go.

use std::collections::BTreeSet;
use std::time::Instant;

use navarch_envoy::{ProxyResources, XdsType};

use super::{Event, Stream};
use crate::brake::{self, BrakeState};
use crate::order;
use crate::response::Response;
use crate::status::RemovalHold;
use crate::type_state::Context;

impl Stream {
    /// All removals up to `revision` are meant. Returns whether some were held back.
    pub fn confirm_removals(&mut self, revision: u64) -> bool {
        self.confirmed = self.confirmed.max(Some(revision));
        let is_meant = self.resources.as_ref().is_some_and(|resources| resources.revision() <= revision);
        is_meant && self.release()
    }

    /// Since when removals are held back and until when, if they are.
    #[must_use]
    pub fn held_removals(&self) -> Option<RemovalHold> {
        let (Some(brake), BrakeState::Holding { since }) = (&self.brake, self.brake_state) else {
            return None;
        };
        Some(RemovalHold { since, until: since + brake.hold })
    }

    /// What may be taken away.
    pub(super) fn poll_removals(&mut self, cx: &Context<'_>) -> Option<Response> {
        for ty in self.types.types() {
            if !self.may_remove(ty, cx.resources, cx.now) {
                continue;
            }
            let pinned = if ty == XdsType::Eds { self.pinned_endpoints(cx.now) } else { Pinned::default() };
            if let Some(outgoing) = self.types[ty].make_removal(cx, |name| pinned.has(name)) {
                return Some(self.send(ty, outgoing, cx));
            }
        }
        None
    }

    /// Decides whether removals are held, before any of them is drafted.
    pub(super) fn judge_removals(&mut self, cx: &mut Context<'_>) {
        let Some(brake) = self.brake else { return };
        match self.brake_state {
            BrakeState::Released => {
                if !brake::COUNTED.iter().any(|ty| !self.state(*ty).leaving().is_empty()) {
                    self.brake_state = BrakeState::Watching;
                }
                return;
            }
            BrakeState::Holding { since } if cx.now >= since + brake.hold => {
                self.release();
                return;
            }
            BrakeState::Watching if Some(cx.resources.revision()) <= self.confirmed => return,
            BrakeState::Holding { .. } => cx.removals_held = true,
            BrakeState::Watching => {}
        }
        let asked = self.types.types().filter(|ty| brake::COUNTED.contains(ty));
        let too_much = asked.filter_map(|ty| {
            let lost = self.types[ty].loses_too_much(cx, &brake);
            lost.map(|(removals, of)| (ty, removals, of))
        });
        let too_much = too_much.max_by_key(|(_, removals, _)| *removals);
        match (too_much, cx.removals_held) {
            (Some((ty, removals, of)), false) => {
                self.brake_state = BrakeState::Holding { since: cx.now };
                let revision = cx.resources.revision();
                self.event(Event::RemovalsHeld { ty, revision, removals, of });
            }
            (None, true) => {
                self.brake_state = BrakeState::Watching;
                self.event(Event::RemovalsReleased { removed: false });
            }
            _ => {}
        }
        cx.removals_held = matches!(self.brake_state, BrakeState::Holding { .. });
    }

    fn release(&mut self) -> bool {
        let holding = matches!(self.brake_state, BrakeState::Holding { .. });
        if holding {
            self.brake_state = BrakeState::Released;
            self.event(Event::RemovalsReleased { removed: true });
        }
        holding
    }

    /// Whether what is left of a type can be taken away: everything that may refer to it is settled without
    /// it. There is no time limit. If a new route is rejected, the old one needs its cluster: a leak is
    /// better than an outage.
    fn may_remove(&self, ty: XdsType, resources: &ProxyResources, now: Instant) -> bool {
        let state = self.state(ty);
        !state.leaving().is_empty()
            && !matches!(self.brake_state, BrakeState::Holding { .. })
            && !state.has_work(resources)
            && state.may_send(now)
            && order::acked_before_removal(ty)
                .iter()
                .all(|other| self.state(*other).has_let_go(ty, resources) && !self.may_still_ask(*other, now))
    }

    /// A cluster that goes takes its endpoints with it, and needs them until then.
    fn pinned_endpoints(&self, now: Instant) -> Pinned {
        let clusters = self.state(XdsType::Cds);
        // Of what only the name is known, and of what the client has not asked for yet, nobody knows which it
        // uses.
        let all = clusters.is_losing_by_name() || self.may_still_ask(XdsType::Cds, now);
        let names = clusters.still_held().filter_map(|cluster| order::assignment_of(cluster)).collect();
        Pinned { all, names }
    }
}

/// Resources that have to stay for now.
#[derive(Debug, Default)]
struct Pinned {
    all: bool,
    names: BTreeSet<String>,
}

impl Pinned {
    fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}

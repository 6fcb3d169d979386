//! Clients that come back with route configurations that they hold whole, where those are split now.
//!
//! An Envoy whose route configuration loses its hosts to resources of their own serves without any until
//! these come, if it has never been sent them. So such a client keeps its routes whole: whoever configures it
//! is told, and has some time to do so.

use std::time::Instant;

use navarch_envoy::{ProxyResources, XdsType, hosts};

use super::{Event, RoutesForm, Stream};
use crate::order;
use crate::response::Protocol;
use crate::type_state::Context;

impl Stream {
    /// Whether routes and their hosts wait until it is known how the client holds them.
    pub(super) fn awaits_form(&self, ty: XdsType) -> bool {
        let is_unsettled = self.form != RoutesForm::Settled && self.state(XdsType::Rds).requested;
        matches!(ty, XdsType::Rds | XdsType::Vhds) && is_unsettled
    }

    /// When something is done about the form although nothing else happens.
    pub(super) fn form_judged_at(&self) -> Option<Instant> {
        match self.form {
            RoutesForm::Settled => None,
            RoutesForm::Whole(since) => Some(since + order::WAIT_MAX),
            RoutesForm::Unknown if !self.state(XdsType::Rds).requested => None,
            RoutesForm::Unknown => self.returned.map(|at| at + order::STARTUP_WAIT_MAX),
        }
    }

    /// Finds out how the client holds its routes.
    pub(super) fn judge_form(&mut self, cx: &Context<'_>) {
        if self.form == RoutesForm::Settled || !self.state(XdsType::Rds).requested {
            return;
        }
        let can_be_split = self.protocol == Protocol::Delta && self.client.asks_for_hosts_on_demand();
        let unlike = if can_be_split { self.unlike_routes(cx.resources) } else { Vec::new() };
        let listed = &self.state(XdsType::Vhds).returning;
        let lists = |routes: &String| {
            let mut listed = listed.names().into_iter().flatten();
            listed.any(|host| hosts::routes_of(host) == Some(routes))
        };
        let is_late = || self.returned.is_none_or(|at| cx.now >= at + order::STARTUP_WAIT_MAX);
        self.form = match self.form {
            _ if unlike.iter().all(lists) => RoutesForm::Settled,
            RoutesForm::Unknown if self.state(XdsType::Vhds).requested || is_late() => {
                self.event(Event::HoldsWholeRoutes);
                RoutesForm::Whole(cx.now)
            }
            RoutesForm::Whole(since) if cx.now >= since + order::WAIT_MAX => RoutesForm::Settled,
            form => form,
        };
    }

    /// Split route configurations that the client holds with other content. That of split ones hardly ever
    /// changes, so they may be whole; with hosts of theirs beside them, they are not.
    fn unlike_routes(&self, resources: &ProxyResources) -> Vec<String> {
        let returning = &self.state(XdsType::Rds).returning;
        let names = returning.names().into_iter().flatten();
        let held = names.filter_map(|name| resources.set(XdsType::Rds).get(name));
        let unlike =
            held.filter(|routes| returning.differs(routes) && order::discovers_hosts(&routes.body()));
        unlike.map(|routes| routes.name().to_string()).collect()
    }
}

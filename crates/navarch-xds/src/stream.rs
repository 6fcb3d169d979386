//! The state of one stream. No sockets, no clock, no knowledge of what is in a resource beyond references.
//!
//! Three inputs: a request ([`Stream::request`]), new resources ([`Stream::resources`]), and the passing of time.
//! One output: the next response ([`Stream::poll`]), asked for when the transport can take one. So there is never a
//! queue of responses: what is asked for late is made from the newest state.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};

use crate::brake::{self, Brake, BrakeState};
use crate::class::DiffCache;
use crate::client::{ClientRules, Holds};
use crate::order;
use crate::request::{Request, Wish};
use crate::response::{Protocol, Response};
use crate::status::{RemovalHold, SyncState, TypeStatus};
use crate::type_state::{Context, Outgoing, TypeState, TypeStates, Verdict, VerdictContext};

/// Events kept for the observer; more than one exchange causes, so none is lost if they are taken after each step.
const EVENTS_MAX: usize = 64;

/// The state of one stream.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    protocol: Protocol,
    client: ClientRules,
    types: TypeStates,
    resources: Option<Arc<ProxyResources>>,
    diffs: Arc<DiffCache>,
    /// Responses sent. Also the next nonce.
    number: u64,
    gate: Option<Gate>,
    brake: Option<Brake>,
    brake_state: BrakeState,
    /// Removals up to this revision are meant. Zero is a revision: that of a server that knows of nothing.
    confirmed: Option<u64>,
    events: VecDeque<Event>,
}

/// Routes and listeners wait here until clusters they may refer to are warm.
#[derive(Clone, Copy, Debug)]
struct Gate {
    /// The response whose acknowledgement says that its clusters are warm.
    number: u64,
    until: Instant,
}

/// Something worth counting or logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A response was sent.
    Sent {
        /// Its type.
        ty: XdsType,
        /// The revision it was made from.
        revision: u64,
        /// Number of resources in it.
        resources: usize,
        /// Number of removed names in it.
        removed: usize,
    },
    /// A response was accepted.
    Accepted {
        /// Its type.
        ty: XdsType,
        /// The revision it was made from.
        revision: u64,
        /// How long the client took.
        after: Duration,
    },
    /// A response was rejected.
    Rejected {
        /// Its type.
        ty: XdsType,
        /// The revision it was made from.
        revision: u64,
        /// The resources that are to blame, as far as known.
        names: Vec<Arc<str>>,
        /// What the client said, shortened.
        text: String,
    },
    /// Removals are held back: they would take too much from the client at once.
    RemovalsHeld {
        /// The type of which it is too much.
        ty: XdsType,
        /// The revision that removes them.
        revision: u64,
        /// How many would go.
        removals: usize,
        /// Of how many.
        of: usize,
    },
    /// Removals are no longer held: they were confirmed, have waited long enough, or what was to go is back.
    RemovalsReleased {
        /// Whether they go now.
        removed: bool,
    },
    /// A type was asked for that is not served.
    UnknownType(String),
}

impl Stream {
    /// A stream on which nothing has happened. The id makes nonces unlike those of other streams: a client may come
    /// with a nonce of an earlier one.
    #[must_use]
    pub fn new(id: u64, protocol: Protocol, client: ClientRules, diffs: Arc<DiffCache>) -> Self {
        Self {
            id,
            protocol,
            client,
            types: TypeStates::default(),
            resources: None,
            diffs,
            number: 0,
            gate: None,
            brake: None,
            brake_state: BrakeState::default(),
            confirmed: None,
            events: VecDeque::new(),
        }
    }

    /// Holds removals back that would take too much from the client at once.
    #[must_use]
    pub fn with_brake(mut self, brake: Option<Brake>) -> Self {
        self.brake = brake;
        self
    }

    /// All removals up to `revision` are meant. Returns whether some were held back.
    pub fn confirm_removals(&mut self, revision: u64) -> bool {
        self.confirmed = self.confirmed.max(Some(revision));
        let is_meant = self.resources.as_ref().is_some_and(|resources| resources.revision() <= revision);
        is_meant && self.release()
    }

    /// The client belongs to another class from now on, which remembers differences of its own.
    pub fn follow(&mut self, diffs: Arc<DiffCache>) {
        self.diffs = diffs;
    }

    /// New resources. Older ones that were not sent yet never will be.
    pub fn resources(&mut self, resources: Arc<ProxyResources>) {
        if let Some(old) = self.resources.take() {
            for state in self.types.iter_mut() {
                state.acked_revision = state.synced_revision(&old);
            }
        }
        self.resources = Some(resources);
    }

    /// A request. `request.type_url` is not empty.
    pub fn request(&mut self, request: Request, now: Instant) {
        let Some(ty) = XdsType::from_type_url(&request.type_url) else {
            self.event(Event::UnknownType(request.type_url));
            return;
        };
        let nothing = ResourceSet::default();
        let known = self.resources.as_ref().map_or(&nothing, |resources| resources.set(ty));
        let state = &mut self.types[ty];
        let first = !state.requested;
        state.requested = true;

        // The subscription first, and always: a request that rejects a response or answers an old one is still the
        // newest word on what the client wants.
        let (change, held) = match &request.wish {
            Wish::Exactly { names, version } => {
                if first {
                    state.resume(version);
                }
                (state.subscription.replace(ty, &self.client, names, known), None)
            }
            Wish::Change { subscribe, unsubscribe, held } => {
                let held = first.then(|| held.clone());
                (state.subscription.change(ty, &self.client, subscribe, unsubscribe, known), held)
            }
        };
        let changed = change != Default::default();
        let dropped = if ty == XdsType::Eds { change.dropped.clone() } else { Vec::new() };
        state.subscribe(change, self.protocol);
        if let Some(held) = held {
            state.resume_held(held, self.client.held_is_subscribed(ty));
            self.judge_held(ty, now);
        }
        if ty == XdsType::Lds {
            // It has started, see `ClientRules::holds`.
            self.types[XdsType::Eds].start_unknown_until = None;
        }
        self.keep_endpoints_of_sent_clusters(&dropped);
        if first
            && ty == XdsType::Vhds
            && let Some(resources) = self.resources.clone()
        {
            let known = resources.set(XdsType::Rds);
            let routes = self.state(XdsType::Rds).subscription.names().filter_map(|name| known.get(name));
            let routes: Vec<_> = routes.cloned().collect();
            self.release_routes(&routes, &resources);
        }
        // What a first request says about nonces and errors is about another stream.
        if !first {
            self.settle(ty, request, changed, now);
        }
    }

    /// Decides whether what the client says it holds has to be sent, see [`ClientRules::holds`].
    fn judge_held(&mut self, ty: XdsType, now: Instant) {
        if !self.state(ty).has_held() {
            return;
        }
        match self.client.holds(ty) {
            Holds::Nothing => {}
            Holds::Enough => self.types[ty].keep_held([]),
            Holds::UnlessReferrerSent => {
                self.types[ty].keep_held([]);
                let sent: Vec<_> = self.state(XdsType::Lds).unanswered().cloned().collect();
                self.need_routes_of(&sent);
            }
            Holds::UnlessWarming if self.state(XdsType::Cds).requested => {
                let needed = self.endpoints_of_unanswered_clusters();
                let started = self.state(XdsType::Lds).requested;
                let state = &mut self.types[ty];
                state.keep_held(needed.iter().map(String::as_str));
                state.start_unknown_until = (!started).then(|| now + order::STARTUP_WAIT_MAX);
            }
            Holds::UnlessWarming => {}
        }
    }

    /// A listener that is sent may bring a provider of routes that waits for them.
    fn need_routes_of(&mut self, listeners: &[Arc<Resource>]) {
        let is_needed = |name: &str| listeners.iter().any(|listener| order::mentions(listener, name));
        self.types[XdsType::Rds].need_if(is_needed);
    }

    fn endpoints_of_unanswered_clusters(&self) -> BTreeSet<String> {
        let endpoints = |cluster: &Arc<Resource>| {
            order::cluster_facts(cluster.name(), &cluster.body()).endpoints.map(str::to_owned)
        };
        self.state(XdsType::Cds).unanswered().filter_map(endpoints).collect()
    }

    /// A client that has lost a cluster drops its endpoints, and may not have read yet that the cluster is back. It will
    /// ask again, but routes to the cluster must not be there before it is warm.
    fn keep_endpoints_of_sent_clusters(&mut self, dropped: &[Arc<str>]) {
        let Some(resources) = &self.resources else { return };
        if dropped.is_empty() || !self.client.asks_for_endpoints_of_clusters() {
            return;
        }
        let dropped: BTreeSet<&str> = dropped.iter().map(|name| &**name).collect();
        let mut back = self.endpoints_of_unanswered_clusters();
        back.retain(|name| dropped.contains(&**name));
        let known = resources.set(XdsType::Eds);
        let state = &mut self.types[XdsType::Eds];
        back.iter().for_each(|name| state.anticipate(name, known));
    }

    fn settle(&mut self, ty: XdsType, request: Request, changed: bool, now: Instant) {
        let id = self.id;
        let nonce = move |number| nonce(id, number);
        let cx = VerdictContext { protocol: self.protocol, now, nonce: &nonce };
        let number = self.number_of(&request.nonce);
        let is_error = request.error.is_some();
        let state = &mut self.types[ty];
        match state.settle(number, request.error, &cx) {
            Verdict::Accepted { revision, sent_at } => {
                let after = now.saturating_duration_since(sent_at);
                self.open_gate(ty, number);
                self.event(Event::Accepted { ty, revision, after });
            }
            Verdict::Rejected { revision } => {
                let rejected = state.error.as_ref().map(|(_, rejected)| rejected.clone());
                self.open_gate(ty, number);
                if let Some(rejected) = rejected {
                    let (names, text) = (rejected.names, rejected.text);
                    self.event(Event::Rejected { ty, revision, names, text });
                }
            }
            // A state-of-the-world Envoy with a warming cluster asks for its endpoints with the very request that
            // acknowledged them last. Only after clusters were sent is that a question.
            Verdict::None { repeats_last: true } if !changed && !is_error && state.clusters_sent => {
                state.clusters_sent = false;
                if self.protocol == Protocol::Sotw {
                    state.resend_names();
                }
            }
            Verdict::None { .. } => {}
        }
    }

    fn open_gate(&mut self, ty: XdsType, number: Option<u64>) {
        if ty == XdsType::Cds && self.gate.is_some_and(|gate| Some(gate.number) <= number) {
            self.gate = None;
        }
    }

    /// The next response, if one is due and may be sent.
    pub fn poll(&mut self, now: Instant) -> Option<Response> {
        let resources = self.resources.clone()?;
        let diffs = self.diffs.clone();
        let client = self.client.clone();
        let protocol = self.protocol;
        let mut cx = Context {
            resources: &resources,
            diffs: &diffs,
            client: &client,
            protocol,
            now,
            removals_held: false,
        };
        self.judge_removals(&mut cx);
        let cx = cx;
        self.gate = self.gate.filter(|gate| now < gate.until);
        self.types
            .iter_mut()
            .filter(|state| state.start_unknown_until.is_some_and(|at| at <= now))
            .for_each(TypeState::send_held);
        for ty in self.types.types() {
            if !self.types[ty].has_work(&resources) {
                self.types[ty].waiting_since = None;
                continue;
            }
            let blocked = self.is_blocked(ty, &resources, now);
            let state = &mut self.types[ty];
            if blocked || !state.may_send(now) {
                state.waiting_since.get_or_insert(now);
                continue;
            }
            if let Some(outgoing) = state.make(&cx) {
                return Some(self.send(ty, outgoing, &cx));
            }
            state.waiting_since = None;
        }
        for ty in self.types.types() {
            if !self.may_remove(ty, &resources, now) {
                continue;
            }
            let pinned =
                if ty == XdsType::Eds { self.endpoints_of_leaving_clusters() } else { BTreeSet::new() };
            // The clusters of some assignments may be among those of which only the names are known.
            let all_pinned = ty == XdsType::Eds && self.state(XdsType::Cds).has_leaving_by_name();
            let is_pinned = |name: &str| all_pinned || pinned.contains(name);
            let outgoing = self.types[ty].make_removal(&cx, is_pinned);
            if let Some(outgoing) = outgoing {
                return Some(self.send(ty, outgoing, &cx));
            }
        }
        self.poll_refresh(&cx)
    }

    /// Decides whether removals are held, before any of them is drafted.
    fn judge_removals(&mut self, cx: &mut Context<'_>) {
        let Some(brake) = self.brake else { return };
        match self.brake_state {
            BrakeState::Released => {
                if !brake::COUNTED.iter().any(|ty| self.state(*ty).has_leaving()) {
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

    /// Refreshes are not held up by unacknowledged responses: the client's clock runs anyway.
    fn poll_refresh(&mut self, cx: &Context<'_>) -> Option<Response> {
        for ty in self.types.types() {
            let state = &mut self.types[ty];
            if state.refresh_at().is_none_or(|at| at > cx.now) {
                continue;
            }
            if let Some(outgoing) = state.make_refresh(cx) {
                return Some(self.send(ty, outgoing, cx));
            }
            // A refresh with bodies is an ordinary response.
            if state.may_send(cx.now)
                && let Some(outgoing) = state.make(cx)
            {
                return Some(self.send(ty, outgoing, cx));
            }
        }
        None
    }

    /// When to call [`Stream::poll`] again if nothing else happens.
    #[must_use]
    pub fn timer(&self, now: Instant) -> Option<Instant> {
        let resources = self.resources.as_ref()?;
        let flow = self.types.iter().filter(|state| state.has_work(resources) || state.has_leaving());
        let flow = flow.filter_map(TypeState::may_send_at);
        let waits =
            self.types.iter().filter_map(|state| state.waiting_since).map(|since| since + order::WAIT_MAX);
        let refreshes = self.types.iter().filter_map(TypeState::refresh_at);
        let gate = self.gate.map(|gate| gate.until);
        let doubts = self.types.iter().filter_map(|state| state.start_unknown_until);
        let held = self.held_removals().map(|held| held.until);
        let all = flow.chain(waits).chain(doubts).chain(refreshes).chain(gate).chain(held);
        all.filter(|at| *at > now).min()
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> impl Iterator<Item = Event> + use<> {
        std::mem::take(&mut self.events).into_iter()
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn state(&self, ty: XdsType) -> &TypeState {
        &self.types[ty]
    }

    /// Whether something that has to be sent before has not been sent, or new clusters are not warm.
    fn is_blocked(&self, ty: XdsType, resources: &ProxyResources, now: Instant) -> bool {
        let gated = self.gate.is_some() && order::waits_for_warm_clusters(ty);
        let doubted = self.state(ty).start_unknown_until.is_some();
        let expired = |since: Instant| now.saturating_duration_since(since) >= order::WAIT_MAX;
        gated
            || doubted
            || order::sent_before(ty)
                .iter()
                .map(|earlier| self.state(*earlier))
                .any(|earlier| earlier.has_news(resources) && !earlier.waiting_since.is_some_and(expired))
    }

    /// Whether what is left of a type can be taken away: everything that may refer to it is settled without it. There
    /// is no time limit. If a new route is rejected, the old one needs its cluster: a leak is better than an outage.
    fn may_remove(&self, ty: XdsType, resources: &ProxyResources, now: Instant) -> bool {
        let state = self.state(ty);
        state.has_leaving()
            && !matches!(self.brake_state, BrakeState::Holding { .. })
            && !state.has_work(resources)
            && state.may_send(now)
            && order::acked_before_removal(ty)
                .iter()
                .all(|other| self.state(*other).has_let_go(ty, resources))
    }

    /// A cluster that goes takes its endpoints with it, and needs them until then.
    fn endpoints_of_leaving_clusters(&self) -> BTreeSet<String> {
        let leaving = self.state(XdsType::Cds).still_held();
        let endpoints = |cluster: &Arc<Resource>| {
            order::cluster_facts(cluster.name(), &cluster.body()).endpoints.map(str::to_owned)
        };
        leaving.filter_map(endpoints).collect()
    }

    fn send(&mut self, ty: XdsType, outgoing: Outgoing, cx: &Context<'_>) -> Response {
        self.number += 1;
        let number = self.number;
        self.follow_up(ty, &outgoing, cx);
        let state = &mut self.types[ty];
        let version = state.version(cx.protocol).to_string();
        let revision = cx.resources.revision();
        state.record(number, version.clone(), &outgoing, revision, cx.now);
        let Outgoing { payload, mut removed, missing, heartbeats, .. } = outgoing;
        removed.sort_unstable();
        removed.dedup();
        self.event(Event::Sent { ty, revision, resources: payload.len(), removed: removed.len() });
        Response {
            ty,
            nonce: nonce(self.id, number),
            version,
            resources: payload,
            heartbeats,
            removed,
            missing,
        }
    }

    /// What has to be sent because this is sent.
    fn follow_up(&mut self, ty: XdsType, outgoing: &Outgoing, cx: &Context<'_>) {
        if ty == XdsType::Cds {
            self.follow_clusters(outgoing, cx);
        }
        if ty == XdsType::Lds && self.state(XdsType::Rds).has_held() {
            let sent: Vec<_> = outgoing.news.iter().cloned().collect();
            self.need_routes_of(&sent);
        }
        if ty == XdsType::Rds {
            self.follow_routes(outgoing, cx);
        }
        if ty == XdsType::Eds {
            self.follow_assignments(outgoing);
        }
        let secrets = &self.state(XdsType::Sds).subscription;
        if matches!(ty, XdsType::Cds | XdsType::Lds) && secrets.names().len() > 0 {
            // A provider that is created anew waits for its secret, even if Envoy has the secret already.
            let wanted: Vec<_> = secrets.names().cloned().collect();
            let mentioned = wanted
                .iter()
                .filter(|name| outgoing.news.iter().any(|resource| order::mentions(resource, name)))
                .map(|name| &**name);
            self.types[XdsType::Sds].resend(mentioned, cx.resources.set(XdsType::Sds));
        }
    }

    /// A cluster that is created anew waits for the endpoints of its localities, even if Envoy follows the collections
    /// already, for another cluster or the one before.
    fn follow_assignments(&mut self, outgoing: &Outgoing) {
        let mentioned = |glob: &&Arc<str>| outgoing.news.iter().any(|load| order::mentions(load, glob));
        let collections = self.state(XdsType::Leds).subscription.globs();
        let again: Vec<_> = collections.filter(mentioned).cloned().collect();
        if !again.is_empty() {
            self.types[XdsType::Leds].resend_globs(again);
        }
    }

    /// A changed route configuration has lost the virtual hosts that were discovered for it, `<routes>/<host>`.
    fn follow_routes(&mut self, outgoing: &Outgoing, cx: &Context<'_>) {
        if !self.state(XdsType::Vhds).requested {
            return;
        }
        let hosts = &mut self.types[XdsType::Vhds];
        let of = |name: &Arc<str>| name.rsplit_once('/').map(|(routes, _)| Arc::<str>::from(routes));
        let changed: BTreeSet<_> = outgoing.news.iter().map(|routes| routes.name()).collect();
        let lost = hosts.subscription.names().filter(|name| of(name).is_some_and(|r| changed.contains(&r)));
        let lost: Vec<_> = lost.cloned().collect();
        hosts.resend(lost.iter().map(|name| &**name), cx.resources.set(XdsType::Vhds));
        let alone =
            |routes: &&Arc<Resource>| !lost.iter().any(|name| of(name).as_ref() == Some(routes.name()));
        let alone: Vec<_> = outgoing.news.iter().filter(alone).cloned().collect();
        self.release_routes(&alone, cx.resources);
    }

    /// Envoy takes a route configuration with VHDS into use when it has heard of any name under it, `<routes>/...`, be
    /// it that of a host or of something that is gone. It names a host when a request needs one, so before that there
    /// is nothing to send; and it asks for nothing but for the type, once on a stream.
    fn release_routes(&mut self, routes: &[Arc<Resource>], resources: &ProxyResources) {
        if self.protocol != Protocol::Delta || !self.client.asks_for_hosts_on_demand() {
            return;
        }
        for routes in routes.iter().filter(|routes| order::discovers_hosts(&routes.body())) {
            let hosts = resources.set(XdsType::Vhds);
            self.types[XdsType::Vhds].anticipate(&format!("{}/", routes.name()), hosts);
        }
    }

    fn follow_clusters(&mut self, outgoing: &Outgoing, cx: &Context<'_>) {
        let before = outgoing.before.as_ref();
        let substitutes: Vec<_> = match cx.protocol {
            Protocol::Sotw => self.state(XdsType::Cds).substitutes().cloned().collect(),
            Protocol::Delta => Vec::new(),
        };
        // A client that had no cluster with endpoints yet has not asked for any, but will on this stream.
        let aggregated = self.state(XdsType::Lds).requested || self.state(XdsType::Rds).requested;
        let endpoints = &mut self.types[XdsType::Eds];
        let mut slow = false;
        let follows = endpoints.requested || (aggregated && before.is_some());
        if !follows && before.is_none() {
            return;
        }
        for cluster in outgoing.news.iter().chain(&substitutes) {
            let body = cluster.body();
            let facts = order::cluster_facts(cluster.name(), &body);
            slow |= facts.slow_to_warm && before.is_some_and(|before| before.get(cluster.name()).is_none());
            let Some(name) = facts.endpoints.filter(|_| follows) else { continue };
            let known = cx.resources.set(XdsType::Eds);
            if endpoints.subscription.covers(name) {
                // A changed cluster warms until an assignment arrives after it, and delta Envoy does not ask for it.
                endpoints.resend([name], known);
            } else if cx.client.asks_for_endpoints_of_clusters() {
                // The client would ask for them, but routes to the cluster must not be there before it is warm.
                endpoints.anticipate(name, known);
            }
        }
        endpoints.clusters_sent |= !outgoing.news.is_empty();
        if slow {
            self.gate = Some(Gate { number: self.number, until: cx.now + order::WAIT_MAX });
        }
    }

    fn number_of(&self, text: &str) -> Option<u64> {
        let (stream, number) = text.split_once('.')?;
        let stream = u64::from_str_radix(stream, 16).ok()?;
        (stream == self.id).then(|| number.parse().ok()).flatten()
    }

    // --- status

    /// The protocol of the stream.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the client has asked for anything that is served.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.types.iter().any(|state| state.requested)
    }

    /// Since when removals are held back and until when, if they are.
    #[must_use]
    pub fn held_removals(&self) -> Option<RemovalHold> {
        let (Some(brake), BrakeState::Holding { since }) = (&self.brake, self.brake_state) else {
            return None;
        };
        Some(RemovalHold { since, until: since + brake.hold })
    }

    /// The state of every type the client has asked for.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        self.types.iter().filter(|state| state.requested).map(|state| self.type_status(state)).collect()
    }

    fn type_status(&self, state: &TypeState) -> TypeStatus {
        let synced = self.resources.as_ref().map_or(0, |resources| state.synced_revision(resources));
        let summary = match (&state.error, &state.sent) {
            (Some(_), _) => SyncState::Error,
            (None, None) => SyncState::NotSent,
            (None, Some(_)) if state.inflight.is_empty() => SyncState::Synced,
            (None, Some(_)) => SyncState::Stale,
        };
        let mark = |mark: &crate::type_state::ResponseMark| crate::status::Mark {
            nonce: nonce(self.id, mark.number),
            version: mark.version.clone(),
            revision: mark.revision,
            at: mark.at,
        };
        TypeStatus {
            ty: state.ty,
            wildcard: state.subscription.wildcard(),
            names: state.subscription.explicit(),
            state: summary,
            sent: state.sent.as_ref().map(mark),
            acked: state.acked.as_ref().map(mark),
            revision: synced,
            error: state.error.as_ref().map(|(_, rejected)| rejected.clone()),
            leaving: state.leaving_count(),
            set_aside: state.set_aside().cloned().collect(),
            sent_total: state.sent_total,
            rejected_total: state.rejected_total,
        }
    }

    /// The newest revision of which the client has accepted everything that it asked for; zero before that.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        let Some(resources) = &self.resources else { return 0 };
        let types = self.types.iter().filter(|state| state.requested);
        types.map(|state| state.synced_revision(resources)).min().unwrap_or(0)
    }
}

fn nonce(stream: u64, number: u64) -> String {
    format!("{stream:x}.{number}")
}

//! The state of one stream. No sockets, no clock, no knowledge of what is in a resource beyond references.
//!
//! Three inputs: a request ([`Stream::request`]), new resources ([`Stream::resources`]), and the passing of
//! time. One output: the next response ([`Stream::poll`]), asked for when the transport can take one. So
//! there is never a queue of responses: what is asked for late is made from the newest state.

mod follow;
mod form;
mod removals;
mod returning;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::{ProxyResources, ResourceSet, Version, XdsType};

use crate::brake::{Brake, BrakeState};
use crate::class::ClassMemory;
use crate::client::ClientRules;
use crate::nack::Nack;
use crate::order;
use crate::request::{Request, Wish};
use crate::response::{Cause, Protocol, Response};
use crate::type_state::{Context, Outgoing, TypeState, TypeStates, Verdict, VerdictContext};
/// Events kept for the observer; more than one exchange causes, so none is lost if they are taken after each
/// step.
const EVENTS_MAX: usize = 64;

/// The state of one stream.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    protocol: Protocol,
    client: ClientRules,
    types: TypeStates,
    resources: Option<Arc<ProxyResources>>,
    memory: Arc<ClassMemory>,
    /// Responses sent. Also the next nonce.
    number: u64,
    gate: Option<Gate>,
    /// When a client that came with something from an earlier stream asked for the last type for the first
    /// time.
    returned: Option<Instant>,
    /// Clusters were sent before their endpoints were asked for.
    endpoints_unasked: bool,
    form: RoutesForm,
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
    /// They are the first on the stream. Only to a client that has come back some of them are new, while
    /// others serve.
    is_first: bool,
}

/// Whether a client takes routes in the form in which they are configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RoutesForm {
    /// It has not said what it holds.
    #[default]
    Unknown,
    /// It holds them whole, and they are configured otherwise. That was said at this time.
    Whole(Instant),
    /// They can be sent.
    Settled,
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
        /// What made it necessary.
        cause: Cause,
    },
    /// A response was rejected.
    Rejected {
        /// Its type.
        ty: XdsType,
        /// The revision it was made from.
        revision: u64,
        /// The resources that are to blame, as far as known.
        names: Vec<Arc<str>>,
        /// Those of them that are not sent again until they change, with their contents.
        aside: Vec<(Arc<str>, Version)>,
        /// What the client said, shortened.
        text: String,
    },
    /// Removals are held back: they would take too much from the client at once.
    RemovalsHeld {
        /// The type that loses too much.
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
    /// The client has come back with route configurations that it holds whole, and that are split now. Routes
    /// wait for some seconds: it is best given them whole.
    HoldsWholeRoutes,
    /// A type was asked for that is not served.
    UnknownType(String),
}

impl Stream {
    /// A stream on which nothing has happened. The id makes nonces unlike those of other streams: a client
    /// may come with a nonce of an earlier one.
    #[must_use]
    pub fn new(id: u64, protocol: Protocol, client: ClientRules, memory: Arc<ClassMemory>) -> Self {
        Self {
            id,
            protocol,
            client,
            types: TypeStates::default(),
            resources: None,
            memory,
            number: 0,
            gate: None,
            returned: None,
            endpoints_unasked: false,
            form: RoutesForm::default(),
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

    /// The client belongs to another class from now on, whose streams remember other things.
    pub fn follow(&mut self, memory: Arc<ClassMemory>) {
        self.memory = memory;
    }

    /// New resources. Older ones that were not sent yet never will be.
    pub fn resources(&mut self, resources: Arc<ProxyResources>) {
        if let Some(old) = self.resources.take() {
            self.types.iter_mut().for_each(|state| state.reach(&old));
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

        // The subscription first, and always: a request that rejects a response or answers an old one is
        // still the newest word on what the client wants.
        let (change, held) = match &request.wish {
            Wish::Exactly { names, version } => {
                if first {
                    state.returning.at_version(version);
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
        let routes = (ty == XdsType::Rds).then(|| (change.added.clone(), change.dropped.clone()));
        if first || changed {
            state.asked_at.get_or_insert(now);
        }
        let asked_now = change.added.clone();
        state.subscribe(change, self.protocol);
        if let Some(held) = held {
            state.resume_held(held, self.client.held_is_subscribed(ty));
            self.judge_held(ty, now);
        }
        self.types[ty].subscription.share(&self.memory.names);
        if first {
            self.has_asked(ty, now);
        }
        if ty == XdsType::Lds {
            // It has started, see `ClientRules::holds`.
            self.types[XdsType::Eds].returning.start_unknown_until = None;
        }
        self.keep_endpoints_of_sent_clusters(&dropped);
        if let Some((named, dropped)) = routes.filter(|_| self.state(XdsType::Vhds).requested) {
            self.types[XdsType::Vhds].follow_routes(&named, &dropped);
        }
        if first && ty == XdsType::Vhds {
            self.follow_known_routes();
        }
        // What a first request says about nonces and errors is about another stream.
        if !first {
            self.settle(ty, request, (changed, &asked_now), now);
        }
    }

    fn settle(
        &mut self,
        ty: XdsType,
        request: Request,
        (changed, asked_now): (bool, &[Arc<str>]),
        now: Instant,
    ) {
        let id = self.id;
        let nonce = move |number| nonce(id, number);
        let cx = VerdictContext { protocol: self.protocol, now, nonce: &nonce, asked_now };
        let number = self.number_of(&request.nonce);
        let is_error = request.error.is_some();
        let state = &mut self.types[ty];
        match state.settle(number, request.error, &cx) {
            Verdict::Accepted { revision, sent_at, cause } => {
                let after = now.saturating_duration_since(sent_at);
                self.open_gate(ty, number);
                self.event(Event::Accepted { ty, revision, after, cause });
            }
            Verdict::Rejected { revision } => {
                let nack = state.progress.error().cloned();
                let names = nack.iter().flat_map(|nack| &nack.names);
                let aside =
                    names.filter_map(|name| Some((name.clone(), state.aside_version(name)?))).collect();
                self.open_gate(ty, number);
                if let Some(Nack { names, text, .. }) = nack {
                    self.event(Event::Rejected { ty, revision, names, aside, text });
                }
            }
            // A state-of-the-world Envoy with a warming cluster asks for its endpoints with the very request
            // that acknowledged them last. Only after clusters were sent is that a question.
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
        let memory = self.memory.clone();
        let client = self.client.clone();
        let protocol = self.protocol;
        let mut cx = Context {
            resources: &resources,
            diffs: &memory.diffs,
            client: &client,
            protocol,
            now,
            removals_held: false,
        };
        self.judge_removals(&mut cx);
        let cx = cx;
        self.gate = self.gate.filter(|gate| now < gate.until);
        for state in self.types.iter_mut() {
            state.returning.let_time_pass(now);
        }
        self.judge_form(&cx);
        self.poll_changes(&cx).or_else(|| self.poll_removals(&cx)).or_else(|| self.poll_refresh(&cx))
    }

    /// What is new, and what was asked for.
    fn poll_changes(&mut self, cx: &Context<'_>) -> Option<Response> {
        for ty in self.types.types() {
            if !self.types[ty].has_work(cx.resources) {
                self.types[ty].waiting_since = None;
                self.types[ty].asked_at = None;
                continue;
            }
            let blocked = self.is_blocked(ty, cx.resources, cx.now);
            let state = &mut self.types[ty];
            if state.takes_back()
                && state.may_send(cx.now)
                && let Some(outgoing) = state.make_taken_back()
            {
                return Some(self.send(ty, outgoing, cx));
            }
            if blocked || !state.may_send(cx.now) {
                state.waiting_since.get_or_insert(cx.now);
                continue;
            }
            if let Some(outgoing) = state.make(cx) {
                return Some(self.send(ty, outgoing, cx));
            }
            state.waiting_since = None;
            state.asked_at = None;
        }
        None
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
        let has_more = |state: &&TypeState| state.has_work(resources) || !state.leaving().is_empty();
        let flow = self.types.iter().filter(has_more).filter_map(TypeState::may_send_at);
        let waits = self.types.iter().filter_map(|state| state.waiting_since);
        let waits = waits.map(|since| since + order::WAIT_MAX);
        let starts = self.types.iter().filter_map(|state| state.returning.start_unknown_until);
        let refreshes = self.types.iter().filter_map(TypeState::refresh_at);
        let gate = self.gate.map(|gate| gate.until);
        let held = self.held_removals().map(|held| held.until);
        let asked = self.has_asked_for_all_at();
        let form = self.form_judged_at();
        let all =
            flow.chain(waits).chain(starts).chain(refreshes).chain(gate).chain(held).chain(asked).chain(form);
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
        let is_shut = |gate: &Gate| !gate.is_first || self.returned.is_some();
        let is_gated = self.gate.as_ref().is_some_and(is_shut) || self.awaits_clusters(now);
        let gated = is_gated && order::waits_for_warm_clusters(ty);
        let is_start_unknown = self.state(ty).returning.start_unknown_until.is_some();
        // Whose hosts a client that has come back wants, it says with the routes that it names.
        let follows_unknown =
            self.state(ty).subscription.follows_routes() && self.may_still_ask(XdsType::Rds, now);
        // Routes that are named again have none of the hosts that the client lists: it is told so before it
        // has the routes, or it would list both if the stream broke between them and their hosts.
        let are_hosts_taken_back = ty == XdsType::Rds && self.state(XdsType::Vhds).takes_back();
        let expired = |since: Instant| now.saturating_duration_since(since) >= order::WAIT_MAX;
        gated
            || is_start_unknown
            || follows_unknown
            || are_hosts_taken_back
            || self.awaits_form(ty)
            || order::sent_before(ty)
                .iter()
                .map(|earlier| self.state(*earlier))
                .any(|earlier| earlier.has_news(resources) && !earlier.waiting_since.is_some_and(expired))
    }

    fn send(&mut self, ty: XdsType, outgoing: Outgoing, cx: &Context<'_>) -> Response {
        self.number += 1;
        let number = self.number;
        self.follow_up(ty, &outgoing, cx);
        let state = &mut self.types[ty];
        let version = state.version(cx.protocol).to_string();
        let revision = cx.resources.revision();
        state.record(number, version.clone(), &outgoing, cx);
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

    fn number_of(&self, text: &str) -> Option<u64> {
        let (stream, number) = text.split_once('.')?;
        let stream = u64::from_str_radix(stream, 16).ok()?;
        (stream == self.id).then(|| number.parse().ok()).flatten()
    }

    /// The protocol of the stream.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the client has come as far as listeners, which it asks for when it has clusters and endpoints,
    /// and has everything that it has asked for so far.
    #[must_use]
    pub fn has_started(&self) -> bool {
        let has_all = |resources: &Arc<ProxyResources>| {
            self.types.iter().all(|state| state.is_answered() && !state.has_work(resources))
        };
        self.state(XdsType::Lds).requested && self.resources.as_ref().is_some_and(has_all)
    }

    /// Whether the client has asked for anything that is served.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.types.iter().any(|state| state.requested)
    }
}

fn nonce(stream: u64, number: u64) -> String {
    format!("{stream:x}.{number}")
}

//! What the agent knows of one stream of discovery: what the client wants, what it has, and what was said to
//! which control plane. No IO and no clock.
//!
//! The client's stream lives as long as the client wants; streams to the control plane come and go. Each has
//! an epoch, and the client sees nonces with the epoch before them, so that an answer to an earlier stream is
//! never taken for one to the present stream. When a stream is opened again, the control plane hears what the
//! client has, and sends what has changed since (xDS, "Incremental xDS", `initial_resource_versions`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use navarch_envoy::wire::put_field;
use navarch_xds::proto::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::{DecodeError, Message};

use super::followed::{Followed, Found, Split};
use super::wire::{
    Head, NONCE, Protocol, Sent, bytes_of, delta_versions, encode, name_and_version, removed, resources, tag,
    value_of,
};
use crate::secrets::version_of;

/// Nonces of what the agent says itself, and of what it has from its store.
const OWN: &str = "agent";
const STORED: &str = "store";

/// All resources of a type.
const ALL: &str = "*";

/// The names of the mesh, which the agent wants for itself once a proxy wants its listeners.
const NAMES: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// A stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    /// The type of requests that name none, on streams of a single type.
    only: Option<&'static str>,
    node: Option<Bytes>,
    /// In the order in which they were first asked for.
    types: Vec<TypeState>,
    epoch: u64,
    /// Whether the present control plane has been told the node.
    is_node_said: bool,
    own_responses: u64,
    /// What the agent follows, whether the client asks for it or not.
    followed: Option<Followed>,
    /// Whether the present control plane is asked for it: it has it.
    is_following: bool,
    /// Whether the agent wants the names of the mesh.
    wants_names: bool,
}

#[derive(Debug, Default)]
struct TypeState {
    type_url: String,
    /// Whether the client has asked for anything of this type.
    is_asked: bool,
    /// Asked for without names in the first request: all of them.
    wildcard: bool,
    /// What is asked of the control plane.
    names: BTreeSet<String>,
    /// Whether the control plane is asked for this type at all.
    is_upstream: bool,
    /// What the agent answers itself, with the version that was sent last.
    local: BTreeMap<String, Option<String>>,
    /// Delta: what the client has accepted, with versions.
    held: BTreeMap<String, String>,
    /// State of the world: the version that the client has accepted last.
    version: String,
    /// State of the world: the last nonce of the present control plane.
    nonce: String,
    /// Whether the client began with nothing, and has accepted nothing yet.
    is_fresh: bool,
    /// Responses without an answer, by the nonce that the client saw.
    pending: VecDeque<(String, Bytes)>,
}

/// What follows from a request.
#[derive(Debug, Default)]
pub struct Step {
    /// What the control plane is to be told.
    pub upstream: Option<Vec<u8>>,
    /// And besides: the agent's own wish.
    pub own: Option<Vec<u8>>,
    /// The type of the request.
    pub type_url: String,
    /// Names that were asked for in this request and are the agent's to answer.
    pub has_new_local: bool,
    /// Names that are the control plane's to answer and were not asked for before. For state of the world:
    /// all, if there is a new one.
    pub wanted: Wanted,
    /// Whether the client has accepted a response, from wherever it came.
    pub is_accepted: bool,
    /// A response of the control plane that the client has accepted.
    pub accepted: Option<Bytes>,
    /// Its nonce, if the present stream to the control plane is the one that it came on.
    pub accepted_nonce: Option<String>,
    /// Whether it has all that there is of its type.
    pub is_complete: bool,
    /// What is followed, if it was in what the client has accepted.
    pub followed: Option<Bytes>,
    /// What the client has to say against a response.
    pub rejected: Option<String>,
}

/// What follows from a response.
#[derive(Debug, Default)]
pub struct Heard {
    /// What the client is to hear, in pieces.
    pub client: Option<[Bytes; 2]>,
    /// What the control plane is to be told.
    pub upstream: Vec<Vec<u8>>,
    /// What is followed, if it was there and is not the client's to accept.
    pub followed: Option<Bytes>,
    /// The names of the mesh, encoded.
    pub names: Option<Bytes>,
    /// The control plane is one that does not have what is followed.
    pub is_foreign: bool,
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub all: bool,
    pub names: Vec<String>,
}

impl Wanted {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.names.is_empty()
    }
}

/// Where a nonce comes from.
enum Origin {
    /// The present stream to the control plane, by its own nonce.
    Upstream(String),
    Own,
    /// The store, or a stream that has ended.
    Past,
}

impl Session {
    /// A stream on which nothing was said. `only` is the type of streams that are for one type.
    #[must_use]
    pub fn new(protocol: Protocol, only: Option<&'static str>) -> Self {
        Session {
            protocol,
            only,
            node: None,
            types: Vec::new(),
            epoch: 0,
            is_node_said: false,
            own_responses: 0,
            followed: None,
            is_following: false,
            wants_names: false,
        }
    }

    /// The same, which asks for a resource beside what the client asks for.
    #[must_use]
    pub fn following(self, followed: Option<Followed>) -> Self {
        Session { followed, ..self }
    }

    /// The same, which asks for the names of the mesh on behalf of a proxy.
    #[must_use]
    pub fn wanting_names(self, wants_names: bool) -> Self {
        Session { wants_names, ..self }
    }

    /// The node that the client stated in its first request, encoded.
    #[must_use]
    pub fn node(&self) -> Option<&Bytes> {
        self.node.as_ref()
    }

    /// Whether the present control plane has been told who the client is: before that, nothing can be said.
    #[must_use]
    pub fn is_node_said(&self) -> bool {
        self.is_node_said
    }

    /// How the client asks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Hears a request of the client. `is_local` says which names the agent answers; `is_connected`, whether
    /// the control plane can be told.
    ///
    /// # Errors
    /// If it is not a request.
    pub fn request(
        &mut self,
        message: Bytes,
        is_local: impl Fn(&str, &str) -> bool,
        is_connected: bool,
    ) -> Result<Step, DecodeError> {
        let origin;
        let mut step = match self.protocol {
            Protocol::Delta => {
                let mut request = DeltaDiscoveryRequest::decode(message)?;
                origin = self.origin(&request.response_nonce);
                self.note_node(request.node.take());
                self.default_type(&mut request.type_url);
                self.delta(request, is_local, is_connected)
            }
            Protocol::Sotw => {
                let mut request = DiscoveryRequest::decode(message)?;
                origin = self.origin(&request.response_nonce);
                self.note_node(request.node.take());
                self.default_type(&mut request.type_url);
                self.sotw(request, is_local, is_connected)
            }
        };
        if let (Some(followed), Some(accepted)) = (self.followed_of(&step.type_url), &step.accepted) {
            let found = followed.split(self.protocol, accepted).found;
            step.followed = found.map(|found| found.message);
        }
        if let (Some(Origin::Upstream(nonce)), true) = (origin, step.is_accepted) {
            step.accepted_nonce = Some(nonce);
        }
        step.own = self.ask_for_names(is_connected);
        Ok(step)
    }

    /// Asks for the names of the mesh, once the client has asked for all listeners: it is a proxy then.
    fn ask_for_names(&mut self, is_connected: bool) -> Option<Vec<u8>> {
        let protocol = self.protocol;
        let all = self.types.iter().find(|state| state.type_url == LISTENERS);
        let is_proxy = all.is_some_and(|state| match protocol {
            Protocol::Delta => state.is_all(),
            Protocol::Sotw => state.is_asked && state.names.is_empty(),
        });
        if !self.wants_names || !is_proxy {
            return None;
        }
        let state = self.state(NAMES);
        if state.is_asked || std::mem::replace(&mut state.is_upstream, true) {
            return None;
        }
        state.wildcard = true;
        let request = match protocol {
            Protocol::Delta => state.reopen_delta(None, None).encode_to_vec(),
            Protocol::Sotw => state.reopen_sotw(None, None).encode_to_vec(),
        };
        is_connected.then_some(request)
    }

    /// Hears the names of the mesh, if it is the agent who has asked for them.
    fn hear_names(&mut self, message: &Bytes) -> Option<Heard> {
        let head = Head::of(message);
        if !self.wants_names || head.type_url != NAMES || self.state(NAMES).is_asked {
            return None;
        }
        let protocol = self.protocol;
        let state = self.state(NAMES);
        head.nonce.clone_into(&mut state.nonce);
        head.version.clone_into(&mut state.version);
        let mut names = None;
        for resource in resources(message) {
            let any = match protocol {
                Protocol::Sotw => resource,
                Protocol::Delta => {
                    let (name, version) = name_and_version(resource);
                    state.held.insert(name.to_owned(), version.to_owned());
                    bytes_of(resource, 2).last().unwrap_or_default()
                }
            };
            names = Some(message.slice_ref(value_of(any)));
        }
        for name in removed(message) {
            state.held.remove(name);
            names.get_or_insert_default();
        }
        if protocol == Protocol::Sotw {
            // State of the world says with nothing that there is nothing.
            names.get_or_insert_default();
        }
        let upstream = vec![match protocol {
            Protocol::Delta => DeltaDiscoveryRequest {
                type_url: NAMES.to_owned(),
                response_nonce: head.nonce.to_owned(),
                ..DeltaDiscoveryRequest::default()
            }
            .encode_to_vec(),
            Protocol::Sotw => state.sotw_request(head.nonce.to_owned(), None).encode_to_vec(),
        }];
        Some(Heard { names, upstream, ..Heard::default() })
    }

    /// What is followed of a type.
    fn followed_of(&self, type_url: &str) -> Option<Followed> {
        self.followed.filter(|followed| followed.type_url == type_url)
    }

    /// The name that the present control plane is asked for by the agent, of a type.
    fn followed_name(&self, type_url: &str) -> Option<&'static str> {
        let followed = self.followed_of(type_url).filter(|_| self.is_following);
        followed.map(|followed| followed.name)
    }

    fn note_node(&mut self, node: Option<Bytes>) {
        // Who states it again has not become somebody else.
        if self.node.is_none() {
            self.node = node;
        }
    }

    fn default_type(&self, type_url: &mut String) {
        if let (true, Some(only)) = (type_url.is_empty(), self.only) {
            only.clone_into(type_url);
        }
    }

    fn delta(
        &mut self,
        mut request: DeltaDiscoveryRequest,
        is_local: impl Fn(&str, &str) -> bool,
        is_connected: bool,
    ) -> Step {
        let origin = self.origin(&request.response_nonce);
        let type_url = request.type_url.clone();
        let state = self.state(&type_url);
        let is_first = !std::mem::replace(&mut state.is_asked, true);
        let mut step = Step { type_url: type_url.clone(), ..Step::default() };
        let error = request.error_detail.as_ref().map(|error| error.message.clone());
        state.answered(&request.response_nonce, error, Protocol::Delta, &mut step);

        if is_first {
            state.wildcard = request.resource_names_subscribe.is_empty();
            step.wanted.all = state.wildcard;
        }
        let local = |name: &String| is_local(&type_url, name);
        for name in request.resource_names_subscribe.extract_if(.., |name| local(&*name)) {
            step.has_new_local = true;
            let version = request.initial_resource_versions.remove(&name);
            state.local.insert(name, version);
        }
        for name in request.resource_names_unsubscribe.extract_if(.., |name| local(&*name)) {
            state.local.remove(&name);
        }
        for name in &request.resource_names_subscribe {
            step.wanted.all |= name == ALL;
            step.wanted.names.push(name.clone());
            state.names.insert(name.clone());
        }
        for name in &request.resource_names_unsubscribe {
            state.wildcard &= name != ALL;
            state.names.remove(name);
            if !state.is_all() {
                state.held.remove(name);
            }
        }
        if is_first {
            state.held.extend(request.initial_resource_versions.clone());
            state.is_fresh = state.held.is_empty();
        }

        request.response_nonce = match origin {
            Some(Origin::Upstream(nonce)) => nonce,
            Some(Origin::Own | Origin::Past) | None => String::new(),
        };
        let says_something = !request.response_nonce.is_empty()
            || !request.resource_names_subscribe.is_empty()
            || !request.resource_names_unsubscribe.is_empty()
            || !request.resource_locators_subscribe.is_empty()
            || !request.resource_locators_unsubscribe.is_empty();
        let asks = says_something || (is_first && state.wildcard);
        if asks {
            state.is_upstream = true;
            if is_connected {
                request.node = self.node_if_unsaid();
                step.upstream = Some(request.encode_to_vec());
            }
        }
        step
    }

    fn sotw(
        &mut self,
        mut request: DiscoveryRequest,
        is_local: impl Fn(&str, &str) -> bool,
        is_connected: bool,
    ) -> Step {
        let origin = self.origin(&request.response_nonce);
        let type_url = request.type_url.clone();
        let followed = self.followed_name(&type_url);
        let state = self.state(&type_url);
        let is_first = !std::mem::replace(&mut state.is_asked, true);
        let mut step = Step { type_url: type_url.clone(), ..Step::default() };
        let error = request.error_detail.as_ref().map(|error| error.message.clone());
        state.answered(&request.response_nonce, error, Protocol::Sotw, &mut step);

        let local: Vec<String> =
            request.resource_names.extract_if(.., |name| is_local(&type_url, &*name)).collect();
        step.has_new_local = local.iter().any(|name| !state.local.contains_key(name));
        let before = std::mem::take(&mut state.local);
        state.local.extend(local.into_iter().map(|name| {
            let version = before.get(&name).cloned().flatten();
            (name, version)
        }));
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        let is_new = is_first || names.iter().any(|name| !state.names.contains(name));
        let is_changed = is_first || names != state.names;
        let only_local = names.is_empty() && !state.local.is_empty();
        if is_first {
            state.version.clone_from(&request.version_info);
        }
        let had_names = !state.names.is_empty();
        state.names = names;
        if is_new && !only_local {
            step.wanted =
                Wanted { all: state.names.is_empty(), names: state.names.iter().cloned().collect() };
        }
        request.response_nonce = match origin {
            Some(Origin::Upstream(nonce)) => nonce,
            // The control plane hears of the names alone, as if they came with its last response.
            Some(Origin::Own | Origin::Past) if is_changed => state.nonce.clone(),
            Some(Origin::Own | Origin::Past) => return step,
            None if only_local && !had_names => return step,
            None => String::new(),
        };
        state.is_upstream = true;
        if is_connected {
            request.version_info.clone_from(&state.version);
            request.resource_names.extend(followed.map(str::to_owned));
            request.node = self.node_if_unsaid();
            step.upstream = Some(request.encode_to_vec());
        }
        step
    }

    /// Where the response of a nonce came from; nothing if there is no nonce.
    fn origin(&self, nonce: &str) -> Option<Origin> {
        let (from, rest) = nonce.split_once('.')?;
        Some(match from {
            OWN => Origin::Own,
            from if from.parse() == Ok(self.epoch) => Origin::Upstream(rest.to_owned()),
            _ => Origin::Past,
        })
    }

    /// The state of a type.
    fn state(&mut self, type_url: &str) -> &mut TypeState {
        let found = self.types.iter().position(|state| state.type_url == type_url);
        let index = found.unwrap_or(self.types.len());
        if found.is_none() {
            let type_url = type_url.to_owned();
            self.types.push(TypeState { type_url, is_fresh: true, ..TypeState::default() });
        }
        &mut self.types[index]
    }

    fn node_if_unsaid(&mut self) -> Option<Bytes> {
        let node = if self.is_node_said { None } else { self.node.clone() };
        self.is_node_said = true;
        node
    }

    /// A new stream to the control plane is open: what it has to hear first.
    pub fn opened(&mut self) -> Vec<Vec<u8>> {
        self.epoch += 1;
        self.is_node_said = false;
        let mut requests = Vec::new();
        for index in 0..self.types.len() {
            let state = &self.types[index];
            let followed = self.followed_name(&state.type_url);
            let is_own = self.followed_of(&state.type_url).is_some() && !state.is_wanted(self.protocol);
            if !state.is_upstream || (is_own && followed.is_none()) {
                continue;
            }
            let node = self.node_if_unsaid();
            let state = &mut self.types[index];
            state.nonce.clear();
            requests.push(match self.protocol {
                Protocol::Delta => state.reopen_delta(node, followed).encode_to_vec(),
                Protocol::Sotw => state.reopen_sotw(node, followed).encode_to_vec(),
            });
        }
        requests
    }

    /// Hears a response of the control plane. The client is to hear the same with another nonce, but for what
    /// is followed without its asking.
    pub fn response(&mut self, message: Bytes) -> Heard {
        let head = Head::of(&message);
        let (nonce, type_url) = (head.nonce.to_owned(), head.type_url.to_owned());
        let mut heard = self.follow(&message);
        if let Some(own) = self.hear_names(&message) {
            heard.names = own.names;
            heard.upstream.extend(own.upstream);
            return heard;
        }
        let protocol = self.protocol;
        let followed = self.followed_of(&type_url);
        let shown = format!("{}.{nonce}", self.epoch);
        let state = self.state(&type_url);
        state.nonce.clone_from(&nonce);
        let Some(followed) = followed else {
            heard.client = Some(state.shown(message, &shown));
            return heard;
        };
        let Split { found, rest } = followed.split(protocol, &message);
        let asked = state.local.get_mut(followed.name);
        if let (Some(sent), Some(found)) = (asked, &found) {
            // The client accepts it itself.
            *sent = Some(version_of(&found.message));
            heard.client = Some(state.shown(message, &shown));
            return heard;
        }
        if let (Some(Found { version, .. }), Protocol::Delta) = (&found, protocol) {
            state.held.insert(followed.name.to_owned(), version.clone());
        }
        heard.followed = found.map(|found| found.message);
        if state.is_asked && (state.is_wanted(protocol) || !state.local.is_empty()) {
            heard.client = Some(state.shown(rest, &shown));
        } else {
            // Nobody else answers it.
            Head::of(&message).version.clone_into(&mut state.version);
            heard.upstream.push(state.acknowledge(protocol, nonce, followed.name));
        }
        heard
    }

    /// Asks for what is followed, once the control plane has shown that it has it.
    fn follow(&mut self, message: &[u8]) -> Heard {
        let Some(followed) = self.followed else { return Heard::default() };
        let is_served = followed.is_served_by(self.protocol, message);
        let was_served = std::mem::replace(&mut self.is_following, is_served);
        let mut heard = Heard { is_foreign: !is_served, ..Heard::default() };
        if is_served && !was_served {
            let protocol = self.protocol;
            let state = self.state(followed.type_url);
            state.is_upstream = true;
            heard.upstream.push(state.subscribe(protocol, followed.name));
        }
        heard
    }

    /// The local names of a type, with the versions that were sent.
    #[must_use]
    pub fn local(&self, type_url: &str) -> Vec<(String, Option<String>)> {
        let state = self.types.iter().find(|state| state.type_url == type_url);
        let local = state.into_iter().flat_map(|state| &state.local);
        local.map(|(name, version)| (name.clone(), version.clone())).collect()
    }

    /// Types of which something is answered by the agent.
    #[must_use]
    pub fn local_types(&self) -> Vec<String> {
        let types = self.types.iter().filter(|state| !state.local.is_empty());
        types.map(|state| state.type_url.clone()).collect()
    }

    /// A response of the agent itself. In state of the world it has all that the agent answers for.
    pub fn own_response(&mut self, type_url: &str, version: &str, resources: &[Sent<'_>]) -> Vec<u8> {
        let nonce = self.next_own(OWN);
        let state = self.state(type_url);
        for Sent { name, version, .. } in resources {
            state.local.insert((*name).to_owned(), Some((*version).to_owned()));
        }
        encode(self.protocol, type_url, version, &nonce, resources, &[])
    }

    /// A response from the store, which the client is taken to have from now on.
    pub fn stored_response(
        &mut self,
        type_url: &str,
        version: &str,
        resources: &[Sent<'_>],
        missing: &[String],
    ) -> Vec<u8> {
        let nonce = self.next_own(STORED);
        let protocol = self.protocol;
        let state = self.state(type_url);
        let held = resources.iter().map(|sent| (sent.name.to_owned(), sent.version.to_owned()));
        state.held.extend(held);
        state.is_fresh = false;
        version.clone_into(&mut state.version);
        encode(protocol, type_url, version, &nonce, resources, missing)
    }

    /// Every type that the control plane is asked for, with all that is wanted of it.
    #[must_use]
    pub fn wanted(&self) -> Vec<(String, Wanted)> {
        let is_asked = |state: &&TypeState| state.is_upstream && state.is_wanted(self.protocol);
        let asked = self.types.iter().filter(is_asked);
        let wanted = asked.map(|state| {
            let all = state.is_all() || (self.protocol == Protocol::Sotw && state.names.is_empty());
            let names = state.names.iter().filter(|name| *name != ALL).cloned().collect();
            (state.type_url.clone(), Wanted { all, names })
        });
        wanted.collect()
    }

    fn next_own(&mut self, origin: &str) -> String {
        self.own_responses += 1;
        format!("{origin}.{}", self.own_responses)
    }
}

impl TypeState {
    fn is_all(&self) -> bool {
        self.wildcard || self.names.contains(ALL)
    }

    /// Whether the client wants anything of this type that is the control plane's to answer.
    fn is_wanted(&self, protocol: Protocol) -> bool {
        let all = self.is_all() || (protocol == Protocol::Sotw && self.local.is_empty());
        self.is_asked && (all || !self.names.is_empty())
    }

    /// A response as the client hears it.
    fn shown(&mut self, message: Bytes, nonce: &str) -> [Bytes; 2] {
        self.pending.push_back((nonce.to_owned(), message.clone()));
        // Of a field that is there twice the last one counts (Protocol Buffers, "Last One Wins").
        let mut tail = Vec::new();
        put_field(&mut tail, tag(NONCE), nonce.as_bytes());
        [message, tail.into()]
    }

    /// Asks for one more name, which is the agent's own wish.
    fn subscribe(&self, protocol: Protocol, name: &str) -> Vec<u8> {
        match protocol {
            Protocol::Delta => DeltaDiscoveryRequest {
                type_url: self.type_url.clone(),
                resource_names_subscribe: vec![name.to_owned()],
                ..DeltaDiscoveryRequest::default()
            }
            .encode_to_vec(),
            Protocol::Sotw => self.sotw_request(self.nonce.clone(), Some(name)).encode_to_vec(),
        }
    }

    /// Accepts a response that only the agent has seen.
    fn acknowledge(&self, protocol: Protocol, nonce: String, followed: &str) -> Vec<u8> {
        match protocol {
            Protocol::Delta => DeltaDiscoveryRequest {
                type_url: self.type_url.clone(),
                response_nonce: nonce,
                ..DeltaDiscoveryRequest::default()
            }
            .encode_to_vec(),
            Protocol::Sotw => self.sotw_request(nonce, Some(followed)).encode_to_vec(),
        }
    }

    /// The client has answered a response.
    fn answered(&mut self, nonce: &str, error: Option<String>, protocol: Protocol, step: &mut Step) {
        step.is_accepted = error.is_none() && !nonce.is_empty();
        let Some(at) = self.pending.iter().position(|(pending, _)| pending == nonce) else {
            step.rejected = error.filter(|_| !nonce.is_empty());
            return;
        };
        let Some((_, message)) = self.pending.remove(at) else { return };
        if error.is_some() {
            step.rejected = error;
            return;
        }
        match protocol {
            Protocol::Sotw => {
                step.is_complete = self.names.is_empty();
                Head::of(&message).version.clone_into(&mut self.version);
            }
            Protocol::Delta => {
                step.is_complete = self.is_fresh && self.is_all();
                for (name, version) in delta_versions(&message) {
                    self.held.insert(name.to_owned(), version.to_owned());
                }
                for name in removed(&message) {
                    self.held.remove(name);
                }
            }
        }
        self.is_fresh = false;
        step.accepted = Some(message);
    }

    fn reopen_delta(&self, node: Option<Bytes>, followed: Option<&str>) -> DeltaDiscoveryRequest {
        let mut names: Vec<String> = self.names.iter().cloned().chain(followed.map(str::to_owned)).collect();
        if self.wildcard && !names.is_empty() && !self.names.contains(ALL) {
            names.push(ALL.to_owned());
        }
        // What the client has not answered yet it has in one version or another.
        let unanswered = self.pending.iter().flat_map(|(_, message)| delta_versions(message));
        let mut versions: BTreeMap<String, String> =
            unanswered.map(|(name, _)| (name.to_owned(), String::new())).collect();
        versions.extend(self.held.clone());
        DeltaDiscoveryRequest {
            node,
            type_url: self.type_url.clone(),
            resource_names_subscribe: names,
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn reopen_sotw(&self, node: Option<Bytes>, followed: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest { node, ..self.sotw_request(String::new(), followed) }
    }

    /// What is wanted of the control plane, with the version that is there.
    fn sotw_request(&self, response_nonce: String, followed: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: self
                .names
                .iter()
                .map(String::as_str)
                .chain(followed)
                .map(str::to_owned)
                .collect(),
            type_url: self.type_url.clone(),
            response_nonce,
            ..DiscoveryRequest::default()
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

//! One simulated proxy: what it subscribes to, what it holds, when it acknowledges. No sockets here.
//!
//! It does as Envoy does: clusters first, then the endpoints of those that have any, listeners when these
//! have come, the route configurations that the listeners name, the virtual hosts of those that have them as
//! resources of their own; every response is acknowledged at once.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use navarch_envoy::{Version, XdsType, hosts};

use crate::known::{Id, Known};
use crate::message::{Protocol, Received, Request, Response};

/// A proxy, over all its connections.
#[derive(Debug)]
pub struct Proxy {
    protocol: Protocol,
    node: Rc<[u8]>,
    clusters: State,
    endpoints: State,
    listeners: State,
    routes: State,
    /// Virtual hosts. Unlike others that are not all sent, they are not asked for by name.
    hosts: State,
    /// The node has been sent on this connection.
    introduced: bool,
}

/// What a proxy holds of one type.
#[derive(Debug, Default)]
struct State {
    /// Asked for on this connection.
    asked: bool,
    /// Answered, on any connection.
    answered: bool,
    nonce: String,
    version: String,
    held: HashMap<Id, Held>,
    /// What others refer to, and how often. Unused for clusters and listeners, which are all sent.
    wanted: HashMap<Id, u32>,
    /// Names that became wanted since the last request.
    fresh: Vec<Id>,
    /// Names that nobody refers to any more since the last request.
    stale: Vec<Id>,
}

/// A resource that a proxy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The first half of the hash of its content.
    pub content: u64,
    /// What the server calls its version.
    version: Id,
}

/// What a response did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The acknowledgement and what is asked for next, in the order in which they go out; the acknowledgement
    /// is the first.
    pub requests: Vec<Bytes>,
    /// Resources with a number of a change in them: type, name, number.
    pub marks: Vec<(XdsType, Id, u32)>,
    pub resources: usize,
}

/// The content of a resource as a number, the same as the version that navarch gives it.
#[must_use]
pub fn content_of(version: Version) -> u64 {
    (version.0 >> 64) as u64
}

impl Proxy {
    /// A proxy that holds nothing.
    #[must_use]
    pub fn new(protocol: Protocol, node: Vec<u8>) -> Self {
        Proxy {
            protocol,
            node: node.into(),
            clusters: State::default(),
            endpoints: State::default(),
            listeners: State::default(),
            routes: State::default(),
            hosts: State::default(),
            introduced: false,
        }
    }

    /// The requests that open a connection: what Envoy had subscribed to before, with the versions that it
    /// holds.
    pub fn connect(&mut self, known: &Known) -> Vec<Bytes> {
        self.introduced = false;
        for ty in [XdsType::Cds, XdsType::Eds, XdsType::Lds, XdsType::Rds, XdsType::Vhds] {
            if let Some(state) = self.state_mut(ty) {
                state.asked = false;
                state.nonce.clear();
            }
        }
        let mut requests = vec![self.ask(XdsType::Cds, known)];
        requests.extend(self.next(known));
        requests
    }

    /// Whether it has everything that it asked for.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.clusters.answered
            && self.listeners.answered
            && self.endpoints.held.len() == self.endpoints.wanted.len()
            && self.routes.held.len() == self.routes.wanted.len()
            && (self.hosts.answered || !self.hosts.asked)
    }

    /// What it lacks, for people.
    #[must_use]
    pub fn lacks(&self, known: &Known) -> String {
        for (ty, state) in [(XdsType::Cds, &self.clusters), (XdsType::Lds, &self.listeners)] {
            if !state.answered {
                return format!("no {ty}");
            }
        }
        if self.hosts.asked && !self.hosts.answered {
            return format!("no {}", XdsType::Vhds);
        }
        for (ty, state) in [(XdsType::Eds, &self.endpoints), (XdsType::Rds, &self.routes)] {
            if let Some(name) = state.wanted.keys().find(|name| !state.held.contains_key(name)) {
                let missing = state.wanted.len().saturating_sub(state.held.len());
                return format!("{missing} of {ty}, such as {}", known.texts.text(*name));
            }
        }
        "nothing".to_owned()
    }

    /// What it holds of a type.
    #[must_use]
    pub fn held(&self, ty: XdsType) -> Option<&HashMap<Id, Held>> {
        self.state(ty).map(|state| &state.held)
    }

    /// Whether it asks for a resource by name.
    #[must_use]
    pub fn wants(&self, ty: XdsType, id: Id) -> bool {
        self.state(ty).is_some_and(|state| state.wanted.contains_key(&id))
    }

    /// A response came.
    pub fn receive(&mut self, message: &[u8], known: &mut Known) -> Outcome {
        let response = Response::read(self.protocol, message);
        let mut outcome = Outcome { resources: response.resources.len(), ..Outcome::default() };
        let Some(ty) = response.ty.filter(|ty| self.state(*ty).is_some()) else { return outcome };
        let whole = self.protocol == Protocol::Sotw && ty.root();
        let mut named = Vec::with_capacity(if whole { response.resources.len() } else { 0 });
        for received in &response.resources {
            let id = known.texts.id(received.name);
            if let Some(number) = self.take(ty, id, received, known) {
                outcome.marks.push(match (ty, hosts::routes_of(received.name)) {
                    // A change of routes shows in them, wherever their hosts are.
                    (XdsType::Vhds, Some(routes)) => (XdsType::Rds, known.texts.id(routes), number),
                    _ => (ty, id, number),
                });
            }
            if whole {
                named.push(id);
            }
        }
        let removed: Vec<Id> = if whole {
            named.sort_unstable();
            let held = self.state(ty).map(|state| &state.held).into_iter().flat_map(HashMap::keys);
            held.filter(|id| named.binary_search(id).is_err()).copied().collect()
        } else {
            response.removed.iter().map(|name| known.texts.id(name)).collect()
        };
        for id in removed {
            self.drop_resource(ty, id, known);
        }
        let Some(state) = self.state_mut(ty) else { return outcome };
        state.answered = true;
        response.nonce.clone_into(&mut state.nonce);
        response.version.clone_into(&mut state.version);
        outcome.requests.push(self.acknowledge(ty, known));
        outcome.requests.extend(self.next(known));
        outcome
    }

    /// Takes in a resource. Gives the change that it carries.
    fn take(&mut self, ty: XdsType, id: Id, received: &Received<'_>, known: &mut Known) -> Option<u32> {
        if received.any.is_empty() {
            return None;
        }
        let content = content_of(Version::of_any(received.any));
        let facts = known.learn(ty, content, received);
        let held = Held { content, version: known.texts.id(received.version) };
        let state = self.state_mut(ty)?;
        // Nothing is held that nobody refers to any more.
        if !ty.root() && ty != XdsType::Vhds && !state.wanted.contains_key(&id) {
            return None;
        }
        let before = state.held.insert(id, held);
        if before.map(|before| before.content) != Some(content) {
            let old = before.map(|before| known.of(before.content));
            self.refer(ty, &facts.refers_to, true);
            self.refer(ty, old.as_ref().map_or(&[], |old| &old.refers_to), false);
        }
        facts.mark
    }

    fn drop_resource(&mut self, ty: XdsType, id: Id, known: &Known) {
        let Some(before) = self.state_mut(ty).and_then(|state| state.held.remove(&id)) else { return };
        self.refer(ty, &known.of(before.content).refers_to, false);
    }

    /// Counts references of clusters to endpoints and of listeners to routes.
    fn refer(&mut self, from: XdsType, names: &[Id], more: bool) {
        let to = match from {
            XdsType::Cds => &mut self.endpoints,
            XdsType::Lds => &mut self.routes,
            _ => return,
        };
        for name in names {
            let count = to.wanted.entry(*name).or_default();
            if more {
                if *count == 0 {
                    to.fresh.push(*name);
                }
                *count += 1;
            } else {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    to.stale.push(*name);
                }
            }
        }
    }

    /// What is to be asked for now that something came.
    fn next(&mut self, known: &Known) -> Vec<Bytes> {
        let mut requests = Vec::new();
        requests.extend(self.follow(XdsType::Eds, known));
        let endpoints_came = self.endpoints.answered || self.endpoints.wanted.is_empty();
        if self.clusters.answered && endpoints_came && !self.listeners.asked {
            requests.push(self.ask(XdsType::Lds, known));
        }
        requests.extend(self.follow(XdsType::Rds, known));
        let discovers = || self.routes.held.values().any(|held| known.of(held.content).discovers_hosts);
        if self.routes.answered && !self.hosts.asked && discovers() {
            requests.push(self.ask(XdsType::Vhds, known));
        }
        requests
    }

    /// Subscribes to what is newly referred to, and leaves what no longer is.
    fn follow(&mut self, ty: XdsType, known: &Known) -> Option<Bytes> {
        let protocol = self.protocol;
        let state = self.state_mut(ty)?;
        // A name that came and went, or went and came, since the last request is neither new nor gone.
        let mut gone = std::mem::take(&mut state.stale);
        let mut new = std::mem::take(&mut state.fresh);
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|id| state.wanted.get(id) == Some(&0));
        for id in &gone {
            state.wanted.remove(id);
            state.held.remove(id);
        }
        if !state.asked {
            return (!state.wanted.is_empty()).then(|| self.ask(ty, known));
        }
        new.retain(|id| state.wanted.contains_key(id) && !state.held.contains_key(id));
        new.sort_unstable();
        new.dedup();
        if new.is_empty() && gone.is_empty() {
            return None;
        }
        let (new, gone) = (names(&new, known), names(&gone, known));
        let request = match protocol {
            Protocol::Delta => {
                Request { names: borrowed(&new), unsubscribe: borrowed(&gone), ..Request::default() }
                    .encode(protocol, ty)
            }
            Protocol::Sotw => self.acknowledge(ty, known),
        };
        Some(request)
    }

    /// The first request of a type on a connection.
    fn ask(&mut self, ty: XdsType, known: &Known) -> Bytes {
        let (protocol, node) = (self.protocol, self.node.clone());
        let introduce = !std::mem::replace(&mut self.introduced, true);
        let Some(state) = self.state_mut(ty) else { return Bytes::new() };
        state.asked = true;
        state.fresh.clear();
        let wanted: Vec<Id> = state.wanted.keys().copied().collect();
        let wanted = names(&wanted, known);
        let held: Vec<(Rc<str>, Rc<str>)> = match protocol {
            Protocol::Delta => {
                let held = state.held.iter();
                held.map(|(id, held)| (known.texts.text(*id), known.texts.text(held.version))).collect()
            }
            Protocol::Sotw => Vec::new(),
        };
        let request = Request {
            node: introduce.then_some(&*node),
            names: borrowed(&wanted),
            initial: held.iter().map(|(name, version)| (&**name, &**version)).collect(),
            version: &state.version,
            ..Request::default()
        };
        request.encode(protocol, ty)
    }

    fn acknowledge(&self, ty: XdsType, known: &Known) -> Bytes {
        let Some(state) = self.state(ty) else { return Bytes::new() };
        let wanted = match self.protocol {
            Protocol::Delta => Vec::new(),
            Protocol::Sotw => {
                let wanted: Vec<Id> =
                    state.wanted.iter().filter(|(_, count)| **count > 0).map(|(id, _)| *id).collect();
                names(&wanted, known)
            }
        };
        let request = Request {
            names: borrowed(&wanted),
            nonce: &state.nonce,
            version: &state.version,
            ..Request::default()
        };
        request.encode(self.protocol, ty)
    }

    fn state(&self, ty: XdsType) -> Option<&State> {
        match ty {
            XdsType::Cds => Some(&self.clusters),
            XdsType::Eds => Some(&self.endpoints),
            XdsType::Lds => Some(&self.listeners),
            XdsType::Rds => Some(&self.routes),
            XdsType::Vhds => Some(&self.hosts),
            _ => None,
        }
    }

    fn state_mut(&mut self, ty: XdsType) -> Option<&mut State> {
        match ty {
            XdsType::Cds => Some(&mut self.clusters),
            XdsType::Eds => Some(&mut self.endpoints),
            XdsType::Lds => Some(&mut self.listeners),
            XdsType::Rds => Some(&mut self.routes),
            XdsType::Vhds => Some(&mut self.hosts),
            _ => None,
        }
    }
}

fn names(ids: &[Id], known: &Known) -> Vec<Rc<str>> {
    ids.iter().map(|id| known.texts.text(*id)).collect()
}

fn borrowed(names: &[Rc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::Resource;
    use navarch_envoy::wire::{Fields, Value, put_field};

    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        parts.iter().for_each(|(number, value)| put_field(&mut out, number << 3 | 2, value));
        out
    }

    /// A cluster that takes its endpoints from xDS.
    fn cluster(name: &str) -> Resource {
        let mut body = message(&[(1, name.as_bytes())]);
        body.extend([0x10, 3]);
        Resource::of(XdsType::Cds, name, &body)
    }

    fn response(protocol: Protocol, ty: XdsType, resources: &[Resource], removed: &[&str]) -> Vec<u8> {
        let mut out = message(&[(1, b"v"), (4, ty.type_url().as_bytes()), (5, b"n")]);
        for resource in resources {
            out.extend_from_slice(&match protocol {
                Protocol::Delta => resource.delta_chunk(),
                Protocol::Sotw => resource.sotw_chunk(),
            });
        }
        removed.iter().for_each(|name| put_field(&mut out, 0x32, name.as_bytes()));
        out
    }

    /// A request as text: the type, `+name` for names, `-name` for unsubscribed ones, `=name` for what is
    /// held, `!` for a nonce.
    fn show(protocol: Protocol, request: &[u8]) -> String {
        let mut words = Vec::new();
        let mut ty = "";
        for (number, value) in Fields::new(request.get(5..).unwrap_or_default()) {
            let Value::Bytes(bytes) = value else { continue };
            let text = crate::message::text(bytes);
            match (protocol, number) {
                (Protocol::Delta, 2) | (Protocol::Sotw, 4) => {
                    ty = XdsType::from_type_url(text).map_or("?", XdsType::short);
                }
                (_, 3) => words.push(format!("+{text}")),
                (Protocol::Delta, 4) => words.push(format!("-{text}")),
                (Protocol::Delta, 5) => {
                    words.push(format!("={}", crate::message::text(crate::message::nested(bytes, 1))));
                }
                (Protocol::Delta, 6) | (Protocol::Sotw, 5) => words.push("!".to_owned()),
                _ => {}
            }
        }
        words.sort();
        format!("{ty}{}", words.iter().fold(String::new(), |text, word| text + " " + word))
    }

    fn shown(protocol: Protocol, requests: &[Bytes]) -> Vec<String> {
        requests.iter().map(|request| show(protocol, request)).collect()
    }

    #[test]
    fn asks_and_acknowledges_as_envoy_does() {
        let endpoints = |name: &str| Resource::of(XdsType::Eds, name, &message(&[(1, name.as_bytes())]));
        for (protocol, second, third) in [
            (Protocol::Delta, ["CDS !", "EDS +c -a"], "EDS !"),
            (Protocol::Sotw, ["CDS !", "EDS ! +b +c"], "EDS ! +b +c"),
        ] {
            let (mut known, mut proxy) = (Known::default(), Proxy::new(protocol, Vec::new()));
            assert_eq!(shown(protocol, &proxy.connect(&known)), ["CDS"]);

            let both = response(protocol, XdsType::Cds, &[cluster("a"), cluster("b")], &[]);
            let requests = proxy.receive(&both, &mut known).requests;
            assert_eq!(shown(protocol, &requests), ["CDS !", "EDS +a +b"], "{protocol:?}");
            assert!(!proxy.synced());

            let found = response(protocol, XdsType::Eds, &[endpoints("a"), endpoints("b")], &[]);
            let requests = proxy.receive(&found, &mut known).requests;
            assert_eq!(shown(protocol, &requests).last().map(String::as_str), Some("LDS"), "{protocol:?}");
            proxy.receive(&response(protocol, XdsType::Lds, &[], &[]), &mut known);
            assert!(proxy.synced(), "{protocol:?} {}", proxy.lacks(&known));

            // `a` goes, `c` comes: state of the world says so by what is there.
            let changed = match protocol {
                Protocol::Delta => response(protocol, XdsType::Cds, &[cluster("c")], &["a"]),
                Protocol::Sotw => response(protocol, XdsType::Cds, &[cluster("b"), cluster("c")], &[]),
            };
            let requests = proxy.receive(&changed, &mut known).requests;
            assert_eq!(shown(protocol, &requests), second, "{protocol:?}");
            assert!(!proxy.synced());
            let requests =
                proxy.receive(&response(protocol, XdsType::Eds, &[endpoints("c")], &[]), &mut known);
            assert_eq!(shown(protocol, &requests.requests), [third], "{protocol:?}");
            assert!(proxy.synced());
        }
    }

    #[test]
    fn asks_for_virtual_hosts_where_they_are_resources() {
        let (mut known, mut proxy) = (Known::default(), Proxy::new(Protocol::Delta, Vec::new()));
        proxy.connect(&known);
        proxy.receive(&response(Protocol::Delta, XdsType::Cds, &[], &[]), &mut known);
        // Listener.filter_chains, FilterChain.filters, Filter.typed_config, Rds.route_config_name.
        let manager = message(&[(3, &message(&[(2, b"80")]))]);
        let any = message(&[(1, b"type.googleapis.com/x.HttpConnectionManager"), (2, &manager)]);
        let filter = message(&[(4, &any)]);
        let listener = message(&[(1, b"l"), (3, &message(&[(3, &filter)]))]);
        let listener = Resource::of(XdsType::Lds, "l", &listener);
        let requests =
            proxy.receive(&response(Protocol::Delta, XdsType::Lds, &[listener], &[]), &mut known).requests;
        assert_eq!(shown(Protocol::Delta, &requests), ["LDS !", "RDS +80"]);
        let routes = Resource::of(XdsType::Rds, "80", &message(&[(1, b"80"), (9, b"")]));
        let requests =
            proxy.receive(&response(Protocol::Delta, XdsType::Rds, &[routes], &[]), &mut known).requests;
        assert_eq!(shown(Protocol::Delta, &requests), ["RDS !", "VHDS"]);
        assert!(!proxy.synced());
        let host = Resource::of(XdsType::Vhds, "80/a", &message(&[(1, b"80/a"), (15, b"nvbench-7-x")]));
        let outcome = proxy.receive(&response(Protocol::Delta, XdsType::Vhds, &[host], &[]), &mut known);
        assert_eq!(outcome.marks, [(XdsType::Rds, known.texts.id("80"), 7)]);
        assert!(proxy.synced(), "{}", proxy.lacks(&known));
        let requests = shown(Protocol::Delta, &proxy.connect(&known));
        assert_eq!(requests.last().map(String::as_str), Some("VHDS =80/a"));
        proxy.receive(&response(Protocol::Delta, XdsType::Vhds, &[], &["80/a"]), &mut known);
        assert_eq!(proxy.held(XdsType::Vhds).map(HashMap::len), Some(0));
    }

    #[test]
    fn comes_back_with_what_it_holds() {
        let (mut known, mut proxy) = (Known::default(), Proxy::new(Protocol::Delta, Vec::new()));
        proxy.connect(&known);
        proxy.receive(&response(Protocol::Delta, XdsType::Cds, &[cluster("a")], &[]), &mut known);
        let requests = shown(Protocol::Delta, &proxy.connect(&known));
        assert_eq!(requests, ["CDS =a", "EDS +a"]);
    }
}

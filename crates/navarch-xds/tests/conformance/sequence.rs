//! Any sequence of requests, answers, changes, delays and losses, read from bytes: the entry of the fuzzer in
//! `fuzz/`, and of a test that runs it over the fuzzer's corpus and over random bytes.
//!
//! What must hold of every response is checked as it comes. In the end the client becomes well-behaved and
//! answers what it is sent; then the stream must come to rest, and if nothing was rejected the client holds
//! what it asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::wire::put_field;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{
    Brake, ClassMemory, ClientRules, Error, Node, Protocol, Request, Response, Stream, Wildcard, Wish,
};

/// Names that resources have. The last two are members of a collection.
const NAMES: [&str; 6] = ["a", "b", "r/a", "c", "xdstp://x/t/a", "xdstp://x/t/b"];
/// Names that are asked for besides.
const OTHERS: [&str; 4] = ["*", "xdstp://x/t/*", "missing", "r/"];
const AGENTS: [&str; 3] = ["envoy", "gRPC Go", "ztunnel"];
/// Steps of one sequence. More find nothing that fewer do not.
const STEPS: usize = 64;
/// Responses after which a stream is taken not to come to rest.
const RESPONSES: usize = 400;

/// Runs one sequence.
///
/// # Panics
/// If the stream does what it must not.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.come_to_rest();
}

/// Bytes, and zeros after them.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    fn ty(&mut self) -> XdsType {
        // Types that depend on each other more often than others.
        const OFTEN: [XdsType; 4] = [XdsType::Cds, XdsType::Eds, XdsType::Lds, XdsType::Rds];
        let byte = usize::from(self.byte());
        if byte < 128 { OFTEN[byte % OFTEN.len()] } else { XdsType::ALL[byte % XdsType::COUNT] }
    }

    fn names(&mut self) -> Vec<String> {
        let mask = u16::from(self.byte()) | u16::from(self.byte()) << 8;
        let all = NAMES.iter().chain(&OTHERS).enumerate();
        all.filter(|(n, _)| mask & 1 << n != 0).map(|(_, name)| (*name).to_owned()).collect()
    }
}

/// What the client knows of one type.
#[derive(Default)]
struct Known {
    asked: bool,
    names: BTreeSet<String>,
    /// What it holds, over all streams.
    held: BTreeMap<String, String>,
    unanswered: VecDeque<Response>,
    nonce: String,
    version: String,
}

struct World {
    protocol: Protocol,
    agent: &'static str,
    stream: Stream,
    streams: u64,
    now: Instant,
    revision: u64,
    plan: Arc<ProxyResources>,
    ttl: bool,
    /// One of the names is outside the wildcard.
    on_demand: bool,
    brake: Option<Brake>,
    known: BTreeMap<XdsType, Known>,
    nonces: BTreeSet<String>,
    /// Something was rejected on this stream, so that the client may lack it.
    rejected: bool,
    /// Whether to print what happens: `TRACE=1`.
    trace: bool,
}

fn new_stream(id: u64, protocol: Protocol, agent: &str, brake: Option<Brake>) -> Stream {
    let node = Node { id: "n".into(), user_agent_name: agent.into(), ..Node::default() };
    Stream::new(id, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default())).with_brake(brake)
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let protocol = if flags & 1 == 0 { Protocol::Delta } else { Protocol::Sotw };
        let agent = AGENTS[usize::from(flags >> 1 & 7) % AGENTS.len()];
        let brake = Brake { percent_max: 50, removals_min: 2, hold: Duration::from_secs(20) };
        let brake = (flags & 0x20 != 0).then_some(brake);
        let mut world = World {
            protocol,
            agent,
            brake,
            on_demand: flags & 0x10 != 0,
            stream: new_stream(1, protocol, agent, brake),
            streams: 1,
            now: Instant::now(),
            revision: 1,
            plan: Arc::new(ProxyResources::new(1)),
            ttl: flags & 0x80 != 0,
            known: BTreeMap::new(),
            nonces: BTreeSet::new(),
            rejected: false,
            trace: std::env::var_os("TRACE").is_some(),
        };
        world.say(|| format!("{protocol:?} {agent}"));
        // Sometimes the resources come after the first requests.
        if flags & 0x40 == 0 {
            world.stream.resources(world.plan.clone());
        }
        world
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", what());
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(10) {
            0 | 1 => self.change(input),
            2 | 3 => self.ask(input),
            4 | 5 => {
                let ty = input.ty();
                self.answer(ty, None);
            }
            6 => {
                let (ty, text) = (input.ty(), input.names().join(": bad, "));
                self.answer(ty, Some(text));
            }
            7 if input.0.first() == Some(&0xff) => _ = self.stream.confirm_removals(self.revision),
            7 => self.now += Duration::from_millis(u64::from(input.byte()) * 50),
            8 => self.reconnect(),
            _ => {
                // The transport takes one response, or all.
                let count = input.below(2) * RESPONSES + 1;
                self.receive(count);
            }
        }
    }

    /// The resources of one type change.
    fn change(&mut self, input: &mut Input<'_>) {
        let ty = input.ty();
        let mut contents = u16::from(input.byte()) | u16::from(input.byte()) << 8;
        let mut resources = Vec::new();
        for name in NAMES {
            if contents & 3 != 0 {
                resources.push(Arc::new(self.resource(ty, name, contents & 3)));
            }
            contents >>= 2;
        }
        self.revision += 1;
        self.plan = Arc::new(self.plan.at_revision(self.revision).with(ty, ResourceSet::of(resources)));
        self.stream.resources(self.plan.clone());
        self.say(|| format!("plan {} {ty}: {:?}", self.revision, shown(self.plan.set(ty).iter())));
    }

    /// A body with references that a push looks for: clusters by endpoints and by routes, secrets by
    /// clusters, routes by listeners, and virtual hosts by routes.
    fn resource(&self, ty: XdsType, name: &str, content: u16) -> Resource {
        let mut body = Vec::new();
        put_field(&mut body, 0x0a, name.as_bytes());
        match ty {
            XdsType::Cds if content == 3 => body.extend([0x10, 1]),
            XdsType::Cds => body.extend([0x10, 3]),
            XdsType::Rds if content == 2 => put_field(&mut body, 0x4a, b""),
            _ => {}
        }
        put_field(&mut body, 0x7a, format!("{content} a r/a").as_bytes());
        let builder = Resource::builder(ty.type_url(), name, &body);
        let builder = if self.ttl && content == 1 { builder.ttl(Duration::from_secs(30)) } else { builder };
        if self.on_demand && name == "c" { builder.on_demand().build() } else { builder.build() }
    }

    fn known(&mut self, ty: XdsType) -> &mut Known {
        self.known.entry(ty).or_default()
    }

    /// Any request that does not answer an unanswered response.
    fn ask(&mut self, input: &mut Input<'_>) {
        let (ty, add, flags) = (input.ty(), input.names(), input.byte());
        let drop = if flags & 1 != 0 { input.names() } else { Vec::new() };
        let nonce = match flags >> 1 & 3 {
            0 => String::new(),
            1 | 2 => self.known(ty).nonce.clone(),
            _ => "1.1".to_owned(),
        };
        let unanswered = self.known(ty).unanswered.iter().any(|response| response.nonce == nonce);
        let nonce = if unanswered { String::new() } else { nonce };
        let error = (flags & 0x38 == 0x38).then(|| Error { code: 0, text: "a: bad".into() });
        // An error without a nonce that is waited for says nothing, and on a first request it is about
        // another stream.
        let request = match self.protocol {
            Protocol::Sotw => self.exactly(ty, add),
            Protocol::Delta => self.difference(ty, &add, &drop, flags & 0x40 != 0),
        };
        self.request(ty, Request { nonce, error, ..request });
    }

    fn exactly(&mut self, ty: XdsType, names: Vec<String>) -> Request {
        let known = self.known(ty);
        known.names = names.iter().cloned().collect();
        let wish = Wish::Exactly { names, version: known.version.clone() };
        Request { type_url: ty.type_url().into(), wish, ..Request::default() }
    }

    fn difference(&mut self, ty: XdsType, add: &[String], drop: &[String], lies: bool) -> Request {
        let everything = self.is_wildcard(ty);
        let known = self.known(ty);
        known.names.extend(add.iter().cloned());
        // Who drops a name that a wildcard covers does not know whether it is to be kept, and is told.
        // But in the first request of a stream it says what it holds.
        let first = !known.asked;
        let dropped: Vec<_> =
            drop.iter().filter(|name| (known.names.remove(*name) || everything) && !first).collect();
        let mut held = BTreeMap::new();
        if !known.asked {
            let everything = add.is_empty() && drop.is_empty() || known.names.contains("*");
            known.held.retain(|name, _| everything || wanted(&known.names, name));
            if lies {
                known.held.values_mut().for_each(|version| "0".clone_into(version));
                known.held.insert("gone".into(), "0".into());
            }
            held = known.held.clone();
        }
        let wish = Wish::Change { subscribe: add.to_vec(), unsubscribe: drop.to_vec(), held };
        dropped.into_iter().for_each(|name| _ = known.held.remove(name));
        Request { type_url: ty.type_url().into(), wish, ..Request::default() }
    }

    fn request(&mut self, ty: XdsType, request: Request) {
        self.say(|| format!("request {ty} {:?} {:?} {:?}", request.wish, request.nonce, request.error));
        self.known(ty).asked = true;
        self.stream.request(request, self.now);
        self.forget_unwanted(ty);
    }

    /// What is no longer subscribed to is not held any more.
    fn forget_unwanted(&mut self, ty: XdsType) {
        let everything = self.is_wildcard(ty);
        let known = self.known(ty);
        known.held.retain(|name, _| everything || wanted(&known.names, name));
    }

    fn is_wildcard(&self, ty: XdsType) -> bool {
        let status = self.stream.status();
        let wildcard = status.iter().find(|status| status.ty == ty).map(|status| status.wildcard);
        matches!(wildcard, Some(Wildcard::Implicit | Wildcard::Explicit))
    }

    /// Whether a virtual host that is asked for without a name is of routes that are asked for.
    fn is_of_named_routes(&self, ty: XdsType, resource: &Resource) -> bool {
        let status = self.stream.status();
        let wildcard = status.iter().find(|status| status.ty == ty).map(|status| status.wildcard);
        if ty != XdsType::Vhds || wildcard != Some(Wildcard::Implicit) {
            return true;
        }
        let routes = self.known.get(&XdsType::Rds).map(|known| &known.names);
        let of = navarch_envoy::hosts::routes_of(resource.name());
        routes.zip(of).is_some_and(|(routes, of)| routes.contains(of))
    }

    /// Answers the oldest response of the type, if there is one.
    fn answer(&mut self, ty: XdsType, error: Option<String>) -> bool {
        let known = self.known(ty);
        let Some(response) = known.unanswered.pop_front() else { return false };
        known.nonce.clone_from(&response.nonce);
        match &error {
            None => known.version.clone_from(&response.version),
            Some(_) => self.rejected = true,
        }
        let mut request = match self.protocol {
            Protocol::Sotw => {
                let names = self.known(ty).names.iter().cloned().collect();
                self.exactly(ty, names)
            }
            Protocol::Delta => {
                let wish = Wish::Change { subscribe: vec![], unsubscribe: vec![], held: BTreeMap::new() };
                Request { type_url: ty.type_url().into(), wish, ..Request::default() }
            }
        };
        request.nonce = response.nonce;
        request.error = error.map(|text| Error { code: 13, text });
        self.request(ty, request);
        true
    }

    /// The stream is lost. What was not read is lost with it.
    fn reconnect(&mut self) {
        self.say(|| "reconnect".into());
        self.streams += 1;
        self.stream = new_stream(self.streams, self.protocol, self.agent, self.brake);
        self.stream.resources(self.plan.clone());
        self.nonces.clear();
        self.rejected = false;
        for known in self.known.values_mut() {
            // A version that it was told and did not accept is not what it says it holds.
            let unanswered = !known.unanswered.is_empty();
            *known = Known {
                held: std::mem::take(&mut known.held),
                version: if unanswered { String::new() } else { std::mem::take(&mut known.version) },
                ..Known::default()
            };
        }
    }

    fn receive(&mut self, count: usize) -> usize {
        let mut received = 0;
        while received < count
            && let Some(response) = self.stream.poll(self.now)
        {
            self.check(&response);
            self.apply(&response);
            self.known(response.ty).unanswered.push_back(response);
            received += 1;
            assert!(received < RESPONSES, "the stream does not stop sending");
        }
        assert!(self.stream.timer(self.now).is_none_or(|at| at > self.now), "a timer in the past");
        self.stream.take_events().for_each(drop);
        received
    }

    fn check(&mut self, response: &Response) {
        let ty = response.ty;
        self.say(|| {
            let (news, removed) = (shown(response.resources.iter()), &response.removed);
            format!("response {ty} {} {news:?} -{removed:?} ~{}", response.nonce, response.heartbeats.len())
        });
        assert!(!response.nonce.is_empty() && self.nonces.insert(response.nonce.clone()), "nonce");
        let mut names = BTreeSet::new();
        for name in response.resources.iter().chain(&response.heartbeats).map(|r| r.name()) {
            assert!(names.insert(name.clone()), "{ty} {name} twice");
        }
        for name in &response.removed {
            assert!(names.insert(name.clone()), "{ty} {name} removed twice or both sent and removed");
        }
        if self.protocol == Protocol::Sotw {
            assert!(response.removed.is_empty() && response.heartbeats.is_empty(), "not in this protocol");
        }
        // Envoy is sent endpoints and virtual hosts that it is about to ask for.
        assert!(self.known(ty).asked || self.agent == "envoy", "{ty} was not asked for");
        for heartbeat in &response.heartbeats {
            let held = self.known(ty).held.get(&**heartbeat.name()).cloned();
            assert_eq!(held, Some(heartbeat.version().to_string()), "{ty} {} is not held", heartbeat.name());
        }
    }

    fn apply(&mut self, response: &Response) {
        let (ty, protocol) = (response.ty, self.protocol);
        let everything = self.is_wildcard(ty);
        let known = self.known(ty);
        if protocol == Protocol::Sotw && ty.root() {
            known.held.clear();
        }
        for resource in response.resources.iter() {
            if everything || wanted(&known.names, resource.name()) {
                known.held.insert(resource.name().to_string(), resource.version().to_string());
            }
        }
        for name in &response.removed {
            known.held.remove(&**name);
        }
    }

    fn come_to_rest(&mut self) {
        self.stream.resources(self.plan.clone());
        let end = self.now + Duration::from_secs(60);
        let mut responses = 0;
        loop {
            responses += self.receive(RESPONSES);
            assert!(responses < RESPONSES, "the stream does not come to rest");
            let answered = XdsType::ALL.into_iter().filter(|ty| self.answer(*ty, None)).count();
            if answered > 0 {
                continue;
            }
            match self.stream.timer(self.now).filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        if self.rejected {
            return;
        }
        for (ty, known) in &self.known {
            if known.asked {
                self.check_held(*ty, known);
            }
        }
        if self.known.values().any(|known| known.asked) {
            assert_eq!(self.stream.watermark(), self.plan.revision(), "not everything is accepted");
        }
    }

    fn check_held(&self, ty: XdsType, known: &Known) {
        let everything = self.is_wildcard(ty);
        for resource in self.plan.set(ty).iter() {
            let is_part = everything && !resource.is_on_demand() && self.is_of_named_routes(ty, resource);
            if is_part || wanted(&known.names, resource.name()) {
                let held = known.held.get(&**resource.name());
                assert_eq!(held, Some(&resource.version().to_string()), "{ty} {}", resource.name());
            }
        }
        if everything && ty.root() {
            let too_many: Vec<_> =
                known.held.keys().filter(|name| self.plan.set(ty).get(name).is_none()).collect();
            assert!(too_many.is_empty(), "{ty} {too_many:?} are gone");
        }
    }
}

/// Whether a name is asked for, by itself or as a member of a collection.
fn wanted(names: &BTreeSet<String>, name: &str) -> bool {
    names.contains(name) || names.contains(OTHERS[1]) && name.starts_with("xdstp://x/t/")
}

fn shown<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Vec<String> {
    resources.map(|resource| format!("{} {:.4}", resource.name(), resource.version().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::run;

    /// One sequence, in a file: `SEQUENCE=... TRACE=1`.
    #[test]
    fn named_sequence_is_survived() {
        if let Some(path) = std::env::var_os("SEQUENCE") {
            run(&std::fs::read(path).expect("bytes"));
        }
    }

    /// What the fuzzer kept because it reached something new, a sequence in each line.
    const CORPUS: &str = include_str!("sequences.txt");

    #[test]
    fn corpus_of_sequences_is_survived() {
        for line in CORPUS.lines() {
            println!("{line}");
            let digits = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("text"));
            let bytes: Vec<_> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("a byte")).collect();
            run(&bytes);
        }
    }

    proptest! {
        // Always the same ones: to look for others is the fuzzer's business.
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: 2000,
            rng_seed: proptest::test_runner::RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_sequence_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            run(&bytes);
        }
    }
}

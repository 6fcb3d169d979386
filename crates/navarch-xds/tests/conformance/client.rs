//! A scripted client on one [`Stream`], under virtual time. What it is sent is written as text, so that a
//! test reads as a conversation.
//!
//! A plan is written `"CDS a1 b1 | EDS a1"`: the clusters `a` and `b` and the assignment `a`, each with
//! content `1`. A response is written the same way; `-x` is a removed name, `x()` a resource that says "there
//! is nothing", `~x` a heartbeat, `?x` an error entry. In a plan, `(x1)` is not part of the wildcard. Several
//! responses are joined by `; ` in the order they were sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::wire::put_field;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, Version, XdsType};
use navarch_xds::{
    Brake, ClassMemory, ClientRules, Error, Event, Node, Protocol, Request, Response, Stream, Wish,
};

/// The types a test may name.
pub fn ty(short: &str) -> XdsType {
    XdsType::ALL.into_iter().find(|ty| ty.short() == short).unwrap_or_else(|| panic!("no type {short}"))
}

/// What the control plane wants, and how its content is written.
#[derive(Default)]
pub struct Plan {
    pub current: Option<Arc<ProxyResources>>,
    labels: BTreeMap<Version, String>,
    revision: u64,
    ttl: Option<Duration>,
}

impl Plan {
    /// Replaces the resources of the types in `text`; other types stay.
    pub fn set(&mut self, text: &str) -> Arc<ProxyResources> {
        self.revision += 1;
        let mut next = match &self.current {
            Some(current) => current.at_revision(self.revision),
            None => ProxyResources::new(self.revision),
        };
        for part in text.split('|') {
            let mut words = part.split_whitespace();
            let Some(short) = words.next() else { continue };
            let resources: Vec<_> = words.map(|word| self.resource(ty(short), word)).collect();
            next = next.with(ty(short), ResourceSet::of(resources));
        }
        let next = Arc::new(next);
        self.current = Some(next.clone());
        next
    }

    fn resource(&mut self, ty: XdsType, word: &str) -> Arc<Resource> {
        let on_demand = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'));
        let word = on_demand.unwrap_or(word);
        let (name, content) = word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len()));
        let body = body(ty, name, content);
        let mut builder = Resource::builder(ty.type_url(), name, &body);
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        if on_demand.is_some() {
            builder = builder.on_demand();
        }
        // Names of files are no secret.
        if ty == XdsType::Sds && !name.starts_with("file") {
            builder = builder.secret();
        }
        let resource = builder.build();
        self.labels.insert(resource.version(), content.to_owned());
        Arc::new(resource)
    }

    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub fn without_ttl(&mut self) {
        self.ttl = None;
    }

    fn write(&self, resource: &Resource) -> String {
        match self.labels.get(&resource.version()) {
            Some(label) => format!("{}{label}", resource.name()),
            None => format!("{}()", resource.name()),
        }
    }
}

/// A body in which the order of a push can find what it looks for. Content starting with 9 is a cluster that
/// takes long to warm, and that of routes ending with `v` discovers virtual hosts; content is followed by the
/// names it refers to, each after an underscore, and that of a listener by an address, after `@`.
fn body(ty: XdsType, name: &str, content: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_field(&mut body, 0x0a, name.as_bytes());
    match ty {
        XdsType::Cds if content.starts_with('9') => body.extend([0x10, 1]),
        XdsType::Cds => body.extend([0x10, 3]),
        XdsType::Rds if content.ends_with('v') => put_field(&mut body, 0x4a, b""),
        _ => {}
    }
    if let (XdsType::Lds, Some((_, address))) = (ty, content.split_once('@')) {
        put_field(&mut body, 0x12, address.as_bytes());
    }
    // Field 15: unknown to all of them.
    put_field(&mut body, 0x7a, content.as_bytes());
    content.split('_').skip(1).for_each(|name| put_field(&mut body, 0x72, name.as_bytes()));
    body
}

/// A client on one stream.
pub struct Client {
    pub stream: Stream,
    pub protocol: Protocol,
    pub now: Instant,
    pub plan: Plan,
    /// Per type: responses not answered yet.
    unacked: BTreeMap<XdsType, VecDeque<Response>>,
    /// Per type: the newest response answered, and the version accepted last.
    last: BTreeMap<XdsType, (String, String)>,
    names: BTreeMap<XdsType, BTreeSet<String>>,
    brake: Option<Brake>,
    /// The names of everything that was sent.
    pub log: Vec<Response>,
}

pub fn sotw(plan: &str) -> Client {
    Client::new(Protocol::Sotw, "envoy", Plan::default(), plan)
}

pub fn delta(plan: &str) -> Client {
    Client::new(Protocol::Delta, "envoy", Plan::default(), plan)
}

pub fn grpc(plan: &str) -> Client {
    Client::new(Protocol::Sotw, "gRPC Go", Plan::default(), plan)
}

/// One client of each protocol.
pub fn both(plan: &str) -> [Client; 2] {
    [sotw(plan), delta(plan)]
}

/// One client of each protocol, on streams that hold back removals of three or more, and of more than half.
pub fn braked(plan: &str) -> [Client; 2] {
    both(plan).map(|mut client| {
        let hold = Duration::from_secs(600);
        client.brake = Some(Brake { percent_max: 50, removals_min: 3, hold });
        client.reconnect("envoy");
        client
    })
}

static STREAMS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// `agent` is a name, and a version after a slash if it is not the one that everything is tested with.
fn stream(protocol: Protocol, agent: &str) -> Stream {
    let (name, version) = agent.split_once('/').unwrap_or((agent, "1.40.0"));
    let id = STREAMS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let node = Node {
        id: "n".into(),
        user_agent_name: name.into(),
        user_agent_version: version.into(),
        ..Node::default()
    };
    Stream::new(id, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default()))
}

impl Client {
    pub fn new(protocol: Protocol, agent: &str, plan: Plan, text: &str) -> Self {
        let mut client = Self {
            stream: stream(protocol, agent),
            protocol,
            now: Instant::now(),
            plan,
            unacked: BTreeMap::new(),
            last: BTreeMap::new(),
            names: BTreeMap::new(),
            brake: None,
            log: Vec::new(),
        };
        let resources = client.plan.set(text);
        client.stream.resources(resources);
        client
    }

    /// Loses the stream and opens another one that the server knows nothing about.
    pub fn reconnect(&mut self, agent: &str) {
        self.stream = stream(self.protocol, agent).with_brake(self.brake);
        if let Some(current) = &self.plan.current {
            self.stream.resources(current.clone());
        }
        self.unacked.clear();
        self.last.clear();
        self.names.clear();
    }

    /// The plan changes.
    pub fn plan(&mut self, text: &str) -> String {
        let resources = self.plan.set(text);
        self.stream.resources(resources);
        self.sent()
    }

    /// Several plans, one after the other, before the transport takes anything.
    pub fn plans(&mut self, texts: &[&str]) -> String {
        for text in texts {
            let resources = self.plan.set(text);
            self.stream.resources(resources);
        }
        self.sent()
    }

    /// Time passes.
    pub fn sleep(&mut self, seconds: f64) -> String {
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut sent = Vec::new();
        while let Some(at) = self.stream.timer(self.now).filter(|at| *at <= end) {
            assert!(at > self.now, "a timer in the past");
            self.now = at;
            sent.push(self.sent());
        }
        self.now = end;
        sent.push(self.sent());
        sent.retain(|text| !text.is_empty());
        sent.join("; ")
    }

    /// Asks: in state-of-the-world for exactly these names, in delta for these in addition.
    pub fn ask(&mut self, text: &str) -> String {
        let (ty, names) = words(text);
        let request = match self.protocol {
            Protocol::Sotw => self.exactly(ty, &names),
            Protocol::Delta => self.change(ty, &names, &[]),
        };
        self.request(request)
    }

    /// Delta: drops names.
    pub fn drop(&mut self, text: &str) -> String {
        let (ty, names) = words(text);
        let request = self.change(ty, &[], &names);
        self.request(request)
    }

    /// Delta: asks with what is held from an earlier stream, `"CDS a1 b2"` for the current content.
    pub fn ask_with(&mut self, text: &str, held: &[(&str, &str)]) -> String {
        let (ty, names) = words(text);
        let mut request = self.change(ty, &names, &[]);
        if let Wish::Change { held: versions, .. } = &mut request.wish {
            *versions =
                held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        }
        self.request(request)
    }

    /// The version of `name` in content `content`, for [`Client::ask_with`].
    pub fn version(&self, short: &str, name: &str, content: &str) -> String {
        Resource::of(ty(short), name, &body(ty(short), name, content)).version().to_string()
    }

    /// State-of-the-world: the first request of a stream with a version from an earlier one.
    pub fn ask_at(&mut self, text: &str, version: &str) -> String {
        let (ty, names) = words(text);
        let mut request = self.exactly(ty, &names);
        if let Wish::Exactly { version: held, .. } = &mut request.wish {
            version.clone_into(held);
        }
        self.request(request)
    }

    /// Accepts the oldest response of the type that is not answered yet.
    pub fn ack(&mut self, short: &str) -> String {
        let request = self.answer(ty(short), None);
        self.request(request)
    }

    /// Rejects it.
    pub fn nack(&mut self, short: &str, text: &str) -> String {
        let request = self.answer(ty(short), Some(text));
        self.request(request)
    }

    /// The request that answers the oldest response of the type.
    pub fn answer(&mut self, ty: XdsType, error: Option<&str>) -> Request {
        let response = self.unacked.entry(ty).or_default().pop_front();
        let response = response.unwrap_or_else(|| panic!("no {ty} response to answer"));
        let accepted = match error {
            None => response.version.clone(),
            Some(_) => self.last.get(&ty).map(|(_, version)| version.clone()).unwrap_or_default(),
        };
        self.last.insert(ty, (response.nonce.clone(), accepted));
        let mut request = match self.protocol {
            Protocol::Sotw => {
                let names: Vec<String> = self.names.entry(ty).or_default().iter().cloned().collect();
                self.exactly(ty, &names)
            }
            Protocol::Delta => self.change(ty, &[], &[]),
        };
        request.nonce = response.nonce;
        request.error = error.map(|text| Error { code: 13, text: text.to_owned() });
        request
    }

    /// Accepts whatever comes, until nothing comes any more.
    pub fn settle(&mut self) -> String {
        let mut sent = vec![self.sent()];
        while let Some(ty) = self.unacked.iter().find(|(_, queue)| !queue.is_empty()).map(|(ty, _)| *ty) {
            let request = self.answer(ty, None);
            sent.push(self.request(request));
        }
        sent.retain(|text| !text.is_empty());
        sent.join("; ")
    }

    fn exactly(&mut self, ty: XdsType, names: &[String]) -> Request {
        self.names.insert(ty, names.iter().cloned().collect());
        let (nonce, version) = self.last.get(&ty).cloned().unwrap_or_default();
        let wish = Wish::Exactly { names: names.to_vec(), version };
        Request { type_url: ty.type_url().into(), nonce, wish, ..Request::default() }
    }

    fn change(&mut self, ty: XdsType, subscribe: &[String], unsubscribe: &[String]) -> Request {
        let wish = Wish::Change {
            subscribe: subscribe.to_vec(),
            unsubscribe: unsubscribe.to_vec(),
            held: BTreeMap::new(),
        };
        Request { type_url: ty.type_url().into(), wish, ..Request::default() }
    }

    /// A delta change as a value, for requests that do more than one thing.
    pub fn delta_request(&mut self, short: &str, subscribe: &str, unsubscribe: &str) -> Request {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        self.change(ty(short), &list(subscribe), &list(unsubscribe))
    }

    /// A state-of-the-world request as a value.
    pub fn sotw_request(&mut self, text: &str) -> Request {
        let (ty, names) = words(text);
        self.exactly(ty, &names)
    }

    pub fn request(&mut self, request: Request) -> String {
        self.stream.request(request, self.now);
        self.sent()
    }

    /// Everything the stream has to send now.
    pub fn sent(&mut self) -> String {
        let mut sent = Vec::new();
        while let Some(response) = self.stream.poll(self.now) {
            self.check(&response);
            sent.push(self.write(&response));
            self.unacked.entry(response.ty).or_default().push_back(response.clone());
            self.log.push(response);
            assert!(sent.len() < 1000, "the stream does not stop sending");
        }
        sent.join("; ")
    }

    /// The last response of a type.
    pub fn last_response(&self, short: &str) -> &Response {
        self.log.iter().rev().find(|response| response.ty == ty(short)).expect("a response")
    }

    pub fn events(&mut self) -> Vec<Event> {
        self.stream.take_events().collect()
    }

    /// Rules that hold for every response.
    fn check(&self, response: &Response) {
        let mut names = BTreeSet::new();
        for resource in response.resources.iter() {
            assert!(names.insert(resource.name().clone()), "{} twice in one response", resource.name());
        }
        for name in &response.removed {
            assert!(names.insert(name.clone()), "{name} twice or both sent and removed");
        }
        assert!(!response.nonce.is_empty());
        assert!(self.log.iter().all(|earlier| earlier.nonce != response.nonce), "a nonce used twice");
        assert!(self.protocol == Protocol::Delta || response.removed.is_empty());
    }

    fn write(&self, response: &Response) -> String {
        let mut words = vec![response.ty.short().to_owned()];
        let mut resources: Vec<_> = response.resources.iter().map(|r| self.plan.write(r)).collect();
        resources.sort();
        words.extend(resources);
        words.extend(response.heartbeats.iter().map(|r| format!("~{}", r.name())));
        words.extend(response.removed.iter().map(|name| format!("-{name}")));
        words.extend(response.missing.iter().map(|name| format!("?{name}")));
        words.join(" ")
    }
}

fn words(text: &str) -> (XdsType, Vec<String>) {
    let mut words = text.split_whitespace();
    let short = words.next().expect("a type");
    (ty(short), words.map(str::to_owned).collect())
}

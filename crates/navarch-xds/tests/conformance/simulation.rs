//! A model of Envoy against the server's stream, with random plans, rejections, delays, losses and
//! reconnects. At rest the client holds exactly the plan, in both protocols, and nothing is warming.
//!
//! The model does what a stock Envoy 1.40 was seen to do: it asks for the endpoints of its clusters and the
//! routes of its listeners, warms a new or changed cluster until endpoints arrive after it, holds back the
//! acknowledgement of clusters meanwhile, applies the good part of what it rejects, and returns from a lost
//! stream without asking for clusters as long as one of them is warming.
//!
//! There are two replicas with plans of their own, and the client returns to either. A server that was killed
//! and started again is a replica whose plan changed while nobody was connected.
//!
//! A sequence that failed once is kept in `simulated.txt`, in the words that a failure prints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::{ProxyResources, Resource, XdsType};
use navarch_xds::{Brake, ClassMemory, ClientRules, Error, Node, Protocol, Request, Response, Stream, Wish};
use proptest::prelude::*;

use crate::client::Plan;

const CLUSTERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const LISTENERS: [&str; 2] = ["l", "m"];

/// Content that the client rejects.
const BAD: char = '5';

#[derive(Clone)]
enum Step {
    /// Contents of clusters, endpoints, listeners; zero is "not there". Routes choose one of the clusters.
    Plan {
        replica: usize,
        clusters: Vec<u8>,
        endpoints: Vec<u8>,
        listeners: Vec<u8>,
        routes: Vec<u8>,
    },
    /// The client takes responses. Its errors name the bad resources, or do not.
    ToClient(usize, bool),
    /// The server takes requests.
    ToServer(usize),
    Sleep(u64),
    /// The stream is lost, and the client goes to this replica.
    Reconnect(usize),
}

/// One line, which [`Step::parse`] reads.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |contents: &[u8]| contents.iter().map(u8::to_string).collect::<String>();
        match self {
            Step::Plan { replica, clusters, endpoints, listeners, routes } => {
                let contents = [clusters, endpoints, listeners, routes].map(|contents| digits(contents));
                write!(f, "plan {replica} {}", contents.join(" "))
            }
            Step::ToClient(count, true) => write!(f, "to-client {count} errors-name"),
            Step::ToClient(count, false) => write!(f, "to-client {count}"),
            Step::ToServer(count) => write!(f, "to-server {count}"),
            Step::Sleep(seconds) => write!(f, "sleep {seconds}"),
            Step::Reconnect(replica) => write!(f, "reconnect {replica}"),
        }
    }
}

impl Step {
    fn parse(line: &str) -> Self {
        let number = |word: &str| word.parse().expect("a number");
        let digits = |word: &str| word.bytes().map(|digit| digit - b'0').collect::<Vec<u8>>();
        match line.trim_end_matches(',').split_whitespace().collect::<Vec<_>>()[..] {
            ["plan", replica, clusters, endpoints, listeners, routes] => Step::Plan {
                replica: number(replica),
                clusters: digits(clusters),
                endpoints: digits(endpoints),
                listeners: digits(listeners),
                routes: digits(routes),
            },
            ["to-client", count, "errors-name"] => Step::ToClient(number(count), true),
            ["to-client", count] => Step::ToClient(number(count), false),
            ["to-server", count] => Step::ToServer(number(count)),
            ["sleep", seconds] => Step::Sleep(number(seconds) as u64),
            ["reconnect", replica] => Step::Reconnect(number(replica)),
            _ => panic!("not a step: {line}"),
        }
    }
}

/// What happens besides plans and messages.
#[derive(Clone, Copy, Default)]
struct Mishaps {
    bad: bool,
    sleep: bool,
    reconnect: bool,
}

const LOSSES: Mishaps = Mishaps { bad: false, sleep: true, reconnect: true };

fn step(mishaps: Mishaps) -> impl Strategy<Value = Step> {
    let top = if mishaps.bad { 6u8 } else { 5 };
    let contents = |len, top| prop::collection::vec(0..top, len);
    let replica = if mishaps.reconnect { 0..2usize } else { 0..1 };
    let plan = (replica.clone(), contents(5, top), contents(5, top), contents(2, 5), contents(2, 10));
    let plan = plan.prop_map(|(replica, clusters, endpoints, listeners, routes)| Step::Plan {
        replica,
        clusters,
        endpoints,
        listeners,
        routes,
    });
    prop_oneof![
        3 => plan,
        4 => (1..4usize, any::<bool>()).prop_map(|(count, named)| Step::ToClient(count, named)),
        4 => (1..4usize).prop_map(Step::ToServer),
        u32::from(mishaps.sleep) => (0..7u64).prop_map(Step::Sleep),
        u32::from(mishaps.reconnect) => replica.prop_map(Step::Reconnect),
    ]
}

/// The text of a plan. A route refers to a cluster that is in the plan, if there is one.
fn text(clusters: &[u8], endpoints: &[u8], listeners: &[u8], routes: &[u8]) -> String {
    let words = |names: &[&str], contents: &[u8]| {
        let present = names.iter().zip(contents).filter(|(_, content)| **content > 0);
        present.map(|(name, content)| format!("{name}{content}")).collect::<Vec<_>>()
    };
    let there: Vec<_> =
        CLUSTERS.iter().zip(clusters).filter(|(_, content)| **content > 0).map(|(name, _)| name).collect();
    let route = |name: &str, pick: u8| match there.get(usize::from(pick) % there.len().max(1)) {
        Some(cluster) => format!("{name}1_{cluster}"),
        None => format!("{name}1_"),
    };
    let routes: Vec<_> = LISTENERS.iter().zip(routes).map(|(name, pick)| route(name, *pick)).collect();
    format!(
        "CDS {} | EDS {} | LDS {} | RDS {}",
        words(&CLUSTERS, clusters).join(" "),
        words(&CLUSTERS, endpoints).join(" "),
        words(&LISTENERS, listeners).join(" "),
        routes.join(" ")
    )
}

fn is_bad(resource: &Resource) -> bool {
    content(resource).starts_with(BAD)
}

/// What stands in field 15 of the body.
fn content(resource: &Resource) -> String {
    use navarch_envoy::wire::{Fields, Value};
    let body = resource.body();
    let found = Fields::new(&body).find_map(|field| match field {
        (15, Value::Bytes(content)) => Some(String::from_utf8_lossy(content).into_owned()),
        _ => None,
    });
    found.unwrap_or_default()
}

struct Envoy {
    protocol: Protocol,
    held: BTreeMap<XdsType, BTreeMap<String, Arc<Resource>>>,
    warming: BTreeSet<String>,
    /// Those among them that have never been warm: there is no older one that serves meanwhile.
    cold: BTreeSet<String>,
    /// Whether errors name the bad resources.
    names_errors: bool,
    /// Cluster responses whose acknowledgement is held back.
    withheld: Vec<Request>,
    subscribed: BTreeMap<XdsType, BTreeSet<String>>,
    nonces: BTreeMap<XdsType, String>,
    /// Whether it returns with the versions that it accepted last, as Envoy does. To return with none says
    /// less.
    keeps_versions: bool,
    /// What was accepted last, over all streams.
    versions: BTreeMap<XdsType, String>,
    asked: BTreeSet<XdsType>,
    /// Types that have had a response on this stream.
    answered: BTreeSet<XdsType>,
    /// Routes whose cluster a state-of-the-world response took that knows nothing of what the client had.
    excused: BTreeSet<String>,
    requests: VecDeque<Request>,
}

impl Envoy {
    fn new(protocol: Protocol, keeps_versions: bool) -> Self {
        let mut envoy = Self {
            protocol,
            held: BTreeMap::new(),
            warming: BTreeSet::new(),
            cold: BTreeSet::new(),
            names_errors: true,
            withheld: Vec::new(),
            subscribed: BTreeMap::new(),
            nonces: BTreeMap::new(),
            keeps_versions,
            versions: BTreeMap::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            excused: BTreeSet::new(),
            requests: VecDeque::new(),
        };
        envoy.connect();
        envoy
    }

    fn connect(&mut self) {
        self.requests.clear();
        self.withheld.clear();
        self.nonces.clear();
        self.asked.clear();
        self.answered.clear();
        if !self.keeps_versions {
            self.versions.clear();
        }
        if self.warming.is_empty() {
            self.ask(XdsType::Cds, &[], &[]);
        }
        self.ask_by_name(XdsType::Eds);
        self.ask(XdsType::Lds, &[], &[]);
        self.ask_by_name(XdsType::Rds);
    }

    fn ask_by_name(&mut self, ty: XdsType) {
        let names: Vec<_> = self.names(ty).iter().cloned().collect();
        if !names.is_empty() {
            self.ask(ty, &names, &[]);
        }
    }

    fn names(&mut self, ty: XdsType) -> &mut BTreeSet<String> {
        self.subscribed.entry(ty).or_default()
    }

    fn held(&self, ty: XdsType) -> BTreeMap<String, Arc<Resource>> {
        self.held.get(&ty).cloned().unwrap_or_default()
    }

    /// A request that answers nothing.
    fn ask(&mut self, ty: XdsType, add: &[String], drop: &[String]) {
        let request = self.request(ty, add, drop);
        self.requests.push_back(request);
    }

    fn request(&mut self, ty: XdsType, add: &[String], drop: &[String]) -> Request {
        let first = self.asked.insert(ty);
        let nonce = self.nonces.get(&ty).cloned().unwrap_or_default();
        let version = self.versions.get(&ty).cloned().unwrap_or_default();
        let names = match ty {
            XdsType::Cds | XdsType::Lds => Vec::new(),
            _ => self.names(ty).iter().cloned().collect(),
        };
        let wish = match self.protocol {
            Protocol::Sotw => Wish::Exactly { names, version },
            Protocol::Delta => Wish::Change {
                subscribe: add.to_vec(),
                unsubscribe: drop.to_vec(),
                held: if first { self.held_versions(ty) } else { BTreeMap::new() },
            },
        };
        let nonce = if self.protocol == Protocol::Sotw { nonce } else { String::new() };
        Request { type_url: ty.type_url().into(), nonce, wish, ..Request::default() }
    }

    fn held_versions(&self, ty: XdsType) -> BTreeMap<String, String> {
        self.held(ty).into_iter().map(|(name, resource)| (name, resource.version().to_string())).collect()
    }

    fn take(&mut self, response: Response) {
        let ty = response.ty;
        let bad: Vec<_> =
            response.resources.iter().filter(|r| is_bad(r)).map(|r| r.name().to_string()).collect();
        let good: Vec<_> = response.resources.iter().filter(|r| !is_bad(r)).cloned().collect();
        let full = self.protocol == Protocol::Sotw && ty.root();
        let listed: BTreeSet<String> = response.resources.iter().map(|r| r.name().to_string()).collect();
        let mut gone: Vec<String> = response.removed.iter().map(|name| name.to_string()).collect();
        if full {
            gone.extend(self.held(ty).into_keys().filter(|name| !listed.contains(name)));
        }
        let first = self.answered.insert(ty);
        if full && first && ty == XdsType::Cds {
            self.excuse(&gone);
        }
        self.apply(ty, &good, &gone);
        if ty == XdsType::Eds {
            // A cluster does not wait for better endpoints than those it rejected.
            bad.iter().for_each(|name| self.warmed(name));
            // And a removal ends waiting, but takes no endpoints.
            response.removed.iter().for_each(|name| self.warmed(name));
        }

        let text = if self.names_errors { format!("{}: bad", bad.join(", ")) } else { "malformed".into() };
        let error = (!bad.is_empty()).then_some(Error { code: 13, text });
        match error {
            None => _ = self.versions.insert(ty, response.version.clone()),
            // It would return with the version that it had before, but has applied what is good in this one.
            // That is a gap that no server can see, see decision 9.
            Some(_) => _ = self.versions.remove(&ty),
        }
        self.nonces.insert(ty, response.nonce.clone());
        let mut answer = self.request(ty, &[], &[]);
        answer.nonce = response.nonce;
        answer.error = error;
        if ty == XdsType::Cds {
            self.withheld.push(answer);
        } else {
            self.requests.push_back(answer);
        }
        if self.warming.is_empty() {
            if !self.asked.contains(&XdsType::Cds) {
                self.ask(XdsType::Cds, &[], &[]);
            }
            self.requests.extend(self.withheld.drain(..));
        }
    }

    /// Routes that refer to what is gone are not the server's fault until they are replaced.
    fn excuse(&mut self, gone: &[String]) {
        for (name, route) in self.held(XdsType::Rds) {
            if target(&route).is_some_and(|cluster| gone.contains(&cluster)) {
                self.excused.insert(name);
            }
        }
    }

    fn warmed(&mut self, name: &str) {
        self.warming.remove(name);
        self.cold.remove(name);
    }

    fn apply(&mut self, ty: XdsType, good: &[Arc<Resource>], gone: &[String]) {
        match ty {
            XdsType::Cds | XdsType::Lds => self.apply_root(ty, good, gone),
            _ => {
                for resource in good {
                    let name = resource.name().to_string();
                    if self.names(ty).contains(&name) {
                        match ty {
                            XdsType::Eds => self.warmed(&name),
                            _ => _ = self.excused.remove(&name),
                        }
                        self.held.entry(ty).or_default().insert(name, resource.clone());
                    }
                }
            }
        }
    }

    fn apply_root(&mut self, ty: XdsType, good: &[Arc<Resource>], gone: &[String]) {
        let follower = if ty == XdsType::Cds { XdsType::Eds } else { XdsType::Rds };
        let (mut add, mut drop, mut changed) = (Vec::new(), Vec::new(), false);
        for resource in good {
            let name = resource.name().to_string();
            let old = self.held.entry(ty).or_default().insert(name.clone(), resource.clone());
            if old.as_ref() == Some(resource) {
                continue;
            }
            changed = true;
            if ty == XdsType::Cds {
                self.warming.insert(name.clone());
                if old.is_none() {
                    self.cold.insert(name.clone());
                }
            }
            if self.names(follower).insert(name.clone()) {
                add.push(name);
            }
        }
        for name in gone {
            if self.held.entry(ty).or_default().remove(name).is_none() {
                continue;
            }
            self.warmed(name);
            self.held.entry(follower).or_default().remove(name);
            if self.names(follower).remove(name) {
                drop.push(name.clone());
            }
        }
        // State-of-the-world asks again for the endpoints of a changed cluster; delta does not.
        let again = self.protocol == Protocol::Sotw && changed && ty == XdsType::Cds;
        if again || !add.is_empty() || !drop.is_empty() {
            self.ask(follower, &add, &drop);
        }
    }
}

/// The cluster that a route refers to, if it refers to one.
fn target(route: &Resource) -> Option<String> {
    let content = content(route);
    let (_, cluster) = content.split_once('_')?;
    (!cluster.is_empty()).then(|| cluster.to_owned())
}

struct World {
    envoy: Envoy,
    stream: Stream,
    streams: u64,
    plans: [Plan; 2],
    /// The replica that the client is connected to.
    at: usize,
    now: Instant,
    to_client: VecDeque<Response>,
    /// Clusters that were configured at some time since the client connected.
    configured: BTreeSet<String>,
    /// Routes must always find their clusters, and find them warm. Not after a rejection, nor when time
    /// passes in which the client takes nothing.
    strict: bool,
    brake: Option<Brake>,
    /// Prints what happens; the test runner shows it if the test fails.
    traced: bool,
}

impl World {
    fn new(protocol: Protocol, strict: bool, brake: Option<Brake>, traced: bool) -> Self {
        let mut plans = [Plan::default(), Plan::default()];
        plans.iter_mut().for_each(|plan| _ = plan.set("CDS | EDS | LDS | RDS"));
        let mut world = Self {
            envoy: Envoy::new(protocol, strict),
            stream: new_stream(0, protocol).with_brake(brake),
            streams: 0,
            plans,
            at: 0,
            now: Instant::now(),
            to_client: VecDeque::new(),
            configured: BTreeSet::new(),
            strict,
            brake,
            traced,
        };
        world.stream.resources(world.current());
        world
    }

    fn current(&self) -> Arc<ProxyResources> {
        self.plans[self.at].current.clone().expect("a plan")
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.traced {
            println!("{}", line());
        }
    }

    fn step(&mut self, step: &Step) {
        self.trace(|| format!("{step:?}"));
        match step {
            Step::Plan { replica, clusters, endpoints, listeners, routes } => {
                let plan = text(clusters, endpoints, listeners, routes);
                self.trace(|| format!("  {plan}"));
                let next = self.plans[*replica].set(&plan);
                if *replica == self.at {
                    self.configure(next);
                }
            }
            Step::ToClient(count, names_errors) => {
                self.envoy.names_errors = *names_errors;
                (0..*count).for_each(|_| _ = self.client_takes());
            }
            Step::ToServer(count) => (0..*count).for_each(|_| _ = self.server_takes()),
            Step::Sleep(seconds) => self.now += Duration::from_secs(*seconds),
            Step::Reconnect(replica) => {
                self.at = *replica;
                self.streams += 1;
                self.to_client.clear();
                self.envoy.connect();
                self.stream = new_stream(self.streams, self.envoy.protocol).with_brake(self.brake);
                self.configured.clear();
                self.configure(self.current());
            }
        }
    }

    fn configure(&mut self, resources: Arc<ProxyResources>) {
        self.configured.extend(resources.set(XdsType::Cds).iter().map(|cluster| cluster.name().to_string()));
        self.stream.resources(resources);
    }

    fn server_takes(&mut self) -> bool {
        let Some(request) = self.envoy.requests.pop_front() else { return false };
        self.trace(|| format!("    -> {request:?}"));
        self.stream.request(request, self.now);
        true
    }

    /// A response is made when the transport can take it, and taken by the client later.
    fn client_takes(&mut self) -> bool {
        if let Some(response) = self.stream.poll(self.now) {
            if self.strict {
                self.clusters_in_use_keep_their_endpoints(&response);
            }
            self.to_client.push_back(response);
        }
        let Some(response) = self.to_client.pop_front() else { return false };
        self.trace(|| {
            let contents = response.resources.iter().map(|r| format!("{}={}", r.name(), content(r)));
            let (ty, nonce, contents) = (response.ty, &response.nonce, contents.collect::<Vec<_>>());
            format!("    <- {ty} {nonce} {contents:?}, removed {:?}", response.removed)
        });
        self.envoy.take(response);
        if self.strict {
            self.routes_find_their_clusters();
        }
        true
    }

    fn routes_find_their_clusters(&self) {
        let clusters = self.envoy.held(XdsType::Cds);
        for (name, route) in self.envoy.held(XdsType::Rds) {
            let Some(cluster) = target(&route).filter(|_| !self.envoy.excused.contains(&name)) else {
                continue;
            };
            let is_warm = clusters.contains_key(&cluster) && !self.envoy.cold.contains(&cluster);
            assert!(is_warm, "{:?}: route {name} without its cluster {cluster}", self.envoy.protocol);
        }
    }

    /// A cluster of an earlier stream has its endpoints as long as a route refers to it. State-of-the-world
    /// takes it with them.
    fn clusters_in_use_keep_their_endpoints(&self, response: &Response) {
        if self.envoy.protocol == Protocol::Sotw {
            return;
        }
        let (assignments, routes) = (self.envoy.held(XdsType::Eds), self.envoy.held(XdsType::Rds));
        let taken =
            response.resources.iter().filter(|r| response.ty == XdsType::Eds && content(r).is_empty());
        for cluster in
            taken.map(|assignment| assignment.name()).filter(|name| !self.configured.contains(&***name))
        {
            let has_endpoints = assignments.get(&**cluster).is_some_and(|r| !content(r).is_empty());
            let in_use = has_endpoints && routes.values().any(|r| target(r).as_deref() == Some(&**cluster));
            assert!(!in_use, "cluster {cluster} without its endpoints");
        }
    }

    /// Lets everything happen that is going to happen.
    fn rest(&mut self) {
        for round in 0.. {
            assert!(round < 2000, "no rest");
            if self.server_takes() || self.client_takes() {
                continue;
            }
            match self.stream.timer(self.now) {
                Some(at) => self.now = at,
                None => return,
            }
        }
    }

    fn check(&mut self) {
        self.rest();
        let current = self.current();
        let bad = |ty: XdsType| current.set(ty).iter().filter(|r| is_bad(r)).count();
        assert!(self.envoy.warming.is_empty() || bad(XdsType::Eds) > 0, "{:?}", self.envoy.warming);
        for ty in [XdsType::Cds, XdsType::Lds] {
            let held = self.envoy.held(ty);
            for resource in current.set(ty).iter().filter(|r| !is_bad(r)) {
                assert_eq!(held.get(&**resource.name()), Some(resource), "{ty}");
            }
            for name in held.keys() {
                assert!(current.set(ty).get(name).is_some(), "{ty} {name} is a ghost");
            }
        }
        for (ty, of) in [(XdsType::Eds, XdsType::Cds), (XdsType::Rds, XdsType::Lds)] {
            let held = self.envoy.held(ty);
            for name in self.envoy.held(of).keys() {
                match current.set(ty).get(name) {
                    Some(resource) if is_bad(resource) => {}
                    Some(resource) => assert_eq!(held.get(name), Some(resource), "{ty}"),
                    // Nothing is known: an assignment without endpoints.
                    None => {
                        assert_eq!(held.get(name).map(|r| content(r)), Some(String::new()), "{ty} {name}")
                    }
                }
            }
        }
        if self.envoy.asked.contains(&XdsType::Cds) && bad(XdsType::Cds) + bad(XdsType::Eds) == 0 {
            assert_eq!(self.stream.watermark(), current.revision());
        }
    }
}

fn new_stream(id: u64, protocol: Protocol) -> Stream {
    let node = Node {
        id: "n".into(),
        user_agent_name: "envoy".into(),
        user_agent_version: "1.40.0".into(),
        ..Node::default()
    };
    Stream::new(id, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default()))
}

fn run(steps: &[Step], strict: bool) {
    run_with(steps, strict, None, false);
}

fn run_with(steps: &[Step], strict: bool, brake: Option<Brake>, traced: bool) {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut world = World::new(protocol, strict, brake, traced);
        world.trace(|| format!("{protocol:?}"));
        for step in steps {
            world.step(step);
        }
        world.check();
        // And again from rest.
        for step in steps.iter().rev() {
            world.step(step);
        }
        world.check();
    }
}

#[test]
fn nck_06_sequences_that_failed_once() {
    let sequences = include_str!("simulated.txt").split("\n\n");
    for sequence in sequences {
        let lines = sequence.lines().filter(|line| !line.starts_with('#'));
        let steps: Vec<_> = lines.map(Step::parse).collect();
        println!("{}", sequence.lines().next().unwrap_or_default());
        run_with(&steps, false, None, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    /// Make before break: at no time does a route refer to a cluster that the client does not have, or
    /// that has never been warm.
    #[test]
    fn ord_02_no_route_without_its_cluster(steps in prop::collection::vec(step(Mishaps::default()), 1..60)) {
        run(&steps, true);
    }

    #[test]
    fn rec_05_the_client_holds_the_plan_after_losses(steps in prop::collection::vec(step(LOSSES), 1..60)) {
        run(&steps, false);
    }

    /// What is held back goes at last, and what is not configured any more never hinders what is.
    #[test]
    fn rmv_01_the_client_holds_the_plan_after_removals_were_held(
        steps in prop::collection::vec(step(LOSSES), 1..60),
        hold in 1..30u64,
    ) {
        let brake = Brake { percent_max: 40, removals_min: 2, hold: Duration::from_secs(hold) };
        run_with(&steps, false, Some(brake), false);
    }

    /// Nor does a route ever lose its cluster because of it.
    #[test]
    fn rmv_01_and_ord_02_no_route_without_its_cluster_while_removals_are_held(
        steps in prop::collection::vec(step(Mishaps::default()), 1..60),
    ) {
        let brake = Brake { percent_max: 40, removals_min: 2, hold: Duration::from_secs(4) };
        run_with(&steps, true, Some(brake), false);
    }

    #[test]
    fn nck_06_the_client_holds_the_good_part_of_the_plan(
        steps in prop::collection::vec(step(Mishaps { bad: true, ..LOSSES }), 1..60),
    ) {
        run(&steps, false);
    }

    /// Make before break, also when the client returns, to this server or to another one, with what it had.
    #[test]
    fn rec_15_and_ord_02_no_route_without_its_cluster_after_a_reconnect(
        steps in prop::collection::vec(step(Mishaps { reconnect: true, ..Mishaps::default() }), 1..60),
    ) {
        run(&steps, true);
    }
}

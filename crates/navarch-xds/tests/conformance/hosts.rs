//! Virtual hosts that are all sent at once (VHDS-04 and on), to a client that asks for the type without
//! names.
//!
//! Beside scenarios, a model of what a stock Envoy 1.40 was seen to do. It remembers the version of every
//! host that it was sent, whether or not it has the route configuration, and lists them all when it comes
//! back; a route configuration that it asks for anew has no hosts, and waits until it hears of one; a
//! response with one bad host changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navarch_envoy::{Resource, XdsType};
use navarch_xds::{ClassMemory, ClientRules, Error, Event, Node, Protocol, Request, Response, Stream, Wish};
use proptest::prelude::*;

use crate::client::{Client, Plan, braked, delta};

#[test]
fn vhds_04_all_hosts_of_named_routes_are_sent_and_no_others() {
    let mut c = delta("RDS r1v s1v | VHDS r/a1 r/b1 s/a1 (r/c1)");
    assert_eq!(c.ask("RDS r"), "RDS r1v");
    c.ack("RDS");
    assert_eq!(c.ask("VHDS"), "VHDS r/a1 r/b1");
    c.ack("VHDS");
    // An edit is one resource, a removal is in the response with what takes its place.
    assert_eq!(c.plan("VHDS r/a2 r/b1 s/a2 (r/c1)"), "VHDS r/a2");
    c.ack("VHDS");
    assert_eq!(c.plan("VHDS r/a2 r/d1 s/a2 (r/c1)"), "VHDS r/d1 -r/b");
    c.ack("VHDS");
    // Other routes bring theirs, behind them.
    assert_eq!(c.ask("RDS s"), "RDS s1v; VHDS s/a2");
    c.settle();
    // Routes that have changed may have lost theirs.
    assert_eq!(c.plan("RDS r2v s1v"), "RDS r2v; VHDS r/a2 r/d1");
    c.settle();
    assert_eq!(c.stream.watermark(), 4);
}

#[test]
fn vhds_04_hosts_of_dropped_routes_are_taken_back() {
    let mut c = delta("RDS r1v s1v | VHDS r/a1 s/a1");
    c.ask("RDS r s");
    c.ask("VHDS");
    c.settle();
    assert_eq!(c.drop("RDS s"), "VHDS -s/a");
    c.ack("VHDS");
    assert_eq!(c.plan("VHDS r/a1 s/a2"), "");
    assert_eq!(c.ask("RDS s"), "RDS s1v; VHDS s/a2");
}

/// Envoy would serve without hosts until they come. That it holds its routes whole shows in that it lists
/// other content of them, and no hosts.
#[test]
fn vhds_12_routes_that_a_returning_client_holds_whole_are_not_split_at_once() {
    let mut c = delta("RDS r1v s1v | VHDS r/a1 s/a1");
    let (whole, split) = (c.version("RDS", "r", "0"), c.version("RDS", "s", "1v"));
    let held = [("r", whole.as_str()), ("s", &split)];
    let holds_whole = |c: &mut Client| c.events().contains(&Event::HoldsWholeRoutes);
    // It may ask for hosts yet. Then it is given its routes whole, by somebody who has heard.
    assert_eq!(c.ask_with("RDS r s", &held), "");
    assert_eq!(c.sleep(0.9), "");
    assert!(!holds_whole(&mut c));
    assert_eq!(c.sleep(0.2), "");
    assert!(holds_whole(&mut c));
    assert_eq!(c.plan("RDS r1 s1 | VHDS"), "RDS r1 s1");
    // It asks for hosts, and lists none of them.
    c.plan("RDS r1v s1v | VHDS r/a1 s/a1");
    c.reconnect("envoy");
    c.events();
    c.ask_with("RDS r s", &held);
    assert_eq!(c.ask_with("VHDS", &[("s/a", &split)]), "");
    assert!(holds_whole(&mut c));
    // Nobody hears. Late is better than never.
    assert_eq!(c.sleep(4.9), "");
    assert_eq!(c.sleep(0.2), "RDS r1v; VHDS r/a1 s/a1");
    // It lists some: its routes were split, and have changed.
    c.reconnect("envoy");
    c.events();
    c.ask_with("RDS r s", &held);
    assert_eq!(c.ask_with("VHDS", &[("r/b", &split)]), "RDS r1v; VHDS r/a1 s/a1 -r/b");
    assert!(!holds_whole(&mut c));
}

/// The client keeps routes that are not configured any more until it has no use for them, and their hosts.
#[test]
fn vhds_11_hosts_of_routes_that_are_gone_stay_with_them() {
    let mut c = delta("CDS a1 | RDS r1v | VHDS r/a1 r/b1");
    c.ask("CDS");
    c.ask("RDS r");
    c.ask("VHDS");
    c.settle();
    // What they refer to does not wait for them: nor does it for routes that are whole.
    assert_eq!(c.plan("CDS b1 | RDS | VHDS"), "CDS b1; EDS b(); CDS -a");
    c.settle();
    // They come back with one of them.
    assert_eq!(c.plan("RDS r1v | VHDS r/a1"), "RDS r1v; VHDS r/a1 -r/b");
    c.settle();
    // A client that comes back meanwhile keeps them too.
    let a = c.version("VHDS", "r/a", "1");
    c.plan("RDS | VHDS");
    c.reconnect("envoy");
    let routes = c.version("RDS", "r", "1v");
    assert_eq!(c.ask_with("RDS r", &[("r", &routes)]), "RDS -r");
    assert_eq!(c.ask_with("VHDS", &[("r/a", &a)]), "VHDS");
    c.settle();
    assert_eq!(c.drop("RDS r"), "VHDS -r/a");
}

#[test]
fn vhds_05_a_returning_client_is_sent_the_hosts_that_differ() {
    let mut c = delta("RDS r1v | VHDS r/a1 r/b1 r/c1");
    let (routes, a, b) =
        (c.version("RDS", "r", "1v"), c.version("VHDS", "r/a", "1"), c.version("VHDS", "r/b", "0"));
    // Nothing is known of `s`, which the client may name later.
    let held = [("r/a", a.as_str()), ("r/b", b.as_str()), ("r/gone", &b), ("s/a", &a)];
    assert_eq!(c.ask_with("RDS r", &[("r", &routes)]), "");
    assert_eq!(c.ask_with("VHDS", &held), "VHDS r/b1 r/c1 -r/gone");
    // Whose hosts it wants, it says with its routes: until then nothing is said of hosts.
    c.reconnect("envoy");
    assert_eq!(c.ask_with("VHDS", &held), "");
    assert_eq!(c.ask_with("RDS r", &[("r", &routes)]), "VHDS r/b1 r/c1 -r/gone");
    // Routes that are sent on this stream bring all of theirs.
    c.reconnect("envoy");
    assert_eq!(c.ask("RDS r"), "RDS r1v");
    assert_eq!(c.ask_with("VHDS", &held), "VHDS r/a1 r/b1 r/c1 -r/gone");
    c.settle();
    assert_eq!(c.plan("RDS r2v"), "RDS r2v; VHDS r/a1 r/b1 r/c1");
}

#[test]
fn vhds_06_a_rejected_host_is_set_aside_and_removals_are_repeated() {
    let mut c = delta("RDS r1v | VHDS r/a1 r/b1 r/c1");
    c.ask("RDS r");
    c.ask("VHDS");
    c.settle();
    assert_eq!(c.plan("VHDS r/a2 r/b2"), "VHDS r/a2 r/b2 -r/c");
    assert_eq!(c.nack("VHDS", "r/b: bad"), "VHDS r/a2 -r/c");
    c.ack("VHDS");
    assert_eq!(c.plan("VHDS r/a2 r/b3"), "VHDS r/b3");
}

#[test]
fn vhds_07_clusters_go_after_hosts_that_refer_to_them_and_come_before() {
    let mut c = delta("CDS a1 | EDS a1 b1 | RDS r1v | VHDS r/h1_a");
    c.ask("CDS");
    c.ask("EDS a");
    c.ask("RDS r");
    c.ask("VHDS");
    c.settle();
    assert_eq!(c.plan("CDS b1 | VHDS r/h2_b"), "CDS b1; EDS b1; VHDS r/h2_b");
    c.ack("CDS");
    c.ack("EDS");
    assert_eq!(c.ack("VHDS"), "CDS -a");
    // A rejected host keeps its cluster.
    c.settle();
    assert_eq!(c.plan("CDS c1 | VHDS r/h3_c"), "CDS c1; EDS c(); VHDS r/h3_c");
    c.ack("CDS");
    assert_eq!(c.nack("VHDS", "r/h: bad"), "");
    assert_eq!(c.plan("CDS c1 | VHDS r/h4_c"), "VHDS r/h4_c");
    assert_eq!(c.ack("VHDS"), "CDS -b");
}

/// The brake does not hold hosts: the domains of one that stays could not be another's.
#[test]
fn vhds_08_removals_of_hosts_are_not_held() {
    let [_, mut c] = braked("CDS a1 b1 c1 d1 | RDS r1v | VHDS r/a1 r/b1");
    c.ask("CDS");
    c.ask("RDS r");
    c.ask("VHDS");
    c.settle();
    assert_eq!(c.plan("CDS a1 | VHDS r/c1"), "VHDS r/c1 -r/a -r/b");
    assert!(c.stream.held_removals().is_some());
}

const ROUTES: [&str; 2] = ["r", "s"];
const HOSTS: [&str; 4] = ["r/a", "r/b", "s/a", "s/b"];
/// Content that the client rejects.
const BAD: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Contents of routes and hosts; zero is "not there".
    Plan(Vec<u8>, Vec<u8>),
    Name(usize),
    Drop(usize),
    ToClient(usize),
    ToServer(usize),
    Reconnect,
    Sleep(u64),
}

fn step(top: u8) -> impl Strategy<Value = Step> {
    let contents = |len, top| prop::collection::vec(0..top, len);
    prop_oneof![
        3 => (contents(2, 3), contents(4, top)).prop_map(|(routes, hosts)| Step::Plan(routes, hosts)),
        2 => (0..2usize).prop_map(Step::Name),
        1 => (0..2usize).prop_map(Step::Drop),
        4 => (1..4usize).prop_map(Step::ToClient),
        4 => (1..4usize).prop_map(Step::ToServer),
        1 => Just(Step::Reconnect),
        1 => (0..7u64).prop_map(Step::Sleep),
    ]
}

/// A route configuration in use.
#[derive(Debug, Default)]
struct Routes {
    held: Option<Arc<Resource>>,
    hosts: BTreeMap<String, Arc<Resource>>,
    heard: bool,
}

struct World {
    stream: Stream,
    streams: u64,
    now: Instant,
    plan: Plan,
    bad: BTreeSet<String>,
    routes: BTreeMap<String, Routes>,
    /// Of hosts, over all streams.
    versions: BTreeMap<String, String>,
    discovers: bool,
    requests: VecDeque<Request>,
    responses: VecDeque<Response>,
}

fn stream(id: u64) -> Stream {
    let node = Node {
        id: "n".into(),
        user_agent_name: "envoy".into(),
        user_agent_version: "1.40.0".into(),
        ..Node::default()
    };
    Stream::new(id, Protocol::Delta, ClientRules::of(&node), Arc::new(ClassMemory::default()))
}

fn request(
    ty: XdsType,
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    held: BTreeMap<String, String>,
) -> Request {
    let wish = Wish::Change { subscribe, unsubscribe, held };
    Request { type_url: ty.type_url().into(), wish, ..Request::default() }
}

impl World {
    fn new() -> Self {
        let mut world = World {
            stream: stream(1),
            streams: 1,
            now: Instant::now(),
            plan: Plan::default(),
            bad: BTreeSet::new(),
            routes: BTreeMap::new(),
            versions: BTreeMap::new(),
            discovers: false,
            requests: VecDeque::new(),
            responses: VecDeque::new(),
        };
        world.publish(&[0, 0], &[0; 4]);
        world
    }

    fn publish(&mut self, routes: &[u8], hosts: &[u8]) {
        let there = |names: &[&str], contents: &[u8], suffix: &str| -> Vec<String> {
            let there = names.iter().zip(contents).filter(|(_, content)| **content > 0);
            there.map(|(name, content)| format!("{name}{content}{suffix}")).collect()
        };
        let mut there_are = there(&HOSTS, hosts, "");
        // Hosts come with their routes.
        let is_there =
            |of: &str| ROUTES.iter().zip(routes).any(|(name, content)| *name == of && *content > 0);
        there_are.retain(|host| host.split_once('/').is_some_and(|(of, _)| is_there(of)));
        // Routes have at least the host for everything else.
        there_are.extend(ROUTES.iter().filter(|of| is_there(of)).map(|of| format!("{of}/z1")));
        let text = format!("RDS {} | VHDS {}", there(&ROUTES, routes, "v").join(" "), there_are.join(" "));
        self.bad = HOSTS
            .iter()
            .zip(hosts)
            .filter(|(_, content)| **content == BAD)
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let resources = self.plan.set(&text);
        self.stream.resources(resources);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Plan(routes, hosts) => self.publish(routes, hosts),
            Step::Name(index) => {
                let name = ROUTES[*index].to_owned();
                if !self.routes.contains_key(&name) {
                    self.routes.insert(name.clone(), Routes::default());
                    self.requests.push_back(request(XdsType::Rds, vec![name], Vec::new(), BTreeMap::new()));
                }
            }
            Step::Drop(index) => {
                let name = ROUTES[*index].to_owned();
                if self.routes.remove(&name).is_some() {
                    self.requests.push_back(request(XdsType::Rds, Vec::new(), vec![name], BTreeMap::new()));
                }
            }
            Step::ToClient(count) => (0..*count).for_each(|_| self.deliver()),
            Step::ToServer(count) => (0..*count).for_each(|_| self.serve()),
            Step::Reconnect => self.reconnect(),
            Step::Sleep(seconds) => self.now += Duration::from_secs(*seconds),
        }
    }

    fn reconnect(&mut self) {
        // A client that drops routes and names them again lists hosts that it has not, until it has been told
        // so and then sent them. If it is lost between the routes and those, no server can know (decision
        // 26).
        let is_without = |(name, version): (&String, &String)| {
            let routes = name.split_once('/').and_then(|(of, _)| self.routes.get(of));
            routes.filter(|routes| routes.held.is_some()).is_some_and(|routes| {
                routes.hosts.get(name).is_none_or(|host| host.version().to_string() != *version)
            })
        };
        if self.versions.iter().any(is_without) {
            return;
        }
        self.streams += 1;
        self.stream = stream(self.streams);
        if let Some(current) = &self.plan.current {
            self.stream.resources(current.clone());
        }
        self.requests.clear();
        self.responses.clear();
        let held = self
            .routes
            .iter()
            .filter_map(|(name, routes)| Some((name.clone(), routes.held.as_ref()?.version().to_string())));
        let names: Vec<String> = self.routes.keys().cloned().collect();
        if !names.is_empty() {
            self.requests.push_back(request(XdsType::Rds, names, Vec::new(), held.collect()));
        }
        if self.discovers {
            let held = self.versions.clone();
            self.requests.push_back(request(XdsType::Vhds, Vec::new(), Vec::new(), held));
        }
    }

    fn serve(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            self.stream.request(request, self.now);
        }
        while let Some(response) = self.stream.poll(self.now) {
            self.responses.push_back(response);
        }
    }

    fn deliver(&mut self) {
        while let Some(response) = self.stream.poll(self.now) {
            self.responses.push_back(response);
        }
        let Some(response) = self.responses.pop_front() else { return };
        let error = match response.ty {
            XdsType::Rds => self.take_routes(&response),
            _ => self.take_hosts(&response),
        };
        let answer = request(response.ty, Vec::new(), Vec::new(), BTreeMap::new());
        self.requests.push_back(Request { nonce: response.nonce, error, ..answer });
        if response.ty == XdsType::Rds && !self.discovers {
            self.discovers = true;
            self.requests.push_back(request(XdsType::Vhds, Vec::new(), Vec::new(), BTreeMap::new()));
        }
    }

    fn take_routes(&mut self, response: &Response) -> Option<Error> {
        for resource in response.resources.iter() {
            if let Some(routes) = self.routes.get_mut(&**resource.name()) {
                routes.held = Some(resource.clone());
            }
        }
        None
    }

    fn take_hosts(&mut self, response: &Response) -> Option<Error> {
        let is_bad = |resource: &&Arc<Resource>| {
            let body = resource.body();
            body.windows(3).any(|window| window == [0x7a, 1, b'0' + BAD])
        };
        if response.resources.iter().any(|resource| is_bad(&resource)) {
            self.routes
                .values_mut()
                .filter(|routes| routes.held.is_some())
                .for_each(|routes| routes.heard = true);
            return Some(Error { code: 13, text: "malformed".into() });
        }
        for resource in response.resources.iter() {
            let name = resource.name().to_string();
            let of = name.split_once('/').map(|(routes, _)| routes.to_owned()).unwrap_or_default();
            // What is on its way for routes that were dropped meanwhile, and asked for again, is of no use.
            if let Some(routes) = self.routes.get_mut(&of).filter(|routes| routes.held.is_some()) {
                routes.hosts.insert(name.clone(), resource.clone());
                routes.heard = true;
            }
            self.versions.insert(name, resource.version().to_string());
        }
        for name in &response.removed {
            self.versions.remove(&**name);
            let of = name.split_once('/').map(|(routes, _)| routes).unwrap_or_default();
            if let Some(routes) = self.routes.get_mut(of).filter(|routes| routes.held.is_some()) {
                routes.hosts.remove(&**name);
                routes.heard = true;
            }
        }
        None
    }

    fn come_to_rest(&mut self) {
        let end = self.now + Duration::from_secs(120);
        for round in 0.. {
            assert!(round < 1000, "it does not come to rest");
            self.serve();
            self.deliver();
            if !self.requests.is_empty() || !self.responses.is_empty() {
                continue;
            }
            match self.stream.timer(self.now).filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        let resources = self.plan.current.clone().expect("a plan");
        for (name, routes) in &self.routes {
            if resources.set(XdsType::Rds).get(name).is_none() {
                continue;
            }
            assert!(routes.held.is_some() && routes.heard, "{name} waits: {routes:?}");
            let planned = navarch_envoy::hosts::of_routes(resources.set(XdsType::Vhds), name);
            let planned: BTreeMap<String, Arc<Resource>> =
                planned.map(|host| (host.name().to_string(), host.clone())).collect();
            let good = |hosts: &BTreeMap<String, Arc<Resource>>| {
                let mut hosts = hosts.clone();
                hosts.retain(|name, _| !self.bad.contains(name));
                hosts
            };
            assert_eq!(good(&planned), good(&routes.hosts), "{name}");
        }
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    world.come_to_rest();
}

proptest! {
    // Always the same ones: to look for others takes longer than a test may.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn hosts_are_those_of_the_plan_at_rest(steps in prop::collection::vec(step(5), 0..40)) {
        run(&steps);
    }

    #[test]
    fn good_hosts_are_those_of_the_plan_at_rest(steps in prop::collection::vec(step(6), 0..40)) {
        run(&steps);
    }
}

//! Between proxies and the control plane: any number of streams come in on a Unix socket, and each has one to
//! the control plane, on a connection that all share.
//!
//! A client's stream outlives the control plane's: when that goes away, clients keep what they have, and hear
//! what has changed when it is back. A client that starts meanwhile is served from the [`Store`]. What is
//! secret on this machine the agent answers itself: [`Secrets`].

pub mod authority;
pub(crate) mod followed;
mod link;
pub mod session;
mod told;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use navarch_xds::Node;
use navarch_xds::proto::{DeltaDiscoveryRequest, DiscoveryRequest};
use navarch_xds::server::{
    Builder, Code, Connection, Discovery, HEALTH, Ready, Rejection, Server, Settings, Status, StreamingCall,
    StreamingService,
};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use xxhash_rust::xxh3::xxh3_64;

use self::followed::Followed;
use self::link::{Event, Link};
use self::session::{Heard, Session, Step, Wanted};
use self::told::Told;
use self::wire::{Head, Protocol, Sent};
use crate::dns::names::Names;
use crate::readiness::Found;
use crate::running::Watcher;
use crate::secrets::{self, Secrets};
use crate::store::{Store, Stored};
use crate::upstream::Upstream;

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const LOAD_REPORTS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// The roots of the mesh, as navarch distributes them. They also come with each certificate, but who replaces
/// a root has to know that everybody has the next one before it signs.
const ROOTS: Followed = Followed { type_url: SECRET, name: secrets::ROOTS, component: "navarch" };

/// How Envoy names itself in its node.
const ENVOY: &str = "envoy";

/// How long a new client waits for the control plane before it is served from the store.
const PATIENCE: Duration = Duration::from_millis(300);

/// Takes the streams of proxies.
struct Relay {
    upstream: Arc<Upstream>,
    local: Local,
    observed: Arc<Observed>,
}

/// What is known on this machine.
pub struct Local {
    pub secrets: Secrets,
    pub store: Option<Store>,
    pub names: Option<Names>,
    /// What the application was found to be.
    pub health: watch::Receiver<Option<Found>>,
    /// What Envoy was found to run.
    pub running: Arc<Watcher>,
}

/// What is seen of the streams, for health and metrics.
#[derive(Debug, Default)]
pub struct Observed {
    /// Streams of clients that are open.
    pub streams: AtomicU64,
    /// Streams to the control plane that are open.
    pub connected: AtomicU64,
    /// Streams of clients that were served from the store, and have not reached the control plane since.
    pub stale: AtomicU64,
    /// Responses of the control plane, and of the store.
    pub responses: AtomicU64,
    pub stored_responses: AtomicU64,
    /// Responses that clients refused.
    pub rejections: AtomicU64,
    /// Times that a stream to the control plane could not be opened, or ended with an error.
    pub failures: AtomicU64,
    /// Whether clusters and listeners were accepted once.
    pub clusters: AtomicBool,
    pub listeners: AtomicBool,
}

impl Observed {
    fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    fn end(gauge: &AtomicU64) {
        gauge.fetch_sub(1, Ordering::Relaxed);
    }

    /// A value, for reports.
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// There is nothing to discover here: all of discovery is relayed.
struct Nothing;

impl Discovery for Nothing {
    fn connect(
        &self,
        _: &Arc<Node>,
        _: &Arc<navarch_xds::Peer>,
        _: navarch_xds::Dialect,
    ) -> Result<Connection, Rejection> {
        Err(Rejection::InvalidRequest("this service is not relayed".to_owned()))
    }
}

/// The server for the socket.
#[must_use]
pub fn server(upstream: Arc<Upstream>, local: Local, observed: Arc<Observed>) -> Server {
    let relay: Arc<dyn StreamingService> = Arc::new(Relay { upstream, local, observed });
    let settings = Settings { connection_age_max: None, request_bytes_max: 64 << 20, ..Settings::default() };
    let ads =
        ["StreamAggregatedResources", "DeltaAggregatedResources"].map(|method| format!("{ADS}{method}"));
    let sds = ["StreamSecrets", "DeltaSecrets"].map(|method| format!("{SDS}{method}"));
    let paths = ads.into_iter().chain(sds).chain([LOAD_REPORTS.to_owned()]);
    let with = |builder: Builder, path: String| builder.streaming(path, relay.clone());
    paths.fold(Server::builder(Nothing).settings(settings), with).build()
}

impl StreamingService for Relay {
    fn serve<'c>(&'c self, call: &'c mut StreamingCall) -> BoxFuture<'c, Result<(), Status>> {
        if call.path() == LOAD_REPORTS {
            return Box::pin(self.pass(call));
        }
        let protocol = if call.path().contains("/Delta") { Protocol::Delta } else { Protocol::Sotw };
        let only = call.path().starts_with(SDS).then_some(SECRET);
        let Local { secrets, names, health, .. } = &self.local;
        let exchange = Exchange {
            relay: self,
            session: Session::new(protocol, only)
                .following(secrets.is_local(secrets::ROOTS).then_some(ROOTS))
                .wanting_names(names.as_ref().is_some_and(Names::are_wanted)),
            link: Link::new(self.upstream.clone(), call.path().to_owned()),
            secrets: secrets.clone(),
            // Of the workload as a whole, not of each of its secrets.
            health: only.is_none().then(|| health.clone()),
            is_health_said: false,
            told: None,
            offline: Offline::No,
            is_heard: false,
            client: None,
            counted: Counted::new(self.observed.clone()),
        };
        Box::pin(exchange.run(call))
    }
}

impl Relay {
    /// Hands messages on as they are.
    async fn pass(&self, call: &mut StreamingCall) -> Result<(), Status> {
        let unavailable = |error: crate::upstream::UpstreamError| {
            Status::new(Code::Unavailable, crate::Chain(&error).to_string())
        };
        let mut upstream = self.upstream.open(call.path()).await.map_err(unavailable)?;
        loop {
            let has_room = call.has_room();
            tokio::select! {
                ready = call.ready() => match ready? {
                    Ready::Message(Some(message)) => upstream.send(&message)?,
                    Ready::Message(None) => return Ok(()),
                    Ready::Room => {}
                },
                message = upstream.message(), if has_room => match message {
                    Ok(message) => call.send_pieces([message]),
                    Err(status) if status.code == Code::Ok => return Ok(()),
                    Err(status) => return Err(status),
                },
            }
        }
    }
}

/// Counts a stream whatever way it ends.
struct Counted {
    observed: Arc<Observed>,
    is_connected: bool,
    is_stale: bool,
}

impl Counted {
    fn new(observed: Arc<Observed>) -> Self {
        Observed::add(&observed.streams, 1);
        Counted { observed, is_connected: false, is_stale: false }
    }

    fn set_connected(&mut self, is_connected: bool) {
        match (self.is_connected, is_connected) {
            (false, true) => Observed::add(&self.observed.connected, 1),
            (true, false) => Observed::end(&self.observed.connected),
            _ => {}
        }
        self.is_connected = is_connected;
    }

    fn set_stale(&mut self, is_stale: bool) {
        match (self.is_stale, is_stale) {
            (false, true) => Observed::add(&self.observed.stale, 1),
            (true, false) => Observed::end(&self.observed.stale),
            _ => {}
        }
        self.is_stale = is_stale;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set_connected(false);
        self.set_stale(false);
        Observed::end(&self.observed.streams);
    }
}

/// Whether a client is served from the store.
enum Offline {
    /// Not now, and it was not decided yet.
    No,
    /// It will be at this time, unless the control plane answers.
    At(Instant),
    /// It is.
    Since(BTreeMap<String, Stored>),
}

/// One client's stream.
struct Exchange<'r> {
    relay: &'r Relay,
    session: Session,
    link: Link,
    secrets: Secrets,
    health: Option<watch::Receiver<Option<Found>>>,
    /// Whether the present control plane has heard of it.
    is_health_said: bool,
    /// What it hears of what Envoy runs, if the client is one.
    told: Option<Told>,
    offline: Offline,
    /// Whether the control plane has said anything to this client.
    is_heard: bool,
    /// The client's name in the store.
    client: Option<String>,
    counted: Counted,
}

impl Exchange<'_> {
    async fn run(mut self, call: &mut StreamingCall) -> Result<(), Status> {
        let mut poll = tokio::time::interval(secrets::POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = call.has_room();
            let patience = match self.offline {
                Offline::At(at) => Some(at),
                Offline::No | Offline::Since(_) => None,
            };
            tokio::select! {
                ready = call.ready() => match ready? {
                    Ready::Message(Some(message)) => self.request(call, message).await?,
                    Ready::Message(None) => return Ok(()),
                    Ready::Room => {}
                },
                event = self.link.next(has_room) => self.event(call, event).await,
                () = self.secrets.changed() => {
                    // It may be what the link has been waiting for.
                    self.link.hurry();
                    self.answer_local(call).await;
                }
                () = changed(&mut self.health) => self.say_health(),
                () = looked(&mut self.told) => self.say_running(),
                () = tick(&mut poll, uses_files(&self.session)) => self.answer_local(call).await,
                () = until(patience) => self.go_offline(call).await,
            }
        }
    }

    async fn request(&mut self, call: &mut StreamingCall, message: Bytes) -> Result<(), Status> {
        let secrets = &self.relay.local.secrets;
        let is_local = |type_url: &str, name: &str| type_url == SECRET && secrets.is_local(name);
        let step = self.session.request(message, is_local, self.link.is_open());
        let mut step = step.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
        if self.client.is_none() {
            let node = Node::decode(self.session.node().cloned().unwrap_or_default()).unwrap_or_default();
            self.client = Some(client(&node, self.session.protocol()));
            if self.health.is_some() && node.user_agent_name == ENVOY {
                self.told = Some(Told::new(self.relay.local.running.clone()));
            }
            self.link.begin();
            self.offline = Offline::At(Instant::now() + PATIENCE);
        }
        for request in step.upstream.take().into_iter().chain(step.own.take()) {
            self.link.send(&request);
            if !self.is_health_said {
                self.say_health();
            }
        }
        if let Some(roots) = step.followed.take() {
            self.secrets.trust(&roots);
        }
        self.note(&mut step);
        if step.has_new_local {
            self.answer_local(call).await;
        }
        if let Offline::Since(stored) = &self.offline
            && !step.wanted.is_empty()
        {
            let kept = stored.get(&step.type_url).cloned().unwrap_or_default();
            self.answer_stored(call, &step.type_url, &step.wanted, &kept);
        }
        Ok(())
    }

    fn note(&mut self, step: &mut Step) {
        let observed = &self.relay.observed;
        if let Some(told) = &mut self.told
            && (step.is_accepted || step.rejected.is_some())
        {
            told.answered(&step.type_url);
            if let Some(nonce) = step.accepted_nonce.take() {
                told.accepted(&step.type_url, nonce);
            }
        }
        if let Some(reason) = &step.rejected {
            Observed::add(&observed.rejections, 1);
            tracing::warn!(type_url = step.type_url, reason, "a response was refused by the proxy");
        }
        if step.is_accepted && step.type_url.ends_with(".Cluster") {
            observed.clusters.store(true, Ordering::Relaxed);
        }
        if step.is_accepted && step.type_url.ends_with(".Listener") {
            observed.listeners.store(true, Ordering::Relaxed);
        }
        let Some(message) = step.accepted.take() else { return };
        if let (Some(store), Some(client)) = (&self.relay.local.store, &self.client) {
            store.record(client, self.session.protocol(), &step.type_url, message, step.is_complete);
        }
    }

    async fn event(&mut self, call: &mut StreamingCall, event: Event) {
        match event {
            Event::Opened => {
                if matches!(self.offline, Offline::At(_)) {
                    self.offline = Offline::No;
                }
                self.counted.set_connected(true);
                self.is_health_said = false;
                if let Some(told) = &mut self.told {
                    told.opened();
                }
                for request in self.session.opened() {
                    self.link.send(&request);
                }
                self.say_health();
            }
            Event::Response(message) => {
                // Only now: a server that has nothing to say yet ends its streams at once.
                self.is_heard = true;
                self.offline = Offline::No;
                self.counted.set_stale(false);
                Observed::add(&self.relay.observed.responses, 1);
                if let Some(told) = &mut self.told {
                    told.heard(self.session.protocol(), Head::of(&message).type_url, &message);
                }
                let Heard { client, upstream, followed, names, is_foreign } = self.session.response(message);
                if let (Some(known), Some(names)) = (&self.relay.local.names, names) {
                    known.take(&names);
                }
                if is_foreign {
                    self.secrets.forget_distributed();
                }
                if let Some(roots) = followed {
                    self.secrets.trust(&roots);
                }
                for request in upstream {
                    self.link.send(&request);
                }
                if let Some(pieces) = client {
                    call.send_pieces(pieces);
                }
            }
            Event::Failed => {
                self.counted.set_connected(false);
                Observed::add(&self.relay.observed.failures, 1);
                // A client that has heard from it has all it needs.
                if !self.is_heard && !matches!(self.offline, Offline::Since(_)) {
                    self.go_offline(call).await;
                }
            }
            Event::Ended => self.counted.set_connected(false),
        }
    }

    /// Tells the control plane how the application is, once that is known.
    fn say_health(&mut self) {
        let Some(found) = self.health.as_mut().and_then(|health| health.borrow_and_update().clone()) else {
            return;
        };
        self.is_health_said = self.session.is_node_said();
        if self.is_health_said {
            self.link.send(&health_report(self.session.protocol(), found.err()));
        }
    }

    /// Tells the control plane what Envoy runs, where that has changed.
    fn say_running(&mut self) {
        let protocol = self.session.protocol();
        if let Some(report) = self.told.as_mut().and_then(|told| told.news(protocol)) {
            self.link.send(&report);
        }
    }

    /// Answers what the agent answers, where it has changed.
    async fn answer_local(&mut self, call: &mut StreamingCall) {
        for type_url in self.session.local_types() {
            let asked = self.session.local(&type_url);
            let mut found = Vec::new();
            let mut is_changed = false;
            for (name, sent) in asked {
                let Some(resource) = self.secrets.get(&name).await else { continue };
                let changed = sent.as_ref() != Some(&resource.version);
                is_changed |= changed;
                // State of the world has all of them in each response.
                if changed || self.session.protocol() == Protocol::Sotw {
                    found.push(resource);
                }
            }
            if !is_changed {
                continue;
            }
            let resources: Vec<Sent<'_>> = found
                .iter()
                .map(|resource| Sent {
                    name: &resource.name,
                    version: &resource.version,
                    message: resource.expose(),
                })
                .collect();
            let versions: Vec<&str> = resources.iter().map(|sent| sent.version).collect();
            let response = self.session.own_response(&type_url, &versions.join("+"), &resources);
            call.send(&response);
        }
    }

    /// Serves the client from the store from now on.
    async fn go_offline(&mut self, call: &mut StreamingCall) {
        self.offline = Offline::No;
        let (Some(store), Some(client)) = (self.relay.local.store.clone(), self.client.clone()) else {
            return;
        };
        let protocol = self.session.protocol();
        let loaded = tokio::task::spawn_blocking(move || store.load(&client, protocol)).await;
        let Some(stored) = loaded.ok().filter(|stored| !stored.is_empty()) else { return };
        tracing::warn!(
            server = self.relay.upstream.server(),
            "the control plane is away: a proxy is served what it had last"
        );
        self.counted.set_stale(true);
        for (type_url, wanted) in self.session.wanted() {
            let kept = stored.get(&type_url).cloned().unwrap_or_default();
            self.answer_stored(call, &type_url, &wanted, &kept);
        }
        self.offline = Offline::Since(stored);
    }

    fn answer_stored(&mut self, call: &mut StreamingCall, type_url: &str, wanted: &Wanted, kept: &Stored) {
        let is_wanted = |name: &String| wanted.all || wanted.names.contains(name);
        let resources: Vec<Sent<'_>> = kept
            .resources
            .iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|(name, (version, message))| Sent { name, version, message })
            .collect();
        let missing: Vec<String> =
            wanted.names.iter().filter(|name| !kept.resources.contains_key(*name)).cloned().collect();
        let response = self.session.stored_response(type_url, &kept.version, &resources, &missing);
        Observed::add(&self.relay.observed.stored_responses, 1);
        call.send(&response);
    }
}

/// A request that says how the application is, as Istio's agents send it.
fn health_report(protocol: Protocol, unhealthy: Option<String>) -> Vec<u8> {
    let error_detail = unhealthy.map(|message| navarch_xds::proto::Status { code: 500, message });
    let type_url = HEALTH.to_owned();
    match protocol {
        Protocol::Sotw => {
            DiscoveryRequest { type_url, error_detail, ..DiscoveryRequest::default() }.encode_to_vec()
        }
        Protocol::Delta => {
            DeltaDiscoveryRequest { type_url, error_detail, ..DeltaDiscoveryRequest::default() }
                .encode_to_vec()
        }
    }
}

async fn changed(health: &mut Option<watch::Receiver<Option<Found>>>) {
    if let Some(health) = health
        && health.changed().await.is_ok()
    {
        return;
    }
    // Nobody asks, or nobody looks any more.
    std::future::pending().await
}

async fn looked(told: &mut Option<Told>) {
    match told {
        Some(told) => told.changed().await,
        None => std::future::pending().await,
    }
}

/// The name of a client in the store: two clients of one node, such as Envoy and an application with gRPC,
/// have different configurations.
fn client(node: &Node, protocol: Protocol) -> String {
    let generator = node.metadata_str("GENERATOR").unwrap_or_default();
    let text = format!("{}\n{}\n{generator}\n{protocol:?}", node.id, node.user_agent_name);
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

fn uses_files(session: &Session) -> bool {
    let local = session.local_types();
    local.iter().flat_map(|type_url| session.local(type_url)).any(|(name, _)| Secrets::is_file(&name))
}

async fn tick(poll: &mut Interval, is_wanted: bool) {
    if is_wanted {
        poll.tick().await;
    } else {
        std::future::pending().await
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! Clients that come and go, ten thousand times: nothing of them may stay. A process of its own, since it
//! looks at its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use navarch_envoy::proto::envoy::config::core::v3::Node as WireNode;
use navarch_envoy::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{
    Class, Connection, Dialect, Discovery, LastLoads, Node, Observer, Peer, Registry, Rejection, Server,
    Settings,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CYCLES: usize = 10_000;
/// Clients at a time.
const CLIENTS: usize = 8;
/// Streams of a client in one connection.
const STREAMS: usize = 100;
/// Bytes that the process may have grown by in all cycles after the first tenth: what an allocator keeps for
/// itself, and less than a small part of what one stream needs, times their number.
const GROWTH: usize = 6 << 20;

/// What is given out for each stream and must come back.
#[derive(Clone, Default)]
struct Counts {
    guards: Arc<AtomicUsize>,
    guards_dropped: Arc<AtomicUsize>,
    connected: Arc<AtomicUsize>,
    disconnected: Arc<AtomicUsize>,
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fleet(Arc<Class>, Counts);

impl Discovery for Fleet {
    fn connect(&self, _: &Arc<Node>, _: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        let connection = Connection::to(self.0.clone());
        self.1.guards.fetch_add(1, Ordering::SeqCst);
        let guard = (connection.guard, Guard(self.1.guards_dropped.clone()));
        Ok(Connection { guard: Box::new(guard), ..connection })
    }
}

impl Observer for Counts {
    fn connected(&self, _: &Arc<Node>) {
        self.connected.fetch_add(1, Ordering::SeqCst);
    }

    fn disconnected(&self, _: &Arc<Node>) {
        self.disconnected.fetch_add(1, Ordering::SeqCst);
    }
}

struct Running {
    runtime: Runtime,
    registry: Arc<Registry>,
    loads: Arc<LastLoads>,
    class: Arc<Class>,
    counts: Counts,
    uri: String,
}

fn plan(revision: u64) -> Arc<ProxyResources> {
    let resource = |ty, n: usize| {
        Arc::new(Resource::of(ty, format!("r{n}"), format!("revision {revision} of {n}").as_bytes()))
    };
    let types = [XdsType::Cds, XdsType::Eds, XdsType::Lds, XdsType::Rds];
    Arc::new(types.into_iter().fold(ProxyResources::new(revision), |plan, ty| {
        plan.with(ty, ResourceSet::of((0..20).map(|n| resource(ty, n))))
    }))
}

async fn start(runtime: Runtime) -> Running {
    let (class, counts, loads) = (Class::new(), Counts::default(), Arc::new(LastLoads::default()));
    class.publish(plan(1));
    let settings = Settings { streams_per_second: 1e9, ..Settings::default() };
    let fleet = Fleet(class.clone(), counts.clone());
    let server =
        Server::builder(fleet).settings(settings).observer(counts.clone()).loads(loads.clone()).build();
    let registry = server.registry();
    let bound = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.expect("ran").expect("a port");
    let uri = format!("http://{}", bound.local_addr().expect("an address"));
    runtime.spawn(async move { server.serve(bound).await });
    Running { runtime, registry, loads, class, counts, uri }
}

impl Running {
    /// Tasks of the server, the one that accepts included.
    fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    async fn is_at_rest(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let state = || {
            let (streams, following) = (self.registry.len(), self.class.streams());
            (streams, following, self.tasks(), self.loads.get().len())
        };
        while state() != (0, 0, 1, 0) {
            assert!(Instant::now() < deadline, "streams, followers, tasks, reporters: {:?}", state());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn channel(uri: &str) -> Channel {
    Channel::from_shared(uri.to_owned()).expect("a URI").connect().await.expect("connected")
}

async fn open<Q, S>(channel: &Channel, path: &'static str) -> (mpsc::UnboundedSender<Q>, Streaming<S>)
where
    Q: Message + Default + 'static,
    S: Message + Default + 'static,
{
    let (requests, stream) = mpsc::unbounded_channel();
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("ready");
    let request = tonic::Request::new(UnboundedReceiverStream::new(stream));
    let codec = ProstCodec::<Q, S>::default();
    let response = grpc.streaming(request, PathAndQuery::from_static(path), codec).await;
    (requests, response.expect("a stream").into_inner())
}

fn node(id: usize) -> Option<WireNode> {
    Some(WireNode { id: format!("n{id}"), user_agent_name: "envoy".into(), ..WireNode::default() })
}

async fn next<S>(responses: &mut Streaming<S>) -> Result<Option<S>, Status> {
    let next = tokio::time::timeout(Duration::from_secs(30), responses.message());
    next.await.expect("an answer in time")
}

/// One stream, and one of the ways in which streams end.
async fn cycle(channel: &Channel, number: usize) {
    match number % 7 {
        // Gone before it has said who it is.
        0 => drop(open::<DiscoveryRequest, DiscoveryResponse>(channel, SOTW).await),
        // Gone with a request on its way, and maybe its answer.
        1 => {
            let (requests, _responses) =
                open::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>(channel, DELTA).await;
            let type_url = XdsType::Cds.type_url().into();
            let _ =
                requests.send(DeltaDiscoveryRequest { type_url, node: node(number), ..Default::default() });
        }
        // Refused: there is no node.
        2 => {
            let (requests, mut responses) = open::<DiscoveryRequest, DiscoveryResponse>(channel, SOTW).await;
            let type_url = XdsType::Cds.type_url().into();
            let _ = requests.send(DiscoveryRequest { type_url, ..Default::default() });
            assert!(next(&mut responses).await.is_err());
        }
        // Reports of load.
        3 => reports(channel, number).await,
        // Served, and then broken off, or ended by the client.
        way => {
            let (requests, mut responses) =
                open::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>(channel, DELTA).await;
            let types: &[_] = if way == 4 { &[XdsType::Cds, XdsType::Eds] } else { &[XdsType::Cds] };
            for ty in types {
                let names = if ty.root() { vec![] } else { vec!["r1".into(), "missing".into()] };
                let request = DeltaDiscoveryRequest {
                    type_url: ty.type_url().into(),
                    resource_names_subscribe: names,
                    node: node(number),
                    ..Default::default()
                };
                let _ = requests.send(request);
                let answer = next(&mut responses).await.expect("an answer").expect("an answer");
                let (type_url, response_nonce) = (answer.type_url, answer.nonce);
                let _ =
                    requests.send(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() });
            }
            if way == 4 {
                drop(requests);
                while next(&mut responses).await.expect("an end in order").is_some() {}
            }
        }
    }
}

async fn reports(channel: &Channel, number: usize) {
    use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterStats;
    use navarch_envoy::proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
    const LRS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
    let (requests, mut responses) = open::<LoadStatsRequest, LoadStatsResponse>(channel, LRS).await;
    let cluster_stats = vec![ClusterStats { cluster_name: "c".into(), ..Default::default() }];
    let _ = requests.send(LoadStatsRequest { node: node(number), cluster_stats });
    assert!(next(&mut responses).await.expect("an answer").is_some());
}

/// Streams number `from..to`, by several clients, while the resources change.
async fn cycles(running: &Running, from: usize, to: usize) {
    let taken = Arc::new(AtomicUsize::new(from));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (taken, uri) = (taken.clone(), running.uri.clone());
            tokio::spawn(async move {
                loop {
                    let channel = channel(&uri).await;
                    for _ in 0..STREAMS {
                        let number = taken.fetch_add(1, Ordering::SeqCst);
                        if number >= to {
                            return;
                        }
                        cycle(&channel, number).await;
                    }
                }
            })
        })
        .collect();
    let mut revision = from as u64 + 2;
    while clients.iter().any(|client| !client.is_finished()) {
        running.class.publish(plan(revision));
        revision += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for client in clients {
        client.await.expect("no client failed");
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

#[test]
fn str_12_ten_thousand_streams_leave_nothing() {
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    client.block_on(async {
        let running = start(server).await;
        cycles(&running, 0, CYCLES / 10).await;
        running.is_at_rest().await;
        let before = resident();
        cycles(&running, CYCLES / 10, CYCLES).await;
        running.is_at_rest().await;
        let grown = resident().saturating_sub(before);
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let counts = &running.counts;
        let served = count(&counts.connected);
        // Four ways of seven are served; of a fifth the server may or may not have heard.
        assert!(served >= CYCLES * 3 / 7 - 7, "{served} were served");
        assert_eq!(served, count(&counts.disconnected));
        assert_eq!((served, served), (count(&counts.guards), count(&counts.guards_dropped)));
        assert!(grown < GROWTH, "{} KiB more", grown >> 10);
        println!("{served} served, {} KiB more", grown >> 10);
        running.runtime.shutdown_background();
    });
}

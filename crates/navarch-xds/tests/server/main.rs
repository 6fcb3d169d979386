//! The server over real connections on loopback: everything that is not a matter of one stream's state.

mod authenticated;
mod brought;
mod services;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use navarch_envoy::proto::envoy::config::core::v3::Node as WireNode;
use navarch_envoy::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use navarch_envoy::wire::put_field;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{
    Answers, Brake, Class, Connection, Dialect, Discovery, LastLoads, Node, Peer, Question, Registry,
    Rejection, SYNCZ, Server, Settings, Visible, syncz,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// One class for everybody; nodes with special ids are refused.
struct Fleet(Arc<Class>);

impl Discovery for Fleet {
    fn connect(&self, node: &Arc<Node>, _: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        match node.id.as_str() {
            "early" => Err(Rejection::NotReady("not synced".into())),
            "thief" => Err(Rejection::PermissionDenied("namespace b is not yours".into())),
            _ => Ok(Connection::to(self.0.clone())),
        }
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Answers>, Rejection> {
        if question.type_url == "forbidden" {
            return Err(Rejection::Unauthenticated("who are you?".into()));
        }
        // Whoever is not of the system sees its own namespace.
        let namespace =
            question.node.metadata_str("NAMESPACE").filter(|namespace| *namespace != "istio-system");
        Ok((question.type_url == SYNCZ).then(|| syncz(question.streams, namespace)))
    }

    fn visible(&self, _: &Arc<Peer>) -> Result<Visible, Rejection> {
        Ok(Box::new(|stream| stream.node.id != "hidden"))
    }
}

struct Running {
    server: Server,
    class: Arc<Class>,
    address: SocketAddr,
    loads: Arc<LastLoads>,
}

fn settings() -> Settings {
    Settings { identifier: "replica-1".into(), streams_per_second: 10_000.0, ..Settings::default() }
}

fn named(ty: XdsType, name: &str, size: usize) -> Arc<Resource> {
    let mut body = Vec::new();
    put_field(&mut body, 0x0a, name.as_bytes());
    put_field(&mut body, 0x7a, &vec![b'x'; size]);
    Arc::new(Resource::of(ty, name, &body))
}

/// Every type has one resource, `a`.
fn plan(revision: u64, size: usize) -> Arc<ProxyResources> {
    let start = ProxyResources::new(revision);
    Arc::new(
        XdsType::ALL
            .into_iter()
            .fold(start, |plan, ty| plan.with(ty, ResourceSet::of([named(ty, "a", size)]))),
    )
}

async fn start(settings: Settings) -> Running {
    let class = Class::new();
    class.publish(plan(1, 10));
    start_with(settings, class).await
}

async fn start_with(settings: Settings, class: Arc<Class>) -> Running {
    let loads = Arc::new(LastLoads::default());
    let server = Server::builder(Fleet(class.clone())).settings(settings).loads(loads.clone()).build();
    serve(server, class, loads).await
}

async fn serve(server: Server, class: Arc<Class>, loads: Arc<LastLoads>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    Running { server, class, address, loads }
}

impl Running {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .expect("a URI")
            .connect()
            .await
            .expect("connected")
    }

    async fn open<Q, S>(&self, path: &'static str) -> Result<Open<Q, S>, Status>
    where
        Q: Message + Default + 'static,
        S: Message + Default + 'static,
    {
        open(self.channel().await, path).await
    }

    fn registry(&self) -> Arc<Registry> {
        self.server.registry()
    }
}

/// A stream from the client's side.
struct Open<Q, S> {
    requests: mpsc::UnboundedSender<Q>,
    responses: Streaming<S>,
}

async fn open<Q, S>(channel: Channel, path: &'static str) -> Result<Open<Q, S>, Status>
where
    Q: Message + Default + 'static,
    S: Message + Default + 'static,
{
    let (requests, stream) = mpsc::unbounded_channel();
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let request = tonic::Request::new(UnboundedReceiverStream::new(stream));
    let codec = ProstCodec::<Q, S>::default();
    let response = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?;
    Ok(Open { requests, responses: response.into_inner() })
}

impl<Q, S> Open<Q, S> {
    fn send(&self, request: Q) {
        self.requests.send(request).expect("an open stream");
    }

    async fn next(&mut self) -> Result<S, Status> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.responses.message()).await;
        let next = next.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))?;
        next.ok_or_else(|| Status::ok("closed"))
    }

    /// Nothing arrives for a while.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.responses.message()).await.is_err()
    }

    async fn code(&mut self) -> Code {
        loop {
            if let Err(status) = self.next().await {
                return status.code();
            }
        }
    }
}

fn node(id: &str) -> Option<WireNode> {
    Some(WireNode { id: id.into(), user_agent_name: "envoy".into(), ..WireNode::default() })
}

fn ask(ty: XdsType, id: &str) -> DiscoveryRequest {
    let names = if ty.root() { vec![] } else { vec!["a".into()] };
    DiscoveryRequest {
        type_url: ty.type_url().into(),
        resource_names: names,
        node: node(id),
        ..Default::default()
    }
}

fn ask_delta(ty: XdsType, id: &str) -> DeltaDiscoveryRequest {
    let names = if ty.root() { vec![] } else { vec!["a".into()] };
    DeltaDiscoveryRequest {
        type_url: ty.type_url().into(),
        resource_names_subscribe: names,
        node: node(id),
        ..Default::default()
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

type Sotw = Open<DiscoveryRequest, DiscoveryResponse>;
type Delta = Open<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

#[tokio::test]
async fn str_01_node_only_on_the_first_message() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "n"));
    assert_eq!(stream.next().await.expect("clusters").type_url, XdsType::Cds.type_url());
    for ty in [XdsType::Eds, XdsType::Lds, XdsType::Rds, XdsType::Sds] {
        stream.send(DiscoveryRequest { node: None, ..ask(ty, "") });
        assert_eq!(stream.next().await.expect("an answer").type_url, ty.type_url());
    }
}

#[tokio::test]
async fn str_02_no_node_id_is_an_invalid_argument() {
    let running = start(settings()).await;
    for request in [ask(XdsType::Cds, ""), DiscoveryRequest { node: None, ..ask(XdsType::Cds, "") }] {
        let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
        stream.send(request);
        assert_eq!(stream.code().await, Code::InvalidArgument);
    }
    assert!(running.registry().is_empty());
}

#[tokio::test]
async fn str_03_identity_stays_the_first_one() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "first"));
    stream.next().await.expect("clusters");
    stream.send(ask(XdsType::Lds, "second"));
    stream.next().await.expect("listeners");
    assert_eq!(running.registry().streams()[0].node.id, "first");
}

#[tokio::test]
async fn str_04_extensions_of_the_node_are_not_kept() {
    use navarch_envoy::proto::envoy::config::core::v3::Extension;
    let running = start(settings()).await;
    let mut request = ask(XdsType::Cds, "n");
    let extension = |n| Extension { name: format!("envoy.extension.{n}"), ..Extension::default() };
    request.node =
        request.node.map(|node| WireNode { extensions: (0..516).map(extension).collect(), ..node });
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(request);
    stream.next().await.expect("clusters");
    let node = running.registry().streams()[0].node.clone();
    assert!(!format!("{node:?}").contains("envoy.extension"));
}

#[tokio::test]
async fn str_05_two_streams_of_one_node_are_two_streams() {
    let running = start(settings()).await;
    let mut first: Sotw = running.open(SOTW).await.expect("a stream");
    let mut second: Sotw = running.open(SOTW).await.expect("a stream");
    first.send(ask(XdsType::Cds, "n"));
    second.send(ask(XdsType::Cds, "n"));
    first.next().await.expect("clusters");
    let answer = second.next().await.expect("clusters");
    assert_eq!(running.registry().len(), 2);
    drop(first);
    let registry = running.registry();
    eventually("one stream is left", || registry.len() == 1).await;
    second.send(DiscoveryRequest {
        response_nonce: answer.nonce,
        version_info: answer.version_info,
        ..ask(XdsType::Cds, "n")
    });
    running.class.publish(plan(2, 11));
    assert_eq!(second.next().await.expect("an update").type_url, XdsType::Cds.type_url());
}

#[tokio::test]
async fn str_06_type_url_is_required_or_implied_and_must_not_contradict() {
    let running = start(settings()).await;
    let mut aggregated: Sotw = running.open(SOTW).await.expect("a stream");
    aggregated.send(DiscoveryRequest { type_url: String::new(), ..ask(XdsType::Cds, "n") });
    assert_eq!(aggregated.code().await, Code::InvalidArgument);

    let path = "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters";
    let mut implied: Sotw = running.open(path).await.expect("a stream");
    implied.send(DiscoveryRequest { type_url: String::new(), ..ask(XdsType::Cds, "n") });
    assert_eq!(implied.next().await.expect("clusters").type_url, XdsType::Cds.type_url());

    let mut contradicting: Sotw = running.open(path).await.expect("a stream");
    contradicting.send(ask(XdsType::Lds, "n"));
    assert_eq!(contradicting.code().await, Code::InvalidArgument);
}

#[tokio::test]
async fn str_07_unknown_type_leaves_the_stream_up() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(DiscoveryRequest {
        type_url: "type.googleapis.com/no.such.Type".into(),
        ..ask(XdsType::Cds, "n")
    });
    stream.send(ask(XdsType::Cds, "n"));
    assert_eq!(stream.next().await.expect("clusters").type_url, XdsType::Cds.type_url());
}

#[tokio::test]
async fn str_08_types_nobody_asked_for_are_not_sent() {
    let running = start(settings()).await;
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    stream.send(ask_delta(XdsType::Lds, "n"));
    stream.next().await.expect("listeners");
    running.class.publish(plan(2, 10));
    assert!(stream.is_quiet().await);
}

#[tokio::test]
async fn str_09_every_method_of_a_single_type_is_served() {
    let running = start(settings()).await;
    let mut served = 0;
    for ty in XdsType::ALL {
        let Some(service) = ty.service() else { continue };
        if let Some(method) = ty.sotw_method() {
            let path: &'static str = format!("/{service}/{method}").leak();
            let mut stream: Sotw = running.open(path).await.expect("a stream");
            stream.send(ask(ty, "n"));
            let response = stream.next().await.expect("an answer");
            assert_eq!((response.type_url.as_str(), response.resources.len()), (ty.type_url(), 1), "{path}");
            served += 1;
        }
        if let Some(method) = ty.delta_method() {
            let path: &'static str = format!("/{service}/{method}").leak();
            let mut stream: Delta = running.open(path).await.expect("a stream");
            stream.send(ask_delta(ty, "n"));
            let response = stream.next().await.expect("an answer");
            assert_eq!((response.type_url.as_str(), response.resources.len()), (ty.type_url(), 1), "{path}");
            served += 1;
        }
    }
    assert_eq!(served, 18);
}

#[tokio::test]
async fn str_10_not_ready_is_unavailable() {
    let quick = Settings { resources_timeout: Duration::from_secs(1), ..settings() };
    let running = start_with(quick, Class::new()).await;
    let mut early: Sotw = running.open(SOTW).await.expect("a stream");
    early.send(ask(XdsType::Cds, "early"));
    assert_eq!(early.code().await, Code::Unavailable);
    let mut waiting: Sotw = running.open(SOTW).await.expect("a stream");
    waiting.send(ask(XdsType::Cds, "n"));
    assert_eq!(waiting.code().await, Code::Unavailable);
    // And if the resources come in time, the stream gets them.
    let mut in_time: Sotw = running.open(SOTW).await.expect("a stream");
    in_time.send(ask(XdsType::Cds, "n"));
    running.class.publish(plan(1, 10));
    assert_eq!(in_time.next().await.expect("clusters").resources.len(), 1);
}

#[tokio::test]
async fn str_11_identity_that_does_not_match_is_denied() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "thief"));
    assert_eq!(stream.code().await, Code::PermissionDenied);
}

#[tokio::test]
async fn str_12_nothing_is_left_of_streams_that_end() {
    let running = start(settings()).await;
    let channel = running.channel().await;
    for round in 0..300 {
        let mut stream: Delta = open(channel.clone(), DELTA).await.expect("a stream");
        stream.send(ask_delta(XdsType::Cds, "n"));
        if round % 2 == 0 {
            stream.next().await.expect("clusters");
        }
    }
    let registry = running.registry();
    eventually("all streams have ended", || registry.is_empty() && running.class.streams() == 0).await;
}

#[tokio::test]
async fn str_13_control_plane_names_the_replica() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "n"));
    let identifier =
        stream.next().await.expect("clusters").control_plane.expect("a control plane").identifier;
    assert_eq!(identifier, "replica-1");
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    stream.send(ask_delta(XdsType::Cds, "n"));
    let identifier =
        stream.next().await.expect("clusters").control_plane.expect("a control plane").identifier;
    assert_eq!(identifier, "replica-1");
}

#[tokio::test]
async fn str_14_shutdown_ends_streams_as_unavailable_and_takes_no_new_ones() {
    let running = start(settings()).await;
    let channel = running.channel().await;
    let mut stream: Sotw = open(channel.clone(), SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "n"));
    stream.next().await.expect("clusters");
    running.server.shutdown(Duration::from_millis(100)).await;
    assert_eq!(stream.code().await, Code::Unavailable);
    assert!(running.registry().is_empty());
}

#[tokio::test]
async fn sot_18_and_del_13_every_any_has_the_type_of_the_response() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    let mut delta: Delta = running.open(DELTA).await.expect("a stream");
    for ty in XdsType::ALL {
        if ty != XdsType::Vhds {
            stream.send(ask(ty, "n"));
            let response = stream.next().await.expect("an answer");
            assert!(response.resources.iter().all(|any| any.type_url == response.type_url));
        }
        delta.send(ask_delta(ty, "n"));
        let response = delta.next().await.expect("an answer");
        for resource in &response.resources {
            assert_eq!(resource.resource.as_ref().expect("a body").type_url, response.type_url);
            assert_eq!((resource.name.as_str(), resource.version.len()), ("a", 32));
        }
    }
}

#[tokio::test]
async fn rec_02_and_rec_13_reconnect_over_the_wire() {
    let running = start(settings()).await;
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    stream.send(ask_delta(XdsType::Lds, "n"));
    let first = stream.next().await.expect("listeners");
    let mut held: BTreeMap<String, String> =
        first.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
    held.insert("gone".into(), "1".into());
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    let initial_resource_versions = held.into_iter().collect();
    stream.send(DeltaDiscoveryRequest { initial_resource_versions, ..ask_delta(XdsType::Lds, "n") });
    let second = stream.next().await.expect("listeners");
    assert_eq!((second.resources.len(), second.removed_resources), (0, vec!["gone".to_owned()]));
}

#[tokio::test]
async fn rec_11_admission_refuses_before_work() {
    let limited = Settings {
        streams_at_a_time: 0,
        streams_per_second: 2.0,
        admission_wait_max: Duration::ZERO,
        ..settings()
    };
    let running = start(limited).await;
    let mut refused = 0;
    let mut streams = Vec::new();
    for _ in 0..5 {
        match running.open::<DiscoveryRequest, DiscoveryResponse>(SOTW).await {
            Ok(stream) => streams.push(stream),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable);
                refused += 1;
            }
        }
    }
    assert!(refused >= 2, "{refused}");
}

#[tokio::test]
async fn rec_12_connections_end_at_their_age() {
    let running =
        start(Settings { connection_age_max: Some(Duration::from_millis(1500)), ..settings() }).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "n"));
    stream.next().await.expect("clusters");
    let end = stream.code().await;
    assert!(matches!(end, Code::Ok | Code::Unavailable), "{end:?}");
    let registry = running.registry();
    eventually("the stream is gone", || registry.is_empty()).await;
}

#[tokio::test]
async fn flw_02_client_that_does_not_read_is_cut_off_and_others_are_not() {
    let running = start(Settings { send_timeout: Duration::from_millis(500), ..settings() }).await;
    let mut slow: Delta = running.open(DELTA).await.expect("a stream");
    let mut quick: Delta = running.open(DELTA).await.expect("a stream");
    running.class.publish(plan(2, 8 << 20));
    let registry = running.registry();
    slow.send(ask_delta(XdsType::Lds, "slow"));
    eventually("the slow one is connected", || registry.len() == 1).await;
    quick.send(ask_delta(XdsType::Lds, "quick"));
    quick.next().await.expect("listeners");
    let connected = || registry.streams().iter().map(|s| s.node.id.clone()).collect::<Vec<_>>();
    eventually("the slow one is cut off", || connected() == ["quick"]).await;
    assert_ne!(slow.code().await, Code::Ok);
}

#[tokio::test]
async fn flw_05_large_requests_are_taken() {
    let running = start(settings()).await;
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    let name = |n: usize| (format!("service-{n}.namespace.svc.cluster.local_0.0.0.0_8080"), "0".repeat(32));
    let held: BTreeMap<String, String> = (0..60_000).map(name).collect();
    let initial_resource_versions = held.into_iter().collect();
    let request = DeltaDiscoveryRequest { initial_resource_versions, ..ask_delta(XdsType::Lds, "n") };
    assert!(request.encoded_len() > 5 << 20);
    stream.send(request);
    assert_eq!(stream.next().await.expect("listeners").removed_resources.len(), 60_000);
}

#[tokio::test]
async fn flw_06_large_responses_are_whole() {
    let running = start(settings()).await;
    let resources = (0..3000).map(|n| named(XdsType::Cds, &format!("c{n}"), 4000));
    let plan = ProxyResources::new(2).with(XdsType::Cds, ResourceSet::of(resources));
    running.class.publish(Arc::new(plan));
    for _ in 0..2 {
        let mut stream: Delta = running.open(DELTA).await.expect("a stream");
        stream.send(ask_delta(XdsType::Cds, "n"));
        let response = stream.next().await.expect("clusters");
        assert_eq!(response.resources.len(), 3000);
        let mut names: Vec<_> = response.resources.into_iter().map(|r| r.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3000);
    }
}

#[tokio::test]
async fn ops_03_status_follows_the_stream() {
    let running = start(settings()).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "n"));
    let answer = stream.next().await.expect("clusters");
    let registry = running.registry();
    let state = || registry.streams().first().map(|s| (s.types[0].state.as_str(), s.watermark));
    assert_eq!(state(), Some(("STALE", 0)));
    let ack = DiscoveryRequest {
        response_nonce: answer.nonce.clone(),
        version_info: answer.version_info,
        ..ask(XdsType::Cds, "n")
    };
    stream.send(ack);
    eventually("synced", || state() == Some(("SYNCED", 1))).await;
    running.class.publish(plan(2, 11));
    let answer = stream.next().await.expect("an update");
    let error_detail = Some(navarch_envoy::proto::google::rpc::Status {
        code: 13,
        message: "a: bad".into(),
        ..Default::default()
    });
    stream.send(DiscoveryRequest { response_nonce: answer.nonce, error_detail, ..ask(XdsType::Cds, "n") });
    eventually("error", || state() == Some(("ERROR", 1))).await;
    assert!(registry.streams()[0].connection_id().starts_with("n-"));
}

#[tokio::test]
async fn flw_08_dead_connection_is_found_by_pings() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (keepalive_interval, keepalive_timeout) = (Duration::from_millis(100), Duration::from_millis(100));
    let running = start(Settings { keepalive_interval, keepalive_timeout, ..settings() }).await;
    let mut socket = tokio::net::TcpStream::connect(running.address).await.expect("connected");
    // The HTTP/2 preface and empty settings, and then not a word more: pings stay unanswered.
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    socket.write_all(&hello).await.expect("written");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn flw_10_many_streams_in_one_connection() {
    let running = start(settings()).await;
    let channel = running.channel().await;
    let mut streams: Vec<Delta> = Vec::new();
    for _ in 0..500 {
        let stream: Delta = open(channel.clone(), DELTA).await.expect("a stream");
        stream.send(ask_delta(XdsType::Cds, "n"));
        streams.push(stream);
    }
    for stream in &mut streams {
        assert_eq!(stream.next().await.expect("clusters").resources.len(), 1);
    }
    assert_eq!(running.registry().len(), 500);
}

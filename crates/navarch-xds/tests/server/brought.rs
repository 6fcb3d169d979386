//! Services that others bring to the port, called by a real gRPC client.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper_util::rt::TokioExecutor;
use navarch_xds::server::{self, Limits, Ready, Service, StreamingCall, StreamingService, UnaryCall};
use navarch_xds::{Evidence, Transport};
use tokio::net::TcpStream;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::metadata::MetadataValue;

use super::*;

const ECHO: &str = "/test.Echo/Echo";
const WAIT: &str = "/test.Wait/Wait";

/// Says what it heard: the message, one header, the identity and what the transport left.
async fn echo(call: UnaryCall) -> Result<Bytes, server::Status> {
    let header = |name: &str| call.metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
    if header("authorization") == "Bearer wrong" {
        return Err(server::Status::new(server::Code::PermissionDenied, "not yours: 100%"));
    }
    let heard = WireNode::decode(call.message).expect("a node");
    let answer = WireNode {
        id: heard.id,
        cluster: header("authorization").to_owned(),
        user_agent_name: format!("{:?} {:?}", call.peer.identities, call.peer.evidence.get::<u64>()),
        ..WireNode::default()
    };
    Ok(answer.encode_to_vec().into())
}

/// Never answers; counts the calls that are waiting.
struct Wait {
    limits: Limits,
    waiting: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Wait {
    fn answer(
        &self,
        _: UnaryCall,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, server::Status>> + Send + '_>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self.waiting.clone());
        Box::pin(async move {
            let _counted = counted;
            std::future::pending().await
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

async fn with(path: &'static str, service: impl Service) -> Running {
    let class = Class::new();
    class.publish(plan(1, 10));
    let loads = Arc::new(LastLoads::default());
    let server = Server::builder(Fleet(class.clone())).settings(settings()).service(path, service).build();
    serve(server, class, loads).await
}

async fn call(
    channel: Channel,
    path: &'static str,
    request: tonic::Request<WireNode>,
) -> Result<WireNode, Status> {
    unary(Grpc::new(channel), path, request).await
}

async fn unary<T>(
    mut grpc: Grpc<T>,
    path: &'static str,
    request: tonic::Request<WireNode>,
) -> Result<WireNode, Status>
where
    T: GrpcService<tonic::body::Body, Error: Display>,
    T::ResponseBody: http_body::Body<Error: Into<StdError>> + Send + 'static,
{
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<WireNode, WireNode>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

fn say(id: &str) -> tonic::Request<WireNode> {
    tonic::Request::new(WireNode { id: id.to_owned(), ..WireNode::default() })
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn a_service_hears_the_message_and_the_metadata_and_answers() {
    let running = with(ECHO, echo).await;
    let channel = running.channel().await;
    let mut request = say("web");
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer right"));
    let answer = call(channel.clone(), ECHO, request).await.expect("an answer");
    assert_eq!((answer.id.as_str(), answer.cluster.as_str()), ("web", "Bearer right"));
    assert_eq!(answer.user_agent_name, "[] None");

    let mut request = say("web");
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer wrong"));
    let refused = call(channel.clone(), ECHO, request).await.expect_err("refused");
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "not yours: 100%"));

    // What nobody brought is not there, and discovery goes on beside it on the same connection.
    assert_eq!(code(call(channel.clone(), "/test.Echo/Other", say("web")).await), Code::Unimplemented);
    let mut stream: Sotw = open(channel, SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "web"));
    assert_eq!(stream.next().await.expect("clusters").resources.len(), 1);
    assert_eq!(running.registry().streams().len(), 1, "a call is not a stream of a client");
}

#[tokio::test]
async fn the_paths_of_the_server_cannot_be_taken() {
    let running = with(SOTW, echo).await;
    let mut stream: Sotw = running.open(SOTW).await.expect("a stream");
    stream.send(ask(XdsType::Cds, "web"));
    assert_eq!(stream.next().await.expect("clusters").resources.len(), 1);
}

#[tokio::test]
async fn requests_have_a_size() {
    struct Small;
    impl Service for Small {
        fn answer(
            &self,
            call: UnaryCall,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, server::Status>> + Send + '_>> {
            Box::pin(echo(call))
        }

        fn limits(&self) -> Limits {
            Limits { request_bytes_max: 100, ..Limits::default() }
        }
    }
    let running = with(ECHO, Small).await;
    let channel = running.channel().await;
    assert_eq!(code(call(channel.clone(), ECHO, say(&"x".repeat(98))).await), Code::Ok);
    assert_eq!(code(call(channel, ECHO, say(&"x".repeat(99))).await), Code::ResourceExhausted);
}

#[tokio::test]
async fn calls_have_a_time_and_a_number() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let limits = Limits { calls_max: 2, timeout: Duration::from_secs(3600), ..Limits::default() };
    let running = with(WAIT, Wait { limits, waiting: waiting.clone() }).await;
    let channel = running.channel().await;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(call(channel.clone(), WAIT, say("held")))).collect();
    eventually("two calls are waiting", || waiting.load(Ordering::SeqCst) == 2).await;
    assert_eq!(code(call(channel.clone(), WAIT, say("third")).await), Code::Unavailable);

    // Who gives up makes room.
    held.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("nobody is waiting", || waiting.load(Ordering::SeqCst) == 0).await;
    let mut impatient = say("impatient");
    impatient.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("1m"));
    // Tonic's channel would give up by itself at that time: one that leaves it to the server.
    let http =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin = format!("http://{}", running.address).parse().expect("a URI");
    let answer = unary(Grpc::with_origin(http, origin), WAIT, impatient).await;
    assert_eq!(code(answer), Code::DeadlineExceeded);
    eventually("nobody is waiting", || waiting.load(Ordering::SeqCst) == 0).await;

    let limits = Limits { timeout: Duration::from_millis(1), ..Limits::default() };
    let running = with(WAIT, Wait { limits, waiting }).await;
    assert_eq!(code(call(running.channel().await, WAIT, say("late")).await), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_service_sees_what_the_transport_found_out() {
    struct Badge;
    impl Transport for Badge {
        type Io = TcpStream;
        async fn accept(&self, io: TcpStream, address: SocketAddr) -> std::io::Result<(TcpStream, Peer)> {
            let identities = vec!["spiffe://a/ns/b/sa/c".to_owned()];
            Ok((io, Peer { identities, evidence: Evidence::of(7_u64), ..Peer::plaintext(address) }))
        }
    }
    let server = Server::builder(Fleet(Class::new())).service(ECHO, echo).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { server.serve_over(listener, Arc::new(Badge)).await });
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI");
    let answer =
        call(channel.connect().await.expect("connected"), ECHO, say("web")).await.expect("an answer");
    assert_eq!(answer.user_agent_name, "[\"spiffe://a/ns/b/sa/c\"] Some(7)");
}

/// Takes all of delta discovery: says every message twice, once in pieces, until somebody says "stop".
struct Twice;

impl StreamingService for Twice {
    fn serve<'c>(
        &'c self,
        call: &'c mut StreamingCall,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), server::Status>> + Send + 'c>> {
        Box::pin(async move {
            assert_eq!(call.path(), DELTA);
            loop {
                match call.ready().await? {
                    Ready::Room => assert!(call.has_room()),
                    Ready::Message(None) => return Ok(()),
                    Ready::Message(Some(message)) => {
                        let node = WireNode::decode(message.clone()).expect("a node");
                        if node.id == "stop" {
                            return Err(server::Status::new(server::Code::PermissionDenied, "stopped"));
                        }
                        call.send(&message);
                        let (first, second) = (message.slice(..1), message.slice(1..));
                        call.send_pieces([first, second]);
                    }
                }
            }
        })
    }
}

#[tokio::test]
async fn a_streaming_service_can_take_the_place_of_discovery() {
    let class = Class::new();
    class.publish(plan(1, 10));
    let server = Server::builder(Fleet(class.clone())).settings(settings()).streaming(DELTA, Arc::new(Twice));
    let running = serve(server.build(), class, Arc::new(LastLoads::default())).await;
    let mut stream: Open<WireNode, WireNode> = running.open(DELTA).await.expect("a stream");
    let large = "x".repeat(1 << 20);
    for id in ["a", &large, "b"] {
        stream.send(WireNode { id: id.to_owned(), ..WireNode::default() });
        for _ in 0..2 {
            assert!(stream.next().await.expect("an answer").id == id);
        }
    }
    stream.send(WireNode { id: "stop".to_owned(), ..WireNode::default() });
    let ended = stream.next().await.expect_err("the end");
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, "stopped"));
    // The other protocol is still the server's own.
    let mut world: Sotw = running.open(SOTW).await.expect("a stream");
    world.send(ask(XdsType::Cds, "web"));
    assert_eq!(world.next().await.expect("clusters").resources.len(), 1);
}

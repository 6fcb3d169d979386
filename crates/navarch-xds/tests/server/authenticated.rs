//! Who is calling, found out from the metadata of each call.

use futures_util::future::BoxFuture;
use http::HeaderMap;
use navarch_xds::server::{self, Authenticate};

use super::*;

/// The bearer of a token is who the token names; nobody else gets in.
struct Bearer;

impl Authenticate for Bearer {
    fn authenticate(
        &self,
        metadata: HeaderMap,
        peer: Arc<Peer>,
    ) -> BoxFuture<'_, Result<Arc<Peer>, server::Status>> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let name = token.and_then(|token| token.strip_prefix("Bearer ")).map(str::to_owned);
        Box::pin(async move {
            match name {
                Some(name) if name == "slow" => std::future::pending().await,
                Some(name) => Ok(Arc::new(Peer { identities: vec![name], ..Peer::clone(&peer) })),
                None => Err(server::Status::new(server::Code::Unauthenticated, "who are you?")),
            }
        })
    }
}

/// A client is the node that it says it is, if it is proven.
struct Proven(Arc<Class>);

impl Discovery for Proven {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        if peer.identities == [node.id.clone()] {
            return Ok(Connection::to(self.0.clone()));
        }
        Err(Rejection::PermissionDenied(format!("{:?} is not {}", peer.identities, node.id)))
    }
}

/// How a stream with a token goes on: the status of its first answer.
async fn first(running: &Running, token: Option<&'static str>, id: &str) -> Code {
    let (requests, stream) = mpsc::unbounded_channel::<DiscoveryRequest>();
    let mut grpc = Grpc::new(running.channel().await);
    grpc.ready().await.expect("ready");
    let mut request = tonic::Request::new(UnboundedReceiverStream::new(stream));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", tonic::metadata::MetadataValue::from_static(token));
    }
    requests.send(ask(XdsType::Cds, id)).expect("an open stream");
    let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let path = PathAndQuery::from_static(SOTW);
    let answer = match grpc.streaming(request, path, codec).await {
        Ok(response) => response.into_inner().message().await,
        Err(status) => Err(status),
    };
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn a_token_says_who_a_client_is() {
    let class = Class::new();
    class.publish(plan(1, 10));
    let settings = Settings { first_timeout: Duration::from_millis(200), ..settings() };
    let server = Server::builder(Proven(class.clone())).settings(settings).authenticator(Bearer).build();
    let running = serve(server, class, Arc::default()).await;
    assert_eq!(first(&running, Some("Bearer web"), "web").await, Code::Ok);
    assert_eq!(first(&running, Some("Bearer web"), "api").await, Code::PermissionDenied);
    assert_eq!(first(&running, Some("Basic web"), "web").await, Code::Unauthenticated);
    assert_eq!(first(&running, None, "web").await, Code::Unauthenticated);
    assert_eq!(first(&running, Some("Bearer slow"), "slow").await, Code::DeadlineExceeded);
}

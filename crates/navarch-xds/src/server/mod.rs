//! The server around [`Stream`](crate::Stream): gRPC over HTTP/2, one task per connection.
//!
//! The crate does not know where resources come from. It asks a [`Discovery`] once per stream, with the node
//! and the peer, and gets the [`Class`] to follow.

mod admission;
mod authenticate;
mod call;
mod connection;
mod exchange;
mod grpc;
mod load;
mod own;
mod service;
mod services;
mod streaming;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderMap;
use navarch_envoy::XdsType;
use tokio::sync::watch;

pub use authenticate::Authenticate;
pub use connection::{Plaintext, Transport};
pub use grpc::{Code, Messages, Status, framed};
pub use load::{ClusterLoad, LastLoads, LoadReports};
pub use own::OwnResources;
pub use service::{Limits, Service, UnaryCall};
pub use streaming::{Ready, StreamingCall, StreamingService};

use crate::brake::Brake;
use crate::class::Class;
use crate::encode::Encoder;
use crate::node::Node;
use crate::response::{Dialect, Protocol};
use crate::status::{Registry, StreamStatus};
use crate::stream::Event;
use admission::{Admission, Place};
use call::{Call, End, Offer};
use service::{Registered, Services};
use streaming::Streaming;

const AGGREGATED: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";

/// Says what a client gets.
pub trait Discovery: Send + Sync + 'static {
    /// Called once per stream, on the first request, before anything is computed or answered. Must not block:
    /// a class whose resources are not known yet is returned as it is, and the stream waits for them.
    ///
    /// # Errors
    /// A [`Rejection`] ends the stream. Claims in the node (namespace, service account) that the identity of
    /// the peer does not support are rejected here.
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>, dialect: Dialect) -> Result<Connection, Rejection>;

    /// Answers a request for a type that is not configuration, for example [`SYNCZ`](crate::SYNCZ). It is
    /// answered once and never pushed. `None`: the type is not known, and there is no answer.
    ///
    /// # Errors
    /// A [`Rejection`] ends the stream: who asks for what is not for them would wait forever.
    fn answer(&self, question: &Question<'_>) -> Result<Option<Answers>, Rejection> {
        let _ = question;
        Ok(None)
    }

    /// A client says how its workload is, as Istio's agents do ([`HEALTH`]): why it is unhealthy, or that it
    /// is not.
    fn health(&self, node: &Arc<Node>, peer: &Arc<Peer>, unhealthy: Option<&str>) {
        let _ = (node, peer, unhealthy);
    }

    /// Which streams a peer may see in the client status service.
    ///
    /// # Errors
    /// Unless it says otherwise, nobody may see any: the service has no node that could be checked.
    fn visible(&self, peer: &Arc<Peer>) -> Result<Visible, Rejection> {
        let _ = peer;
        Err(Rejection::PermissionDenied("the client status is not open to this peer".into()))
    }
}

/// The type of requests in which a client says how its workload is: with an error if it is unhealthy. They
/// are not answered.
pub const HEALTH: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// Names and messages. State-of-the-world has no place for the names.
pub type Answers = Vec<(String, navarch_envoy::Any)>;

/// Says of a stream whether it may be seen.
pub type Visible = Box<dyn Fn(&StreamStatus) -> bool + Send>;

/// A request for something that is not configuration.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is asked for.
    pub type_url: &'a str,
    /// The names in the request; in delta those that are subscribed to.
    pub names: &'a [String],
    /// Who asks. What they may see is up to the [`Discovery`].
    pub node: &'a Arc<Node>,
    /// From where.
    pub peer: &'a Arc<Peer>,
    /// The streams of this process.
    pub streams: &'a Registry,
}

/// The other end of a transport connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Remote address.
    pub address: SocketAddr,
    /// Identities proven by the transport or by a token, for example SPIFFE ids. Empty on plaintext.
    pub identities: Vec<String>,
    /// Whether the transport is encrypted.
    pub encrypted: bool,
    /// What the [`Transport`] has to say to those who know its type, for example the certificates of the
    /// client. The server does not look into it.
    pub evidence: Evidence,
}

/// Something that a [`Transport`] leaves for those who know its type. Its content is never printed, and it is
/// equal to its own clones.
#[derive(Clone, Default)]
pub struct Evidence(Option<Arc<dyn Any + Send + Sync>>);

impl Evidence {
    /// Leaves a value.
    #[must_use]
    pub fn of(value: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// The value, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Evidence(..)" } else { "Evidence" })
    }
}

impl PartialEq for Evidence {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Evidence {}

impl Peer {
    /// A peer without encryption and without identity.
    #[must_use]
    pub fn plaintext(address: SocketAddr) -> Self {
        Self { address, identities: Vec::new(), encrypted: false, evidence: Evidence::default() }
    }
}

/// What a stream follows.
pub struct Connection {
    /// The class of the client. A client whose class changes (its workload is known otherwise now) is led to
    /// the new one without an interruption; the resources there must be of a later revision.
    pub class: watch::Receiver<Arc<Class>>,
    /// What is made for this stream and no other.
    pub own: Option<OwnResources>,
    /// Dropped when the stream has ended.
    pub guard: Box<dyn Any + Send>,
}

impl Connection {
    /// A connection to a class that does not change, without anything else to be dropped at its end.
    #[must_use]
    pub fn to(class: Arc<Class>) -> Self {
        let (sender, class) = watch::channel(class);
        Self { class, own: None, guard: Box::new(sender) }
    }
}

/// Why a stream is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no configuration to serve yet. An empty one would take away what the client has.
    #[error("not ready: {0}")]
    NotReady(String),
    /// The peer is not who the node says.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// Who the peer is has to be known.
    #[error("authentication required: {0}")]
    Unauthenticated(String),
    /// The node is not one that can be served.
    #[error("invalid node: {0}")]
    InvalidNode(String),
    /// What is asked for cannot be answered.
    #[error("{0}")]
    InvalidRequest(String),
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::NotReady(_) => Code::Unavailable,
            Rejection::PermissionDenied(_) => Code::PermissionDenied,
            Rejection::Unauthenticated(_) => Code::Unauthenticated,
            Rejection::InvalidNode(_) | Rejection::InvalidRequest(_) => Code::InvalidArgument,
        };
        Status::new(code, rejection.to_string())
    }
}

/// Hears of what happens, for metrics and logs. Called on the tasks of the streams; must be quick.
pub trait Observer: Send + Sync + 'static {
    /// Something happened on a stream.
    fn event(&self, node: &Arc<Node>, event: &Event) {
        let _ = (node, event);
    }

    /// A response of so many bytes is handed to the transport.
    fn sending(&self, ty: XdsType, bytes: usize) {
        let _ = (ty, bytes);
    }

    /// A stream was accepted.
    fn connected(&self, node: &Arc<Node>) {
        let _ = node;
    }

    /// A stream ended that had been accepted.
    fn disconnected(&self, node: &Arc<Node>) {
        let _ = node;
    }

    /// A stream was refused by admission control, before it was looked at.
    fn refused(&self) {}
}

/// Hears nothing.
impl Observer for () {}

/// Limits and times.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `control_plane.identifier` in responses: how an operator sees which replica serves a proxy. Empty:
    /// left out.
    pub identifier: String,
    /// Bytes of one request. A reconnecting Envoy lists everything it has: 4 MiB are reached near 40,000
    /// clusters.
    pub request_bytes_max: usize,
    /// New streams that may be at getting what they ask for first. When one has everything, the next one is
    /// let in.
    pub streams_at_a_time: usize,
    /// New streams per second beyond these, and as many at once.
    pub streams_per_second: f64,
    /// How long a new stream may have to wait for its turn; beyond, it is refused. Waiting costs less than
    /// coming back, but a client that has waited long may have a better server to go to.
    pub admission_wait_max: Duration,
    /// Time for the handshake of a connection, and for the first request of a stream.
    pub first_timeout: Duration,
    /// Time for the first resources of a class. A client whose stream is ended comes back and waits again, so
    /// this is longer than a server takes to plan all classes after a start.
    pub resources_timeout: Duration,
    /// Time a client may go without taking a response. Then its connection is closed.
    pub send_timeout: Duration,
    /// Time between keepalive pings on a connection.
    pub keepalive_interval: Duration,
    /// Time a ping may go without an answer.
    pub keepalive_timeout: Duration,
    /// Age at which connections are closed, give or take a tenth, so that clients spread over replicas.
    /// `None`: never.
    pub connection_age_max: Option<Duration>,
    /// Time after which a connection that is asked to go is cut.
    pub grace: Duration,
    /// Time between two load reports of a client.
    pub load_report_interval: Duration,
    /// Holds removals back that would take most of what a client has. `None`: never.
    pub brake: Option<Brake>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            identifier: String::new(),
            request_bytes_max: 64 << 20,
            streams_at_a_time: 64,
            streams_per_second: 100.0,
            admission_wait_max: Duration::from_secs(5),
            first_timeout: Duration::from_secs(15),
            resources_timeout: Duration::from_secs(120),
            send_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age_max: Some(Duration::from_secs(30 * 60)),
            grace: Duration::from_secs(10),
            load_report_interval: Duration::from_secs(60),
            brake: None,
        }
    }
}

/// An xDS server: ADS and the methods of single types, in both protocols. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    discovery: Box<dyn Discovery>,
    authenticator: Box<dyn Authenticate>,
    observer: Box<dyn Observer>,
    loads: Box<dyn LoadReports>,
    services: Services,
    streaming: Streaming,
    settings: Settings,
    encoder: Encoder,
    registry: Arc<Registry>,
    admission: Arc<Admission>,
    streams: AtomicU64,
    /// Set once: the server ends, and its streams within this time.
    shutdown: watch::Sender<Option<Duration>>,
}

/// A server that is being put together.
pub struct Builder {
    discovery: Box<dyn Discovery>,
    authenticator: Box<dyn Authenticate>,
    observer: Box<dyn Observer>,
    loads: Box<dyn LoadReports>,
    services: Services,
    streaming: Streaming,
    settings: Settings,
}

impl Builder {
    /// Limits and times, if not the usual ones.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Who says who is calling, if not only the transport does.
    #[must_use]
    pub fn authenticator(self, authenticator: impl Authenticate) -> Self {
        Self { authenticator: Box::new(authenticator), ..self }
    }

    /// Who hears of what happens.
    #[must_use]
    pub fn observer(self, observer: impl Observer) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Who hears the load reports of clients.
    #[must_use]
    pub fn loads(self, loads: impl LoadReports) -> Self {
        Self { loads: Box::new(loads), ..self }
    }

    /// One more unary gRPC method on the port, by its path: `/package.Service/Method`. The last one with a
    /// path counts; the paths of the server itself cannot be taken.
    #[must_use]
    pub fn service(mut self, path: impl Into<String>, service: impl Service) -> Self {
        self.services.add(path.into(), Box::new(service));
        self
    }

    /// One more method with streams in both directions, by its path. Unlike others it may take the place of a
    /// method of the server itself.
    #[must_use]
    pub fn streaming(mut self, path: impl Into<String>, service: Arc<dyn StreamingService>) -> Self {
        self.streaming.add(path.into(), service);
        self
    }

    /// The server.
    #[must_use]
    pub fn build(self) -> Server {
        let Self { discovery, authenticator, observer, loads, services, streaming, settings } = self;
        Server {
            shared: Arc::new(Shared {
                discovery,
                authenticator,
                observer,
                loads,
                services,
                streaming,
                encoder: Encoder::new(&settings.identifier),
                registry: Arc::default(),
                admission: Admission::new(
                    settings.streams_at_a_time,
                    settings.streams_per_second,
                    settings.admission_wait_max,
                ),
                streams: AtomicU64::new(0),
                shutdown: watch::Sender::new(None),
                settings,
            }),
        }
    }
}

/// What a request path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub protocol: Protocol,
    /// The only type of the stream; `None` for ADS.
    pub only: Option<XdsType>,
}

impl Method {
    pub fn dialect(self) -> Dialect {
        Dialect { protocol: self.protocol, aggregated: self.only.is_none() }
    }
}

impl Server {
    /// A server that serves what `discovery` says; the rest of it is optional.
    #[must_use]
    pub fn builder(discovery: impl Discovery) -> Builder {
        Builder {
            discovery: Box::new(discovery),
            authenticator: Box::new(()),
            observer: Box::new(()),
            loads: Box::new(()),
            services: Services::default(),
            streaming: Streaming::default(),
            settings: Settings::default(),
        }
    }

    /// The connected streams.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.clone()
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Ends all streams, spread over `window` so that clients do not return all at once, and takes no new
    /// ones. Returns when all streams have ended or `window` and the grace time have passed.
    pub async fn shutdown(&self, window: Duration) {
        self.shared.shutdown.send_replace(Some(window));
        let deadline = tokio::time::Instant::now() + window + self.shared.settings.grace;
        while !self.shared.registry.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How calls are told to end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The connection is old enough.
    Aged,
    /// The server ends, and its streams at some time within this one.
    Shutdown(Duration),
}

impl Shared {
    /// Answers a gRPC request for one of the methods.
    async fn call(
        &self,
        mut offer: Box<Offer>,
        peer: Arc<Peer>,
        ending: watch::Receiver<Option<Ending>>,
    ) -> Result<(), End> {
        let (asked, place) = match self.admit(offer.request.uri().path()).await {
            Ok(Asked::Own(own, place)) => (own, place),
            Ok(Asked::Brought(service)) => return service.serve(*offer, peer, &self.settings).await,
            Ok(Asked::Streaming(service)) => {
                return streaming::serve(service, *offer, peer, &self.settings).await;
            }
            Err(status) => {
                // Who is gone does not listen.
                let _ = offer.respond.send_response(grpc::refuse(&status), true);
                return Ok(());
            }
        };
        let metadata = std::mem::take(offer.request.headers_mut());
        let peer = match self.authenticate(metadata, peer).await {
            Ok(peer) => peer,
            Err(status) => {
                let _ = offer.respond.send_response(grpc::refuse(&status), true);
                return Ok(());
            }
        };
        let Ok(mut call) = Call::accept(*offer, self.settings.request_bytes_max) else { return Ok(()) };
        let work = async {
            match asked {
                Own::Discovery(method) => exchange::serve(self, method, &mut call, peer, place).await,
                Own::Other(service) => {
                    drop(place);
                    services::serve(self, service, &mut call, peer).await
                }
            }
        };
        let result = tokio::select! {
            biased;
            result = work => result,
            status = ended(ending) => Err(End::Told(status)),
        };
        let status = match result {
            Ok(()) => Status::new(Code::Ok, ""),
            Err(End::Told(status)) => status,
            Err(End::NotRead) => return Err(End::NotRead),
        };
        tracing::debug!(code = ?status.code, message = %status.message, "stream ended");
        call.end(&status, self.settings.grace).await
    }

    async fn authenticate(&self, metadata: HeaderMap, peer: Arc<Peer>) -> Result<Arc<Peer>, Status> {
        let authenticated = self.authenticator.authenticate(metadata, peer);
        let late =
            |_| Err(Status::new(Code::DeadlineExceeded, "who is calling could not be found out in time"));
        tokio::time::timeout(self.settings.first_timeout, authenticated).await.unwrap_or_else(late)
    }

    /// What is asked for, if it may be answered. Before anything is read or computed, so that a herd of
    /// returning clients costs little.
    async fn admit(&self, path: &str) -> Result<Asked<'_>, Status> {
        let unavailable = |message: &str| Err(Status::new(Code::Unavailable, message));
        if self.shutdown.borrow().is_some() {
            return unavailable("shutting down");
        }
        if let Some(service) = self.streaming.get(path) {
            return Ok(Asked::Streaming(&**service));
        }
        let other = services::service(path).map(Own::Other);
        let Some(own) = method(path).map(Own::Discovery).or(other) else {
            // Their calls are short, and have limits of their own.
            let brought = self.services.get(path).map(Asked::Brought);
            return brought.ok_or_else(|| Status::new(Code::Unimplemented, "no such method"));
        };
        let Some(place) = self.admission.admit().await else {
            self.observer.refused();
            return unavailable("too many new streams, try again");
        };
        // It may have waited.
        if self.shutdown.borrow().is_some() {
            return unavailable("shutting down");
        }
        Ok(Asked::Own(own, place))
    }
}

/// What the path of a request asks for.
enum Asked<'s> {
    Own(Own, Place),
    /// A service that was brought to the port.
    Brought(&'s Registered),
    /// A service with streams that was brought to the port.
    Streaming(&'s dyn StreamingService),
}

/// What the server itself serves.
enum Own {
    Discovery(Method),
    Other(services::BuiltIn),
}

/// Waits until a call has to end. Calls do not end all at once, or their clients would return all at once.
async fn ended(mut ending: watch::Receiver<Option<Ending>>) -> Status {
    let how = ending.wait_for(Option::is_some).await.ok().and_then(|how| *how);
    match how {
        Some(Ending::Aged) => Status::new(Code::Ok, ""),
        Some(Ending::Shutdown(window)) => {
            tokio::time::sleep(window.mul_f64(jitter())).await;
            Status::new(Code::Unavailable, "shutting down")
        }
        // The connection is gone, and with it all that waits here.
        None => std::future::pending().await,
    }
}

fn method(path: &str) -> Option<Method> {
    if let Some(name) = path.strip_prefix(AGGREGATED) {
        let protocol = match name {
            "StreamAggregatedResources" => Protocol::Sotw,
            "DeltaAggregatedResources" => Protocol::Delta,
            _ => return None,
        };
        return Some(Method { protocol, only: None });
    }
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    let ty = XdsType::ALL.into_iter().find(|ty| ty.service() == Some(service))?;
    let protocol = match name {
        _ if ty.sotw_method() == Some(name) => Protocol::Sotw,
        _ if ty.delta_method() == Some(name) => Protocol::Delta,
        _ => return None,
    };
    Some(Method { protocol, only: Some(ty) })
}

/// A number between 0 and 1, so that what many connections do at a time is not done at one time.
pub(crate) fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_path() {
        let check = |path: &str, expected| assert_eq!(method(path), expected, "{path}");
        let ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
        let of = |protocol, only| Some(Method { protocol, only });
        check(&format!("{ads}/StreamAggregatedResources"), of(Protocol::Sotw, None));
        check(&format!("{ads}/DeltaAggregatedResources"), of(Protocol::Delta, None));
        check(&format!("{ads}/Fetch"), None);
        let eds = "/envoy.service.endpoint.v3.EndpointDiscoveryService";
        check(&format!("{eds}/StreamEndpoints"), of(Protocol::Sotw, Some(XdsType::Eds)));
        check(&format!("{eds}/DeltaEndpoints"), of(Protocol::Delta, Some(XdsType::Eds)));
        check(&format!("{eds}/FetchEndpoints"), None);
        check("/envoy.service.route.v3.VirtualHostDiscoveryService/StreamVirtualHosts", None);
        check("", None);
    }
}

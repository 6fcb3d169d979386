//! What becomes of a call.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The way of a call through the configuration, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Name of the listener whose filter chains were matched.
    pub listener: Option<String>,
    /// Name of the filter chain, or `#` and its index if it has none.
    pub filter_chain: Option<String>,
    /// Whether the proxy terminates the client's TLS.
    pub tls_terminated: bool,
    /// Name of the route configuration.
    pub route_configuration: Option<String>,
    /// Name of the virtual host.
    pub virtual_host: Option<String>,
    /// Name of the route, or `#` and its index in the virtual host if it has none.
    pub route: Option<String>,
    /// What the proxy does with the call.
    pub action: Action,
    /// What the route changes in the call, and how it is supervised.
    pub changes: Changes,
    /// Filters on the way that may deny the call, by name, and that were not evaluated.
    pub unevaluated: Vec<String>,
}

/// What the proxy does with a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It goes to one of these clusters, in proportion to their weights.
    Forward(Vec<ClusterShare>),
    /// The proxy answers with a redirect.
    Redirect {
        /// HTTP status.
        status: u16,
        /// The header `location`.
        location: String,
    },
    /// The proxy answers itself.
    DirectResponse {
        /// HTTP status.
        status: u16,
        /// Body, if it is a literal.
        body: Option<String>,
    },
    /// It goes nowhere.
    Blocked(Blocked),
    /// The configuration does not decide it alone.
    Unknown(String),
}

impl Default for Action {
    fn default() -> Self {
        Self::Unknown("not followed".to_owned())
    }
}

/// Where and why a call ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// How far the call came.
    pub stage: Stage,
    /// HTTP status of the answer; none if the connection is closed.
    pub status: Option<u16>,
    /// What was looked for and not found.
    pub reason: String,
}

/// Steps at which a call can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No listener takes the address.
    Listener,
    /// No filter chain matches the connection.
    FilterChain,
    /// The handshake fails: TLS where none is spoken, none where it is, or no certificate where one is
    /// required.
    Tls,
    /// The chain expects HTTP and gets something else.
    Protocol,
    /// The route configuration does not exist.
    RouteConfiguration,
    /// No virtual host has the host.
    VirtualHost,
    /// No route of the virtual host matches.
    Route,
    /// The cluster does not exist or can never have endpoints.
    Cluster,
}

/// A cluster that a call may go to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterShare {
    /// Name of the cluster.
    pub name: String,
    /// Its share of the sum of all weights; 1 if it is the only one.
    pub weight: u32,
    /// What is behind it.
    pub upstream: Upstream,
}

/// What is behind a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Endpoints, ordered by priority; names for clusters that resolve names.
    Endpoints(Vec<Endpoint>),
    /// The address that was dialled.
    OriginalDestination,
    /// The host of the request is resolved.
    RequestHost,
    /// The cluster does not exist.
    Missing,
}

impl Upstream {
    /// The endpoints that get traffic while nothing else fails: those of the first priority that has a usable
    /// one. All endpoints of the first priority if none is usable, since Envoy then panics and uses them all.
    #[must_use]
    pub fn preferred(&self) -> Vec<&Endpoint> {
        let Self::Endpoints(all) = self else { return Vec::new() };
        let usable = |endpoint: &&Endpoint| endpoint.health == Health::Usable;
        match all.iter().filter(usable).map(|endpoint| endpoint.priority).min() {
            Some(first) => all.iter().filter(usable).filter(|endpoint| endpoint.priority == first).collect(),
            None => {
                let first = all.iter().map(|endpoint| endpoint.priority).min();
                all.iter().filter(|endpoint| Some(endpoint.priority) == first).collect()
            }
        }
    }
}

/// An endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// `<address>:<port>`, the path of a pipe, or the name of an internal listener.
    pub address: String,
    /// 0 is used first.
    pub priority: u32,
    /// `<region>/<zone>/<subzone>`, without empty ends.
    pub locality: String,
    /// What the control plane says about it.
    pub health: Health,
    /// Share among the endpoints of its locality.
    pub weight: u32,
    /// How the proxy speaks to it.
    pub transport: Transport,
}

/// Health of an endpoint as the control plane states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Gets traffic.
    Usable,
    /// Gets traffic when too few are usable.
    Degraded,
    /// Gets only traffic of sessions that are bound to it.
    Draining,
    /// Gets none.
    Unhealthy,
}

/// How a proxy speaks to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Plain text.
    #[default]
    Plain,
    /// TLS.
    Tls {
        /// Server name sent; empty if none.
        sni: String,
        /// Whether the proxy shows a certificate of its own.
        client_certificate: bool,
    },
    /// A transport socket that is not known here, by name.
    Other(String),
}

/// What a route changes in a call, and how it is supervised.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Changes {
    /// The path with query that goes out, if it differs.
    pub path: Option<String>,
    /// The host that goes out, if it differs. `*` stands for the name of the endpoint chosen.
    pub host: Option<String>,
    /// Headers set or added to the request, in order, unexpanded.
    pub request_headers: Vec<(String, String)>,
    /// Headers removed from the request.
    pub request_headers_removed: Vec<String>,
    /// Headers set or added to the response, in order, unexpanded.
    pub response_headers: Vec<(String, String)>,
    /// Headers removed from the response.
    pub response_headers_removed: Vec<String>,
    /// Time for the whole response; zero means no limit.
    #[serde(serialize_with = "seconds")]
    pub timeout: Option<Duration>,
    /// Retries, if there are any.
    pub retries: Option<Retries>,
    /// Fault injected, if any.
    pub fault: Option<Fault>,
    /// Clusters that get a copy.
    pub mirrors: Vec<Mirror>,
}

fn seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => serializer.serialize_str(&format!("{}s", span.as_secs_f64())),
        None => serializer.serialize_none(),
    }
}

/// When and how often a request is repeated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retries {
    /// Attempts after the first.
    pub attempts: u32,
    /// Conditions, as Envoy names them.
    pub on: String,
    /// Time for one attempt.
    #[serde(serialize_with = "seconds")]
    pub per_try: Option<Duration>,
}

/// A fault that the proxy injects. Shares are in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fault {
    /// Delay, and the share of requests delayed.
    #[serde(serialize_with = "delay")]
    pub delay: Option<(Duration, f64)>,
    /// HTTP status or, as `grpc <code>`, gRPC status, and the share of requests aborted.
    pub abort: Option<(String, f64)>,
}

fn delay<S: Serializer>(delay: &Option<(Duration, f64)>, serializer: S) -> Result<S::Ok, S::Error> {
    delay.map(|(span, share)| (format!("{}s", span.as_secs_f64()), share)).serialize(serializer)
}

/// A cluster that gets a copy of a share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    /// Name of the cluster.
    pub cluster: String,
    /// Share copied, in percent.
    pub share: f64,
}

impl Action {
    /// A call that ends here.
    pub(crate) fn blocked(stage: Stage, status: Option<u16>, reason: impl Into<String>) -> Self {
        Self::Blocked(Blocked { stage, status, reason: reason.into() })
    }

    /// The clusters that a call may go to; none if the proxy does not forward it.
    #[must_use]
    pub fn clusters(&self) -> &[ClusterShare] {
        match self {
            Self::Forward(clusters) => clusters,
            _ => &[],
        }
    }
}

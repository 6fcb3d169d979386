//! What HTTP routes are made from, and a route that is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use navarch_model::networking::{ConsistentHashLb, HttpRetry};
use navarch_model::route::{Backend, Parent, RouteSet, Specificity};
use navarch_model::service::PersistentSession;
use navarch_model::{Hashed, Labels, Name, Origin};

use crate::names;

/// What routes are made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteContext {
    /// The port of the listener; zero for HTTP proxies and Unix sockets, which serve all ports.
    pub port: u16,
    /// What the routes are attached to.
    pub parent: Parent,
    /// The connection is terminated TLS.
    pub tls: bool,
    /// Responses offer HTTP/3 on the same port.
    pub alt_svc: bool,
    /// `proxyHeaders.xForwardedHost`.
    pub x_forwarded_host: bool,
    /// For a gRPC client without Envoy.
    pub proxyless: bool,
    /// MeshConfig `defaultHttpRetryPolicy`.
    pub default_retries: Option<Arc<Hashed<HttpRetry>>>,
}

/// Who asks, as far as the rules look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    pub namespace: Option<Name>,
    pub labels: Labels,
}

/// What routes need to know of a service that is a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DestinationService {
    /// The port, if the service has exactly one.
    pub only_port: Option<u16>,
    /// The host that an ExternalName service stands for.
    pub external_name: Option<Name>,
    pub session: Option<PersistentSession>,
    /// It is not a part of the mesh.
    pub mesh_external: bool,
}

/// The key of [`super::HttpRoutes`].
#[derive(Clone, Debug, Hash)]
pub struct HttpRoutesInput {
    pub set: Arc<Hashed<RouteSet>>,
    pub context: RouteContext,
    pub source: Source,
    /// Destinations that are known, by host. A host that is missing here is taken as it is.
    pub services: BTreeMap<Name, DestinationService>,
    /// Consistent hashing of backends, by index of the rule and of the backend in it.
    pub hashes: BTreeMap<(usize, usize), ConsistentHashLb>,
    /// Hosts that get mirrored requests without what the client says of its workload: a header says it that
    /// is meant for the service that is called.
    pub untold: BTreeSet<Name>,
}

impl HttpRoutesInput {
    pub(super) fn service(&self, host: &str) -> Option<&DestinationService> {
        self.services.get(host)
    }

    /// The cluster of a backend.
    pub(super) fn cluster(&self, backend: &Backend) -> String {
        let Some(to) = backend.service() else { return names::UNKNOWN_SERVICE.to_owned() };
        let service = self.service(&to.host);
        let external = service.and_then(|service| service.external_name.as_deref());
        names::backend(to, external, service.and_then(|service| service.only_port), self.context.port)
    }
}

/// Routes that several virtual hosts may have.
pub type Routes = Arc<Hashed<Vec<EncodedRoute>>>;

/// A route as it stands in a virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EncodedRoute {
    /// The encoded `envoy.config.route.v3.Route`.
    pub bytes: Bytes,
    /// Matches every request.
    pub catch_all: bool,
    /// Its place among the routes of several sets that are ordered by it.
    pub specificity: Specificity,
    /// The rule that it was made from; `None` for the route to a service itself.
    pub origin: Option<Origin>,
}

impl EncodedRoute {
    /// A route that no rule was made from.
    pub fn without_rule(encoded: Vec<u8>, catch_all: bool) -> Self {
        EncodedRoute { bytes: encoded.into(), catch_all, specificity: Specificity::default(), origin: None }
    }
}

//! `RouteSet`: how requests and connections to some hosts are routed, whatever API says so.
//!
//! Every API of routes is lowered to this noun when its objects are bound, so that choosing and translating
//! routes know one noun only. Where APIs differ, the difference is data: a prefix that ends at path segments
//! is another [`PathMatch`] than one that does not, and whose clients a set routes is its [`Audience`]. Value
//! types that are the same in all APIs (header operations, CORS, faults, retries) are those of
//! [`crate::networking`].
//!
//! A set is an input of translation: it can be compared and hashed, and it names no file and no line.

mod backend;
mod client;
mod destination;
mod http;
mod stream;

pub use backend::{
    Backend, BackendFields, BackendPart, HttpBackend, MissingBackend, ServiceBackend, StreamBackend,
};
pub use client::{ClientMatch, MESH_GATEWAY, Parent};
pub use destination::Destination;
pub use http::{
    Forward, HttpAction, HttpMatch, HttpRule, Mirror, PathMatch, PathRewrite, Rewrite, Share, Specificity,
};
pub use stream::{TcpMatch, TcpRule, TlsMatch, TlsRule};

use std::collections::BTreeSet;

use crate::object::ObjectKey;
use crate::origin::Precedence;
use crate::service::{Name, Visibility};

/// Routes for some hosts. One object may stand for several sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteSet {
    /// Identity of the set, and its place where several claim a host. Holds the key of the object that it was
    /// made from.
    pub precedence: Precedence,
    /// Fully qualified; may be wildcards.
    pub hosts: Vec<Name>,
    /// The fields that state the hosts, for example `spec.hosts[0]`: one for each.
    pub host_fields: Vec<Name>,
    /// Where it applies; never empty.
    pub parents: Vec<Parent>,
    /// Whose clients may use it.
    pub export_to: Visibility,
    pub audience: Audience,
    pub host_meaning: HostMeaning,
    pub order: RuleOrder,
    pub backend_fields: BackendFields,
    /// Names requests in traces where no single backend does.
    pub operation: Name,
    /// In order: the first rule whose conditions hold counts.
    pub http: Vec<HttpRule>,
    pub tls: Vec<TlsRule>,
    /// At listeners for UDP they are for datagrams.
    pub tcp: Vec<TcpRule>,
}

/// Whose requests a set routes, among those who may use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Everybody's.
    #[default]
    Everyone,
    /// Written by the owner of a service it routes everybody's requests (a producer route); written in
    /// another namespace, those of that namespace's own clients (a consumer route), for whom it comes before
    /// what the owner says. (Gateway API for service meshes.)
    ProducerOrConsumer,
}

/// What a host of a set stands for in the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostMeaning {
    /// Any name: a wildcard stands for all services that it covers, and a name that nobody registered is
    /// served on port 80.
    #[default]
    AnyName,
    /// A service. A wildcard stands for itself, not for services that it covers. (Gateway API for service
    /// meshes.)
    Services,
}

/// Which of several rules counts whose conditions hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuleOrder {
    /// The first as they are written; those of one set before those of another.
    #[default]
    AsWritten,
    /// The one with the most specific condition, in whichever set it is. The rules of a set are in this
    /// order, and have one condition each. (Gateway API.)
    BySpecificity,
}

impl RouteSet {
    /// The object that the set was made from.
    pub fn key(&self) -> &ObjectKey {
        &self.precedence.key
    }

    /// The namespace of that object.
    pub fn namespace(&self) -> &Name {
        &self.precedence.key.namespace
    }

    /// The field that states a host; empty if none does.
    pub fn host_field(&self, host: &str) -> &str {
        let position = self.hosts.iter().position(|own| **own == *host);
        position.and_then(|position| self.host_fields.get(position)).map_or("", |field| field)
    }

    /// Whether it applies to sidecars.
    pub fn for_mesh(&self) -> bool {
        self.parents.contains(&Parent::Mesh)
    }

    /// The objects that the set was made from: its own, and delegates.
    pub fn objects(&self) -> BTreeSet<&ObjectKey> {
        let RouteSet { precedence, http, tls, tcp, .. } = self;
        let http = http.iter().map(|rule| &rule.origin.key);
        let tls = tls.iter().map(|rule| &rule.origin.key);
        let tcp = tcp.iter().map(|rule| &rule.origin.key);
        http.chain(tls).chain(tcp).chain([&precedence.key]).collect()
    }

    /// The services that requests and connections are sent to, mirrored requests included.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let RouteSet {
            precedence: _,
            hosts: _,
            host_fields: _,
            parents: _,
            export_to: _,
            audience: _,
            host_meaning: _,
            order: _,
            backend_fields: _,
            operation: _,
            http: _,
            tls,
            tcp,
        } = self;
        let tls = tls.iter().flat_map(TlsRule::destinations);
        self.http_destinations().chain(tls).chain(tcp.iter().flat_map(TcpRule::destinations))
    }

    /// The services that requests are sent to, mirrored ones included.
    pub fn http_destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        self.http.iter().flat_map(HttpRule::destinations)
    }

    /// Conditions on clients by which requests are routed.
    pub fn http_clients(&self) -> impl Iterator<Item = &ClientMatch> {
        self.http.iter().flat_map(|rule| &rule.matches).map(|matched| &matched.client)
    }

    /// Conditions on clients by which connections are routed.
    pub fn stream_clients(&self) -> impl Iterator<Item = &ClientMatch> {
        let tls = self.tls.iter().flat_map(|rule| &rule.matches).map(|matched| &matched.client);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.matches).map(|matched| &matched.client);
        tls.chain(tcp)
    }

    /// Whether some route looks at this label of clients.
    pub fn looks_at_label(&self, key: &str) -> bool {
        self.http_clients().chain(self.stream_clients()).any(|client| client.labels.contains_key(key))
    }
}

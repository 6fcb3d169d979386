//! Routes of the Gateway API as sets of routes: a set for each parent and host, so that each host can be
//! looked at by itself, as the specification demands.

mod attach;
mod backend;
mod filter;
mod grpc_route;
mod http_route;
mod rules;
mod session;
mod stream_route;

use std::collections::BTreeSet;

use navarch_model::finding::Finding;
use navarch_model::gateway_api::ParentReference;
use navarch_model::listener::GatewayListener;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::{Audience, BackendFields, HostMeaning, Parent, RouteSet, RuleOrder};
use navarch_model::status::ParentStatus;
use navarch_model::{Kind, Name, Precedence, Spec};

use super::lowered::{Lowered, exported};
use crate::outcome::Outcome;
use crate::registry::store::Reader;
use attach::{Attachment, Place};
use backend::{Backends, Problem};
use rules::Rules;

/// Whether objects of a kind are routes of the Gateway API.
pub(super) fn is_route(kind: Kind) -> bool {
    matches!(kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute | Kind::UdpRoute)
}

/// Lowers a route.
pub(super) fn route(reader: &Reader<'_>, key: &ObjectKey) -> Lowered {
    let Some(object) = reader.object(key) else { return Lowered::default() };
    let lower = |parents: &[ParentReference], hosts: &[String], rules: &dyn Fn(&Backends<'_>) -> Rules| {
        Route { reader, object, hosts: rules::names(hosts) }.lower(parents, rules)
    };
    match &object.spec {
        Spec::HttpRoute(spec) => {
            lower(&spec.parent_refs, &spec.hostnames, &|backends| http_route::rules(backends, spec))
        }
        Spec::GrpcRoute(spec) => {
            lower(&spec.parent_refs, &spec.hostnames, &|backends| grpc_route::rules(backends, spec))
        }
        Spec::TcpRoute(spec) => {
            lower(&spec.parent_refs, &[], &|backends| stream_route::tcp_rules(backends, &spec.rules))
        }
        Spec::TlsRoute(spec) => lower(&spec.parent_refs, &spec.hostnames, &|backends| {
            stream_route::tls_rules(backends, &spec.hostnames, &spec.rules)
        }),
        Spec::UdpRoute(spec) => {
            lower(&spec.parent_refs, &[], &|backends| stream_route::tcp_rules(backends, &spec.rules))
        }
        _ => Lowered::default(),
    }
}

/// A route while it is lowered.
struct Route<'a> {
    reader: &'a Reader<'a>,
    object: &'a Object,
    /// Its hosts; empty means all.
    hosts: Vec<Name>,
}

impl Route<'_> {
    fn lower(&self, references: &[ParentReference], rules: &dyn Fn(&Backends<'_>) -> Rules) -> Lowered {
        let attachments = attach::attachments(self.reader, self.object, references, &self.hosts);
        let convert = |mesh: bool| {
            // Nobody asks who may send what to a service from within the mesh: the client could do so anyway.
            let needed = attachments.iter().any(|attachment| attachment.is_mesh() == mesh);
            needed.then(|| rules(&Backends { reader: self.reader, object: self.object, ask_grants: !mesh }))
        };
        let (mesh, gateway) = (convert(true), convert(false));
        let of =
            |attachment: &Attachment| if attachment.is_mesh() { mesh.as_ref() } else { gateway.as_ref() };

        let mut sets = Vec::new();
        let mut attached = Vec::new();
        for attachment in &attachments {
            for place in &attachment.places {
                attached.extend(place.parent());
                if let Some(rules) = of(attachment).filter(|rules| !rules.is_empty()) {
                    self.add_sets(&mut sets, attachment, place, rules);
                }
            }
        }
        let parents = attachments.iter().filter(|attachment| attachment.has_status);
        let parents = parents.map(|attachment| ParentStatus {
            parent: attachment.key.clone(),
            section: attachment.reference.section_name.as_deref().map(Name::from),
            port: attachment.reference.port.and_then(|port| u16::try_from(port).ok()),
            conditions: [Some(attachment.accepted()), of(attachment).map(Rules::resolved)]
                .into_iter()
                .flatten()
                .collect(),
        });
        let outcome = Outcome { parents: parents.collect(), ..Outcome::default() };
        let findings = self.findings(&attachments, [mesh.as_ref(), gateway.as_ref()]);
        // Several references may mean one listener.
        let attached: BTreeSet<Parent> = attached.into_iter().collect();
        Lowered { attached: attached.into_iter().collect(), outcome, findings, ..Lowered::of(sets) }
    }

    /// A set for each host at a place.
    fn add_sets(&self, sets: &mut Vec<RouteSet>, attachment: &Attachment, place: &Place, rules: &Rules) {
        for (host, field) in self.hosts_at(attachment, place) {
            let position = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            let Rules { http, tls, tcp, problems: _ } = rules.at(place, &host);
            sets.push(RouteSet {
                precedence: Precedence {
                    created_at: self.object.metadata.creation_timestamp,
                    key: self.object.key.clone(),
                    position,
                },
                operation: place.operation(&self.object.key.namespace, &host),
                hosts: vec![host],
                host_fields: vec![field],
                parents: vec![place.parent().unwrap_or(Parent::Mesh)],
                export_to: exported(self.reader, &[], &self.object.key.namespace),
                audience: Audience::ProducerOrConsumer,
                host_meaning: HostMeaning::Services,
                order: RuleOrder::BySpecificity,
                backend_fields: BackendFields::Reference,
                http,
                tls,
                tcp,
            });
        }
    }

    /// The hosts that the route has at a place, and the fields that state them.
    fn hosts_at(&self, attachment: &Attachment, place: &Place) -> Vec<(Name, Name)> {
        match place {
            Place::Mesh { hosts, port: _ } => {
                let field = Name::from(format!("spec.parentRefs[{}]", attachment.index));
                hosts.iter().map(|host| (host.clone(), field.clone())).collect()
            }
            Place::Listener { listener, others } => self.hosts_at_listener(listener, others),
        }
    }

    fn hosts_at_listener(&self, listener: &GatewayListener, others: &[Name]) -> Vec<(Name, Name)> {
        let every = || (Name::from("*"), Name::from("spec"));
        let stated = self.hosts.iter().enumerate();
        let stated =
            stated.map(|(index, host)| (host.clone(), Name::from(format!("spec.hostnames[{index}]"))));
        let stated: Vec<(Name, Name)> = if self.hosts.is_empty() { vec![every()] } else { stated.collect() };
        match self.object.key.kind {
            // Server names decide, and these are those that the listener has too.
            Kind::TlsRoute => stated
                .into_iter()
                .filter_map(|(host, field)| Some((attach::common_host(listener.hostname(), &host)?, field)))
                .collect(),
            Kind::HttpRoute | Kind::GrpcRoute => {
                stated.into_iter().filter(|(host, _)| attach::is_isolated(host, listener, others)).collect()
            }
            _ => vec![every()],
        }
    }

    fn findings(&self, attachments: &[Attachment], rules: [Option<&Rules>; 2]) -> Vec<Finding> {
        let denied = attachments.iter().filter_map(Attachment::finding);
        let problems = rules.into_iter().flatten().flat_map(|rules| &rules.problems);
        let all: BTreeSet<Finding> = denied.chain(problems.filter_map(Problem::finding)).collect();
        let place = |finding: Finding| {
            let position = self.object.locate(&finding.path);
            finding.of(self.object.key.clone()).at(position)
        };
        all.into_iter().map(place).collect()
    }
}

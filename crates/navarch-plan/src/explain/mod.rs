//! Explanations: which objects a resource stems from, and which objects lost.
//!
//! Made on demand: the functions that planning uses to choose are asked again, and so are the gathers that
//! made the pieces of a resource, which know the field that each was made from. Nothing is recorded for it
//! while planning.

mod declared;
mod routes;
mod rules;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::json::any_to_json;
use navarch_envoy::{ProxyResources, XdsType, hosts};
use navarch_model::kinds::Kind;
use navarch_model::networking::{ClientTlsSettings, DestinationRule, Gateway, ServerTlsSettings};
use navarch_model::object::ObjectKey;
use navarch_model::proxy::{ProxyFacts, ProxyKind};
use navarch_model::{Hashed, Name, Origin};
use navarch_snapshot::{Scope, Snapshot, View};
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::patching::Fates;
use navarch_translate::sds::{FILE_CERTIFICATE, FILE_ROOT};
use serde_json::Value;

use crate::class::Class;
use crate::engine::Engine;
use crate::findings::credentials::tls_settings;
use crate::gather::chain_origins;
use crate::gather::shared::listeners::{ChainOrigin, shaped_by};
use crate::gather::shared::rejected::is_current;

/// Why a resource is what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The parts of the resource, in its own order.
    pub parts: Vec<Part>,
}

/// A part of a resource: a cluster's service, a virtual host, a filter chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What it is, in Envoy's terms.
    pub what: String,
    /// The objects it was made from.
    pub sources: Vec<Source>,
    /// Objects that could have shaped it and did not.
    pub lost: Vec<Lost>,
}

/// An object, or a field of one, that shaped a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub object: ObjectKey,
    /// The field, for example `spec.subsets[0]`; empty for the whole object.
    pub field: String,
    /// What it decides.
    pub role: String,
}

/// An object that did not shape a part, and why not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub object: ObjectKey,
    /// The field, for example `spec.configPatches[0]`; empty for the whole object.
    pub field: String,
    pub reason: String,
}

impl Explanation {
    /// Every object that shaped the resource, once.
    pub fn objects(&self) -> BTreeSet<&ObjectKey> {
        self.parts.iter().flat_map(|part| &part.sources).map(|source| &source.object).collect()
    }
}

impl Part {
    /// Whether it has nothing to say.
    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.lost.is_empty()
    }

    fn new(what: impl Into<String>) -> Self {
        Part { what: what.into(), ..Part::default() }
    }

    fn from(mut self, object: ObjectKey, field: impl Into<String>, role: impl Into<String>) -> Self {
        self.add(object, field, role);
        self
    }

    fn add(&mut self, object: ObjectKey, field: impl Into<String>, role: impl Into<String>) {
        let source = Source { object, field: field.into(), role: role.into() };
        if !self.sources.contains(&source) {
            self.sources.push(source);
        }
    }

    /// Adds an object unless some field of it is there already.
    fn add_unknown(&mut self, object: &ObjectKey, role: &str) {
        if !self.sources.iter().any(|source| source.object == *object) {
            self.add(object.clone(), "", role);
        }
    }

    fn lose(&mut self, object: ObjectKey, reason: impl Into<String>) {
        self.lose_field(&Origin::object(object), reason);
    }

    /// A field of an object that could have shaped the part and did not.
    fn lose_field(&mut self, origin: &Origin, reason: impl Into<String>) {
        let lost =
            Lost { object: origin.key.clone(), field: origin.field.to_string(), reason: reason.into() };
        if !self.lost.contains(&lost) {
            self.lost.push(lost);
        }
    }
}

/// A resource that an object has to do with, and the parts that it made or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub ty: XdsType,
    pub name: String,
    pub parts: Vec<Part>,
}

/// Explains a resource of a proxy; `None` if the proxy has no such resource.
pub(crate) fn explain(
    engine: &Engine,
    facts: &ProxyFacts,
    resources: &ProxyResources,
    ty: XdsType,
    name: &str,
    patches: &Fates,
) -> Option<Explanation> {
    Explainer::new(engine, facts).explain(resources, ty, name, patches)
}

/// The resources of a proxy that an object has to do with, and what it does in each. Looks at `resources_max`
/// resources at most. `patches` says what EnvoyFilters did to the resources of a type.
pub(crate) fn reached(
    engine: &Engine,
    facts: &ProxyFacts,
    resources: &ProxyResources,
    object: &ObjectKey,
    resources_max: usize,
    patches: impl Fn(XdsType) -> BTreeMap<Name, Fates>,
) -> Vec<Reached> {
    let explainer = Explainer::new(engine, facts);
    let mut found = Vec::new();
    let mut left = resources_max;
    for ty in types_of(object.kind) {
        let of_patches = patches(ty);
        let nothing = Fates::default();
        for resource in resources.set(ty).iter().take(left) {
            left -= 1;
            let name = &**resource.name();
            let patches = of_patches.get(name).unwrap_or(&nothing);
            let Some(Explanation { mut parts }) = explainer.explain(resources, ty, name, patches) else {
                continue;
            };
            for part in &mut parts {
                part.sources.retain(|source| source.object == *object);
                part.lost.retain(|lost| lost.object == *object);
            }
            parts.retain(|part| !part.is_empty());
            if !parts.is_empty() {
                found.push(Reached { ty, name: name.to_owned(), parts });
            }
        }
    }
    found
}

/// The types of resources that objects of a kind may shape. Routes are explained as a whole, with their
/// virtual hosts.
fn types_of(kind: Kind) -> Vec<XdsType> {
    use XdsType::{Cds, Ecds, Eds, Lds, Rds, Sds};
    match kind {
        Kind::EndpointSlice | Kind::Endpoints | Kind::Pod | Kind::WorkloadEntry => vec![Eds],
        Kind::DestinationRule | Kind::BackendTlsPolicy | Kind::BackendTrafficPolicy => vec![Cds, Eds],
        Kind::VirtualService => vec![Rds, Lds],
        Kind::Gateway | Kind::KubernetesGateway | Kind::ListenerSet => vec![Lds, Rds],
        Kind::AuthorizationPolicy | Kind::RequestAuthentication | Kind::Telemetry => vec![Lds],
        Kind::PeerAuthentication => vec![Lds, Cds],
        Kind::TrafficExtension | Kind::WasmPlugin => vec![Lds, Ecds],
        Kind::EnvoyFilter => vec![Cds, Lds, Rds, Ecds],
        Kind::Secret => vec![Sds],
        _ => vec![Cds, Lds, Rds, Eds, Ecds, Sds],
    }
}

/// What the part is called that says what patches made of a resource.
const PATCHES: &str = "EnvoyFilters";

/// What resources of a type are called, as where patches are left out.
pub fn noun(ty: XdsType) -> &'static str {
    match ty {
        XdsType::Cds => "cluster",
        XdsType::Lds => "listener",
        XdsType::Rds => "route configuration",
        XdsType::Vhds => "virtual host",
        XdsType::Ecds => "extension",
        XdsType::Eds => "endpoints",
        XdsType::Sds => "secret",
        _ => "resource",
    }
}

/// What EnvoyFilters made of the resource, and those that were left out of it.
fn patched(patches: &Fates) -> Part {
    let mut part = Part::new(PATCHES);
    for (origin, fate) in patches.iter() {
        for made in &fate.made {
            part.add(origin.key.clone(), &*origin.field, &**made);
        }
        if let Some(refusal) = &fate.refused {
            part.lose_field(origin, format!("left out: Envoy would refuse it: {}", refusal.words));
        }
    }
    part
}

/// The files that the name of a secret stands for.
fn secret_files(name: &str) -> Vec<&str> {
    let roots = name.strip_prefix(FILE_ROOT).into_iter();
    let pair = name.strip_prefix(FILE_CERTIFICATE).into_iter().flat_map(|files| files.split('~'));
    roots.chain(pair).collect()
}

fn fields_of_rule(rule: &DestinationRule, file: &str) -> Vec<String> {
    let named = |(path, tls): (String, &ClientTlsSettings)| {
        let files = [
            ("caCertificates", &tls.ca_certificates),
            ("clientCertificate", &tls.client_certificate),
            ("privateKey", &tls.private_key),
        ];
        let is_meant = files.into_iter().filter(|(_, named)| *named == file);
        is_meant.map(|(field, _)| format!("{path}.tls.{field}")).collect::<Vec<_>>()
    };
    tls_settings(rule).into_iter().flat_map(named).collect()
}

fn fields_of_gateway(gateway: &Gateway, file: &str) -> Vec<String> {
    let servers = gateway.servers.iter().enumerate();
    let named = |(index, tls): (usize, &ServerTlsSettings)| {
        let files = [
            ("caCertificates", &tls.ca_certificates),
            ("serverCertificate", &tls.server_certificate),
            ("privateKey", &tls.private_key),
        ];
        let is_meant = files.into_iter().filter(|(_, named)| *named == file);
        is_meant.map(|(field, _)| format!("spec.servers[{index}].tls.{field}")).collect::<Vec<_>>()
    };
    servers.filter_map(|(index, server)| Some((index, server.tls.as_ref()?))).flat_map(named).collect()
}

/// Everything an explanation may look at.
struct Explainer<'s> {
    engine: &'s Engine,
    snapshot: &'s Snapshot,
    view: View<'s>,
    class: Arc<Hashed<Class>>,
    scope: Arc<Hashed<Scope>>,
}

impl<'s> Explainer<'s> {
    fn new(engine: &'s Engine, facts: &ProxyFacts) -> Self {
        let snapshot = engine.snapshot();
        let view = snapshot.view();
        let class = Arc::new(Hashed::new(Class::of(facts, &view)));
        let scope = Arc::new(Hashed::new(Scope::resolve(&view, &class.facts, class.labels())));
        Explainer { engine, snapshot, view, class, scope }
    }

    fn explain(
        &self,
        resources: &ProxyResources,
        ty: XdsType,
        name: &str,
        patches: &Fates,
    ) -> Option<Explanation> {
        // Routes are explained as a whole, wherever their virtual hosts are.
        let resource = match ty {
            XdsType::Rds => hosts::whole_routes(resources, name)?,
            _ => resources.set(ty).get(name)?.clone(),
        };
        let body = match ty {
            XdsType::Lds | XdsType::Rds | XdsType::Vhds => any_to_json(ty.type_url(), &resource.body()),
            // Their names say enough, and of a secret the contents say nothing about where they come from.
            _ => Value::Null,
        };
        let mut parts = match ty {
            XdsType::Cds => self.cluster(name),
            XdsType::Eds => self.endpoints(name),
            XdsType::Rds => self.route_configuration(name, &body),
            XdsType::Vhds => self.host_of_routes(name, body),
            XdsType::Lds => self.listener(name, &body),
            XdsType::Ecds => self.extension(name),
            XdsType::Sds => self.secret(name),
            _ => Vec::new(),
        };
        let mut patched = patched(patches);
        self.add_rejected(&mut patched, ty, name);
        parts.push(patched);
        parts.retain(|part| !part.is_empty() || part.what != PATCHES);
        Some(Explanation { parts })
    }

    /// `outbound|80|v1|host`, `inbound|8080||`, or a fixed name.
    fn cluster(&self, name: &str) -> Vec<Part> {
        let fields: Vec<&str> = name.split('|').collect();
        match fields.as_slice() {
            ["outbound", port, subset, host] => self.outbound(name, port, subset, host),
            ["inbound", port, ..] => vec![self.inbound(name, port)],
            _ => vec![self.fixed(name)],
        }
    }

    fn outbound(&self, name: &str, port: &str, subset: &str, host: &str) -> Vec<Part> {
        let mut service = self.service_part(&format!("cluster {name}"), host, port.parse().ok());
        self.add_mesh(&mut service, "gives what no rule says: connectTimeout, tcpKeepalive, HTTP/2");
        let mut parts = vec![service];
        if let Some(service) = self.scope.service(&self.view, host) {
            parts.extend(self.rule_part(&service, subset));
            parts.extend(self.mtls_part(&service));
        }
        parts
    }

    fn inbound(&self, name: &str, port: &str) -> Part {
        let mut part = Part::new(format!("cluster {name}"));
        for instance in &self.class.instances {
            if instance.target_port.to_string() == port {
                let key = declared::key_of(&instance.service);
                let role = format!("its port {} leads to port {port} of the workload", instance.port);
                part.add(key, self.port_field(&instance.service, instance.port), role);
            }
        }
        self.add_sidecar(&mut part, "says what the workload serves");
        part
    }

    fn fixed(&self, name: &str) -> Part {
        let mut part = Part::new(format!("cluster {name}, which every proxy of the kind has"));
        self.add_sidecar(&mut part, "says what happens to unknown destinations");
        self.add_mesh(&mut part, "says what happens to unknown destinations");
        part
    }

    fn listener(&self, name: &str, body: &Value) -> Vec<Part> {
        let mut whole = Part::new(format!("listener {name}"));
        let mut chains: Vec<Part> = Vec::new();
        let origins = self.engine.ask(|cx| chain_origins(cx, &self.class, &self.scope, name));
        for ChainOrigin { takes, origin, opens } in origins {
            let (key, field) = (origin.key, &*origin.field);
            if opens {
                whole.add(key, field, "opens the port");
            } else if takes.is_empty() {
                whole.add(key, field, "says where connections go");
            } else {
                let chain = Part::new(format!("filter chain for {}", takes.join(", ")));
                chains.push(chain.from(key, field, "says where connections go"));
            }
        }
        match name {
            "virtualInbound" => self.add_inbound(&mut whole),
            "virtualOutbound" => {
                self.add_sidecar(&mut whole, "says what happens to unknown destinations");
                self.add_mesh(&mut whole, "says what happens to unknown destinations");
            }
            _ => self.add_listener_owners(name, &mut whole),
        }
        let inbound = body.get("trafficDirection").and_then(Value::as_str) == Some("INBOUND");
        let direction = match self.class.facts.kind {
            ProxyKind::Router => Direction::Gateway,
            _ if inbound => Direction::Inbound,
            _ => Direction::Outbound,
        };
        for (Origin { key, field }, role) in self.engine.ask(|cx| shaped_by(cx, &self.class, direction)) {
            whole.add(key, &*field, role);
        }
        self.add_mesh(&mut whole, "gives what nothing else says: logs, tracing, limits, TLS");
        let mut parts = vec![whole];
        parts.extend(chains);
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn extension(&self, name: &str) -> Vec<Part> {
        let path = name.rsplit_once('/').map_or(name, |(_, last)| last);
        let mut part = Part::new(format!("extension {name}"));
        if let Some((namespace, extension)) = path.split_once('.') {
            for kind in [Kind::TrafficExtension, Kind::WasmPlugin] {
                self.add_known(&mut part, ObjectKey::new(kind, namespace, extension), "is the extension");
            }
        }
        vec![part]
    }

    /// `kubernetes://name`, `kubernetes://namespace/name`, with `-cacert` for the authorities only.
    fn secret(&self, name: &str) -> Vec<Part> {
        let mut part = Part::new(format!("secret {name}"));
        for file in secret_files(name) {
            self.add_namers_of_file(&mut part, file);
        }
        let path = name.split_once("://").map_or(name, |(_, path)| path);
        let (namespace, secret) = path.split_once('/').unwrap_or((&self.class.facts.namespace, path));
        let base = secret.strip_suffix("-cacert").unwrap_or(secret);
        for candidate in [secret, base] {
            self.add_known(&mut part, ObjectKey::new(Kind::Secret, namespace, candidate), "holds it");
        }
        vec![part]
    }

    /// What is left out because proxies of the namespace refused the resource with it.
    fn add_rejected(&self, part: &mut Part, ty: XdsType, name: &str) {
        let resource = format!("{} {name}", noun(ty));
        for rejected in self.view.rejected_in(&self.class.facts.namespace) {
            if *rejected.resource == *resource && is_current(&self.view, rejected) {
                part.lose_field(
                    &rejected.origin,
                    format!("left out: a proxy refused it: {}", rejected.words),
                );
            }
        }
    }

    /// The DestinationRules and Gateways that name a file.
    fn add_namers_of_file(&self, part: &mut Part, file: &str) {
        for kind in [Kind::DestinationRule, Kind::Gateway] {
            for object in self.snapshot.objects_of(kind) {
                let fields = match (object.spec::<DestinationRule>(), object.spec::<Gateway>()) {
                    (Some(rule), _) => fields_of_rule(rule, file),
                    (_, Some(gateway)) => fields_of_gateway(gateway, file),
                    _ => Vec::new(),
                };
                for field in fields {
                    part.add(object.key.clone(), field, format!("names the file {file}"));
                }
            }
        }
    }

    fn add_known(&self, part: &mut Part, key: ObjectKey, role: &str) {
        if self.snapshot.object(&key).is_some() {
            part.add(key, "", role);
        }
    }

    fn add_sidecar(&self, part: &mut Part, role: &str) {
        if let Some(sidecar) = self.scope.sidecar() {
            self.add_known(part, ObjectKey::new(Kind::Sidecar, &sidecar.namespace, &sidecar.name), role);
        }
    }

    fn add_mesh(&self, part: &mut Part, role: &str) {
        let root = &self.view.mesh().config.root_namespace;
        self.add_known(part, ObjectKey::new(Kind::ConfigMap, root, "istio"), role);
    }
}

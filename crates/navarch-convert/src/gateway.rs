//! Listeners of Istio's Gateways, and those of Ingresses, as Gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::listener::{GatewayListener, GatewayProxies, ListenerHost, ListenerSet, NO_NAMESPACE};
use navarch_model::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol};
use navarch_model::route::Parent;
use navarch_model::service::{Protocol, Service};
use navarch_model::{Hashed, Kind, Name, Origin};

use crate::manifest::{
    Address, AllowedListeners, AllowedRoutes, Expression, Gateway, Listener, ListenerTls, Manifest,
    Namespaces, ObjectRef, ParentRef, Selector, Spec,
};
use crate::report::Report;
use crate::services::{Services, has_port};

/// Listeners that a Gateway or a ListenerSet may have.
const LISTENERS_MAX: usize = 64;
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
const TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";
const LISTENER_PROTOCOL: &str = "gateway.istio.io/listener-protocol";
const CIPHER_SUITES: &str = "gateway.istio.io/tls-cipher-suites";
/// Where a ListenerSet is that adds to a Gateway of Ingresses.
const GATEWAY_KIND: &str = "ListenerSet";
const GROUP: &str = "gateway.networking.k8s.io";

/// A Gateway that was made, and its listeners as routes see them.
pub struct MadeGateway {
    namespace: String,
    name: String,
    pub listeners: Vec<MadeListener>,
}

/// A listener that was made.
#[derive(Clone, Debug)]
pub struct MadeListener {
    /// The object that it is in, with its section.
    at: ParentRef,
    pub port: u16,
    pub protocol: &'static str,
    pub hostname: Option<String>,
    /// Requests are redirected to HTTPS here and go nowhere else.
    pub redirects: bool,
    pub passes_through: bool,
}

impl MadeGateway {
    /// What a route for requests refers to: the Gateway, or its listeners one by one if some of them are
    /// not for routes.
    pub fn for_requests(&self, from: &str) -> Vec<ParentRef> {
        let here = |listener: &&MadeListener| matches!(listener.protocol, "HTTP" | "HTTPS");
        let all: Vec<&MadeListener> = self.listeners.iter().filter(here).collect();
        let whole = all.iter().all(|listener| !listener.redirects);
        let parents: BTreeSet<ParentRef> = all
            .into_iter()
            .filter(|listener| !listener.redirects)
            .map(|listener| {
                let section_name = listener.at.section_name.clone().filter(|_| !whole);
                ParentRef { section_name, ..listener.at.clone() }
            })
            .collect();
        parents.into_iter().map(|parent| parent.from(from)).collect()
    }

    /// The sections that redirect to HTTPS.
    pub fn redirecting(&self) -> Vec<ParentRef> {
        let redirecting = self.listeners.iter().filter(|listener| listener.redirects);
        redirecting.map(|listener| listener.at.clone().from(&self.namespace)).collect()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl MadeListener {
    /// What a route for connections refers to.
    pub fn reference(&self, from: &str) -> ParentRef {
        self.at.clone().from(from)
    }

    /// Whether the port is that which clients need not state.
    pub fn has_default_port(&self) -> bool {
        matches!((self.protocol, self.port), ("HTTP", 80) | ("HTTPS", 443))
    }
}

impl ParentRef {
    /// Without the namespace if it is that of who refers.
    fn from(self, namespace: &str) -> Self {
        ParentRef { namespace: self.namespace.filter(|own| own != namespace), ..self }
    }
}

/// Makes Gateways, a Gateway of its own for each of Istio's, and one for all Ingresses of a class.
pub struct Gateways<'a, 's> {
    pub class: &'a str,
    pub services: &'a Services,
    pub report: &'a mut Report<'s>,
}

impl Gateways<'_, '_> {
    /// The Gateways by what routes name, and the objects.
    pub fn make<'l>(
        &mut self,
        sets: impl Iterator<Item = &'l Arc<Hashed<ListenerSet>>>,
    ) -> (BTreeMap<Parent, MadeGateway>, Vec<Manifest>) {
        let mut groups: BTreeMap<Parent, Vec<&ListenerSet>> = BTreeMap::new();
        for set in sets {
            let is_ours = matches!(set.gateway.kind, Kind::Gateway | Kind::Ingress);
            if let Some(first) = set.listeners.first().filter(|_| is_ours) {
                groups.entry(first.parent.clone()).or_default().push(set);
            }
        }
        let mut made = BTreeMap::new();
        let mut manifests = Vec::new();
        for (parent, sets) in groups {
            let (gateway, objects) = self.gateway(&sets);
            made.insert(parent, gateway);
            manifests.extend(objects);
        }
        (made, manifests)
    }

    fn gateway(&mut self, sets: &[&ListenerSet]) -> (MadeGateway, Vec<Manifest>) {
        let listeners: Vec<&Arc<Hashed<GatewayListener>>> =
            sets.iter().flat_map(|set| &set.listeners).collect();
        let (namespace, name) = place(&listeners);
        let services = self.proxies(sets, &namespace);
        let mut made: Vec<(Listener, bool)> = Vec::new();
        for group in by_socket(&listeners) {
            made.extend(self.listener(&namespace, &services, &group, made.len()));
        }
        self.objects(&namespace, &name, &services, made)
    }

    /// The Services that the proxies of a gateway are behind.
    fn proxies(&mut self, sets: &[&ListenerSet], namespace: &str) -> Vec<Arc<Hashed<Service>>> {
        let Some(GatewayProxies::Labelled(labels)) = sets.first().map(|set| &set.proxies) else {
            return Vec::new();
        };
        let found = self.services.selecting(namespace, labels);
        if found.is_empty() {
            for set in sets {
                let field = if set.gateway.kind == Kind::Gateway { "spec.selector" } else { "spec" };
                let message = format!(
                    "no Service of namespace {namespace} selects the proxies, by which a Gateway finds them"
                );
                let origin = Origin::field(set.gateway.clone(), field);
                self.report.differs(
                    &origin,
                    message,
                    "add a Service with the same selector, or make proxies",
                );
            }
        }
        found
    }

    /// The listener for a host on a port, with the namespaces whose routes it takes, and whether it
    /// redirects.
    fn listener(
        &mut self,
        namespace: &str,
        services: &[Arc<Hashed<Service>>],
        group: &[(&GatewayListener, &ListenerHost)],
        count: usize,
    ) -> Option<(Listener, bool)> {
        let (listener, host) = group.first()?;
        let origin = &listener.origin;
        if !services.is_empty() && !has_port(services, listener.port) {
            let message = format!("no Service of the proxies has the port {}", listener.port);
            self.report.lost(origin, message, "add the port to the Service");
            return None;
        }
        if !listener.bind.is_empty() {
            let message = format!("the address {} has no counterpart", listener.bind);
            self.report.lost(origin, message, "leave bind out: a Gateway listens on all addresses");
            return None;
        }
        let (protocol, tls) = self.protocol(namespace, listener)?;
        let is_stream = protocol == "TCP";
        let hostname = (&*host.name != "*" && !is_stream).then(|| host.name.to_string());
        let spaces: Vec<Option<&Name>> = group.iter().map(|(_, host)| host.routes_of.as_ref()).collect();
        let namespaces = namespaces(namespace, &spaces);
        let Some(namespaces) = namespaces else {
            self.report.lost(origin, "routes of no namespace are for the host", "remove the host");
            return None;
        };
        let is_named = !listener.port_name.is_empty() && origin.key.kind == Kind::Gateway;
        let port_name = if is_named { &listener.port_name } else { protocol };
        let listener = Listener {
            name: section(port_name, count),
            port: listener.port,
            protocol,
            hostname,
            tls,
            allowed_routes: AllowedRoutes { namespaces },
        };
        let redirects = group.iter().any(|(listener, _)| redirects(listener));
        Some((listener, redirects))
    }

    /// The protocol in the words of the Gateway API, and TLS if there is any.
    fn protocol(
        &mut self,
        namespace: &str,
        listener: &GatewayListener,
    ) -> Option<(&'static str, Option<ListenerTls>)> {
        let origin = &listener.origin;
        let protocol = listener.protocol();
        match &listener.tls {
            _ if protocol.is_http() => Some(("HTTP", None)),
            Some(tls) => {
                let settings = self.tls(namespace, listener, tls)?;
                let passes = settings.mode == "Passthrough";
                Some((if protocol == Protocol::Https && !passes { "HTTPS" } else { "TLS" }, Some(settings)))
            }
            None if matches!(protocol, Protocol::Tcp) => Some(("TCP", None)),
            None => {
                let message = format!("protocol {} has no counterpart", listener.protocol);
                self.report.lost(origin, message, "use TCP");
                None
            }
        }
    }

    /// TLS of a listener. What would be less strict is left out together with the listener.
    fn tls(
        &mut self,
        namespace: &str,
        listener: &GatewayListener,
        tls: &ServerTlsSettings,
    ) -> Option<ListenerTls> {
        let ServerTlsSettings {
            https_redirect: _,
            mode,
            server_certificate,
            private_key,
            ca_certificates,
            ca_crl,
            credential_name,
            credential_names,
            ca_cert_credential_name,
            tls_certificates,
            subject_alt_names,
            verify_certificate_spki,
            verify_certificate_hash,
            min_protocol_version,
            max_protocol_version,
            cipher_suites,
            ecdh_curves,
            insecure_skip_verify,
        } = tls;
        let texts = [server_certificate, private_key, ca_certificates, ca_crl, ca_cert_credential_name];
        let lists = [subject_alt_names, verify_certificate_spki, verify_certificate_hash, ecdh_curves];
        let versions = [min_protocol_version, max_protocol_version];
        let plain = texts.iter().all(|text| text.is_empty())
            && lists.iter().all(|list| list.is_empty())
            && versions.iter().all(|version| **version == TlsProtocol::TlsAuto)
            && tls_certificates.is_empty()
            && insecure_skip_verify.is_none();
        if !plain {
            let message =
                "files, versions, curves and names of certificates have no counterpart in a Gateway";
            self.report.lost(&listener.origin, message, "leave only credentialName and cipherSuites");
            return None;
        }
        let mut options = BTreeMap::new();
        if !cipher_suites.is_empty() {
            options.insert(CIPHER_SUITES, cipher_suites.join(","));
        }
        let mut names: Vec<&String> = credential_names.iter().collect();
        if names.is_empty() && !credential_name.is_empty() {
            names.push(credential_name);
        }
        let mode = match mode {
            ServerTlsMode::Passthrough => "Passthrough",
            ServerTlsMode::AutoPassthrough => {
                options.insert(LISTENER_PROTOCOL, "auto-passthrough".to_owned());
                "Passthrough"
            }
            ServerTlsMode::Simple => "Terminate",
            ServerTlsMode::IstioMutual => {
                options.insert(TERMINATE_MODE, "ISTIO_MUTUAL".to_owned());
                "Terminate"
            }
            ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
                let message = "certificates of clients are asked for by the Gateway as a whole";
                let hint = "write the listener, and spec.tls.frontend of the Gateway with the authority";
                self.report.lost(&listener.origin, message, hint);
                return None;
            }
        };
        if names.iter().any(|name| name.contains("://")) {
            let message = "a certificate in another place than a Secret has no counterpart";
            self.report.lost(&listener.origin, message, "put the certificate into a Secret");
            return None;
        }
        if !names.is_empty() && *listener.gateway_namespace != *namespace {
            let message = "the Secret is one of another namespace than the Gateway's";
            self.report.differs(&listener.origin, message, "copy the Secret");
        }
        let certificate_refs = names.into_iter().map(|name| ObjectRef { name: name.clone() }).collect();
        Some(ListenerTls { mode, certificate_refs, options })
    }

    /// The Gateway, and ListenerSets for the listeners that it cannot have.
    fn objects(
        &self,
        namespace: &str,
        name: &str,
        services: &[Arc<Hashed<Service>>],
        made: Vec<(Listener, bool)>,
    ) -> (MadeGateway, Vec<Manifest>) {
        let mut gateway =
            MadeGateway { namespace: namespace.to_owned(), name: name.to_owned(), listeners: Vec::new() };
        let mut manifests = Vec::new();
        let whole = ParentRef {
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            ..ParentRef::default()
        };
        let overflows = made.len() > LISTENERS_MAX;
        for (index, chunk) in made.chunks(LISTENERS_MAX).enumerate() {
            let object = match index {
                0 => whole.clone(),
                index => ParentRef {
                    group: Some(GROUP),
                    kind: Some(GATEWAY_KIND),
                    name: format!("{name}-{}", index + 1),
                    ..whole.clone()
                },
            };
            gateway.listeners.extend(chunk.iter().map(|(listener, redirects)| MadeListener {
                at: ParentRef { section_name: Some(listener.name.clone()), ..object.clone() },
                port: listener.port,
                protocol: listener.protocol,
                hostname: listener.hostname.clone(),
                redirects: *redirects,
                passes_through: listener.tls.as_ref().is_some_and(|tls| tls.mode == "Passthrough"),
            }));
            let listeners: Vec<Listener> = chunk.iter().map(|(listener, _)| listener.clone()).collect();
            let spec = match index {
                0 => Spec::Gateway(Gateway {
                    gateway_class_name: self.class.to_owned(),
                    addresses: services.iter().map(address).collect(),
                    allowed_listeners: overflows.then(|| AllowedListeners { namespaces: from("Same") }),
                    listeners,
                }),
                _ => {
                    let parent_ref = ParentRef { namespace: None, ..whole.clone() };
                    Spec::ListenerSet(crate::manifest::ListenerSet { parent_ref, listeners })
                }
            };
            manifests.push(Manifest::new(namespace, &object.name, spec));
        }
        (gateway, manifests)
    }
}

fn address(service: &Arc<Hashed<Service>>) -> Address {
    Address { r#type: "Hostname", value: service.hostname.to_string() }
}

fn from(from: &'static str) -> Namespaces {
    Namespaces { from, selector: None }
}

/// Where a Gateway is, and its name: that of Istio's Gateway, or the class of Ingresses.
fn place(listeners: &[&Arc<Hashed<GatewayListener>>]) -> (String, String) {
    let Some(first) = listeners.first() else { return (String::new(), String::new()) };
    match first.parent.gateway() {
        Some(key) if key.kind == Kind::Gateway => (key.namespace.to_string(), key.name.to_string()),
        Some(key) => (first.gateway_namespace.to_string(), key.name.to_string()),
        None => (String::new(), String::new()),
    }
}

/// A host of a listener.
type Served<'l> = (&'l GatewayListener, &'l ListenerHost);

/// Hosts of listeners that cannot be told apart but by the namespaces whose routes they take. Of those
/// with TLS the first has the host.
fn by_socket<'l>(listeners: &[&'l Arc<Hashed<GatewayListener>>]) -> Vec<Vec<Served<'l>>> {
    // Port, whether there is TLS, and host.
    type Socket<'l> = (u16, bool, &'l Name);
    let mut order: Vec<Socket<'_>> = Vec::new();
    let mut groups: BTreeMap<Socket<'_>, Vec<Served<'_>>> = BTreeMap::new();
    for listener in listeners {
        for host in &listener.hosts {
            let socket = (listener.port, listener.tls.is_some() && !redirects(listener), &host.name);
            let group = groups.entry(socket).or_default();
            let own = group.first().is_none_or(|(first, _)| first.origin == listener.origin || !socket.1);
            if group.is_empty() {
                order.push(socket);
            }
            if own {
                group.push((listener, host));
            }
        }
    }
    order.into_iter().filter_map(|socket| groups.remove(&socket)).collect()
}

fn redirects(listener: &GatewayListener) -> bool {
    listener.protocol().is_http() && listener.tls.as_ref().is_some_and(|tls| tls.https_redirect)
}

/// Whose routes count; nothing if nobody's do.
fn namespaces(own: &str, stated: &[Option<&Name>]) -> Option<Namespaces> {
    let stated: Option<BTreeSet<&str>> = stated.iter().map(|name| name.map(|name| &**name)).collect();
    let Some(mut names) = stated else { return Some(from("All")) };
    names.remove(NO_NAMESPACE);
    if names.is_empty() {
        return None;
    }
    if names.len() == 1 && names.contains(own) {
        return Some(from("Same"));
    }
    let values = names.into_iter().map(str::to_owned).collect();
    let selector =
        Selector { match_expressions: vec![Expression { key: NAMESPACE_LABEL, operator: "In", values }] };
    Some(Namespaces { from: "Selector", selector: Some(selector) })
}

/// A name for a section: a label of DNS, unique by its number.
fn section(port_name: &str, count: usize) -> String {
    let name: String = port_name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    format!("{}-{count}", name.trim_matches('-'))
}

//! Gateways and ListenerSets of the Gateway API as listeners.

use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::gateway_api::{Gateway, GatewayAddress, Listener, ListenerSet, NamespacesFrom, RouteKind};
use navarch_model::listener::{self, GatewayListener, GatewayProxies, ListenerHost};
use navarch_model::object::Object;
use navarch_model::route::Parent;
use navarch_model::status::{Condition, ConditionType, ListenerStatus};
use navarch_model::{Hashed, Name, ObjectKey, Origin, Precedence};

use super::class;
use super::conflicts::{Conflict, Opened};
use super::namespaces::{chosen, includes};
use super::tls::{Asker, settings};
use crate::bind::LoweredListeners;
use crate::host::qualify;
use crate::outcome::Outcome;
use crate::registry::store::{Input, Reader};

/// The Service of the proxies that are made for a gateway, in place of `<gateway>-<class>`.
const NAME_ANNOTATION: &str = "gateway.istio.io/name-override";

/// Lowers a Gateway.
pub fn gateway(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    let Some(target) = Target::find(reader, key) else { return LoweredListeners::default() };
    if !target.is_ours {
        let class = &target.spec.gateway_class_name;
        let message = format!("GatewayClass {class:?} belongs to nobody here; the gateway is not served");
        let finding = Finding::info(Code::InvalidReference, message).hint("use the class istio or navarch");
        let finding = finding.of(key.clone()).path("spec.gatewayClassName");
        let finding = finding.at(target.object.locate("spec.gatewayClassName"));
        return LoweredListeners { findings: vec![finding], ..LoweredListeners::default() };
    }
    let mut opened = Opened::default();
    let mut lowering = Lowering::new(reader, &target, target.object);
    for (index, listener) in target.spec.listeners.iter().enumerate() {
        lowering.add(index, listener, opened.open(listener));
    }
    let outcome = Outcome { listeners: lowering.statuses, ..Outcome::default() };
    LoweredListeners { set: Some(Arc::new(Hashed::new(lowering.set))), outcome, findings: lowering.findings }
}

/// Lowers a ListenerSet.
pub fn listener_set(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    let Some(object) = reader.object(key) else { return LoweredListeners::default() };
    let Some(spec) = object.spec::<ListenerSet>() else { return LoweredListeners::default() };
    let gateway = spec.gateway(&key.namespace);
    let target = gateway.as_ref().and_then(|gateway| Target::find(reader, gateway));
    let Some(target) = target.filter(|target| target.is_ours) else { return LoweredListeners::default() };
    if !target.admits(reader, &key.namespace) {
        let message = format!("{} does not allow listeners from namespace {}", target.key, key.namespace);
        let condition = |ty| Condition::new(ty, false, "NotAllowed", message.clone());
        let conditions = [ConditionType::Accepted, ConditionType::Programmed].map(condition).into();
        let outcome = Outcome { conditions, ..Outcome::default() };
        return LoweredListeners { outcome, ..LoweredListeners::default() };
    }
    let mut opened = Opened::default();
    for listener in &target.spec.listeners {
        let _ = opened.open(listener);
    }
    let sets = target.listener_sets(reader);
    for (_, other) in sets.iter().take_while(|(other, _)| other.key != *key) {
        for listener in &other.listeners {
            let _ = opened.open(listener);
        }
    }
    let mut lowering = Lowering::new(reader, &target, object);
    for (index, listener) in spec.listeners.iter().enumerate() {
        lowering.add(index, listener, opened.open(listener));
    }
    let outcome = Outcome { listeners: lowering.statuses, ..Outcome::default() };
    LoweredListeners { set: Some(Arc::new(Hashed::new(lowering.set))), outcome, findings: lowering.findings }
}

/// The gateway that listeners are for.
struct Target<'a> {
    key: ObjectKey,
    object: &'a Object,
    spec: &'a Gateway,
    is_ours: bool,
}

impl<'a> Target<'a> {
    fn find(reader: &Reader<'a>, key: &ObjectKey) -> Option<Self> {
        let object = reader.object(key)?;
        let spec = object.spec::<Gateway>()?;
        let is_ours = class::serves(reader, &spec.gateway_class_name);
        Some(Target { key: key.clone(), object, spec, is_ours })
    }

    /// Whether ListenerSets of a namespace may add listeners; nobody's, unless the gateway says so.
    fn admits(&self, reader: &Reader<'_>, namespace: &Name) -> bool {
        let choice = self.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let Some(choice) = choice else { return false };
        let from = choice.from.unwrap_or(NamespacesFrom::None);
        includes(reader, &self.key.namespace, namespace, from, choice.selector.as_ref())
    }

    /// The ListenerSets that may add listeners, oldest first.
    fn listener_sets(&self, reader: &Reader<'a>) -> Vec<(&'a Object, &'a ListenerSet)> {
        let sets = reader.members(&Input::ListenerSetsOf(self.key.clone()));
        let sets = sets.filter(|object| self.admits(reader, &object.key.namespace));
        let mut sets: Vec<(&Object, &ListenerSet)> =
            sets.filter_map(|object| Some((&**object, &***object.spec::<ListenerSet>()?))).collect();
        sets.sort_by(|(a, _), (b, _)| {
            let order = |object: &'a Object| {
                (object.metadata.creation_timestamp, &object.key.namespace, &object.key.name)
            };
            order(a).cmp(&order(b))
        });
        sets
    }

    /// Proxies are made for the gateway, instead of being there already: it names no host to be reached at.
    fn is_managed(&self) -> bool {
        match self.spec.addresses.as_slice() {
            [] => true,
            [address] => address.kind() == "IPAddress",
            _ => false,
        }
    }

    /// Hosts of the Services whose workloads serve the gateway.
    fn services(&self, reader: &Reader<'_>) -> Vec<Name> {
        let namespace = &self.key.namespace;
        let qualified = |name: &str| Name::from(qualify(name, namespace, reader.domain()));
        if self.is_managed() {
            let stated = self.object.metadata.annotations.get(NAME_ANNOTATION);
            let name = match stated.filter(|name| !name.is_empty()) {
                Some(name) => name.to_string(),
                None => format!("{}-{}", self.key.name, self.spec.gateway_class_name),
            };
            return vec![qualified(&name)];
        }
        let hosts = self.spec.addresses.iter().filter(|address| address.kind() == "Hostname");
        hosts.map(|GatewayAddress { type_: _, value }| qualified(value)).collect()
    }
}

/// The listeners of one object, as they are lowered.
struct Lowering<'r, 'a> {
    reader: &'r Reader<'a>,
    target: &'r Target<'a>,
    object: &'a Object,
    set: listener::ListenerSet,
    statuses: Vec<ListenerStatus>,
    findings: Vec<Finding>,
}

impl<'r, 'a> Lowering<'r, 'a> {
    fn new(reader: &'r Reader<'a>, target: &'r Target<'a>, object: &'a Object) -> Self {
        let set = listener::ListenerSet {
            precedence: Precedence {
                created_at: object.metadata.creation_timestamp,
                key: object.key.clone(),
                position: 0,
            },
            proxies: GatewayProxies::Behind {
                namespace: target.key.namespace.clone(),
                services: target.services(reader),
            },
            provisioned: target.is_managed(),
            admitted: true,
            listeners: Vec::new(),
        };
        Lowering { reader, target, object, set, statuses: Vec::new(), findings: Vec::new() }
    }

    fn add(&mut self, index: usize, listener: &Listener, opened: Result<(), Conflict>) {
        let (kinds, complete) = listener.kinds();
        let mut verdict = Verdict::default();
        match opened {
            Err(conflict) => verdict.conflict = Some(conflict),
            Ok(()) => self.open(index, listener, &kinds, &mut verdict),
        }
        if !complete {
            verdict.refs =
                Some(("InvalidRouteKinds", "a kind of routes is not for this protocol".to_owned()));
        }
        self.statuses.push(verdict.status(listener, kinds));
    }

    fn open(&mut self, index: usize, listener: &Listener, kinds: &[RouteKind], verdict: &mut Verdict) {
        let key = &self.object.key;
        let asker = Asker {
            key,
            labels: &self.object.metadata.labels,
            gateway: &self.target.key,
            validation: self.target.spec.frontend(listener.port()).and_then(|tls| tls.validation.as_ref()),
        };
        let (tls, problem) = settings(self.reader, asker, listener);
        verdict.tls(problem.map(|problem| (problem.reason, problem.message)), tls.is_some());
        if !matches!(&*listener.protocol, "HTTP" | "HTTPS" | "TLS" | "TCP") {
            verdict.accepted =
                Some(("UnsupportedProtocol", format!("protocol {:?} is not served", listener.protocol)));
        }
        let Some(port) = u16::try_from(listener.port()).ok().filter(|port| *port != 0) else {
            let message = format!("protocol {:?} has no port of its own; state one", listener.protocol);
            verdict.accepted = Some(("UnsupportedProtocol", message));
            return;
        };
        let (from, selector) = listener.allowed_namespaces();
        let host = |routes_of| ListenerHost { name: Name::from(listener.host()), routes_of };
        let hosts = chosen(self.reader, &key.namespace, from, selector).into_iter().map(host).collect();
        self.set.listeners.push(Arc::new(Hashed::new(GatewayListener {
            origin: Origin::field(key.clone(), &format!("spec.listeners[{index}]")),
            parent: Parent::Listener { gateway: key.clone(), section: listener.name.clone() },
            kinds: kinds.to_vec(),
            served: verdict.is_served(),
            // As istiod calls the gateway that it makes of each listener.
            gateway: format!("{}~istio-autogenerated-k8s-gateway~{}", key.name, listener.name).into(),
            name: Name::default(),
            port,
            port_name: Name::from("default"),
            protocol: listener.protocol.clone(),
            bind: Name::default(),
            hosts,
            tls,
        })));
    }
}

/// What becomes of a listener: for each condition that is not as one wants it, why.
#[derive(Default)]
struct Verdict {
    accepted: Option<(&'static str, String)>,
    conflict: Option<Conflict>,
    programmed: Option<(&'static str, String)>,
    refs: Option<(&'static str, String)>,
}

impl Verdict {
    /// TLS cannot be as it is asked for. Without usable settings the listener is not served.
    fn tls(&mut self, problem: Option<(&'static str, String)>, usable: bool) {
        let Some((reason, message)) = problem else { return };
        if !usable {
            self.programmed = Some(("Invalid", "TLS cannot be set up".to_owned()));
        }
        if matches!(reason, "InvalidCACertificateRef" | "InvalidCACertificateKind" | "RefNotPermitted") {
            self.accepted = Some(("NoValidCACertificate", message.clone()));
        }
        self.refs = Some((reason, message));
    }

    fn is_served(&self) -> bool {
        self.accepted.is_none() && self.programmed.is_none() && self.conflict.is_none()
    }

    fn status(self, listener: &Listener, kinds: Vec<RouteKind>) -> ListenerStatus {
        let Verdict { accepted, conflict, programmed, refs } = self;
        let conflict = conflict
            .map(|conflict| (conflict.reason(), "another listener of the gateway is in the way".to_owned()));
        let condition = |ty: ConditionType, good: &'static str, problem: Option<(&'static str, String)>| {
            let holds = problem.is_none() == ty.is_good();
            let (reason, message) = problem.unwrap_or((good, String::new()));
            Condition::new(ty, holds, reason, message)
        };
        ListenerStatus {
            name: listener.name.clone(),
            attached_routes: 0,
            supported_kinds: kinds,
            conditions: vec![
                condition(ConditionType::Accepted, "Accepted", accepted.or_else(|| conflict.clone())),
                condition(ConditionType::Conflicted, "NoConflicts", conflict.clone()),
                condition(ConditionType::Programmed, "Programmed", programmed.or(conflict)),
                condition(ConditionType::ResolvedRefs, "ResolvedRefs", refs),
            ],
        }
    }
}

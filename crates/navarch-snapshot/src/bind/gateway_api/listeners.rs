//! Gateways and ListenerSets of the Gateway API as listeners.

use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::gateway_api::{
    FrontendValidationMode, Gateway, GatewayAddress, Listener, ListenerSet, LocalParametersReference,
    NamespacesFrom, RouteKind,
};
use navarch_model::listener::{self, GatewayListener, GatewayProxies, ListenerHost};
use navarch_model::object::Object;
use navarch_model::route::Parent;
use navarch_model::status::{Condition, ConditionType, ListenerStatus};
use navarch_model::validation::annotation_misses;
use navarch_model::{Hashed, Kind, Name, ObjectKey, Origin, Precedence};

use super::class::{self, Ambient};
use super::conflicts::{Conflict, Opened};
use super::namespaces::{chosen, includes};
use super::tls::{Asker, TlsProblem, certificate, settings};
use crate::bind::lowered::LoweredListeners;
use crate::host::qualify;
use crate::outcome::Outcome;
use crate::registry::store::{Input, Reader};

/// The Service of the proxies that are made for a gateway, in place of `<gateway>-<class>`.
const NAME_ANNOTATION: &str = "gateway.istio.io/name-override";

/// What is made for a gateway is called this.
pub(crate) fn made_name(object: &Object, spec: &Gateway) -> String {
    let stated = object.metadata.annotations.get(NAME_ANNOTATION);
    // What is no name is told where the annotation is, and means nothing.
    match stated.filter(|name| annotation_misses(NAME_ANNOTATION, name).is_none()) {
        Some(name) => name.to_string(),
        None => format!("{}-{}", object.key.name, spec.gateway_class_name),
    }
}

/// Lowers a Gateway.
pub fn gateway(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    let Some(target) = Target::find(reader, key) else { return LoweredListeners::default() };
    if !target.is_ours {
        let finding = foreign(reader, &target.spec.gateway_class_name);
        let finding = finding.of(key.clone()).path("spec.gatewayClassName");
        let finding = finding.at(target.object.locate("spec.gatewayClassName"));
        let outcome = Outcome { foreign: true, ..Outcome::default() };
        return LoweredListeners { findings: vec![finding], outcome, set: None };
    }
    let mut opened = Opened::default();
    let mut lowering = Lowering::new(reader, &target, target.object);
    for (index, listener) in target.spec.listeners.iter().enumerate() {
        lowering.add(index, listener, opened.open(listener));
    }
    let problem = target.problem(reader);
    let mut conditions = vec![lowering.accepted(problem, "gateway"), target.resolved(reader)];
    conditions.extend(target.insecure());
    lowering.finish(conditions)
}

/// What is said of a gateway of a class that is not ours.
fn foreign(reader: &Reader<'_>, class: &str) -> Finding {
    match class::ambient(reader, class) {
        None => {
            let message = format!("GatewayClass {class:?} belongs to nobody here; the gateway is not served");
            Finding::info(Code::InvalidReference, message).hint("use the class istio or navarch")
        }
        Some(Ambient::Waypoint) => {
            let message = format!(
                "GatewayClass {class:?} is of waypoints, and there is no ambient mode here: nothing is deployed, and what is attached \
                 to the gateway is not enforced; who names it (istio.io/use-waypoint) has a finding too"
            );
            Finding::warning(Code::InvalidReference, message)
                .hint("use sidecars, or leave the gateway to the control plane that has ambient mode")
        }
        Some(Ambient::EastWest) => {
            let message = format!(
                "GatewayClass {class:?} is of gateways between networks of ambient meshes, which there are not here: nothing is deployed"
            );
            Finding::warning(Code::InvalidReference, message).hint(
                "use the class istio with a listener on port 15443 that passes TLS on, and the label topology.istio.io/network",
            )
        }
    }
}

/// Lowers a ListenerSet.
pub fn listener_set(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    let Some(object) = reader.object(key) else { return LoweredListeners::default() };
    let Some(spec) = object.spec::<ListenerSet>() else { return LoweredListeners::default() };
    let gateway = spec.gateway(&key.namespace);
    let target = gateway.as_ref().and_then(|gateway| Target::find(reader, gateway));
    let Some(target) = target.filter(|target| target.is_ours) else {
        // Nobody knows whose it is.
        let outcome = Outcome { foreign: true, ..Outcome::default() };
        return LoweredListeners { outcome, ..LoweredListeners::default() };
    };
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
    let problem = target.address_problem();
    let problem = problem.map(|(reason, message)| (reason, format!("{}: {message}", target.key)));
    let accepted = lowering.accepted(problem, "set");
    let programmed = (accepted.reason == NO_LISTENER_IS_VALID).then(|| {
        Condition::new(ConditionType::Programmed, false, NO_LISTENER_IS_VALID, accepted.message.clone())
    });
    let conditions = std::iter::once(accepted).chain(programmed).collect();
    lowering.finish(conditions)
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

    /// What is wrong with the gateway as a whole.
    fn problem(&self, reader: &Reader<'_>) -> Option<Problem> {
        self.address_problem().or_else(|| self.parameters_problem(reader))
    }

    fn address_problem(&self) -> Option<Problem> {
        let skipped: Vec<&str> = match self.is_managed() {
            true => return None,
            false => self.spec.addresses.iter().filter(|address| address.kind() != "Hostname"),
        }
        .map(|address| address.value.as_str())
        .collect();
        let message = format!("only hostnames can be addresses, not {}", skipped.join(", "));
        (!skipped.is_empty()).then_some(("UnsupportedAddress", message))
    }

    fn parameters_problem(&self, reader: &Reader<'_>) -> Option<Problem> {
        let reference = self.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
        let LocalParametersReference { group, kind, name } = reference;
        if (group.as_str(), kind.as_str()) != ("", "ConfigMap") {
            return Some(("InvalidParameters", format!("parameters are in a ConfigMap, not in a {kind}")));
        }
        let key = ObjectKey::new(Kind::ConfigMap, &self.key.namespace, name);
        (!reader.exists(&key)).then(|| ("InvalidParameters", format!("there is no {key}")))
    }

    /// What proxies present to backends, if the gateway says what.
    fn backend_certificate(&self, reader: &Reader<'_>) -> Option<Result<Name, TlsProblem>> {
        let backend = self.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref())?;
        let reference = backend.client_certificate_ref.as_ref()?;
        Some(certificate(reader, &self.key, reference).map(Name::from))
    }

    /// Whether everything that the gateway itself refers to can be used. References of listeners are told
    /// with those.
    fn resolved(&self, reader: &Reader<'_>) -> Condition {
        match self.backend_certificate(reader) {
            None | Some(Ok(_)) => Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", ""),
            Some(Err(problem)) => {
                let reason = match problem.reason {
                    "RefNotPermitted" => "RefNotPermitted",
                    _ => "InvalidClientCertificateRef",
                };
                Condition::new(ConditionType::ResolvedRefs, false, reason, problem.message)
            }
        }
    }

    /// Says so if clients without a valid certificate are served somewhere.
    fn insecure(&self) -> Option<Condition> {
        let frontend = self.spec.tls.as_ref()?.frontend.as_ref()?;
        let all = frontend.per_port.iter().map(|own| &own.tls).chain([&frontend.default]);
        let mut modes = all.filter_map(|tls| tls.validation.as_ref()).map(|validation| validation.mode);
        modes.any(|mode| mode == FrontendValidationMode::AllowInsecureFallback).then(|| {
            let message = "clients without a valid certificate are served";
            let ty = ConditionType::InsecureFrontendValidationMode;
            Condition::new(ty, true, "ConfigurationChanged", message)
        })
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
            return vec![qualified(&made_name(self.object, self.spec))];
        }
        let hosts = self.spec.addresses.iter().filter(|address| address.kind() == "Hostname");
        hosts.map(|GatewayAddress { type_: _, value }| qualified(value)).collect()
    }
}

/// Why something is not as its author wants it.
type Problem = (&'static str, String);

const NO_LISTENER_IS_VALID: &str = "ListenersNotValid";

/// The listeners of one object, as they are lowered.
struct Lowering<'r, 'a> {
    reader: &'r Reader<'a>,
    target: &'r Target<'a>,
    object: &'a Object,
    set: listener::ListenerSet,
    statuses: Vec<ListenerStatus>,
}

impl<'r, 'a> Lowering<'r, 'a> {
    fn new(reader: &'r Reader<'a>, target: &'r Target<'a>, object: &'a Object) -> Self {
        let set = listener::ListenerSet {
            gateway: target.key.clone(),
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
            backend_certificate: target.backend_certificate(reader).and_then(|found| found.ok()),
            listeners: Vec::new(),
        };
        Lowering { reader, target, object, set, statuses: Vec::new() }
    }

    /// Whether the object as a whole is in use: it is as long as one of its listeners is.
    fn accepted(&self, problem: Option<Problem>, what: &str) -> Condition {
        let served = self.set.listeners.iter().filter(|listener| listener.served).count();
        let ty = ConditionType::Accepted;
        match problem {
            Some((reason, message)) => Condition::new(ty, false, reason, message),
            None if served == 0 => {
                let message = format!("no listener of the {what} can be served");
                Condition::new(ty, false, NO_LISTENER_IS_VALID, message)
            }
            None if served < self.statuses.len() && self.set.gateway == *self.set.key() => {
                Condition::new(ty, true, NO_LISTENER_IS_VALID, "not every listener can be served")
            }
            None => Condition::new(ty, true, "Accepted", ""),
        }
    }

    fn finish(self, conditions: Vec<Condition>) -> LoweredListeners {
        let Lowering { set, statuses, .. } = self;
        let outcome = Outcome { conditions, listeners: statuses, ..Outcome::default() };
        LoweredListeners { set: Some(Arc::new(Hashed::new(set))), outcome, findings: Vec::new() }
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
        if !matches!(&*listener.protocol, "HTTP" | "HTTPS" | "TLS" | "TCP" | "UDP") {
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
            gateway_name: format!("{}~istio-autogenerated-k8s-gateway~{}", key.name, listener.name).into(),
            gateway_namespace: key.namespace.clone(),
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
    accepted: Option<Problem>,
    conflict: Option<Conflict>,
    programmed: Option<Problem>,
    refs: Option<Problem>,
}

impl Verdict {
    /// TLS cannot be as it is asked for. Without usable settings the listener is not served.
    fn tls(&mut self, problem: Option<Problem>, usable: bool) {
        let Some((reason, message)) = problem else { return };
        if !usable {
            self.programmed = Some(("Invalid", "TLS cannot be set up".to_owned()));
        }
        if !usable
            && matches!(reason, "InvalidCACertificateRef" | "InvalidCACertificateKind" | "RefNotPermitted")
        {
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
        let condition = |ty: ConditionType, good: &'static str, problem: Option<Problem>| {
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

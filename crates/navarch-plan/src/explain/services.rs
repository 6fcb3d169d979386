//! Services behind clusters, endpoints and listeners.

use navarch_model::kinds::Kind;
use navarch_model::kubernetes::{EndpointSlice, Endpoints};
use navarch_model::networking::SidecarPort;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::proxy::ProxyKind;
use navarch_model::service::Service;
use navarch_snapshot::authn;

use super::declared::key_of;
use super::{Explainer, Part};

/// Label that names the service of an EndpointSlice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Explainer<'_> {
    /// The service that the proxy uses for a host, and those with the same host that it does not.
    pub(super) fn service_part(&self, what: &str, host: &str, port: Option<u16>) -> Part {
        let mut part = Part::new(what);
        let chosen = self.scope.service(&self.view, host);
        if let Some(service) = &chosen {
            let field = port.map(|port| self.port_field(service, port)).unwrap_or_default();
            part.add(key_of(service), field, format!("declares {host}"));
            self.add_sidecar(&mut part, "says which hosts the workload sees");
        }
        for other in self.view.services(host) {
            if chosen.as_ref().is_some_and(|chosen| key_of(chosen) == key_of(other)) {
                continue;
            }
            let namespace = self.scope.namespace();
            let reason = if !other.export_to.includes(namespace) {
                format!("exportTo does not include namespace {namespace}")
            } else if chosen.is_none() {
                format!("the Sidecar of namespace {namespace} does not import it")
            } else {
                "another service with this host comes first: the client's namespace, then Kubernetes, then the oldest"
                    .to_owned()
            };
            part.lose(key_of(other), reason);
        }
        part
    }

    /// `spec.ports[1]` for a port number.
    pub(super) fn port_field(&self, service: &Service, port: u16) -> String {
        let position = service.ports.iter().position(|known| known.port == port);
        position.map(|position| format!("spec.ports[{position}]")).unwrap_or_default()
    }

    /// The objects that the endpoints of a cluster were read from.
    pub(super) fn endpoints(&self, name: &str) -> Vec<Part> {
        let fields: Vec<&str> = name.split('|').collect();
        let [_, port, subset, host] = fields.as_slice() else { return Vec::new() };
        let mut parts = vec![self.service_part(&format!("endpoints of {name}"), host, port.parse().ok())];
        let Some(service) = self.scope.service(&self.view, host) else { return parts };
        let mut part = Part::new("addresses");
        for object in self.endpoint_objects(&service) {
            part.add(object.key.clone(), "", "lists addresses");
        }
        let set = self.view.endpoints(&service.hostname, &service.namespace);
        for endpoint in set.iter().flat_map(|set| &set.endpoints) {
            for kind in [Kind::Pod, Kind::WorkloadEntry] {
                let key = ObjectKey::new(kind, &endpoint.namespace, &endpoint.workload_name);
                self.add_known(&mut part, key, "is the workload at an address: labels, locality, identity");
            }
        }
        parts.push(part);
        parts.extend(self.rule_part(&service, subset));
        parts
    }

    fn endpoint_objects<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Object> {
        let in_namespace = move |object: &&Object| object.key.namespace == service.namespace;
        let slices = self.snapshot.objects_of(Kind::EndpointSlice).map(|object| &**object);
        let slices = slices.filter(in_namespace).filter(move |object| {
            object.spec::<EndpointSlice>().is_some()
                && object.metadata.labels.get(SERVICE_NAME).is_some_and(|name| *name == service.name)
        });
        let lists = self.snapshot.objects_of(Kind::Endpoints).map(|object| &**object);
        let lists = lists
            .filter(in_namespace)
            .filter(move |object| object.spec::<Endpoints>().is_some() && object.key.name == service.name);
        slices.chain(lists)
    }

    /// Policies that decide whether clients use mutual TLS for a service.
    pub(super) fn mtls_part(&self, service: &Service) -> Option<Part> {
        let mode = authn::namespace_mtls_mode(&self.view, &service.namespace)?;
        let mut part = Part::new(format!("mutual TLS: {mode:?} in namespace {}", service.namespace));
        self.add_policies(&mut part, &service.namespace);
        Some(part)
    }

    fn add_policies(&self, part: &mut Part, namespace: &str) {
        // What clients go by is the policy for all workloads of the namespace.
        for policy in authn::peer_policies(&self.view, namespace, &Default::default()) {
            part.add(policy.key(), "spec", "sets the mode");
        }
    }

    /// What shapes the listener for incoming traffic.
    pub(super) fn add_inbound(&self, part: &mut Part) {
        for instance in &self.class.instances {
            let field = self.port_field(&instance.service, instance.port);
            part.add(key_of(&instance.service), field, format!("serves port {}", instance.target_port));
        }
        self.add_sidecar(part, "says what the workload serves");
    }

    /// `10.0.0.1_80`: the services with this address and port; `0.0.0.0_80`: every service with the port.
    /// Listeners of gateways know what they were made from.
    pub(super) fn add_listener_owners(&self, name: &str, part: &mut Part) {
        let Some((address, port)) = name.rsplit_once('_') else { return };
        let Ok(port) = port.parse::<u16>() else { return };
        if self.class.facts.kind == ProxyKind::Router {
            return;
        }
        for service in self.snapshot.services() {
            let here = match address {
                "0.0.0.0" | "::" => true,
                address => service.addresses.iter().any(|known| **known == *address),
            };
            let serves = service.ports.iter().any(|known| known.port == port);
            if here
                && serves
                && self.scope.service(&self.view, &service.hostname).is_some_and(|s| s == *service)
            {
                part.add(key_of(service), self.port_field(service, port), "has the port");
            }
        }
        self.add_sidecar_listener(address, port, part);
    }

    /// The listener of the workload's Sidecar with this address and port, or else the Sidecar as a whole.
    fn add_sidecar_listener(&self, address: &str, port: u16, part: &mut Part) {
        let Some(sidecar) = self.scope.sidecar() else { return };
        let key = ObjectKey::new(Kind::Sidecar, &sidecar.namespace, &sidecar.name);
        let here = |bind: &str, stated: Option<&SidecarPort>| {
            (bind.is_empty() || bind == address)
                && stated.is_some_and(|stated| stated.number == u32::from(port))
        };
        let ingress =
            sidecar.spec.ingress.iter().position(|listener| here(&listener.bind, listener.port.as_ref()));
        let egress =
            sidecar.spec.egress.iter().position(|listener| here(&listener.bind, listener.port.as_ref()));
        if let Some(position) = ingress {
            part.add(key, format!("spec.ingress[{position}]"), "asks for the listener");
        } else if let Some(position) = egress {
            part.add(key, format!("spec.egress[{position}]"), "asks for the listener");
        } else {
            self.add_sidecar(part, "says which hosts the workload sees");
        }
    }
}

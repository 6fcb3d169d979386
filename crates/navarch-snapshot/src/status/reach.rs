//! Where gateways are reached: the Services that their proxies are behind, and whether workloads are there.
//!
//! It changes as pods come and go, so it is not derived with the listeners but looked up when somebody asks.

use std::collections::BTreeSet;

use navarch_model::endpoint::Health;
use navarch_model::kubernetes as kube;
use navarch_model::listener::{GatewayProxies, ListenerSet};
use navarch_model::object::ObjectKey;
use navarch_model::service::{Registry, Service};
use navarch_model::status::{Condition, ConditionType};
use navarch_model::{Kind, Name};

use crate::snapshot::Snapshot;

/// Marks Services that are made for gateways, whose endpoints may be late.
const MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// Which addresses are told where a gateway has none outside the cluster.
const ADDRESS_TYPE_ANNOTATION: &str = "networking.istio.io/address-type";

/// Where some ports of a gateway are reached.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// No service is named.
    nowhere: bool,
    /// Services and ports with workloads.
    served: BTreeSet<String>,
    /// Addresses of services inside the cluster.
    internal: BTreeSet<Name>,
    /// Hosts of services that have workloads and are not waiting for an address.
    hosts: BTreeSet<Name>,
    /// Addresses outside the cluster.
    external: BTreeSet<Name>,
    warnings: BTreeSet<String>,
    /// Something that is named cannot be used, and waiting will not help.
    unusable: bool,
}

impl Reach {
    /// Where the ports of some sets of listeners are reached, which are all for one gateway.
    pub fn of(snapshot: &Snapshot, sets: &[&ListenerSet]) -> Self {
        let ports: BTreeSet<u16> =
            sets.iter().flat_map(|set| &set.listeners).map(|listener| listener.port).collect();
        let mut reach = Reach::default();
        let Some(GatewayProxies::Behind { namespace, services }) = sets.first().map(|set| &set.proxies)
        else {
            return reach;
        };
        reach.nowhere = services.is_empty();
        for host in services {
            let declared = snapshot.services.get(host).into_iter().flatten();
            let mut declared = declared.filter(|service| service.namespace == *namespace);
            match declared.next() {
                Some(service) => reach.add(snapshot, service, &ports),
                None => {
                    reach.warnings.insert(format!("there is no service {host} in namespace {namespace}"));
                    reach.unusable = true;
                }
            }
        }
        reach
    }

    fn add(&mut self, snapshot: &Snapshot, service: &Service, ports: &BTreeSet<u16>) {
        let sets = snapshot.endpoints.get(&service.hostname);
        let set = sets.and_then(|sets| sets.get(&service.namespace));
        let endpoints = || set.into_iter().flat_map(|set| &set.endpoints);
        let running = |name: &str| {
            endpoints().any(|endpoint| {
                *endpoint.service_port_name == *name && endpoint.health != Health::Terminating
            })
        };
        let host = &service.hostname;
        for port in ports {
            let stated = service.ports.iter().find(|own| own.port == *port);
            if stated.is_some_and(|stated| running(&stated.name)) {
                self.served.insert(format!("{host}:{port}"));
                self.internal.extend(service.addresses.iter().cloned());
                self.add_external(snapshot, service);
            } else if endpoints().next().is_none() {
                self.warnings.insert(format!("no workload is behind {host}"));
            } else if stated.is_none() || !service.labels.contains_key(MANAGED_LABEL) {
                let hint = endpoints().find(|endpoint| endpoint.port == *port);
                let hint = hint.and_then(|endpoint| {
                    let meant = service.ports.iter().find(|own| own.name == endpoint.service_port_name)?;
                    Some(format!("; name the port of the service, {}", meant.port))
                });
                let hint = hint.unwrap_or_default();
                self.warnings.insert(format!("{host} has no workloads on port {port}{hint}"));
                self.unusable = true;
            }
        }
    }

    fn add_external(&mut self, snapshot: &Snapshot, service: &Service) {
        let key = ObjectKey::new(Kind::Service, &service.namespace, &service.name);
        let object = snapshot.objects.get(&key).filter(|_| service.registry == Registry::Kubernetes);
        let Some(declared) = object.and_then(|object| object.spec::<kube::Service>()) else {
            self.hosts.insert(service.hostname.clone());
            return;
        };
        let all = external_addresses(declared);
        if all.is_empty() && declared.spec.type_ == "LoadBalancer" {
            self.warnings.insert(format!("{} waits for an address", service.hostname));
            return;
        }
        self.hosts.insert(service.hostname.clone());
        self.external.extend(all);
    }

    /// Whether the gateway is in effect at proxies.
    pub fn programmed(&self) -> Condition {
        let ty = ConditionType::Programmed;
        let joined = |texts: &BTreeSet<String>| texts.iter().cloned().collect::<Vec<_>>().join("; ");
        if self.nowhere {
            return Condition::new(ty, false, "UnsupportedAddress", "no address can be used");
        }
        if self.warnings.is_empty() {
            return Condition::new(ty, true, "Programmed", format!("reached at {}", joined(&self.served)));
        }
        let reason = if self.unusable { "AddressNotUsable" } else { "AddressNotAssigned" };
        Condition::new(ty, false, reason, joined(&self.warnings))
    }

    /// The addresses that users of the gateway are told: those outside the cluster, or else hosts inside.
    pub fn addresses(&self, gateway: &ObjectKey, snapshot: &Snapshot) -> Vec<Name> {
        if !self.external.is_empty() {
            return self.external.iter().cloned().collect();
        }
        let object = snapshot.objects.get(gateway);
        let wanted = object.and_then(|object| object.metadata.annotations.get(ADDRESS_TYPE_ANNOTATION));
        match wanted.map(|wanted| &**wanted) {
            Some("IPAddress") => self.internal.iter().cloned().collect(),
            _ => self.hosts.iter().cloned().collect(),
        }
    }
}

/// The addresses of a Service outside the cluster.
pub(super) fn external_addresses(service: &kube::Service) -> Vec<Name> {
    let kube::Service { spec, status } = service;
    let ingress = status.load_balancer.ingress.iter().flat_map(|ingress| [&ingress.ip, &ingress.hostname]);
    let all = spec.external_ips.iter().chain(ingress).filter(|address| !address.is_empty());
    all.map(|address| Name::from(address.as_str())).collect()
}

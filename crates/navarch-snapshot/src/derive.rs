//! Units: what is derived from the objects in force, one by one, and only again when an answer it was given may have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::Endpoint;
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::{Hashed, Name};

use crate::assemble::Touched;
use crate::bind::{self, BoundRoutes};
use crate::bound::{BoundRule, NetworkGateway, WorkloadFacts};
use crate::registry;
use crate::registry::store::{DeclaredServices, Input, Reader, Settings, Store};

/// Something that is derived as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    /// The services that a Service or ServiceEntry declares.
    Services(ObjectKey),
    /// The endpoints that a Service or ServiceEntry has.
    Endpoints(ObjectKey),
    /// The workloads at an address.
    Workloads(IpAddr),
    /// A VirtualService, with its delegates.
    Routes(ObjectKey),
    /// A DestinationRule.
    Rule(ObjectKey),
}

/// Who asked what.
#[derive(Debug, Default)]
struct Dependencies {
    asked: HashMap<Unit, BTreeSet<Input>>,
    askers: HashMap<Input, BTreeSet<Unit>>,
}

impl Dependencies {
    fn record(&mut self, unit: &Unit, asked: BTreeSet<Input>) {
        let before = self.asked.get(unit);
        if before == Some(&asked) {
            return;
        }
        let before = before.cloned().unwrap_or_default();
        for input in before.difference(&asked) {
            self.drop_asker(input, unit);
        }
        for input in asked.difference(&before) {
            self.askers.entry(input.clone()).or_default().insert(unit.clone());
        }
        self.asked.insert(unit.clone(), asked);
    }

    fn forget(&mut self, unit: &Unit) {
        for input in self.asked.remove(unit).unwrap_or_default() {
            self.drop_asker(&input, unit);
        }
    }

    fn drop_asker(&mut self, input: &Input, unit: &Unit) {
        if let Some(askers) = self.askers.get_mut(input) {
            askers.remove(unit);
            if askers.is_empty() {
                self.askers.remove(input);
            }
        }
    }

    fn askers<'a>(&'a self, inputs: impl IntoIterator<Item = &'a Input>) -> impl Iterator<Item = &'a Unit> {
        inputs.into_iter().filter_map(|input| self.askers.get(input)).flatten()
    }
}

/// A value before and after a change.
#[derive(Debug)]
pub(crate) struct Step<T> {
    pub before: Option<T>,
    pub after: Option<T>,
}

/// What one change set changed among the derived values.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Objects whose services changed.
    pub services: Vec<(ObjectKey, Step<Vec<SharedService>>)>,
    /// Hosts whose endpoints changed.
    pub endpoint_hosts: BTreeSet<Name>,
    pub network_gateways: bool,
    pub workloads: BTreeMap<IpAddr, Vec<WorkloadFacts>>,
    pub routes: Vec<(ObjectKey, Step<BoundRoutes>)>,
    pub rules: Vec<(ObjectKey, Step<Arc<Hashed<BoundRule>>>)>,
}

type SharedService = Arc<Hashed<navarch_model::service::Service>>;

/// The derived values, by object.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    dependencies: Dependencies,
    pub services: DeclaredServices,
    /// Gateways to this network, of the objects that have any.
    pub network_gateways: BTreeMap<ObjectKey, Vec<NetworkGateway>>,
    /// By object, then by host.
    pub endpoints: HashMap<ObjectKey, BTreeMap<Name, Vec<Endpoint>>>,
    pub routes: HashMap<ObjectKey, BoundRoutes>,
    pub rules: HashMap<ObjectKey, Arc<Hashed<BoundRule>>>,
    /// Addresses that have workloads.
    addresses: BTreeSet<IpAddr>,
}

impl Derived {
    /// Derives again what the touched inputs may have changed.
    pub fn update(&mut self, store: &Store, settings: &Settings, mut touched: BTreeSet<Input>) -> Changes {
        let mut changes = Changes::default();
        let mut dirty = self.dirty(&touched);
        // Services first: endpoints and workloads ask for them.
        let services: Vec<Unit> =
            dirty.iter().filter(|unit| matches!(unit, Unit::Services(_))).cloned().collect();
        for unit in services {
            dirty.remove(&unit);
            let Unit::Services(key) = &unit else { continue };
            if self.update_services(store, settings, key, &unit, &mut changes) {
                touched.insert(Input::Services(key.clone()));
            }
        }
        dirty.extend(self.dirty(&touched).into_iter().filter(|unit| !matches!(unit, Unit::Services(_))));
        for unit in dirty {
            match &unit {
                Unit::Services(_) => {}
                Unit::Endpoints(key) => self.update_endpoints(store, settings, key, &unit, &mut changes),
                Unit::Workloads(address) => {
                    self.update_workloads(store, settings, *address, &unit, &mut changes)
                }
                Unit::Routes(key) => self.update_routes(store, settings, key, &unit, &mut changes),
                Unit::Rule(key) => self.update_rule(store, settings, key, &unit, &mut changes),
            }
        }
        changes
    }

    /// Units that asked for something touched, and units of touched objects themselves, which may be new.
    fn dirty(&self, touched: &BTreeSet<Input>) -> BTreeSet<Unit> {
        let mut dirty: BTreeSet<Unit> = self.dependencies.askers(touched).cloned().collect();
        for input in touched {
            match input {
                Input::Address(address) => {
                    dirty.insert(Unit::Workloads(*address));
                }
                Input::Object(key) => match key.kind {
                    Kind::Service | Kind::ServiceEntry => {
                        dirty.extend([Unit::Services(key.clone()), Unit::Endpoints(key.clone())]);
                    }
                    Kind::VirtualService => {
                        dirty.insert(Unit::Routes(key.clone()));
                    }
                    Kind::DestinationRule => {
                        dirty.insert(Unit::Rule(key.clone()));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        dirty
    }

    fn run<T>(
        &mut self,
        store: &Store,
        settings: &Settings,
        unit: &Unit,
        derive: impl FnOnce(&Reader<'_>) -> T,
    ) -> T {
        let reader = Reader::new(store, settings, &self.services);
        let value = derive(&reader);
        let asked = reader.into_asked();
        self.dependencies.record(unit, asked);
        value
    }

    /// Returns whether the services changed.
    fn update_services(
        &mut self,
        store: &Store,
        settings: &Settings,
        key: &ObjectKey,
        unit: &Unit,
        changes: &mut Changes,
    ) -> bool {
        let (after, gateways) = self.run(store, settings, unit, |reader| registry::services_of(reader, key));
        let gateways_before = if gateways.is_empty() {
            self.network_gateways.remove(key)
        } else {
            self.network_gateways.insert(key.clone(), gateways.clone())
        };
        changes.network_gateways |= gateways_before.unwrap_or_default() != gateways;
        if !store.objects().contains_key(key) {
            self.dependencies.forget(unit);
        }
        if self.services.get(key).map_or(&[][..], Vec::as_slice) == after.as_slice() {
            return false;
        }
        let before = if after.is_empty() {
            self.services.remove(key)
        } else {
            self.services.insert(key.clone(), after.clone())
        };
        changes.services.push((key.clone(), Step { before, after: Some(after) }));
        true
    }

    fn update_endpoints(
        &mut self,
        store: &Store,
        settings: &Settings,
        key: &ObjectKey,
        unit: &Unit,
        changes: &mut Changes,
    ) {
        let after = self.run(store, settings, unit, |reader| registry::endpoints_of(reader, key));
        if !store.objects().contains_key(key) {
            self.dependencies.forget(unit);
        }
        let before = self.endpoints.remove(key).unwrap_or_default();
        let hosts: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
        let changed = hosts.into_iter().filter(|host| before.get(*host) != after.get(*host));
        changes.endpoint_hosts.extend(changed.cloned());
        if !after.is_empty() {
            self.endpoints.insert(key.clone(), after);
        }
    }

    fn update_workloads(
        &mut self,
        store: &Store,
        settings: &Settings,
        address: IpAddr,
        unit: &Unit,
        changes: &mut Changes,
    ) {
        let after = self.run(store, settings, unit, |reader| registry::workloads_at(reader, address));
        let known =
            if after.is_empty() { self.addresses.remove(&address) } else { !self.addresses.insert(address) };
        if after.is_empty() {
            // Whatever brings a workload to the address touches the address itself.
            self.dependencies.forget(unit);
        }
        if known || !after.is_empty() {
            changes.workloads.insert(address, after);
        }
    }

    fn update_routes(
        &mut self,
        store: &Store,
        settings: &Settings,
        key: &ObjectKey,
        unit: &Unit,
        changes: &mut Changes,
    ) {
        let after = self.run(store, settings, unit, |reader| bind::virtual_service(reader, key));
        if !store.objects().contains_key(key) {
            self.dependencies.forget(unit);
        }
        let before = self.routes.remove(key);
        if before.as_ref() != Some(&after) {
            changes.routes.push((key.clone(), Step { before, after: Some(after.clone()) }));
        }
        if after != BoundRoutes::default() {
            self.routes.insert(key.clone(), after);
        }
    }

    fn update_rule(
        &mut self,
        store: &Store,
        settings: &Settings,
        key: &ObjectKey,
        unit: &Unit,
        changes: &mut Changes,
    ) {
        let after = self.run(store, settings, unit, |reader| bind::destination_rule(reader, key));
        if !store.objects().contains_key(key) {
            self.dependencies.forget(unit);
        }
        let before = match &after {
            Some(rule) => self.rules.insert(key.clone(), rule.clone()),
            None => self.rules.remove(key),
        };
        if before != after {
            changes.rules.push((key.clone(), Step { before, after }));
        }
    }

    /// Adds the hosts that a VirtualService, DestinationRule or ServiceEntry is about.
    pub fn hosts_of(&self, key: &ObjectKey, hosts: &mut Touched) {
        if let Some(rule) = self.routes.get(key).and_then(|routes| routes.rule.as_ref()) {
            hosts.route_hosts.extend(rule.hosts.iter().cloned());
        }
        hosts.rule_hosts.extend(self.rules.get(key).map(|rule| rule.host.clone()));
        let services = self.services.get(key).into_iter().flatten();
        hosts.service_hosts.extend(services.map(|service| service.hostname.clone()));
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub fn assert_empty(&self) {
        assert!(self.dependencies.asked.is_empty(), "{:?}", self.dependencies.asked);
        assert!(self.dependencies.askers.is_empty(), "{:?}", self.dependencies.askers);
        assert!(self.services.is_empty() && self.network_gateways.is_empty() && self.endpoints.is_empty());
        assert!(self.routes.is_empty() && self.rules.is_empty() && self.addresses.is_empty());
    }
}

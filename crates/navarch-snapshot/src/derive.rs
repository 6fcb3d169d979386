//! Units: what is derived from the objects in force, one by one, and only again when an answer it was given may have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::{Hashed, Name};

use crate::assemble::Touched;
use crate::bind::{self, Lowered};
use crate::bound::{BoundRule, NetworkGateway, WorkloadFacts};
use crate::few::Few;
use crate::registry::store::{DeclaredServices, Input, Reader, Settings, Store};
use crate::registry::{self, HostEndpoints};

/// Something that is derived as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    /// The services that a Service or ServiceEntry declares.
    Services(ObjectKey),
    /// The endpoints that a Service or ServiceEntry has.
    Endpoints(ObjectKey),
    /// The workloads at an address.
    Workloads(IpAddr),
    /// The routes of an object, with its delegates.
    Routes(ObjectKey),
    /// A DestinationRule.
    Rule(ObjectKey),
}

impl Unit {
    /// The units that are about an input, whether they have asked for it before or not: an object, an address or a service that
    /// is new has no unit yet that could have asked.
    fn about(input: &Input, settings: &Settings) -> impl Iterator<Item = Unit> + use<> {
        let units = match input {
            Input::Address(address) => [Some(Unit::Workloads(*address)), None],
            Input::Services(key) => [Some(Unit::Endpoints(key.clone())), None],
            Input::EndpointsOf(cluster, namespace, name) => {
                let (namespace, name) = (namespace.clone(), name.clone());
                let key = ObjectKey { kind: Kind::Service, namespace, name, cluster: *cluster };
                [Some(Unit::Endpoints(key)), None]
            }
            Input::Object(key) => match key.kind {
                Kind::Service | Kind::ServiceEntry => {
                    [Some(Unit::Services(key.clone())), Some(Unit::Endpoints(key.clone()))]
                }
                kind if bind::has_routes(settings, kind) => [Some(Unit::Routes(key.clone())), None],
                Kind::DestinationRule => [Some(Unit::Rule(key.clone())), None],
                _ => [None, None],
            },
            _ => [None, None],
        };
        units.into_iter().flatten()
    }
}

/// Who asked what, apart from the inputs that a unit is about.
#[derive(Debug, Default)]
struct Dependencies {
    asked: HashMap<Arc<Unit>, Box<[Arc<Input>]>>,
    askers: HashMap<Arc<Input>, Few<Arc<Unit>>>,
}

impl Dependencies {
    fn record(&mut self, unit: &Unit, settings: &Settings, mut asked: BTreeSet<Input>) {
        asked.retain(|input| !Unit::about(input, settings).any(|own| own == *unit));
        let before = self.asked.get(unit).map_or(&[][..], |before| before);
        if before.iter().map(|input| &**input).eq(&asked) {
            return;
        }
        let known = self.asked.remove_entry(unit);
        let (unit, before) = known.unwrap_or_else(|| (Arc::new(unit.clone()), Box::default()));
        for input in before.iter().filter(|input| !asked.contains(&***input)) {
            self.drop_asker(input, &unit);
        }
        let asked: Box<[Arc<Input>]> =
            asked.into_iter().map(|input| self.add_asker(input, unit.clone())).collect();
        if !asked.is_empty() {
            self.asked.insert(unit, asked);
        }
    }

    fn forget(&mut self, unit: &Unit) {
        if let Some((unit, asked)) = self.asked.remove_entry(unit) {
            for input in &asked {
                self.drop_asker(input, &unit);
            }
        }
    }

    /// Returns the input as all that asked for it share it.
    fn add_asker(&mut self, input: Input, unit: Arc<Unit>) -> Arc<Input> {
        let input = match self.askers.get_key_value(&input) {
            Some((known, _)) => known.clone(),
            None => Arc::new(input),
        };
        self.askers.entry(input.clone()).or_default().insert(unit);
        input
    }

    fn drop_asker(&mut self, input: &Input, unit: &Arc<Unit>) {
        if let Some(askers) = self.askers.get_mut(input) {
            askers.remove(unit);
            if askers.is_empty() {
                self.askers.remove(input);
            }
        }
    }

    fn askers(&self, input: &Input) -> impl Iterator<Item = &Unit> {
        self.askers.get(input).into_iter().flat_map(Few::iter).map(|unit| &**unit)
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
    pub routes: Vec<(ObjectKey, Step<Lowered>)>,
    pub rules: Vec<(ObjectKey, Step<Arc<Hashed<BoundRule>>>)>,
    /// How many units were derived again, to other values or to equal ones.
    pub derived: usize,
}

type SharedService = Arc<Hashed<navarch_model::service::Service>>;

/// The derived values, by object.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    dependencies: Dependencies,
    pub services: DeclaredServices,
    /// Gateways to this network, of the objects that have any.
    pub network_gateways: BTreeMap<ObjectKey, Vec<NetworkGateway>>,
    pub endpoints: HashMap<ObjectKey, HostEndpoints>,
    pub routes: HashMap<ObjectKey, Lowered>,
    pub rules: HashMap<ObjectKey, Arc<Hashed<BoundRule>>>,
    /// Addresses that have workloads.
    addresses: BTreeSet<IpAddr>,
}

impl Derived {
    /// Derives again what the touched inputs may have changed.
    pub fn update(&mut self, store: &Store, settings: &Settings, mut touched: BTreeSet<Input>) -> Changes {
        let mut changes = Changes::default();
        let mut dirty = self.dirty(settings, &touched);
        // Services first: endpoints and workloads ask for them.
        let services: Vec<Unit> =
            dirty.iter().filter(|unit| matches!(unit, Unit::Services(_))).cloned().collect();
        changes.derived += services.len();
        for unit in services {
            dirty.remove(&unit);
            let Unit::Services(key) = &unit else { continue };
            if self.update_services(store, settings, key, &unit, &mut changes) {
                touched.insert(Input::Services(key.clone()));
            }
        }
        dirty.extend(
            self.dirty(settings, &touched).into_iter().filter(|unit| !matches!(unit, Unit::Services(_))),
        );
        changes.derived += dirty.len();
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

    /// Units that asked for something touched, and those that are about it.
    fn dirty(&self, settings: &Settings, touched: &BTreeSet<Input>) -> BTreeSet<Unit> {
        let askers = touched.iter().flat_map(|input| self.dependencies.askers(input)).cloned();
        askers.chain(touched.iter().flat_map(|input| Unit::about(input, settings))).collect()
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
        self.dependencies.record(unit, settings, asked);
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
        let after = self.run(store, settings, unit, |reader| bind::routes(reader, key));
        if !store.objects().contains_key(key) {
            self.dependencies.forget(unit);
        }
        let before = self.routes.remove(key);
        if before.as_ref() != Some(&after) {
            changes.routes.push((key.clone(), Step { before, after: Some(after.clone()) }));
        }
        if after != Lowered::default() {
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

    /// Adds the hosts that an object with routes, a DestinationRule or a ServiceEntry is about.
    pub fn hosts_of(&self, key: &ObjectKey, hosts: &mut Touched) {
        let sets = self.routes.get(key).into_iter().flat_map(|routes| &routes.sets);
        hosts.route_hosts.extend(sets.flat_map(|set| &set.hosts).cloned());
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

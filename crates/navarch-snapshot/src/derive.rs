//! Units: what is derived from the objects in force, one by one, and only again when an answer it was given
//! may have changed.
//!
//! A unit yields a value, what is wrong, and what became of the object. [`UnitId`] is the table of all units:
//! which there are, and what each is about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;
use navarch_model::finding::Finding;
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::service::Service;
use navarch_model::{Hashed, Name};

use crate::bind::{self, Lowered, LoweredListeners, LoweredRules};
use crate::bound::{BoundRule, WorkloadFacts};
use crate::outcome::Outcome;
use crate::registry::store::{Declared, DeclaredServices, DerivedListeners, Input, Reader, Settings, Store};
use crate::registry::{self, HostEndpoints};
use crate::small_set::SmallSet;
use crate::touched::Touched;

/// Something that is derived as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum UnitId {
    /// The services that a Service or ServiceEntry declares.
    Services(ObjectKey),
    /// The endpoints that a Service or ServiceEntry has.
    Endpoints(ObjectKey),
    /// The workloads at an address.
    Workloads(IpAddr),
    /// The listeners of a gateway, or of a ListenerSet for one.
    Listeners(ObjectKey),
    /// The routes of an object, with its delegates.
    Routes(ObjectKey),
    /// The rules that an object states for hosts.
    Rule(ObjectKey),
    /// Whether the objects that a policy names are there.
    Targets(ObjectKey),
}

impl UnitId {
    /// The units that are about an input, whether they have asked for it before or not: an object, an address
    /// or a service that is new has no unit yet that could have asked.
    fn about(input: &Input) -> impl Iterator<Item = UnitId> + use<> {
        let units = match input {
            Input::Address(address) => [Some(UnitId::Workloads(*address)), None],
            Input::Services(key) => [Some(UnitId::Endpoints(key.clone())), None],
            Input::EndpointsOf(cluster, namespace, name) => {
                let (namespace, name) = (namespace.clone(), name.clone());
                let key = ObjectKey { kind: Kind::Service, namespace, name, cluster: *cluster };
                [Some(UnitId::Endpoints(key)), None]
            }
            Input::Object(key) => match key.kind {
                Kind::Service | Kind::ServiceEntry => {
                    [Some(UnitId::Services(key.clone())), Some(UnitId::Endpoints(key.clone()))]
                }
                // Whatever there is to tell about one is told by the unit of its routes.
                Kind::Ingress => [Some(UnitId::Listeners(key.clone())), Some(UnitId::Routes(key.clone()))],
                kind if bind::has_listeners(kind) => [Some(UnitId::Listeners(key.clone())), None],
                kind if bind::has_routes(kind) => [Some(UnitId::Routes(key.clone())), None],
                kind if bind::has_rules(kind) => [Some(UnitId::Rule(key.clone())), None],
                kind if bind::has_targets(kind) => [Some(UnitId::Targets(key.clone())), None],
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
    asked: HashMap<Arc<UnitId>, Box<[Arc<Input>]>>,
    askers: HashMap<Arc<Input>, SmallSet<Arc<UnitId>>>,
}

impl Dependencies {
    fn record(&mut self, unit: &UnitId, mut asked: BTreeSet<Input>) {
        asked.retain(|input| !UnitId::about(input).any(|own| own == *unit));
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

    fn forget(&mut self, unit: &UnitId) {
        if let Some((unit, asked)) = self.asked.remove_entry(unit) {
            for input in &asked {
                self.drop_asker(input, &unit);
            }
        }
    }

    /// Returns the input as all that asked for it share it.
    fn add_asker(&mut self, input: Input, unit: Arc<UnitId>) -> Arc<Input> {
        let input = match self.askers.get_key_value(&input) {
            Some((known, _)) => known.clone(),
            None => Arc::new(input),
        };
        self.askers.entry(input.clone()).or_default().insert(unit);
        input
    }

    fn drop_asker(&mut self, input: &Input, unit: &Arc<UnitId>) {
        if let Some(askers) = self.askers.get_mut(input) {
            askers.remove(unit);
            if askers.is_empty() {
                self.askers.remove(input);
            }
        }
    }

    fn askers(&self, input: &Input) -> impl Iterator<Item = &UnitId> {
        self.askers.get(input).into_iter().flat_map(SmallSet::iter).map(|unit| &**unit)
    }
}

/// A value before and after a change.
#[derive(Debug)]
pub(crate) struct Step<T> {
    pub before: T,
    pub after: T,
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
    /// Objects whose listeners have changed.
    pub listeners: Vec<(ObjectKey, DerivedListeners)>,
    pub routes: Vec<(ObjectKey, Step<Lowered>)>,
    pub rules: Vec<(ObjectKey, Step<DerivedRules>)>,
    /// What is wrong with the objects that were looked at again; mostly nothing.
    pub findings: Vec<(ObjectKey, Vec<Finding>)>,
    /// What became of the objects that were looked at again; nothing that is worth saying, mostly.
    pub outcomes: Vec<(ObjectKey, Outcome)>,
    /// How many units were derived again, to other values or to equal ones.
    pub derived: usize,
}

type SharedService = Arc<Hashed<Service>>;
/// The rules of an object that can be bound.
type DerivedRules = Vec<Arc<Hashed<BoundRule>>>;

/// The derived values, by object. Values that say nothing are not kept.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    dependencies: Dependencies,
    pub services: DeclaredServices,
    pub endpoints: HashMap<ObjectKey, HostEndpoints>,
    pub listeners: HashMap<ObjectKey, DerivedListeners>,
    pub routes: HashMap<ObjectKey, Lowered>,
    pub rules: HashMap<ObjectKey, DerivedRules>,
    /// Addresses that have workloads.
    addresses: BTreeSet<IpAddr>,
}

/// What deriving a unit gives.
pub(crate) struct Derivation<T> {
    pub value: T,
    pub findings: Vec<Finding>,
    pub outcome: Outcome,
}

impl<T> Derivation<T> {
    /// A value with which nothing is wrong.
    fn of(value: T) -> Self {
        Derivation { value, findings: Vec::new(), outcome: Outcome::default() }
    }
}

/// One kind of units.
trait Unit {
    /// What a unit is about.
    type Key;
    /// What is derived. The default is what there is to say of nothing.
    type Value;

    fn id(key: &Self::Key) -> UnitId;

    /// A function of what the reader answers.
    fn derive(reader: &Reader<'_>, key: &Self::Key) -> Derivation<Self::Value>;

    /// Keeps the value, and notes what it changes. Returns the input whose answer has changed, if other units
    /// ask for the value.
    fn keep(
        derived: &mut Derived,
        key: &Self::Key,
        value: Self::Value,
        changes: &mut Changes,
    ) -> Option<Input>;

    /// Whether the unit has nothing to do any more: nothing that it asked can bring it back but what it is
    /// about.
    fn is_over(store: &Store, key: &Self::Key, value: &Self::Value) -> bool;

    /// The object that findings and outcomes are about, of kinds of units that have any.
    fn object(_: &Self::Key) -> Option<&ObjectKey> {
        None
    }
}

/// The services that a Service or ServiceEntry declares.
struct Services;

impl Unit for Services {
    type Key = ObjectKey;
    type Value = Declared;

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Services(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<Declared> {
        let (services, gateways) = registry::services_of(reader, key);
        Derivation::of(Declared { services, network_gateways: gateways.into() })
    }

    fn keep(derived: &mut Derived, key: &ObjectKey, value: Declared, changes: &mut Changes) -> Option<Input> {
        let Step { before, after } = replace(&mut derived.services, key, value)?;
        changes.network_gateways |= before.network_gateways != after.network_gateways;
        if before.services == after.services {
            return None;
        }
        changes.services.push((key.clone(), Step { before: before.services, after: after.services }));
        Some(Input::Services(key.clone()))
    }

    fn is_over(store: &Store, key: &ObjectKey, _: &Declared) -> bool {
        !store.objects().contains_key(key)
    }
}

/// The endpoints that a Service or ServiceEntry has.
struct Endpoints;

impl Unit for Endpoints {
    type Key = ObjectKey;
    type Value = HostEndpoints;

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Endpoints(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<HostEndpoints> {
        Derivation::of(registry::endpoints_of(reader, key))
    }

    fn keep(
        derived: &mut Derived,
        key: &ObjectKey,
        value: HostEndpoints,
        changes: &mut Changes,
    ) -> Option<Input> {
        let Step { before, after } = replace(&mut derived.endpoints, key, value)?;
        let hosts: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
        let changed = hosts.into_iter().filter(|host| before.get(*host) != after.get(*host));
        changes.endpoint_hosts.extend(changed.cloned());
        None
    }

    fn is_over(store: &Store, key: &ObjectKey, _: &HostEndpoints) -> bool {
        !store.objects().contains_key(key)
    }
}

/// The workloads at an address. The snapshot keeps them; here is only known whether there are any.
struct Workloads;

impl Unit for Workloads {
    type Key = IpAddr;
    type Value = Vec<WorkloadFacts>;

    fn id(address: &IpAddr) -> UnitId {
        UnitId::Workloads(*address)
    }

    fn derive(reader: &Reader<'_>, address: &IpAddr) -> Derivation<Vec<WorkloadFacts>> {
        Derivation::of(registry::workloads_at(reader, *address))
    }

    fn keep(
        derived: &mut Derived,
        address: &IpAddr,
        value: Vec<WorkloadFacts>,
        changes: &mut Changes,
    ) -> Option<Input> {
        let known = match value.is_empty() {
            true => derived.addresses.remove(address),
            false => !derived.addresses.insert(*address),
        };
        if known || !value.is_empty() {
            changes.workloads.insert(*address, value);
        }
        None
    }

    /// Whatever brings a workload to the address touches the address itself.
    fn is_over(_: &Store, _: &IpAddr, value: &Vec<WorkloadFacts>) -> bool {
        value.is_empty()
    }
}

/// The listeners of a gateway, or of a ListenerSet for one.
struct Listeners;

impl Unit for Listeners {
    type Key = ObjectKey;
    type Value = DerivedListeners;

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Listeners(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<DerivedListeners> {
        let LoweredListeners { set, outcome, findings } = bind::listeners(reader, key);
        Derivation { value: set, findings, outcome }
    }

    fn keep(
        derived: &mut Derived,
        key: &ObjectKey,
        value: DerivedListeners,
        changes: &mut Changes,
    ) -> Option<Input> {
        let Step { after, .. } = replace(&mut derived.listeners, key, value)?;
        changes.listeners.push((key.clone(), after));
        Some(Input::Listeners(key.clone()))
    }

    fn is_over(store: &Store, key: &ObjectKey, _: &DerivedListeners) -> bool {
        !store.objects().contains_key(key)
    }

    fn object(key: &ObjectKey) -> Option<&ObjectKey> {
        (key.kind != Kind::Ingress).then_some(key)
    }
}

/// The routes of an object, with its delegates.
struct Routes;

impl Unit for Routes {
    type Key = ObjectKey;
    type Value = Lowered;

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Routes(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<Lowered> {
        let mut value = bind::routes(reader, key);
        let findings = std::mem::take(&mut value.findings);
        let outcome = std::mem::take(&mut value.outcome);
        Derivation { value, findings, outcome }
    }

    fn keep(derived: &mut Derived, key: &ObjectKey, value: Lowered, changes: &mut Changes) -> Option<Input> {
        let step = replace(&mut derived.routes, key, value)?;
        changes.routes.push((key.clone(), step));
        None
    }

    fn is_over(store: &Store, key: &ObjectKey, _: &Lowered) -> bool {
        !store.objects().contains_key(key)
    }

    fn object(key: &ObjectKey) -> Option<&ObjectKey> {
        Some(key)
    }
}

/// The rules that an object states for hosts.
struct Rule;

impl Unit for Rule {
    type Key = ObjectKey;
    type Value = DerivedRules;

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Rule(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<Self::Value> {
        let LoweredRules { rules, outcome } = bind::rules(reader, key);
        Derivation { value: rules, findings: Vec::new(), outcome }
    }

    fn keep(
        derived: &mut Derived,
        key: &ObjectKey,
        value: Self::Value,
        changes: &mut Changes,
    ) -> Option<Input> {
        let step = replace(&mut derived.rules, key, value)?;
        changes.rules.push((key.clone(), step));
        None
    }

    fn is_over(store: &Store, key: &ObjectKey, _: &Self::Value) -> bool {
        !store.objects().contains_key(key)
    }

    fn object(key: &ObjectKey) -> Option<&ObjectKey> {
        Some(key)
    }
}

/// Whether the objects that a policy names are there: nothing that anybody reads, only something to say.
struct Targets;

impl Unit for Targets {
    type Key = ObjectKey;
    type Value = ();

    fn id(key: &ObjectKey) -> UnitId {
        UnitId::Targets(key.clone())
    }

    fn derive(reader: &Reader<'_>, key: &ObjectKey) -> Derivation<()> {
        let (outcome, findings) = bind::targets(reader, key);
        Derivation { value: (), findings, outcome }
    }

    fn keep(_: &mut Derived, _: &ObjectKey, (): (), _: &mut Changes) -> Option<Input> {
        None
    }

    fn is_over(store: &Store, key: &ObjectKey, (): &()) -> bool {
        !store.objects().contains_key(key)
    }

    fn object(key: &ObjectKey) -> Option<&ObjectKey> {
        Some(key)
    }
}

/// Puts a value in place of another, or of none if it is the default. `None` if it is equal.
fn replace<V: Clone + Default + PartialEq>(
    values: &mut HashMap<ObjectKey, V>,
    key: &ObjectKey,
    after: V,
) -> Option<Step<V>> {
    let before = values.get(key);
    if before.map_or(after == V::default(), |before| *before == after) {
        return None;
    }
    let before = match after == V::default() {
        true => values.remove(key),
        false => values.insert(key.clone(), after.clone()),
    };
    Some(Step { before: before.unwrap_or_default(), after })
}

impl Derived {
    /// Derives again what the touched inputs may have changed.
    pub fn update(&mut self, store: &Store, settings: &Settings, mut touched: BTreeSet<Input>) -> Changes {
        let mut changes = Changes::default();
        // Services first: endpoints, workloads and listeners ask for them; then listeners, for which routes
        // ask.
        let mut derived = BTreeSet::new();
        for is_next in [is_services, is_listeners] {
            let next = self.dirty(&touched).into_iter().filter(is_next);
            for unit in next.collect::<Vec<_>>() {
                touched.extend(self.derive_again(store, settings, &unit, &mut changes));
                derived.insert(unit);
            }
        }
        let dirty = self.dirty(&touched).into_iter().filter(|unit| !derived.contains(unit));
        let dirty: Vec<UnitId> = dirty.filter(|unit| !is_services(unit) && !is_listeners(unit)).collect();
        for unit in dirty {
            self.derive_again(store, settings, &unit, &mut changes);
        }
        changes
    }

    /// Units that asked for something touched, and those that are about it.
    fn dirty(&self, touched: &BTreeSet<Input>) -> BTreeSet<UnitId> {
        let askers = touched.iter().flat_map(|input| self.dependencies.askers(input)).cloned();
        askers.chain(touched.iter().flat_map(UnitId::about)).collect()
    }

    fn derive_again(
        &mut self,
        store: &Store,
        settings: &Settings,
        unit: &UnitId,
        changes: &mut Changes,
    ) -> Option<Input> {
        match unit {
            UnitId::Services(key) => self.update_unit::<Services>(store, settings, key, changes),
            UnitId::Endpoints(key) => self.update_unit::<Endpoints>(store, settings, key, changes),
            UnitId::Workloads(address) => self.update_unit::<Workloads>(store, settings, address, changes),
            UnitId::Listeners(key) => self.update_unit::<Listeners>(store, settings, key, changes),
            UnitId::Routes(key) => self.update_unit::<Routes>(store, settings, key, changes),
            UnitId::Rule(key) => self.update_unit::<Rule>(store, settings, key, changes),
            UnitId::Targets(key) => self.update_unit::<Targets>(store, settings, key, changes),
        }
    }

    /// Derives a unit and takes in what came of it. Returns the input whose answer has changed, if there is
    /// one.
    fn update_unit<U: Unit>(
        &mut self,
        store: &Store,
        settings: &Settings,
        key: &U::Key,
        changes: &mut Changes,
    ) -> Option<Input> {
        changes.derived += 1;
        let id = U::id(key);
        let reader = Reader::new(store, settings, &self.services, &self.listeners);
        let Derivation { value, findings, outcome } = U::derive(&reader, key);
        let asked = reader.into_asked();
        match U::is_over(store, key, &value) {
            true => self.dependencies.forget(&id),
            false => self.dependencies.record(&id, asked),
        }
        if let Some(object) = U::object(key) {
            changes.findings.push((object.clone(), findings));
            changes.outcomes.push((object.clone(), outcome));
        }
        U::keep(self, key, value, changes)
    }

    /// Adds the hosts that an object with routes, a DestinationRule or a ServiceEntry is about.
    pub fn hosts_of(&self, key: &ObjectKey, hosts: &mut Touched) {
        let sets = self.routes.get(key).into_iter().flat_map(|routes| &routes.sets);
        hosts.route_hosts.extend(sets.flat_map(|set| &set.hosts).cloned());
        let rules = self.rules.get(key).into_iter().flatten();
        hosts.rule_hosts.extend(rules.map(|rule| rule.host.clone()));
        let services = self.services.get(key).into_iter().flat_map(|declared| &declared.services);
        hosts.service_hosts.extend(services.map(|service| service.hostname.clone()));
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub fn assert_empty(&self) {
        let Derived { dependencies, services, endpoints, listeners, routes, rules, addresses } = self;
        assert!(dependencies.asked.is_empty(), "{:?}", dependencies.asked);
        assert!(dependencies.askers.is_empty(), "{:?}", dependencies.askers);
        assert!(services.is_empty() && endpoints.is_empty() && listeners.is_empty());
        assert!(routes.is_empty() && rules.is_empty() && addresses.is_empty());
    }
}

fn is_services(unit: &UnitId) -> bool {
    matches!(unit, UnitId::Services(_))
}

fn is_listeners(unit: &UnitId) -> bool {
    matches!(unit, UnitId::Listeners(_))
}

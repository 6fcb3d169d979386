//! From derived values to the parts of a snapshot: contributions of many objects put together host by host.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use foldhash::HashMap;
use navarch_model::endpoint::{Endpoint, EndpointSet, TlsMode};
use navarch_model::mesh::MeshConfig;
use navarch_model::object::ObjectKey;
use navarch_model::route::{Parent, RouteSet};
use navarch_model::service::{Registry, Resolution, Service};
use navarch_model::{Hashed, Name, Precedence, SmallMap, TrustDomains};

use crate::bind::{Lowered, rule_order};
use crate::bound::{BoundRule, DestinationUse, EndpointSummary, PortSummary, service_order};
use crate::derive::{Changes, Derived, Step};
use crate::gateway_routes::GatewayEdits;
use crate::host::is_wildcard;
use crate::network::Networks;
use crate::part::{Bucket, bucket_of};
use crate::small_set::SmallSet;
use crate::snapshot::{List, Snapshot};
use crate::touched::Touched;

type SharedService = Arc<Hashed<Service>>;
type SharedRoutes = Arc<Hashed<RouteSet>>;
type SharedRule = Arc<Hashed<BoundRule>>;
/// Sets of routes in the order that decides conflicts. No two have the same place.
type Ranked = BTreeMap<Precedence, SharedRoutes>;
/// Uses of a destination, by the routes and the position in them.
type Uses = BTreeMap<(Precedence, usize), Arc<Hashed<DestinationUse>>>;
/// The services of an object before and after a change.
type ServicesStep = (ObjectKey, Step<Vec<SharedService>>);
/// Values by namespace.
type Namespaced<T> = SmallMap<Name, Arc<Hashed<T>>>;

/// Contributions by host, and whatever else is needed to put parts together without looking at the whole
/// mesh.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// Objects that declare a host.
    declarers: HashMap<Name, SmallSet<ObjectKey>>,
    /// ExternalName services: where they point to, by namespace and host.
    alias_targets: BTreeMap<(Name, Name), Name>,
    /// Names that lead to a host, resolved through chains.
    aliases: BTreeMap<Name, Vec<Name>>,
    routes_by_host: HashMap<Name, Ranked>,
    wildcard_routes: Ranked,
    uses_by_host: HashMap<Name, Uses>,
    rules_by_host: HashMap<Name, BTreeMap<ObjectKey, SharedRule>>,
}

impl Assembly {
    /// Brings the snapshot's parts up to date. `identities_changed` means that the mesh's trust domains have
    /// changed.
    pub fn update(
        &mut self,
        snapshot: &mut Snapshot,
        derived: &Derived,
        changes: Changes,
        networks: &Networks,
        identities_changed: bool,
    ) -> Touched {
        let mut touched = Touched::default();
        self.update_services(snapshot, derived, &changes, identities_changed, &mut touched);
        self.update_routes(snapshot, &changes.routes, &mut touched);
        self.update_rules(snapshot, &changes.rules, &mut touched);
        update_footprints(snapshot, &touched);
        for (address, facts) in changes.workloads {
            if facts.is_empty() {
                snapshot.workloads.remove(&address);
            } else {
                let facts = facts.into_iter().map(Hashed::new).map(Arc::new).collect();
                snapshot.workloads.insert(address, Arc::new(Hashed::new(facts)));
            }
        }
        if changes.network_gateways {
            let declared = derived.services.values();
            let gateways = networks.gateways(declared.flat_map(|declared| &declared.network_gateways));
            snapshot.network_gateways = Arc::new(Hashed::new(gateways));
        }
        touched
    }

    /// Routes for sidecars that have a host, oldest first.
    pub fn routes_for(&self, host: &str) -> impl Iterator<Item = &SharedRoutes> {
        let exact = self.routes_by_host.get(host).into_iter().flat_map(BTreeMap::values);
        let wildcard = self
            .wildcard_routes
            .values()
            .filter(move |set| is_wildcard(host) && set.hosts.iter().any(|own| &**own == host));
        exact.chain(wildcard)
    }

    /// DestinationRules with a host, in their order.
    pub fn rules_for(&self, host: &str) -> Vec<&SharedRule> {
        let mut rules: Vec<&SharedRule> =
            self.rules_by_host.get(host).into_iter().flat_map(BTreeMap::values).collect();
        rules.sort_by(|a, b| rule_order(a).cmp(&rule_order(b)));
        rules
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub fn assert_empty(&self) {
        assert!(self.declarers.is_empty() && self.alias_targets.is_empty() && self.aliases.is_empty());
        assert!(self.routes_by_host.is_empty() && self.wildcard_routes.is_empty());
        assert!(self.uses_by_host.is_empty() && self.rules_by_host.is_empty());
    }

    fn update_services(
        &mut self,
        snapshot: &mut Snapshot,
        derived: &Derived,
        changes: &Changes,
        identities_changed: bool,
        touched: &mut Touched,
    ) {
        for (key, step) in &changes.services {
            for service in &step.before {
                self.withdraw(key, service);
                touched.service_hosts.insert(service.hostname.clone());
            }
            for service in &step.after {
                self.declarers.entry(service.hostname.clone()).or_default().insert(key.clone());
                touched.service_hosts.insert(service.hostname.clone());
            }
        }
        if self.update_alias_targets(derived, &changes.services) {
            let resolved = resolve_aliases(&self.alias_targets);
            let before = std::mem::replace(&mut self.aliases, resolved);
            let targets: BTreeSet<&Name> = before.keys().chain(self.aliases.keys()).collect();
            let changed =
                targets.into_iter().filter(|target| before.get(*target) != self.aliases.get(*target));
            touched.service_hosts.extend(changed.cloned());
        }
        let edits = touched.service_hosts.iter().map(|host| {
            let services = self.services_of(derived, host);
            (host.clone(), (!services.is_empty()).then_some(services))
        });
        snapshot.services.edit(edits.collect::<Vec<_>>());

        touched.endpoint_hosts.extend(changes.endpoint_hosts.iter().cloned());
        touched.endpoint_hosts.extend(touched.service_hosts.iter().cloned());
        if identities_changed {
            touched.endpoint_hosts.extend(self.declarers.keys().cloned());
        }
        let mesh = snapshot.mesh.clone();
        let mut endpoints = Vec::with_capacity(touched.endpoint_hosts.len());
        let mut summaries = Vec::with_capacity(touched.endpoint_hosts.len());
        for host in &touched.endpoint_hosts {
            let (sets, summary) = self.endpoints_of(derived, host, &mesh.config);
            endpoints.push((host.clone(), (!sets.is_empty()).then_some(sets)));
            summaries.push((host.clone(), (!summary.is_empty()).then_some(summary)));
        }
        snapshot.endpoints.edit(endpoints);
        snapshot.summaries.edit(summaries);
        self.update_selectors(snapshot, derived, &changes.services);
    }

    fn withdraw(&mut self, key: &ObjectKey, service: &SharedService) {
        if let Some(declarers) = self.declarers.get_mut(&service.hostname) {
            declarers.remove(key);
            if declarers.is_empty() {
                self.declarers.remove(&service.hostname);
            }
        }
    }

    /// Returns whether an alias has changed.
    fn update_alias_targets(&mut self, derived: &Derived, changes: &[ServicesStep]) -> bool {
        let steps = changes.iter().flat_map(|(_, step)| step.before.iter().chain(&step.after));
        // Also of services that are not aliases: one of another cluster that is may count now, or no longer.
        let names: BTreeSet<(Name, Name)> =
            steps.map(|service| (service.namespace.clone(), service.hostname.clone())).collect();
        let mut changed = false;
        for name in names {
            let declared = self.in_one_cluster(derived, &name.1).into_iter().map(|(_, service)| service);
            let mut aliases = declared
                .filter(|service| service.namespace == name.0 && service.resolution == Resolution::Alias);
            let target = aliases.next().and_then(|service| service.external_name.clone());
            if self.alias_targets.get(&name) == target.as_ref() {
                continue;
            }
            changed = true;
            match target {
                Some(target) => self.alias_targets.insert(name, target),
                None => self.alias_targets.remove(&name),
            };
        }
        changed
    }

    /// Puts the Kubernetes Services with a selector under its first label.
    fn update_selectors(&self, snapshot: &mut Snapshot, derived: &Derived, changes: &[ServicesStep]) {
        let steps = changes.iter().flat_map(|(_, step)| step.before.iter().chain(&step.after));
        let changed: Vec<&SharedService> = steps.collect();
        let hosts: BTreeSet<&Name> = changed.iter().map(|service| &service.hostname).collect();
        // With those of other clusters: which of them counts may have changed.
        let declared = hosts.iter().flat_map(|host| self.declared(derived, host).map(|(_, service)| service));
        let mut lists: BTreeMap<Selector, Vec<SharedService>> = BTreeMap::new();
        for service in changed.iter().copied().chain(declared) {
            let Some(selector) = selector_of(service) else { continue };
            let services = lists.entry(selector).or_insert_with_key(|selector| {
                snapshot.selectors.get(selector).map(|list| list.to_vec()).unwrap_or_default()
            });
            services.retain(|own| own.name != service.name);
        }
        for (_, service) in hosts.into_iter().flat_map(|host| self.in_one_cluster(derived, host)) {
            if let Some(services) = selector_of(service).and_then(|selector| lists.get_mut(&selector)) {
                services.push(service.clone());
            }
        }
        for (selector, mut services) in lists {
            if services.is_empty() {
                snapshot.selectors.remove(&selector);
                continue;
            }
            services.sort_by(|a, b| service_order(a).cmp(&service_order(b)));
            snapshot.selectors.insert(selector, list(services));
        }
    }

    /// What an object declares for a host.
    fn declared<'d>(
        &'d self,
        derived: &'d Derived,
        host: &'d str,
    ) -> impl Iterator<Item = (&'d ObjectKey, &'d SharedService)> {
        let declarers = self.declarers.get(host).into_iter().flat_map(SmallSet::iter);
        declarers.filter_map(move |key| {
            let declared = derived.services.get(key)?;
            declared.services.iter().find(|service| *service.hostname == *host).map(|service| (key, service))
        })
    }

    /// What is declared for a host, oldest first. Services that several clusters have under one name are one
    /// service, as the local cluster describes it, or else the cluster that had it first (Istio: services are
    /// the same everywhere).
    fn in_one_cluster<'d>(
        &'d self,
        derived: &'d Derived,
        host: &'d str,
    ) -> Vec<(&'d ObjectKey, &'d SharedService)> {
        let mut declared: Vec<_> = self.declared(derived, host).collect();
        declared.sort_by(|(a, first), (b, second)| {
            service_order(first).cmp(&service_order(second)).then_with(|| a.cmp(b))
        });
        if declared.iter().all(|(key, _)| key.cluster.is_local()) {
            return declared;
        }
        let name = |key: &ObjectKey| (key.kind, key.namespace.clone(), key.name.clone());
        let local = declared.iter().filter(|(key, _)| key.cluster.is_local()).map(|(key, _)| name(key));
        let local: BTreeSet<_> = local.collect();
        let mut seen = BTreeSet::new();
        declared.retain(|(key, _)| {
            let name = name(key);
            (key.cluster.is_local() || !local.contains(&name)) && seen.insert(name)
        });
        declared
    }

    /// Services of a host, oldest first, with their aliases.
    fn services_of(&self, derived: &Derived, host: &str) -> Vec<SharedService> {
        let aliases = self.aliases.get(host);
        let declared = self.in_one_cluster(derived, host).into_iter();
        let services = declared.map(|(_, service)| match aliases {
            Some(aliases) => {
                Arc::new(Hashed::new(Service { aliases: aliases.clone(), ..(***service).clone() }))
            }
            None => service.clone(),
        });
        let mut services: Vec<SharedService> = services.collect();
        services.shrink_to_fit();
        services
    }

    /// Endpoints of a host and their summaries, by namespace.
    fn endpoints_of(
        &self,
        derived: &Derived,
        host: &Name,
        mesh: &MeshConfig,
    ) -> (Namespaced<EndpointSet>, Namespaced<EndpointSummary>) {
        let mut by_namespace: BTreeMap<Name, Vec<(&ObjectKey, &SharedService)>> = BTreeMap::new();
        for (key, service) in self.declared(derived, host) {
            by_namespace.entry(service.namespace.clone()).or_default().push((key, service));
        }
        let mut sets = Vec::new();
        let mut summaries = Vec::with_capacity(by_namespace.len());
        for (namespace, mut declared) in by_namespace {
            // As istiod: what ServiceEntries list comes before what Kubernetes has.
            declared.sort_by(|(a, first), (b, second)| {
                let order = |service: &SharedService| service.registry == Registry::Kubernetes;
                order(first)
                    .cmp(&order(second))
                    .then_with(|| service_order(first).cmp(&service_order(second)))
                    .then_with(|| a.cmp(b))
            });
            let set = merge_endpoints(derived, host, &declared);
            let summary = summarize(&set.endpoints, &declared, mesh);
            summaries.push((namespace.clone(), Arc::new(Hashed::new(summary))));
            if !set.endpoints.is_empty() {
                sets.push((namespace, set));
            }
        }
        (sets.into_iter().collect(), summaries.into_iter().collect())
    }

    fn update_routes(
        &mut self,
        snapshot: &mut Snapshot,
        changes: &[(ObjectKey, Step<Lowered>)],
        touched: &mut Touched,
    ) {
        let mut gateways = GatewayEdits::default();
        let mut wildcard = false;
        for (_, step) in changes {
            for (lowered, present) in [(&step.before, false), (&step.after, true)] {
                let Lowered { sets, uses, attached, findings: _, outcome: _ } = lowered;
                count_attached(&mut snapshot.attached, attached, present);
                for set in sets {
                    gateways.note(set, present);
                    for host in set.hosts.iter().filter(|_| set.for_mesh()) {
                        wildcard |= is_wildcard(host);
                        self.place_routes(set, present, host);
                        touched.route_hosts.insert(host.clone());
                    }
                }
                for (index, used) in uses.iter().enumerate() {
                    let order = (used.precedence.clone(), index);
                    place(&mut self.uses_by_host, &used.host, order, present.then(|| used.clone()));
                    touched.destinations.insert(used.host.clone());
                }
            }
        }
        snapshot.routes.edit(touched.route_hosts.iter().map(|host| {
            (host.clone(), self.routes_by_host.get(host).map(|rules| rules.values().cloned().collect()))
        }));
        snapshot.destinations.edit(touched.destinations.iter().map(|host| {
            let uses = self.uses_by_host.get(host).map(|uses| uses.values().cloned().collect());
            (host.clone(), uses)
        }));
        if wildcard {
            snapshot.wildcard_routes = list(self.wildcard_routes.values().cloned());
        }
        snapshot.gateway_routes.edit(gateways);
    }

    /// Files a set of routes of the mesh under one of its hosts, or takes it out.
    fn place_routes(&mut self, set: &SharedRoutes, present: bool, host: &Name) {
        let (order, value) = (set.precedence.clone(), present.then(|| set.clone()));
        match value {
            value if !is_wildcard(host) => place(&mut self.routes_by_host, host, order, value),
            Some(set) => {
                self.wildcard_routes.insert(order, set);
            }
            None => {
                self.wildcard_routes.remove(&order);
            }
        }
    }

    fn update_rules(
        &mut self,
        snapshot: &mut Snapshot,
        changes: &[(ObjectKey, Step<Vec<SharedRule>>)],
        touched: &mut Touched,
    ) {
        for (key, step) in changes {
            for (rules, present) in [(&step.before, false), (&step.after, true)] {
                for rule in rules {
                    place(&mut self.rules_by_host, &rule.host, key.clone(), present.then(|| rule.clone()));
                    touched.rule_hosts.insert(rule.host.clone());
                }
            }
        }
        let exact = touched.rule_hosts.iter().filter(|host| !is_wildcard(host)).map(|host| {
            let rules: Vec<SharedRule> = self.rules_for(host).into_iter().cloned().collect();
            (host.clone(), (!rules.is_empty()).then_some(rules))
        });
        snapshot.rules.edit(exact.collect::<Vec<_>>());
        if touched.rule_hosts.iter().any(|host| is_wildcard(host)) {
            let wildcard = self.rules_by_host.iter().filter(|(host, _)| is_wildcard(host));
            let mut rules: Vec<SharedRule> =
                wildcard.flat_map(|(_, rules)| rules.values().cloned()).collect();
            rules.sort_by(|a, b| rule_order(a).cmp(&rule_order(b)));
            snapshot.wildcard_rules = list(rules);
        }
    }
}

/// Counts an object in, or out again, at the listeners that it is attached to.
fn count_attached(counts: &mut imbl::OrdMap<Parent, u32>, attached: &[Parent], present: bool) {
    for parent in attached {
        let before = counts.get(parent).copied().unwrap_or(0);
        match if present { before + 1 } else { before.saturating_sub(1) } {
            0 => counts.remove(parent),
            count => counts.insert(parent.clone(), count),
        };
    }
}

/// Looks again at which namespaces have something in the buckets that changed.
fn update_footprints(snapshot: &mut Snapshot, touched: &Touched) {
    let hosts = touched.service_hosts.iter().chain(&touched.route_hosts).chain(&touched.destinations);
    let buckets: BTreeSet<Bucket> = hosts.map(|host| bucket_of(host)).collect();
    for bucket in buckets {
        let services = snapshot.services.bucket(bucket).values().flatten();
        let routes = snapshot.routes.bucket(bucket).values().flatten();
        let uses = snapshot.destinations.bucket(bucket).values().flatten();
        let namespaces = services
            .map(|service| &service.namespace)
            .chain(routes.map(|set| set.namespace()))
            .chain(uses.map(|used| used.namespace()));
        let namespaces = namespaces.cloned().collect();
        snapshot.footprints.edit(bucket, namespaces);
    }
}

fn list<T: Hash>(values: impl IntoIterator<Item = Arc<Hashed<T>>>) -> List<T> {
    let mut values: Vec<Arc<Hashed<T>>> = values.into_iter().collect();
    values.shrink_to_fit();
    Arc::new(Hashed::new(values))
}

/// Puts a value in (`Some`) or takes it out, and keeps no empty maps.
fn place<I: Hash + Eq + Clone, K: Ord, V>(
    maps: &mut HashMap<I, BTreeMap<K, V>>,
    at: &I,
    key: K,
    value: Option<V>,
) {
    match value {
        Some(value) => {
            maps.entry(at.clone()).or_default().insert(key, value);
        }
        None => {
            if let Some(map) = maps.get_mut(at) {
                map.remove(&key);
                if map.is_empty() {
                    maps.remove(at);
                }
            }
        }
    }
}

/// Namespace and first label.
type Selector = (Name, Name, Name);

/// Namespace and first label of the selector of a Kubernetes Service.
fn selector_of(service: &Service) -> Option<Selector> {
    let (key, value) = service.selector.iter().next()?;
    let kubernetes = service.registry == Registry::Kubernetes;
    kubernetes.then(|| (service.namespace.clone(), key.clone(), value.clone()))
}

/// For each host that is not an alias: the names that lead to it, by namespace and name. Chains are followed;
/// loops lead nowhere.
fn resolve_aliases(targets: &BTreeMap<(Name, Name), Name>) -> BTreeMap<Name, Vec<Name>> {
    let by_host: BTreeMap<&Name, &Name> =
        targets.iter().map(|((_, alias), target)| (alias, target)).collect();
    let mut resolved: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
    for ((_, alias), target) in targets {
        let mut seen = BTreeSet::from([alias, target]);
        let mut end = Some(target);
        while let Some(next) = end.and_then(|host| by_host.get(host)) {
            end = seen.insert(next).then_some(*next);
        }
        if let Some(end) = end {
            resolved.entry(end.clone()).or_default().push(alias.clone());
        }
    }
    resolved
}

/// The endpoints that objects of one namespace give to a host. A service with one resolved address has one
/// endpoint per port.
fn merge_endpoints(
    derived: &Derived,
    host: &Name,
    declared: &[(&ObjectKey, &SharedService)],
) -> Arc<Hashed<EndpointSet>> {
    let contributions: Vec<(&SharedService, &Arc<Hashed<EndpointSet>>)> = declared
        .iter()
        .filter_map(|(key, service)| Some((*service, derived.endpoints.get(*key)?.get(host)?)))
        .collect();
    if let [(service, own)] = contributions.as_slice()
        && service.resolution != Resolution::DnsRoundRobin
        && copies(service) == 1
    {
        // As nearly always: shared with what it was derived to.
        return (*own).clone();
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut ports_taken: BTreeSet<u16> = BTreeSet::new();
    for (service, own) in contributions {
        for endpoint in std::iter::repeat_n(&own.endpoints, copies(service)).flatten() {
            let port = service.ports.iter().find(|port| port.name == endpoint.service_port_name);
            let number = port.map_or(0, |port| port.port);
            let taken = !ports_taken.insert(number);
            if taken && service.resolution == Resolution::DnsRoundRobin {
                continue;
            }
            endpoints.push(endpoint.clone());
        }
    }
    endpoints.shrink_to_fit();
    Arc::new(Hashed::new(EndpointSet { endpoints }))
}

/// How often a service's endpoints count.
///
/// istiod makes one service per address of an entry, each with all endpoints. Their number decides how
/// traffic is shared with other entries for the host, so they are repeated here too.
fn copies(service: &Service) -> usize {
    match service.registry {
        Registry::ServiceEntry => service.addresses.len().max(1),
        Registry::Kubernetes => 1,
    }
}

fn summarize(
    endpoints: &[Endpoint],
    declared: &[(&ObjectKey, &SharedService)],
    mesh: &MeshConfig,
) -> EndpointSummary {
    let mut identities: BTreeSet<Name> =
        declared.iter().flat_map(|(_, service)| service.subject_alt_names.iter().cloned()).collect();
    let accounts: BTreeSet<(&Name, &Name)> = endpoints
        .iter()
        .filter(|endpoint| !endpoint.service_account.is_empty())
        .map(|endpoint| (&endpoint.namespace, &endpoint.service_account))
        .collect();
    let trust_domains = TrustDomains::of(mesh);
    let own = accounts.into_iter().map(|(namespace, account)| trust_domains.expected(namespace, account));
    identities.extend(own);
    let aliases: Vec<Name> =
        identities.iter().flat_map(|identity| trust_domains.under_aliases(identity)).collect();
    identities.extend(aliases);

    let mut ports: BTreeMap<Name, PortSummary> = BTreeMap::new();
    for endpoint in endpoints {
        let port =
            ports.entry(endpoint.service_port_name.clone()).or_insert(PortSummary { all_mutual_tls: true });
        port.all_mutual_tls &= endpoint.tls_mode == TlsMode::Istio;
    }
    EndpointSummary { identities: identities.into_iter().collect(), ports: ports.into_iter().collect() }
}

//! `World`: the one writer.
//!
//! A change set runs through in one pass:
//!
//! 1. objects that say what they said before are set aside;
//! 2. the others go into the store (if their namespace is looked at), which tells what questions they touch;
//! 3. units that asked one of them are derived again ([`crate::derive`]);
//! 4. hosts they contribute to are put together again ([`crate::assemble`]);
//! 5. the snapshot gets the new parts and shares the others with the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::fact::{Fact, FactKey};
use navarch_model::finding::Severity;
use navarch_model::hashed::stable_hash;
use navarch_model::kinds::Kind;
use navarch_model::mesh::{MeshSettings, parse_config_map};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::{ClusterId, Hashed, Name, TrustDomains};

use crate::assemble::Assembly;
use crate::bind::{has_listeners, has_routes, has_rules};
use crate::bound::NamespaceFacts;
use crate::client_node::{NODE_LABEL, looks_at_node, metadata_keys};
use crate::derive::Derived;
use crate::findings::{self, Findings, Subject};
use crate::namespaces::is_selected;
use crate::network::Networks;
use crate::part::Part;
use crate::registry::store::{Input, Settings, Store};
use crate::snapshot::Snapshot;
use crate::touched::Touched;

/// New and changed objects, and the keys of those that are gone.
type Edits = BTreeMap<ObjectKey, Option<Arc<Object>>>;

/// Namespace and name of the ConfigMap with the mesh's settings.
pub const MESH_CONFIG_MAP: (&str, &str) = ("istio-system", "istio");

/// What the world is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the local cluster is called.
    pub cluster_name: Name,
    /// Domain suffix of Kubernetes services.
    pub domain: Name,
    /// Namespace that the control plane runs in, if it runs in the cluster. Its label
    /// `topology.istio.io/network` names the network of workloads that state none. Without it the label means
    /// nothing, as for an istiod outside of a cluster.
    pub system_namespace: Option<Name>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cluster_name: Name::from("Kubernetes"),
            domain: Name::from("cluster.local"),
            system_namespace: None,
        }
    }
}

impl Options {
    /// The cluster with a name.
    pub fn cluster(&self, name: &str) -> ClusterId {
        if *self.cluster_name == *name { ClusterId::LOCAL } else { ClusterId::remote(name) }
    }
}

/// All objects, and what is derived from them. There is one writer; readers get snapshots.
#[derive(Debug)]
pub struct World {
    /// Objects of namespaces that the mesh does not look at. All others are in the store.
    unselected: BTreeMap<ObjectKey, Arc<Object>>,
    settings: Settings,
    store: Store,
    derived: Derived,
    assembly: Assembly,
    findings: Findings,
    /// Objects in force that look at the node of clients.
    node_readers: BTreeSet<ObjectKey>,
    /// Objects that look at the metadata of clients' Envoy nodes, and at which values.
    metadata_readers: BTreeMap<ObjectKey, BTreeSet<Name>>,
    current: Arc<Snapshot>,
    work: Work,
}

/// What changed among the facts.
#[derive(Debug, Default)]
struct Stated {
    /// The mesh settings that are given outside of objects.
    mesh: bool,
    /// Something that translation may read.
    readable: bool,
}

/// What a change made the world do. Depends on the change, and not on the size of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Values that were derived again: the services or the endpoints of an object, the workloads at an
    /// address, a bound rule.
    pub derived: usize,
    /// Hosts of which the services, the endpoints, the routes, the DestinationRules or the uses as
    /// destination were put together again. A host counts once for each of these.
    pub assembled: usize,
}

impl World {
    /// An empty world.
    pub fn new(options: Options) -> World {
        let mut snapshot = Snapshot::empty();
        let networks = Networks::new(&snapshot.mesh.networks);
        snapshot.network_gateways = Arc::new(Hashed::new(networks.gateways([])));
        World {
            unselected: BTreeMap::new(),
            settings: Settings {
                cluster_name: options.cluster_name,
                domain: options.domain,
                system_namespace: options.system_namespace,
                mesh: snapshot.mesh.clone(),
                networks,
            },
            store: Store::default(),
            derived: Derived::default(),
            assembly: Assembly::default(),
            findings: Findings::default(),
            node_readers: BTreeSet::new(),
            metadata_readers: BTreeMap::new(),
            current: Arc::new(snapshot),
            work: Work::default(),
        }
    }

    /// The latest snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// What the last change made the world do.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Makes changes and returns the snapshot after them. The revision grows by one unless nothing changed;
    /// moving an object to another file is not a change, though the snapshot knows the new place.
    pub fn apply(&mut self, change: ChangeSet) -> Arc<Snapshot> {
        let mut next = (*self.current).clone();
        let stated = self.take_facts(&mut next, &change);
        let (edits, moved) = self.edits(change);
        let mut touched = BTreeSet::new();
        let moved = self.take_moved(&mut next, moved, &mut touched);

        self.update_content(&mut next, &edits);
        let given = next.facts.get(&FactKey::MeshConfig).map(|fact| (***fact).clone());
        let mesh_changed = self.update_mesh(given, stated.mesh, &edits);
        let identities_changed = mesh_changed && self.take_mesh(&mut next, &mut touched);
        self.update_store(&mut next, &edits, mesh_changed, &mut touched);

        let mut changes = self.derived.update(&self.store, &self.settings, touched);
        let derived = changes.derived;
        changes.network_gateways |= mesh_changed;
        for (key, step) in &changes.routes {
            let mut sets = step.after.sets.iter();
            self.note_node_reader(key, sets.any(|set| set.looks_at_label(NODE_LABEL)));
        }
        for (key, set) in std::mem::take(&mut changes.listeners) {
            next.gateways.set(&key, set);
        }
        next.gateways.settle();
        for (key, found) in std::mem::take(&mut changes.findings) {
            self.findings.set(Subject::Object(key), found);
        }
        for (key, outcome) in std::mem::take(&mut changes.outcomes) {
            match outcome.is_empty() {
                true => next.outcomes.remove(&key),
                false => next.outcomes.insert(key, Arc::new(outcome)),
            };
        }
        next.client_nodes_matter = !self.node_readers.is_empty();
        let networks = &self.settings.networks;
        let mut hosts = self.assembly.update(&mut next, &self.derived, changes, networks, identities_changed);
        self.work = Work { derived, assembled: hosts.len() };
        for key in &moved {
            self.derived.hosts_of(key, &mut hosts);
        }
        self.update_findings(&mut next, hosts);

        if mesh_changed || stated.readable || !edits.is_empty() {
            next.revision += 1;
        }
        self.current = Arc::new(next);
        self.current.clone()
    }

    /// Puts facts into the snapshot.
    fn take_facts(&self, next: &mut Snapshot, change: &ChangeSet) -> Stated {
        let mut stated: BTreeMap<FactKey, Option<&Fact>> =
            change.retracted.iter().map(|key| (key.clone(), None)).collect();
        stated.extend(change.facts.iter().map(|fact| (fact.key(), Some(fact))));
        let mut changed = Stated::default();
        for (key, fact) in stated {
            let before = next.facts.get(&key).map(|fact| &***fact);
            if before == fact {
                continue;
            }
            changed.mesh |= key == FactKey::MeshConfig;
            changed.readable |= Part::of_fact(&key).is_some();
            match fact {
                Some(fact) => next.facts.insert(key, Arc::new(Hashed::new(fact.clone()))),
                None => next.facts.remove(&key),
            };
        }
        changed
    }

    /// Takes the hashes of what was edited out of that of everything, and adds the new ones: the order in
    /// which objects come does not count.
    fn update_content(&self, next: &mut Snapshot, edits: &Edits) {
        for (key, object) in edits {
            let [before, after] =
                [self.known(key), object.as_ref()].map(|object| object.map_or(0, |o| o.content()));
            next.content = next.content.wrapping_sub(before).wrapping_add(after);
        }
        let given = |snapshot: &Snapshot| match snapshot.facts.get(&FactKey::MeshConfig).map(|fact| &***fact)
        {
            Some(Fact::MeshConfig(settings)) => stable_hash(|hasher| settings.hash(hasher)),
            _ => 0,
        };
        let [before, after] =
            [&*self.current, &*next].map(|snapshot| snapshot.facts.get(&FactKey::MeshConfig));
        if before.map(Arc::as_ptr) != after.map(Arc::as_ptr) {
            next.content = next.content.wrapping_sub(given(&self.current)).wrapping_add(given(next));
        }
    }

    /// Takes objects that say what they said before, from another place: what is found about them is to name
    /// the new place.
    fn take_moved(
        &mut self,
        next: &mut Snapshot,
        moved: Vec<Arc<Object>>,
        touched: &mut BTreeSet<Input>,
    ) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for object in moved {
            if !self.store.replace_equal(&object) {
                self.unselected.insert(object.key.clone(), object);
                continue;
            }
            let key = object.key.clone();
            next.objects.insert(key.clone(), object);
            match key.kind {
                kind if has_listeners(kind) => {
                    touched.insert(Input::Object(key.clone()));
                }
                kind if has_routes(kind) => {
                    touched.insert(Input::Object(key.clone()));
                    keys.push(key);
                }
                kind if has_rules(kind) || kind == Kind::ServiceEntry => keys.push(key),
                _ => {}
            }
        }
        keys
    }

    /// The objects that are new, changed or gone, and those that only moved.
    fn edits(&self, change: ChangeSet) -> (Edits, Vec<Arc<Object>>) {
        let mut stated: BTreeMap<ObjectKey, Option<Arc<Object>>> =
            change.removals.into_iter().map(|key| (key, None)).collect();
        stated.extend(change.upserts.into_iter().map(|object| (object.key.clone(), Some(object))));

        let mut edits = BTreeMap::new();
        let mut moved = Vec::new();
        for (key, object) in stated {
            let Some(object) = object else {
                if self.known(&key).is_some() {
                    edits.insert(key, None);
                }
                continue;
            };
            match self.known(&key) {
                Some(before) if before.same_content(&object) => moved.push(object),
                _ => {
                    edits.insert(key, Some(object));
                }
            }
        }
        (edits, moved)
    }

    /// Finds the mesh settings that count now: those that are given as a fact, or else those of the
    /// ConfigMap. Returns whether they are others than before.
    fn update_mesh(&mut self, given: Option<Fact>, given_changed: bool, edits: &Edits) -> bool {
        let (namespace, name) = MESH_CONFIG_MAP;
        let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
        let settings = match (given, edits.get(&key)) {
            (Some(_), _) if !given_changed => return false,
            (Some(Fact::MeshConfig(settings)), _) => {
                self.findings.set(Subject::Mesh, Vec::new());
                (*settings).clone()
            }
            (_, None) if !given_changed => return false,
            (_, edited) => match edited.cloned().unwrap_or_else(|| self.known(&key).cloned()) {
                None => {
                    self.findings.set(Subject::Mesh, Vec::new());
                    MeshSettings::default()
                }
                Some(object) => {
                    let Some((settings, found)) = parse_config_map(&object) else { return false };
                    let usable = found.iter().all(|finding| finding.severity != Severity::Error);
                    self.findings.set(Subject::Mesh, found);
                    if !usable {
                        // The last good settings stay.
                        return false;
                    }
                    settings
                }
            },
        };
        let settings = Hashed::new(settings);
        if settings == *self.settings.mesh {
            return false;
        }
        self.settings.networks = Networks::new(&settings.networks);
        self.settings.mesh = Arc::new(settings);
        true
    }

    /// Puts the new mesh settings into the snapshot. Returns whether identities are named differently now.
    fn take_mesh(&self, next: &mut Snapshot, touched: &mut BTreeSet<Input>) -> bool {
        touched.insert(Input::Mesh);
        let before = std::mem::replace(&mut next.mesh, self.settings.mesh.clone());
        let (before, after) = (&before.config, &next.mesh.config);
        TrustDomains::of(before) != TrustDomains::of(after)
    }

    fn update_store(
        &mut self,
        next: &mut Snapshot,
        edits: &Edits,
        mesh_changed: bool,
        touched: &mut BTreeSet<Input>,
    ) {
        let mut in_force = edits.clone();
        for key in self.newly_selected(next, edits, mesh_changed) {
            in_force.entry(key.clone()).or_insert_with(|| self.known(&key).cloned());
        }
        let mut namespaces = false;
        for (key, object) in in_force {
            let selected = self.is_selected(&key, edits);
            match &object {
                Some(object) if !selected => self.unselected.insert(key.clone(), object.clone()),
                _ => self.unselected.remove(&key),
            };
            let object = object.filter(|_| selected);
            if object.is_none() && !self.store.objects().contains_key(&key) {
                continue;
            }
            match &object {
                Some(object) => next.tables.set(object),
                None => next.tables.remove(&key),
            }
            // What routes look at is known once they are lowered.
            if !has_routes(key.kind) {
                let looks = object.as_ref().is_some_and(|object| looks_at_node(object));
                self.note_node_reader(&key, looks);
            }
            let keys: BTreeSet<Name> =
                object.iter().flat_map(|object| metadata_keys(object)).map(Name::from).collect();
            if keys.is_empty() {
                self.metadata_readers.remove(&key);
            } else {
                self.metadata_readers.insert(key.clone(), keys);
            }
            namespaces |= key.kind == Kind::Namespace;
            touched.extend(self.store.set(&key, object));
        }
        touched.extend(self.store.settle());
        let metadata_keys: BTreeSet<Name> = self.metadata_readers.values().flatten().cloned().collect();
        if metadata_keys != **next.metadata_keys {
            next.metadata_keys = Arc::new(Hashed::new(metadata_keys));
        }
        next.tables.settle();
        next.objects = self.store.objects().clone();
        if namespaces {
            let local = next.objects_of(Kind::Namespace).filter(|object| object.key.cluster.is_local());
            let facts = local.map(|object| {
                let facts = NamespaceFacts {
                    labels: object.metadata.labels.clone(),
                    annotations: object.metadata.annotations.clone(),
                };
                (object.key.name.clone(), facts)
            });
            next.namespaces = Arc::new(Hashed::new(facts.collect()));
        }
    }

    fn note_node_reader(&mut self, key: &ObjectKey, looks: bool) {
        if looks {
            self.node_readers.insert(key.clone());
        } else {
            self.node_readers.remove(key);
        }
    }

    /// Every object, also those that are not in force.
    #[cfg(test)]
    pub(crate) fn known_objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.store.objects().values().chain(self.unselected.values())
    }

    /// Compares the indexes with what a look at every object gives.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        self.store.assert_index();
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub(crate) fn assert_empty(&self) {
        self.store.assert_index();
        self.derived.assert_empty();
        self.assembly.assert_empty();
        assert!(self.node_readers.is_empty() && self.metadata_readers.is_empty());
        assert!(self.unselected.is_empty());
    }

    /// An object as it was before the change set, also one that is not in force.
    fn known(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.store.objects().get(key).or_else(|| self.unselected.get(key))
    }

    /// Whether an object is in force after the edits. Of other clusters, only what runs there counts:
    /// configuration is that of the local cluster (Istio: "Deployment Models", multiple clusters).
    fn is_selected(&self, key: &ObjectKey, edits: &Edits) -> bool {
        if !key.cluster.is_local() && !runs_in_cluster(key.kind) {
            return false;
        }
        is_selected(&self.settings.mesh.config, key.cluster, &key.namespace, |key| match edits.get(key) {
            Some(edited) => edited.as_deref(),
            None => self.known(key).map(|object| &**object),
        })
    }

    /// Objects of namespaces that the mesh begins or ceases to look at. Costs a look at every object, but
    /// only then.
    fn newly_selected(&self, before: &Snapshot, edits: &Edits, mesh_changed: bool) -> Vec<ObjectKey> {
        let selects = !self.settings.mesh.config.discovery_selectors.is_empty();
        let known = || self.store.objects().keys().chain(self.unselected.keys());
        let concerned: BTreeSet<&Name> = if mesh_changed {
            known().map(|key| &key.namespace).collect()
        } else if selects {
            edits.keys().filter(|key| key.kind == Kind::Namespace).map(|key| &key.name).collect()
        } else {
            return Vec::new();
        };
        if concerned.is_empty() {
            return Vec::new();
        }
        let objects = known().filter(|key| concerned.contains(&key.namespace));
        objects
            .filter(|key| self.is_selected(key, edits) != before.objects.contains_key(*key))
            .cloned()
            .collect()
    }

    fn update_findings(&mut self, next: &mut Snapshot, hosts: Touched) {
        for host in hosts.route_hosts {
            let found = findings::of_route_host(next, &self.assembly, &host);
            self.findings.set(Subject::RouteHost(host), found);
        }
        for host in hosts.rule_hosts {
            let found = findings::of_rule_host(next, &self.assembly, &host);
            self.findings.set(Subject::RuleHost(host), found);
        }
        for host in hosts.service_hosts {
            let found = findings::of_service_host(next, &host);
            self.findings.set(Subject::ServiceHost(host), found);
        }
        self.findings.publish(next);
    }
}

/// Kinds that say what runs in a cluster.
fn runs_in_cluster(kind: Kind) -> bool {
    match kind {
        Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => {
            true
        }
        Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::Gateway
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::Sidecar
        | Kind::EnvoyFilter
        | Kind::ProxyConfig
        | Kind::PeerAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::WasmPlugin
        | Kind::TrafficExtension
        | Kind::GatewayClass
        | Kind::KubernetesGateway
        | Kind::ListenerSet
        | Kind::ReferenceGrant
        | Kind::BackendTlsPolicy
        | Kind::BackendTrafficPolicy
        | Kind::ServiceImport
        | Kind::ServiceExport
        | Kind::InferencePool
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::Secret
        | Kind::ConfigMap => false,
    }
}

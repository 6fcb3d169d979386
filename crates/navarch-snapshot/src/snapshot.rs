//! `Snapshot`: the world at one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::EndpointSet;
use navarch_model::fact::{Account, Fact, FactKey, Rejected, SecretAccess};
use navarch_model::finding::Finding;
use navarch_model::kinds::Kind;
use navarch_model::mesh::MeshSettings;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::{Parent, RouteSet};
use navarch_model::service::Service;
use navarch_model::{ClusterId, Fingerprint, Hashed, Name, SmallMap};

use crate::bound::{
    BoundRule, DestinationUse, EndpointSummary, NamespaceFacts, NetworkGateways, WorkloadFacts,
};
use crate::buckets::Buckets;
use crate::footprint::Footprints;
use crate::gateway_routes::GatewayRoutes;
use crate::gateways::Gateways;
use crate::namespaces::is_selected;
use crate::outcome::Outcomes;
use crate::part::{BUCKETS, Part};
use crate::tables::Tables;

/// Values by host, of all namespaces.
pub(crate) type Hosts<T> = Buckets<Vec<Arc<Hashed<T>>>>;
/// Values by host and namespace.
pub(crate) type NamespacedHosts<T> = Buckets<SmallMap<Name, Arc<Hashed<T>>>>;
/// A list that has a fingerprint.
pub(crate) type List<T> = Arc<Hashed<Vec<Arc<Hashed<T>>>>>;

/// Everything that translation may read, at one revision. Immutable, and cheap to clone: unchanged parts are
/// shared between revisions.
///
/// Translation reads through a [`View`](crate::View); the methods here that are not [`Snapshot::view`] are
/// for people: provenance, admin pages, findings.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) content: u128,
    pub(crate) mesh: Arc<Hashed<MeshSettings>>,
    pub(crate) services: Hosts<Service>,
    pub(crate) endpoints: NamespacedHosts<EndpointSet>,
    pub(crate) summaries: NamespacedHosts<EndpointSummary>,
    pub(crate) rules: Hosts<BoundRule>,
    pub(crate) wildcard_rules: List<BoundRule>,
    pub(crate) routes: Hosts<RouteSet>,
    pub(crate) wildcard_routes: List<RouteSet>,
    pub(crate) destinations: Hosts<DestinationUse>,
    pub(crate) footprints: Footprints,
    pub(crate) gateway_routes: GatewayRoutes,
    pub(crate) gateways: Gateways,
    pub(crate) tables: Tables,
    pub(crate) namespaces: Arc<Hashed<BTreeMap<Name, NamespaceFacts>>>,
    pub(crate) workloads: imbl::OrdMap<IpAddr, List<WorkloadFacts>>,
    pub(crate) selectors: imbl::OrdMap<(Name, Name, Name), List<Service>>,
    pub(crate) network_gateways: Arc<Hashed<NetworkGateways>>,
    /// Some object looks at the node of clients.
    pub(crate) client_nodes_matter: bool,
    /// Keys of the metadata of Envoy nodes that some object looks at.
    pub(crate) metadata_keys: Arc<Hashed<BTreeSet<Name>>>,
    pub(crate) objects: imbl::OrdMap<ObjectKey, Arc<Object>>,
    pub(crate) facts: imbl::OrdMap<FactKey, Arc<Hashed<Fact>>>,
    pub(crate) findings: Arc<Vec<Finding>>,
    /// Not a part: nothing that proxies get depends on it.
    pub(crate) outcomes: Outcomes,
    /// How many routes are attached to a listener. Not a part either.
    pub(crate) attached: imbl::OrdMap<Parent, u32>,
}

impl Snapshot {
    /// An empty mesh.
    pub(crate) fn empty() -> Self {
        Snapshot {
            revision: 0,
            content: 0,
            mesh: Arc::new(Hashed::new(MeshSettings::default())),
            services: Buckets::default(),
            endpoints: Buckets::default(),
            summaries: Buckets::default(),
            rules: Buckets::default(),
            wildcard_rules: Arc::default(),
            routes: Buckets::default(),
            wildcard_routes: Arc::default(),
            destinations: Buckets::default(),
            footprints: Footprints::default(),
            gateway_routes: GatewayRoutes::default(),
            gateways: Gateways::default(),
            tables: Tables::default(),
            namespaces: Arc::default(),
            workloads: imbl::OrdMap::new(),
            selectors: imbl::OrdMap::new(),
            network_gateways: Arc::default(),
            client_nodes_matter: false,
            metadata_keys: Arc::default(),
            objects: imbl::OrdMap::new(),
            facts: imbl::OrdMap::new(),
            findings: Arc::default(),
            outcomes: Outcomes::new(),
            attached: imbl::OrdMap::new(),
        }
    }

    /// Counts accepted change sets; grows by one with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A hash of everything that is configured: of all objects, and of mesh settings that are given outside
    /// of objects. The same on every replica that is given the same, in whatever order. What is found out
    /// beside the configuration, such as fetched keys, is not in it.
    pub fn content(&self) -> u128 {
        self.content
    }

    /// The fingerprint of a part. What is not there has the fingerprint of "nothing", which is the same for
    /// all parts.
    pub fn fingerprint(&self, part: &Part) -> Fingerprint {
        let nothing = || Fingerprint::of(&());
        let list_or_nothing = |list: Option<Fingerprint>| list.unwrap_or_else(nothing);
        match part {
            Part::Mesh => self.mesh.fingerprint(),
            Part::Services(bucket) => self.services.fingerprint(*bucket),
            Part::Endpoints(host) => list_or_nothing(self.endpoints.get(host).map(Fingerprint::of)),
            Part::EndpointSummaries(bucket) => self.summaries.fingerprint(*bucket),
            Part::DestinationRules(bucket) => self.rules.fingerprint(*bucket),
            Part::WildcardDestinationRules => self.wildcard_rules.fingerprint(),
            Part::Routes(bucket) => self.routes.fingerprint(*bucket),
            Part::WildcardRoutes => self.wildcard_routes.fingerprint(),
            Part::Gateways => self.gateways.fingerprint(),
            Part::Destinations(bucket) => self.destinations.fingerprint(*bucket),
            Part::Footprint(namespace) => Fingerprint::of(&self.footprints.of(namespace)),
            Part::GatewayRoutes(gateway, place) => {
                list_or_nothing(self.gateway_routes.fingerprint(gateway, *place))
            }
            Part::GatewayBuckets(gateway) => Fingerprint::of(&self.gateway_routes.buckets(gateway)),
            Part::GatewaysNamed => Fingerprint::of(&self.gateway_routes.parents().collect::<Vec<_>>()),
            Part::Objects(kind, namespace) => self.tables.fingerprint(*kind, namespace),
            Part::AllObjects(kind) => self.tables.fingerprint_all(*kind),
            Part::Namespaces => self.namespaces.fingerprint(),
            Part::Workload(address) => {
                list_or_nothing(self.workloads.get(address).map(|list| list.fingerprint()))
            }
            Part::Selectors { namespace, key, value } => {
                let selector = (namespace.clone(), key.clone(), value.clone());
                list_or_nothing(self.selectors.get(&selector).map(|list| list.fingerprint()))
            }
            Part::NetworkGateways => self.network_gateways.fingerprint(),
            Part::ClientNodes => Fingerprint::of(&self.client_nodes_matter),
            Part::Fact(key) => list_or_nothing(self.facts.get(key).map(|fact| fact.fingerprint())),
            Part::RejectedIn(namespace) => {
                let here: Vec<&Rejected> = self.rejected_in(namespace).collect();
                if here.is_empty() { nothing() } else { Fingerprint::of(&here) }
            }
            Part::SecretReaders => {
                let refused: Vec<(&Account, &SecretAccess)> = self.refused_secret_readers().collect();
                if refused.is_empty() { nothing() } else { Fingerprint::of(&refused) }
            }
            Part::NodeMetadata => self.metadata_keys.fingerprint(),
            Part::SecretNamespaces => Fingerprint::of(&self.secret_namespaces()),
            Part::Secret { namespace, name } => self.object_fingerprint(Kind::Secret, namespace, name),
            Part::ConfigMap { namespace, name } => self.object_fingerprint(Kind::ConfigMap, namespace, name),
        }
    }

    /// Fingerprint of an object's content, without its position.
    fn object_fingerprint(&self, kind: Kind, namespace: &Name, name: &Name) -> Fingerprint {
        let cluster = ClusterId::LOCAL;
        let key = ObjectKey { kind, namespace: namespace.clone(), name: name.clone(), cluster };
        match self.objects.get(&key) {
            Some(object) => Fingerprint::of(&(&object.metadata, &object.spec)),
            None => Fingerprint::of(&()),
        }
    }

    /// Whether objects of a namespace of the local cluster are in force (MeshConfig, `discoverySelectors`).
    pub fn looks_at(&self, namespace: &str) -> bool {
        let find = |key: &ObjectKey| self.objects.get(key).map(|object| &**object);
        is_selected(&self.mesh.config, ClusterId::LOCAL, namespace, find)
    }

    /// An object that is in force.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects in force, by kind, namespace, name and cluster.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// All objects of a kind, by namespace, name and cluster.
    pub fn objects_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey::new(kind, "", "");
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// What proxies have refused, by their namespace.
    pub(crate) fn rejected(&self) -> &[Rejected] {
        match self.facts.get(&FactKey::Rejected).map(|fact| &***fact) {
            Some(Fact::Rejected(rejected)) => rejected,
            _ => &[],
        }
    }

    pub(crate) fn rejected_in(&self, namespace: &Name) -> impl Iterator<Item = &Rejected> + use<'_> {
        let rejected = self.rejected();
        let first = rejected.partition_point(|rejected| rejected.namespace < *namespace);
        rejected[first..].iter().take_while({
            let namespace = namespace.clone();
            move |rejected| rejected.namespace == namespace
        })
    }

    /// Accounts that may not read the Secrets of their namespace, or of which that is not known.
    pub(crate) fn refused_secret_readers(&self) -> impl Iterator<Item = (&Account, &SecretAccess)> {
        let first = Account { namespace: Name::default(), name: Name::default() };
        let facts = self.facts.range(FactKey::SecretReader(first)..).map_while(|(_, fact)| match &***fact {
            Fact::SecretReader { account, access } => Some((account, access)),
            _ => None,
        });
        facts.filter(|(_, access)| **access != SecretAccess::Allowed)
    }

    /// The namespaces whose proxies have refused something.
    pub(crate) fn rejecting_namespaces(&self) -> impl Iterator<Item = &Name> {
        self.rejected()
            .chunk_by(|a, b| a.namespace == b.namespace)
            .filter_map(|chunk| Some(&chunk.first()?.namespace))
    }

    /// All objects of a kind in a namespace, by name and cluster.
    pub fn objects_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey::new(kind, namespace, "");
        let namespace = first.namespace.clone();
        let is_in = move |key: &ObjectKey| key.kind == kind && key.namespace == namespace;
        self.objects.range(first..).take_while(move |(key, _)| is_in(key)).map(|(_, object)| object)
    }

    /// The namespaces that have Secrets, in order.
    pub(crate) fn secret_namespaces(&self) -> Vec<Name> {
        let mut namespaces: Vec<Name> = Vec::new();
        let mut from = ObjectKey::new(Kind::Secret, "", "");
        // From each namespace to the next one, whatever there is in between.
        while let Some((key, _)) =
            self.objects.range(from..).find(|(key, _)| namespaces.last() != Some(&key.namespace))
        {
            if key.kind != Kind::Secret {
                break;
            }
            namespaces.push(key.namespace.clone());
            from = ObjectKey::new(Kind::Secret, &format!("{}\0", key.namespace), "");
        }
        namespaces
    }

    /// What objects that are each valid do wrong together, such as two VirtualServices for one host. The
    /// other side of a conflict has no place here: it moves without a change.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// All services of all namespaces, by host, oldest first for each host.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Hashed<Service>>> {
        (0..BUCKETS).flat_map(|bucket| self.services.bucket(bucket).values().flatten())
    }

    /// Whether both have the same services in memory, which is so as long as none of them is edited.
    pub fn shares_services_with(&self, other: &Snapshot) -> bool {
        self.services.is_same(&other.services)
    }

    /// Every part that has content, for comparing two snapshots.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Part::SINGLE.to_vec();
        for bucket in 0..BUCKETS {
            parts.extend([
                Part::Services(bucket),
                Part::EndpointSummaries(bucket),
                Part::DestinationRules(bucket),
                Part::Routes(bucket),
                Part::Destinations(bucket),
            ]);
        }
        parts.extend(self.endpoints.hosts().cloned().map(Part::Endpoints));
        parts.extend(self.footprints.namespaces().cloned().map(Part::Footprint));
        parts.extend(self.gateway_routes.parts());
        parts.extend(self.workloads.keys().copied().map(Part::Workload));
        parts.extend(self.selectors.keys().cloned().map(|(namespace, key, value)| Part::Selectors {
            namespace,
            key,
            value,
        }));
        parts.push(Part::SecretNamespaces);
        parts.extend(self.objects.keys().filter_map(Part::of_object));
        parts.extend(self.facts.keys().filter_map(Part::of_fact));
        parts.extend(self.rejecting_namespaces().cloned().map(Part::RejectedIn));
        parts.push(Part::SecretReaders);
        parts.extend(self.tables.parts());
        parts
    }

    /// Whether another snapshot would give every translation the same inputs. Linear in the size of the mesh;
    /// for tests and self-checks.
    pub fn difference(&self, other: &Snapshot) -> Option<Part> {
        let mut parts = self.parts();
        parts.extend(other.parts());
        parts.into_iter().find(|part| self.fingerprint(part) != other.fingerprint(part))
    }
}

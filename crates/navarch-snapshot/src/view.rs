//! `View`: reading a snapshot while recording what was read.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::EndpointSet;
use navarch_model::fact::{Account, Fact, FactKey, Rejected, SecretAccess, TrustBundle};
use navarch_model::kinds::Kind;
use navarch_model::kubernetes::{ConfigMap, Secret};
use navarch_model::listener::ListenerSet;
use navarch_model::mesh::MeshSettings;
use navarch_model::object::ObjectKey;
use navarch_model::route::{Parent, RouteSet};
use navarch_model::service::Service;
use navarch_model::{Config, Fingerprint, Hashed, Labels, Name, Precedence};

use crate::bound::{
    BoundRule, DestinationUse, EndpointSummary, NamespaceFacts, NetworkGateways, WorkloadFacts, selects,
    service_order,
};
use crate::footprint::BucketSet;
use crate::gateway_routes::{GatewayBuckets, HostBucket, RoutesByHost};
use crate::part::{Bucket, Part, bucket_of};
use crate::snapshot::Snapshot;
use crate::tables::{Listed, Listing};

/// Parts that were read, with the fingerprints they had: what a result depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads(
    /// In the order of the parts. A slice, because there are very many of these and they do not change.
    Box<[(Part, Fingerprint)]>,
);

impl Reads {
    /// Whether every part still is what it was: the result would be the same.
    pub fn hold_in(&self, snapshot: &Snapshot) -> bool {
        self.0.iter().all(|(part, fingerprint)| snapshot.fingerprint(part) == *fingerprint)
    }

    /// The parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Part, Fingerprint)> {
        self.0.iter().map(|(part, fingerprint)| (part, *fingerprint))
    }

    /// Whether a part was read.
    pub fn contains(&self, part: &Part) -> bool {
        self.0.binary_search_by(|(known, _)| known.cmp(part)).is_ok()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Reads a snapshot and records the parts that were read.
///
/// Looking for something that is not there counts as a read too: the result changes when it appears.
#[derive(Debug)]
pub struct View<'s> {
    snapshot: &'s Snapshot,
    reads: RefCell<BTreeMap<Part, Fingerprint>>,
    asked: RefCell<BTreeSet<Name>>,
    labels_asked: RefCell<BTreeSet<Name>>,
}

impl Snapshot {
    /// A view that records what is read through it.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }
}

impl<'s> View<'s> {
    pub(crate) fn new(snapshot: &'s Snapshot) -> Self {
        View {
            snapshot,
            reads: RefCell::default(),
            asked: RefCell::default(),
            labels_asked: RefCell::default(),
        }
    }

    /// What was read so far.
    pub fn reads(&self) -> Reads {
        Reads(self.reads.borrow().iter().map(|(part, fingerprint)| (part.clone(), *fingerprint)).collect())
    }

    /// Ends reading.
    pub fn into_reads(self) -> Reads {
        Reads(self.reads.into_inner().into_iter().collect())
    }

    /// Namespaces for whose clients a result may differ from that for a client elsewhere (see
    /// [`crate::Scope::elsewhere`]).
    pub fn namespaces_asked(&self) -> BTreeSet<Name> {
        self.asked.borrow().clone()
    }

    pub(crate) fn has_asked(&self, namespace: &Name) -> bool {
        self.asked.borrow().contains(namespace)
    }

    pub(crate) fn ask(&self, namespace: &Name) {
        if !self.has_asked(namespace) {
            self.asked.borrow_mut().insert(namespace.clone());
        }
    }

    /// Keys of labels that clients were asked for (see [`crate::ClientLabels`]).
    pub fn labels_asked(&self) -> BTreeSet<Name> {
        self.labels_asked.borrow().clone()
    }

    pub(crate) fn ask_label(&self, key: &str) {
        let mut asked = self.labels_asked.borrow_mut();
        if !asked.contains(key) {
            asked.insert(Name::from(key));
        }
    }

    /// Revision of the snapshot. Not a recorded read: a result must not depend on it.
    pub fn revision(&self) -> u64 {
        self.snapshot.revision()
    }

    fn record(&self, part: Part) {
        let mut reads = self.reads.borrow_mut();
        if let Entry::Vacant(vacant) = reads.entry(part) {
            let fingerprint = self.snapshot.fingerprint(vacant.key());
            vacant.insert(fingerprint);
        }
    }

    /// MeshConfig with defaults applied, and MeshNetworks.
    pub fn mesh(&self) -> &'s Arc<Hashed<MeshSettings>> {
        self.record(Part::Mesh);
        &self.snapshot.mesh
    }

    /// Services of all namespaces by host, oldest first for each host.
    pub fn services_in(&self, bucket: Bucket) -> &'s BTreeMap<Name, Vec<Arc<Hashed<Service>>>> {
        self.record(Part::Services(bucket));
        self.snapshot.services.bucket(bucket)
    }

    /// Services of all namespaces with a host, oldest first.
    pub fn services(&self, host: &str) -> &'s [Arc<Hashed<Service>>] {
        self.services_in(bucket_of(host)).get(host).map_or(&[], Vec::as_slice)
    }

    /// Endpoints of the service with a host in a namespace; `None` if it has none.
    pub fn endpoints(&self, host: &str, namespace: &str) -> Option<&'s Arc<Hashed<EndpointSet>>> {
        let known = self.snapshot.endpoints.entry(host);
        self.record(Part::Endpoints(known.map_or_else(|| Name::from(host), |(host, _)| host.clone())));
        known?.1.get(namespace)
    }

    /// Identities and modes of the endpoints of a service, which clusters need; `None` for an unknown
    /// service.
    pub fn endpoint_summary(&self, host: &str, namespace: &str) -> Option<&'s Arc<Hashed<EndpointSummary>>> {
        self.record(Part::EndpointSummaries(bucket_of(host)));
        self.snapshot.summaries.get(host)?.get(namespace)
    }

    /// DestinationRules of all namespaces for exactly this host: those with a workload selector first, then
    /// oldest first.
    pub fn destination_rules(&self, host: &str) -> &'s [Arc<Hashed<BoundRule>>] {
        self.record(Part::DestinationRules(bucket_of(host)));
        self.snapshot.rules.get(host).map_or(&[], Vec::as_slice)
    }

    /// DestinationRules of all namespaces by exact host.
    pub fn destination_rules_in(&self, bucket: Bucket) -> &'s BTreeMap<Name, Vec<Arc<Hashed<BoundRule>>>> {
        self.record(Part::DestinationRules(bucket));
        self.snapshot.rules.bucket(bucket)
    }

    /// DestinationRules for wildcard hosts, in the same order.
    pub fn wildcard_destination_rules(&self) -> &'s [Arc<Hashed<BoundRule>>] {
        self.record(Part::WildcardDestinationRules);
        &self.snapshot.wildcard_rules
    }

    /// Routes of the mesh for exactly this host, oldest first.
    pub fn routes(&self, host: &str) -> &'s [Arc<Hashed<RouteSet>>] {
        self.routes_in(bucket_of(host)).get(host).map_or(&[], Vec::as_slice)
    }

    /// Routes of the mesh by exact host, oldest first.
    pub fn routes_in(&self, bucket: Bucket) -> &'s BTreeMap<Name, Vec<Arc<Hashed<RouteSet>>>> {
        self.record(Part::Routes(bucket));
        self.snapshot.routes.bucket(bucket)
    }

    /// Routes of the mesh that have a wildcard host, oldest first.
    pub fn wildcard_routes(&self) -> &'s [Arc<Hashed<RouteSet>>] {
        self.record(Part::WildcardRoutes);
        &self.snapshot.wildcard_routes
    }

    /// Which routes of the mesh send traffic to hosts of a bucket, oldest first.
    pub fn destinations_in(&self, bucket: Bucket) -> &'s BTreeMap<Name, Vec<Arc<Hashed<DestinationUse>>>> {
        self.record(Part::Destinations(bucket));
        self.snapshot.destinations.bucket(bucket)
    }

    /// Buckets that services, routes and the destinations of routes of a namespace fall into.
    pub fn footprint(&self, namespace: &str) -> BucketSet {
        self.record(Part::Footprint(Name::from(namespace)));
        self.snapshot.footprints.of(namespace)
    }

    /// Routes bound to a gateway by host: those for exact hosts in a bucket, or those for wildcards.
    pub fn gateway_routes_in(&self, gateway: &Parent, place: HostBucket) -> &'s RoutesByHost {
        self.record(Part::GatewayRoutes(gateway.clone(), place));
        self.snapshot.gateway_routes.place(gateway, place)
    }

    /// Where a gateway or a listener has routes.
    pub fn gateway_buckets(&self, gateway: &Parent) -> GatewayBuckets {
        self.record(Part::GatewayBuckets(gateway.clone()));
        self.snapshot.gateway_routes.buckets(gateway)
    }

    /// All routes bound to a gateway, oldest first. Changes with each of them.
    pub fn gateway_routes(&self, gateway: &Parent) -> Vec<Arc<Hashed<RouteSet>>> {
        let places = self.gateway_buckets(gateway).iter();
        let sets = places.flat_map(|place| self.gateway_routes_in(gateway, place).values().flatten());
        let sets: BTreeMap<&Precedence, &Arc<Hashed<RouteSet>>> =
            sets.map(|set| (&set.precedence, set)).collect();
        sets.into_values().cloned().collect()
    }

    /// What routes are bound to, gateways and their listeners, there or not.
    pub fn gateways_named(&self) -> impl Iterator<Item = &'s Parent> + use<'s> {
        self.record(Part::GatewaysNamed);
        self.snapshot.gateway_routes.parents()
    }

    /// Listeners of all gateways, oldest gateway first.
    pub fn gateways(&self) -> impl Iterator<Item = &'s Arc<Hashed<ListenerSet>>> + use<'s> {
        self.record(Part::Gateways);
        self.snapshot.gateways.iter()
    }

    /// Objects of a kind in a namespace, oldest first.
    pub fn objects<T: Listed>(&self, namespace: &str) -> &'s [Arc<Hashed<Config<T>>>] {
        self.record(Part::Objects(T::KIND, Name::from(namespace)));
        T::table(&self.snapshot.tables).list(namespace)
    }

    /// All objects of a kind, oldest first. For kinds that are rare in a mesh.
    pub fn all_objects<T: Listed>(&self) -> Listing<T> {
        self.record(Part::AllObjects(T::KIND));
        T::table(&self.snapshot.tables).all()
    }

    /// The namespaces that have objects of a kind.
    pub fn namespaces_with<T: Listed>(&self) -> impl Iterator<Item = &'s Name> + use<'s, T> {
        self.record(Part::AllObjects(T::KIND));
        T::table(&self.snapshot.tables).namespaces()
    }

    /// Labels and annotations of a namespace; `None` if no Namespace object declares it.
    pub fn namespace(&self, name: &str) -> Option<&'s NamespaceFacts> {
        self.namespaces().get(name)
    }

    /// All namespaces that Namespace objects declare.
    pub fn namespaces(&self) -> &'s BTreeMap<Name, NamespaceFacts> {
        self.record(Part::Namespaces);
        &self.snapshot.namespaces
    }

    /// The namespaces that have Secrets, whether Namespace objects declare them or not.
    pub fn secret_namespaces(&self) -> Vec<Name> {
        self.record(Part::SecretNamespaces);
        self.snapshot.secret_namespaces()
    }

    /// A Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&'s Arc<Hashed<Secret>>> {
        let key = ObjectKey::new(Kind::Secret, namespace, name);
        self.record(Part::Secret { namespace: key.namespace.clone(), name: key.name.clone() });
        self.snapshot.objects.get(&key)?.spec::<Secret>()
    }

    /// A ConfigMap.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&'s Arc<Hashed<ConfigMap>>> {
        let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
        self.record(Part::ConfigMap { namespace: key.namespace.clone(), name: key.name.clone() });
        self.snapshot.objects.get(&key)?.spec::<ConfigMap>()
    }

    /// The public keys (JWKS) that are found with a URL, if they are known.
    pub fn jwks(&self, source: &str) -> Option<&'s Arc<str>> {
        match self.fact(FactKey::Jwks(Name::from(source)))? {
            Fact::Jwks { keys, .. } => Some(keys),
            _ => None,
        }
    }

    /// Why something could not be fetched, if it should have been.
    pub fn unfetched(&self, source: &str) -> Option<&'s Arc<str>> {
        match self.fact(FactKey::Unfetched(Name::from(source)))? {
            Fact::Unfetched { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Days since 1970-01-01, if somebody says which day it is.
    pub fn day(&self) -> Option<u64> {
        match self.fact(FactKey::Day)? {
            Fact::Day(day) => Some(*day),
            _ => None,
        }
    }

    /// What certificates of a trust domain are verified by, or what is found with a URL, if it is known.
    pub fn trust_bundle(&self, domain: &str) -> Option<&'s TrustBundle> {
        match self.fact(FactKey::TrustBundle(Name::from(domain)))? {
            Fact::TrustBundle { bundle, .. } => Some(bundle),
            _ => None,
        }
    }

    /// What proxies have refused and is left out since.
    pub fn rejected(&self) -> &'s [Rejected] {
        self.record(Part::Fact(FactKey::Rejected));
        self.snapshot.rejected()
    }

    /// What proxies of a namespace have refused.
    pub fn rejected_in(&self, namespace: &Name) -> impl Iterator<Item = &'s Rejected> + use<'s> {
        self.record(Part::RejectedIn(namespace.clone()));
        self.snapshot.rejected_in(namespace)
    }

    /// Whether an account may read the Secrets of its namespace, if that is known.
    pub fn secret_access(&self, account: &Account) -> Option<&'s SecretAccess> {
        match self.fact(FactKey::SecretReader(account.clone()))? {
            Fact::SecretReader { access, .. } => Some(access),
            _ => None,
        }
    }

    /// Accounts that ask for Secrets and may not read those of their namespace, or of which it is unknown.
    pub fn refused_secret_readers(&self) -> impl Iterator<Item = (&'s Account, &'s SecretAccess)> + use<'s> {
        self.record(Part::SecretReaders);
        self.snapshot.refused_secret_readers()
    }

    /// Whether it is known that nobody issues certificates.
    pub fn is_without_authority(&self) -> bool {
        self.fact(FactKey::NoAuthority).is_some()
    }

    /// The addresses of a host name, if it has been resolved.
    pub fn resolved(&self, host: &str) -> Option<&'s [IpAddr]> {
        match self.fact(FactKey::Resolved(Name::from(host)))? {
            Fact::Resolved { addresses, .. } => Some(addresses),
            _ => None,
        }
    }

    fn fact(&self, key: FactKey) -> Option<&'s Fact> {
        let fact = self.snapshot.facts.get(&key).map(|fact| &***fact);
        self.record(Part::Fact(key));
        fact
    }

    /// The workload at an address. Pods that share the address of their node are told apart by
    /// [`View::workloads`].
    pub fn workload(&self, address: IpAddr) -> Option<&'s Arc<Hashed<WorkloadFacts>>> {
        self.workloads(address).first()
    }

    /// All workloads at an address: WorkloadEntries, then Pods, then endpoints of ServiceEntries, each by
    /// namespace and name.
    pub fn workloads(&self, address: IpAddr) -> &'s [Arc<Hashed<WorkloadFacts>>] {
        self.record(Part::Workload(address));
        self.snapshot.workloads.get(&address).map_or(&[], |list| list.as_slice())
    }

    /// Kubernetes Services of a namespace that select a workload with these labels, oldest first.
    pub fn selecting_services(&self, namespace: &str, labels: &Labels) -> Vec<&'s Arc<Hashed<Service>>> {
        let mut found: Vec<&'s Arc<Hashed<Service>>> = Vec::new();
        for (key, value) in labels {
            // Services are filed under the first label of their selector.
            let selector = (Name::from(namespace), key.clone(), value.clone());
            let (namespace, key, value) = selector.clone();
            self.record(Part::Selectors { namespace, key, value });
            let services = self.snapshot.selectors.get(&selector).map_or(&[][..], |list| list.as_slice());
            found.extend(services.iter().filter(|service| selects(&service.selector, labels)));
        }
        found.sort_by(|a, b| service_order(a).cmp(&service_order(b)));
        found
    }

    /// Whether the configuration of some client depends on the node it runs on.
    pub fn client_nodes_matter(&self) -> bool {
        self.record(Part::ClientNodes);
        let mesh = &self.mesh().config;
        let locality = mesh.locality_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
        let zone = mesh.zone_aware_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
        self.snapshot.client_nodes_matter
            || locality.chain(zone).any(|label| label.starts_with(crate::client_node::NODE_LABEL))
    }

    /// Keys of the metadata of Envoy nodes that the configuration of some client depends on.
    pub fn node_metadata_keys(&self) -> &'s BTreeSet<Name> {
        self.record(Part::NodeMetadata);
        &self.snapshot.metadata_keys
    }

    /// Gateways between networks.
    pub fn network_gateways(&self) -> &'s Arc<Hashed<NetworkGateways>> {
        self.record(Part::NetworkGateways);
        &self.snapshot.network_gateways
    }
}

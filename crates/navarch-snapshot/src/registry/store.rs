//! The objects in force, found by what they have in common, with a record of who looked.
//!
//! Derivation asks only through a [`Reader`], which notes every question as an [`Input`]. When an object
//! changes, the inputs it belongs to, before and after the change, tell which units have to be derived again.
//! No unit states its dependencies.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use foldhash::HashMap;
use navarch_model::gateway_api::{BackendTlsPolicy, ListenerSet};
use navarch_model::kinds::{ConfigKind, Kind};
use navarch_model::kubernetes as kube;
use navarch_model::listener;
use navarch_model::mesh::MeshSettings;
use navarch_model::networking::{ServiceEntry, WorkloadEntry};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service::Service;
use navarch_model::{ClusterId, Hashed, Name};

use crate::bound::NetworkGateway;
use crate::network::Networks;
use crate::registry::allocation::Allocation;
use crate::registry::objects;
use crate::small_set::SmallSet;

/// Something derivation can ask about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Input {
    /// One object.
    Object(ObjectKey),
    /// Whether there is an object.
    Exists(ObjectKey),
    /// EndpointSlices and Endpoints of a Kubernetes Service: its cluster, namespace and name.
    EndpointsOf(ClusterId, Name, Name),
    /// Pods and WorkloadEntries in a namespace, of whichever cluster, that carry a label.
    Labelled(Name, Name, Name),
    /// Services and ServiceEntries in a namespace, of whichever cluster, that select by labels; this is the
    /// first.
    Selecting(Name, Name, Name),
    /// Objects that mention an address of a workload.
    Address(IpAddr),
    /// Nodes of a cluster with an external address.
    ExternalNodes(ClusterId),
    /// The services that an object declares, after conversion.
    Services(ObjectKey),
    /// The namespaces of the local cluster.
    Namespaces,
    /// ReferenceGrants of a namespace.
    Grants(Name),
    /// ListenerSets for a gateway.
    ListenerSetsOf(ObjectKey),
    /// BackendTLSPolicies for a Service or a ServiceEntry.
    PoliciesOf(ObjectKey),
    /// Classes of Ingresses.
    IngressClasses,
    /// The listeners that an object states, once they are lowered.
    Listeners(ObjectKey),
    /// Mesh settings.
    Mesh,
}

/// The objects in force.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: imbl::OrdMap<ObjectKey, Arc<Object>>,
    index: HashMap<Input, SmallSet<ObjectKey>>,
    allocation: Allocation,
}

impl Store {
    pub fn objects(&self) -> &imbl::OrdMap<ObjectKey, Arc<Object>> {
        &self.objects
    }

    /// Puts an object in (`Some`) or takes it out. Returns what was touched: every question whose answer may
    /// be another now.
    pub fn set(&mut self, key: &ObjectKey, object: Option<Arc<Object>>) -> BTreeSet<Input> {
        let mut touched = BTreeSet::from([Input::Object(key.clone())]);
        let before = match &object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        if before.is_some() != object.is_some() {
            touched.insert(Input::Exists(key.clone()));
        }
        if key.kind == Kind::ServiceEntry {
            self.allocation.set(key, before.as_deref(), object.as_deref());
        }
        if let Some(before) = before {
            for input in inputs_of(&before) {
                if let Some(members) = self.index.get_mut(&input) {
                    members.remove(key);
                    if members.is_empty() {
                        self.index.remove(&input);
                    }
                }
                touched.insert(input);
            }
        }
        if let Some(object) = object {
            for input in inputs_of(&object) {
                self.index.entry(input.clone()).or_default().insert(key.clone());
                touched.insert(input);
            }
        }
        touched
    }

    /// Gives addresses to hosts that need one, after all edits. Returns what was touched besides.
    pub fn settle(&mut self) -> impl Iterator<Item = Input> + use<> {
        self.allocation.settle().into_iter().map(Input::Object)
    }

    /// Puts in an object that says the same as the one that is there; nothing is touched. Returns whether
    /// there was one.
    pub fn replace_equal(&mut self, object: &Arc<Object>) -> bool {
        let there = self.objects.contains_key(&object.key);
        if there {
            self.objects.insert(object.key.clone(), object.clone());
        }
        there
    }

    fn members<'s>(&'s self, input: &Input) -> impl Iterator<Item = &'s Arc<Object>> + use<'s> {
        self.index.get(input).into_iter().flat_map(SmallSet::iter).filter_map(|key| self.objects.get(key))
    }

    /// Compares the index with what a look at every object gives. For tests.
    #[cfg(test)]
    pub fn assert_index(&self) {
        let mut expected: HashMap<Input, BTreeSet<ObjectKey>> = HashMap::default();
        for (key, object) in &self.objects {
            for input in inputs_of(object) {
                expected.entry(input).or_default().insert(key.clone());
            }
        }
        let index: HashMap<Input, BTreeSet<ObjectKey>> = self
            .index
            .iter()
            .map(|(input, members)| (input.clone(), members.iter().cloned().collect()))
            .collect();
        assert_eq!(index, expected);
        if self.objects.is_empty() {
            self.allocation.assert_empty();
        }
    }
}

/// The questions, other than for the object itself, that an object is part of the answer to.
fn inputs_of(object: &Object) -> Vec<Input> {
    let namespace = || object.key.namespace.clone();
    let mut inputs = Vec::new();
    match object.key.kind {
        Kind::Pod => {
            inputs.extend(objects::pod_addresses(object).into_iter().map(Input::Address));
            let labels = object.metadata.labels.iter();
            inputs
                .extend(labels.map(|(key, value)| Input::Labelled(namespace(), key.clone(), value.clone())));
        }
        Kind::WorkloadEntry => {
            let Some(entry) = object.spec::<WorkloadEntry>() else { return inputs };
            inputs.extend(entry.address.parse().ok().map(Input::Address));
            let labels = objects::entry_labels(object, entry);
            inputs.extend(
                labels.iter().map(|(key, value)| Input::Labelled(namespace(), key.clone(), value.clone())),
            );
        }
        Kind::ServiceEntry => {
            let Some(entry) = object.spec::<ServiceEntry>() else { return inputs };
            let addresses = entry.endpoints.iter().filter_map(|endpoint| endpoint.address.parse().ok());
            inputs.extend(addresses.map(Input::Address));
            if let Some(selector) = &entry.workload_selector {
                inputs
                    .extend(first_label(&selector.labels).map(|(k, v)| Input::Selecting(namespace(), k, v)));
            }
        }
        Kind::Service => {
            let Some(service) = object.spec::<kube::Service>() else { return inputs };
            inputs.extend(
                first_label(&service.spec.selector).map(|(k, v)| Input::Selecting(namespace(), k, v)),
            );
        }
        Kind::EndpointSlice => {
            let Some(slice) = object.spec::<kube::EndpointSlice>() else { return inputs };
            if let Some(service) = slice_service(object) {
                inputs.push(Input::EndpointsOf(object.key.cluster, namespace(), service.clone()));
                let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
                inputs.extend(addresses.filter_map(|address| address.parse().ok()).map(Input::Address));
            }
        }
        Kind::Endpoints => {
            inputs.push(Input::EndpointsOf(object.key.cluster, namespace(), object.key.name.clone()));
        }
        Kind::Namespace if object.key.cluster.is_local() => inputs.push(Input::Namespaces),
        Kind::IngressClass => inputs.push(Input::IngressClasses),
        Kind::BackendTlsPolicy => {
            let Some(policy) = object.spec::<BackendTlsPolicy>() else { return inputs };
            let targets = policy.target_refs.iter().map(|target| {
                let kind = if target.is_service() { Kind::Service } else { Kind::ServiceEntry };
                Input::PoliciesOf(ObjectKey::new(kind, &object.key.namespace, &target.name))
            });
            inputs.extend(targets);
        }
        Kind::ReferenceGrant => inputs.push(Input::Grants(namespace())),
        Kind::ListenerSet => {
            let gateway = object.spec::<ListenerSet>().and_then(|set| set.gateway(&object.key.namespace));
            inputs.extend(gateway.map(Input::ListenerSetsOf));
        }
        Kind::Node => {
            let external = object.spec::<kube::Node>().and_then(|node| node_external_address(node));
            inputs.extend(external.map(|_| Input::ExternalNodes(object.key.cluster)));
        }
        _ => {}
    }
    inputs.sort();
    inputs.dedup();
    inputs
}

/// The first label of a selector, by which it is found; a selector without labels selects nothing.
pub(crate) fn first_label<'a, T: Clone + Into<Name> + 'a>(
    selector: impl IntoIterator<Item = (&'a T, &'a T)>,
) -> Option<(Name, Name)> {
    selector.into_iter().next().map(|(key, value)| (key.clone().into(), value.clone().into()))
}

/// The service that an EndpointSlice belongs to. Slices that multi-cluster services make carry another label
/// besides and are not for this service.
pub(crate) fn slice_service(slice: &Object) -> Option<&Name> {
    if slice.metadata.labels.contains_key("multicluster.kubernetes.io/service-name") {
        return None;
    }
    slice.metadata.labels.get("kubernetes.io/service-name").filter(|name| !name.is_empty())
}

/// The first external address of a node.
pub(crate) fn node_external_address(node: &kube::Node) -> Option<&str> {
    let addresses = node.status.addresses.iter();
    addresses
        .filter(|address| address.type_ == "ExternalIP" && !address.address.is_empty())
        .map(|address| address.address.as_str())
        .next()
}

/// What does not come from objects, or from one object for everybody.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What the local cluster is called.
    pub cluster_name: Name,
    pub domain: Name,
    pub system_namespace: Option<Name>,
    pub mesh: Arc<Hashed<MeshSettings>>,
    pub networks: Networks,
}

/// What a Service or ServiceEntry declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    pub services: Vec<Arc<Hashed<Service>>>,
    /// The gateways to this network that it is.
    pub network_gateways: Box<[NetworkGateway]>,
}

/// What objects declare, after conversion, by object.
pub(crate) type DeclaredServices = HashMap<ObjectKey, Declared>;

/// The listeners that an object states; `None` for an object that is gone, or whose listeners nobody here
/// serves.
pub(crate) type DerivedListeners = Option<Arc<Hashed<listener::ListenerSet>>>;

/// Answers questions about the objects in force, and notes them.
pub(crate) struct Reader<'a> {
    store: &'a Store,
    settings: &'a Settings,
    declared: &'a DeclaredServices,
    listeners: &'a HashMap<ObjectKey, DerivedListeners>,
    asked: RefCell<BTreeSet<Input>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        store: &'a Store,
        settings: &'a Settings,
        declared: &'a DeclaredServices,
        listeners: &'a HashMap<ObjectKey, DerivedListeners>,
    ) -> Self {
        Reader { store, settings, declared, listeners, asked: RefCell::default() }
    }

    /// What was asked.
    pub fn into_asked(self) -> BTreeSet<Input> {
        self.asked.into_inner()
    }

    fn ask(&self, input: &Input) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(input) {
            asked.insert(input.clone());
        }
    }

    /// Mesh settings.
    pub fn mesh(&self) -> &'a MeshSettings {
        self.ask(&Input::Mesh);
        &self.settings.mesh
    }

    /// MeshNetworks.
    pub fn networks(&self) -> &'a Networks {
        self.ask(&Input::Mesh);
        &self.settings.networks
    }

    /// What a cluster is called. Never changes.
    pub fn cluster_name(&self, cluster: ClusterId) -> Name {
        cluster.remote_name().unwrap_or_else(|| self.settings.cluster_name.clone())
    }

    /// Domain suffix of Kubernetes services. Never changes.
    pub fn domain(&self) -> &'a str {
        &self.settings.domain
    }

    /// Namespace that the control plane runs in. Never changes.
    pub fn system_namespace(&self) -> Option<&'a Name> {
        self.settings.system_namespace.as_ref()
    }

    /// One object.
    pub fn object(&self, key: &ObjectKey) -> Option<&'a Arc<Object>> {
        self.ask(&Input::Object(key.clone()));
        self.store.objects.get(key)
    }

    /// The address of IPv4 that is allocated for a host of a ServiceEntry. The entry itself is touched when
    /// it is another one.
    pub fn allocated(&self, namespace: &Name, host: &str) -> Option<Ipv4Addr> {
        self.store.allocation.v4_of(namespace, host)
    }

    /// Whether there is an object, whatever it says.
    pub fn exists(&self, key: &ObjectKey) -> bool {
        self.ask(&Input::Exists(key.clone()));
        self.store.objects.contains_key(key)
    }

    /// One object by its parts, with its specification.
    pub fn get<T: ConfigKind>(
        &self,
        cluster: ClusterId,
        namespace: &str,
        name: &str,
    ) -> Option<(&'a Arc<Object>, &'a T)> {
        let object = self.object(&ObjectKey::of(cluster, T::KIND, namespace, name))?;
        Some((object, object.spec::<T>()?))
    }

    /// The objects that belong to an input, ordered by kind, namespace and name.
    pub fn members(&self, input: &Input) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.ask(input);
        self.store.members(input)
    }

    /// The services that a Service or ServiceEntry declares.
    pub fn services(&self, key: &ObjectKey) -> &'a [Arc<Hashed<Service>>] {
        self.ask(&Input::Services(key.clone()));
        self.declared.get(key).map_or(&[], |declared| &declared.services)
    }

    /// The namespaces of the local cluster, with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.members(&Input::Namespaces)
    }

    /// The listeners that a gateway, or a ListenerSet for one, states.
    pub fn listeners(&self, key: &ObjectKey) -> Option<&'a Arc<Hashed<listener::ListenerSet>>> {
        self.ask(&Input::Listeners(key.clone()));
        self.listeners.get(key)?.as_ref()
    }
}

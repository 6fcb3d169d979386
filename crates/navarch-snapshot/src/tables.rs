//! Objects by kind and namespace, for the kinds that are read as they are.

use std::hash::Hash;
use std::sync::Arc;

use navarch_model::extensions::{TrafficExtension, WasmPlugin};
use navarch_model::kinds::{ConfigKind, Kind};
use navarch_model::networking::{EnvoyFilter, ProxyConfig, Sidecar, WorkloadEntry, WorkloadGroup};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use navarch_model::telemetry::Telemetry;
use navarch_model::{Config, Fingerprint, Hashed, Name};

use crate::changed_keys::changed_keys;

/// A list of objects of one kind, oldest first.
pub type Listing<T> = Vec<Arc<Hashed<Config<T>>>>;

/// A kind whose objects a snapshot lists by namespace. The kind of a table is that of its type, whatever both
/// are called.
pub trait Listed: ConfigKind + Clone + Hash + Send + Sync + 'static {
    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self>;
}

/// Namespace, name and the new object, or nothing if it is gone.
type Edit<T> = (Name, Name, Option<Arc<Hashed<Config<T>>>>);

/// The objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<T> {
    by_namespace: imbl::OrdMap<Name, Arc<Hashed<Listing<T>>>>,
    /// Over all namespaces.
    fingerprint: Fingerprint,
    /// Changes since the last [`Table::settle`].
    pending: Vec<Edit<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { by_namespace: imbl::OrdMap::new(), fingerprint: Fingerprint::of(&()), pending: Vec::new() }
    }
}

impl<T: Listed> Table<T> {
    pub(crate) fn list(&self, namespace: &str) -> &[Arc<Hashed<Config<T>>>] {
        self.by_namespace.get(namespace).map_or(&[], |list| list.as_slice())
    }

    pub(crate) fn all(&self) -> Listing<T> {
        let mut all: Listing<T> = self.by_namespace.values().flat_map(|list| list.iter().cloned()).collect();
        all.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        all
    }

    /// The namespaces that have some.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Name> {
        self.by_namespace.keys()
    }

    fn fingerprint_of(&self, namespace: &str) -> Fingerprint {
        match self.by_namespace.get(namespace) {
            Some(list) => list.fingerprint(),
            None => Fingerprint::of(&()),
        }
    }

    fn set(&mut self, object: &Object) {
        let Some(config) = typed::<T>(object) else { return };
        self.pending.push((
            config.namespace.clone(),
            config.name.clone(),
            Some(Arc::new(Hashed::new(config))),
        ));
    }

    fn remove(&mut self, key: &ObjectKey) {
        self.pending.push((key.namespace.clone(), key.name.clone(), None));
    }

    /// Applies the pending changes; each namespace's list is copied once.
    fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by(|a, b| a.0.cmp(&b.0));
        for changes in pending.chunk_by(|a, b| a.0 == b.0) {
            let Some((namespace, ..)) = changes.first() else { continue };
            let latest: std::collections::BTreeMap<&Name, &Option<Arc<Hashed<Config<T>>>>> =
                changes.iter().map(|(_, name, config)| (name, config)).collect();
            let mut list: Listing<T> = self.list(namespace).to_vec();
            list.retain(|config| !latest.contains_key(&config.name));
            list.extend(latest.into_values().flatten().cloned());
            list.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
            if list.is_empty() {
                self.by_namespace.remove(namespace);
            } else {
                self.by_namespace.insert(namespace.clone(), Arc::new(Hashed::new(list)));
            }
        }
        let mut parts: Vec<(&Name, Fingerprint)> = Vec::with_capacity(self.by_namespace.len());
        parts.extend(self.by_namespace.iter().map(|(namespace, list)| (namespace, list.fingerprint())));
        self.fingerprint = if parts.is_empty() { Fingerprint::of(&()) } else { Fingerprint::of(&parts) };
    }
}

/// The object as translation sees it, with its specification by value.
pub(crate) fn typed<T: ConfigKind + Clone + Hash>(object: &Object) -> Option<Config<T>> {
    let spec = object.spec::<T>()?;
    Some(Config {
        namespace: object.metadata.namespace.clone(),
        name: object.metadata.name.clone(),
        created_at: object.metadata.creation_timestamp,
        labels: object.metadata.labels.clone(),
        annotations: object.metadata.annotations.clone(),
        spec: (***spec).clone(),
    })
}

macro_rules! tables {
    ($( $field:ident: $type:ty, )+) => {
        /// All tables.
        #[derive(Clone, Debug, Default)]
        pub struct Tables {
            $( $field: Table<$type>, )+
        }

        $(
            impl Listed for $type {
                fn table(tables: &Tables) -> &Table<Self> {
                    &tables.$field
                }
            }
        )+

        impl Tables {
            /// Takes in a new or changed object; kinds without a table are left alone.
            pub(crate) fn set(&mut self, object: &Object) {
                match object.key.kind {
                    $( <$type as ConfigKind>::KIND => self.$field.set(object), )+
                    _ => {}
                }
            }

            pub(crate) fn remove(&mut self, key: &ObjectKey) {
                match key.kind {
                    $( <$type as ConfigKind>::KIND => self.$field.remove(key), )+
                    _ => {}
                }
            }

            /// Makes the changes visible.
            pub(crate) fn settle(&mut self) {
                $( self.$field.settle(); )+
            }

            /// Fingerprint of the objects of a kind in a namespace.
            pub(crate) fn fingerprint(&self, kind: Kind, namespace: &str) -> Fingerprint {
                match kind {
                    $( <$type as ConfigKind>::KIND => self.$field.fingerprint_of(namespace), )+
                    _ => Fingerprint::of(&()),
                }
            }

            /// Fingerprint of all objects of a kind.
            pub(crate) fn fingerprint_all(&self, kind: Kind) -> Fingerprint {
                match kind {
                    $( <$type as ConfigKind>::KIND => self.$field.fingerprint, )+
                    _ => Fingerprint::of(&()),
                }
            }

            /// Parts that may have changed. Visits what changed only.
            pub(crate) fn changed_since(&self, before: &Tables) -> Vec<crate::Part> {
                let mut parts = Vec::new();
                $(
                    parts.push(crate::Part::AllObjects(<$type as ConfigKind>::KIND));
                    parts.extend(
                        changed_keys(&self.$field.by_namespace, &before.$field.by_namespace)
                            .map(|namespace| crate::Part::Objects(<$type as ConfigKind>::KIND, namespace.clone())),
                    );
                )+
                parts
            }

            /// The parts of all tables, for comparing snapshots.
            pub(crate) fn parts(&self) -> Vec<crate::Part> {
                let mut parts = Vec::new();
                $(
                    parts.push(crate::Part::AllObjects(<$type as ConfigKind>::KIND));
                    parts.extend(
                        self.$field
                            .by_namespace
                            .keys()
                            .map(|namespace| crate::Part::Objects(<$type as ConfigKind>::KIND, namespace.clone())),
                    );
                )+
                parts
            }
        }
    };
}

tables! {
    sidecars: Sidecar,
    envoy_filters: EnvoyFilter,
    workload_entries: WorkloadEntry,
    workload_groups: WorkloadGroup,
    proxy_configs: ProxyConfig,
    peer_authentications: PeerAuthentication,
    request_authentications: RequestAuthentication,
    authorization_policies: AuthorizationPolicy,
    telemetries: Telemetry,
    wasm_plugins: WasmPlugin,
    traffic_extensions: TrafficExtension,
}

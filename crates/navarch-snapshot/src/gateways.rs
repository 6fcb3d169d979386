//! The listeners of all gateways: a mesh has few.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use navarch_model::listener::{GatewayProxies, ListenerSet};
use navarch_model::object::ObjectKey;
use navarch_model::{Fingerprint, Hashed, Kind, Name, Precedence};

use crate::changed_keys::changed_keys;

type SharedListeners = Arc<Hashed<ListenerSet>>;

/// The listeners of all gateways, oldest gateway first.
#[derive(Clone, Debug)]
pub struct Gateways {
    sets: OrdMap<Precedence, SharedListeners>,
    by_key: OrdMap<ObjectKey, Precedence>,
    /// What ListenerSets are for, with their keys.
    added: OrdSet<(ObjectKey, ObjectKey)>,
    /// Hosts of Services that proxies are behind, with the objects whose listeners they open.
    by_host: OrdSet<(Name, ObjectKey)>,
    fingerprint: Fingerprint,
    changed: bool,
}

impl Default for Gateways {
    fn default() -> Self {
        Gateways {
            sets: OrdMap::new(),
            by_key: OrdMap::new(),
            added: OrdSet::new(),
            by_host: OrdSet::new(),
            fingerprint: Fingerprint::of(&()),
            changed: false,
        }
    }
}

impl Gateways {
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &SharedListeners> {
        self.sets.values()
    }

    /// The listeners that an object states.
    pub fn get(&self, key: &ObjectKey) -> Option<&SharedListeners> {
        self.sets.get(self.by_key.get(key)?)
    }

    /// What ListenerSets add to a gateway.
    pub fn sets_for<'s>(&'s self, gateway: &'s ObjectKey) -> impl Iterator<Item = &'s SharedListeners> {
        // Nothing comes before the first kind without a name.
        let first = (gateway.clone(), ObjectKey::new(Kind::ALL[0], "", ""));
        let added = self.added.range(first..).take_while(move |(own, _)| own == gateway);
        added.filter_map(|(_, key)| self.get(key))
    }

    /// Objects whose status may be another one, though nothing became of them: listeners were added to the
    /// gateway, or something changed about a Service that its proxies are behind. `changed_hosts` gives the
    /// hosts of services that changed, and is asked only if there are such objects. `changed_objects` are
    /// Services of Kubernetes that changed, be it only the addresses of their balancers, which make no other
    /// service.
    pub fn concerned_since<'k>(
        &self,
        before: &Self,
        changed_hosts: impl FnOnce() -> BTreeSet<Name>,
        changed_objects: impl Iterator<Item = &'k ObjectKey>,
    ) -> BTreeSet<ObjectKey> {
        let sets = changed_keys(&self.sets, &before.sets).map(|precedence| &precedence.key);
        let for_gateway = |key| {
            let sets = [self.get(key), before.get(key)];
            sets.into_iter().flatten().map(|set| set.gateway.clone())
        };
        let mut concerned: BTreeSet<ObjectKey> = sets.flat_map(for_gateway).collect();
        if self.by_host.is_empty() {
            return concerned;
        }
        for host in changed_hosts() {
            let behind = self.behind(&host).take_while(|(own, _)| *own == host);
            concerned.extend(behind.flat_map(|(_, key)| for_gateway(key).chain([key.clone()])));
        }
        for service in changed_objects {
            let start = Name::from(format!("{}.{}.svc.", service.name, service.namespace));
            let behind = self.behind(&start).take_while(|(own, _)| own.starts_with(&*start));
            concerned.extend(behind.flat_map(|(_, key)| for_gateway(key).chain([key.clone()])));
        }
        concerned
    }

    /// Hosts that proxies are behind from one on, with the objects whose listeners they open.
    fn behind(&self, first: &Name) -> impl Iterator<Item = &(Name, ObjectKey)> {
        // Nothing comes before the first kind without a name.
        self.by_host.range((first.clone(), ObjectKey::new(Kind::ALL[0], "", ""))..)
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Takes in the listeners of a new or changed object, or that it has none any more.
    pub fn set(&mut self, key: &ObjectKey, set: Option<SharedListeners>) {
        if let Some(before) = self.by_key.get(key).cloned() {
            self.by_key.remove(key);
            if let Some(set) = self.sets.remove(&before) {
                self.added.remove(&(set.gateway.clone(), key.clone()));
                for host in hosts(&set) {
                    self.by_host.remove(&(host.clone(), key.clone()));
                }
            }
            self.changed = true;
        }
        if let Some(set) = set {
            if set.gateway != *key {
                self.added.insert((set.gateway.clone(), key.clone()));
            }
            for host in hosts(&set) {
                self.by_host.insert((host.clone(), key.clone()));
            }
            self.by_key.insert(key.clone(), set.precedence.clone());
            self.sets.insert(set.precedence.clone(), set);
            self.changed = true;
        }
    }

    /// Makes the changes visible.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.changed) {
            let sets: Vec<Fingerprint> = self.sets.values().map(|set| set.fingerprint()).collect();
            self.fingerprint = if sets.is_empty() { Fingerprint::of(&()) } else { Fingerprint::of(&sets) };
        }
    }
}

/// Hosts of the Services that proxies are behind.
fn hosts(set: &ListenerSet) -> &[Name] {
    match &set.proxies {
        GatewayProxies::Behind { services, .. } => services,
        GatewayProxies::Labelled(_) => &[],
    }
}

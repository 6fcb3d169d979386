//! Statuses: what became of each object that configures the mesh.
//!
//! Most objects are in use, and there is nothing else to say; that is not stored. A unit that knows more
//! yields an [`crate::outcome::Outcome`].

mod ancestors;
mod entries;
mod ingress;
mod reach;

use std::collections::BTreeSet;

use navarch_model::fact::{Fact, FactKey, Refusal};
use navarch_model::gateway_api::{self, GatewayClass};
use navarch_model::kinds::{Kind, Layout};
use navarch_model::listener::ListenerSet;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::Parent;
use navarch_model::status::{Condition, ConditionType, Status};

use self::reach::Reach;
use crate::bind::serves_controller;
use crate::changed_keys::changed_keys;
use crate::outcome::Outcome;
use crate::snapshot::Snapshot;

/// The statuses of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Statuses<'s>(&'s Snapshot);

impl Snapshot {
    /// What became of the objects that configure the mesh: those in force, and those that cannot be used.
    pub fn statuses(&self) -> Statuses<'_> {
        Statuses(self)
    }
}

impl<'s> Statuses<'s> {
    /// The status of an object; `None` if there is no such object, or it only says what runs.
    pub fn get(self, key: &ObjectKey) -> Option<Status> {
        if !has_status(key.kind) {
            return None;
        }
        let object = self.0.objects.get(key);
        let refusal = self.0.facts.get(&FactKey::Refused(key.clone())).and_then(|fact| match &***fact {
            Fact::Refused { refusal, .. } => Some(refusal),
            _ => None,
        });
        if object.is_none() && refusal.is_none() {
            return None;
        }
        let outcome = self.0.outcomes.get(key).map(|outcome| (**outcome).clone()).unwrap_or_default();
        let Outcome { conditions: known, parents, listeners, foreign } = outcome;
        if foreign || object.is_some_and(|object| is_foreign(object)) {
            return None;
        }
        let own = |ty| known.iter().any(|condition: &Condition| condition.ty == ty);
        let mut conditions = Vec::with_capacity(known.len() + 1);
        // Who cannot be read says nothing about itself.
        if refusal.is_some() || !own(ConditionType::Accepted) {
            conditions.push(accepted(refusal));
        }
        let stays = |condition: &Condition| refusal.is_none() || condition.ty != ConditionType::Accepted;
        conditions.extend(known.iter().filter(|condition| stays(condition)).cloned());
        let mut status = Status {
            generation: object.map_or(0, |object| object.metadata.generation),
            conditions,
            parents,
            listeners,
            ..Status::default()
        };
        if refusal.is_none() || object.is_some() {
            self.complete(key, &mut status);
        }
        match key.kind {
            Kind::BackendTlsPolicy => ancestors::add(self.0, &mut status.parents),
            Kind::Ingress => status.addresses = ingress::addresses(self.0),
            Kind::ServiceEntry => status.allocated = entries::allocated(self.0, key),
            _ => {}
        }
        Some(status)
    }

    /// Which controller serves what a route is attached to or a policy applies to, as its class says it.
    pub fn controller(self, parent: &ObjectKey) -> &'static str {
        let object = self.0.objects.get(parent);
        let set = object.and_then(|object| object.spec::<gateway_api::ListenerSet>());
        let gateway = set.and_then(|set| set.gateway(&parent.namespace));
        let object = gateway.as_ref().map_or(object, |gateway| self.0.objects.get(gateway));
        let gateway = object.and_then(|object| object.spec::<gateway_api::Gateway>());
        self.0.controller_of_class(gateway.map_or("", |gateway| &gateway.gateway_class_name))
    }

    /// Adds what is known only now to the status of an object with listeners.
    fn complete(self, key: &ObjectKey, status: &mut Status) {
        for listener in &mut status.listeners {
            let parent = Parent::Listener { gateway: key.clone(), section: listener.name.clone() };
            listener.attached_routes = self.0.attached.get(&parent).copied().unwrap_or(0);
        }
        let gateways = &self.0.gateways;
        let Some(own) = gateways.get(key).filter(|set| set.is_of_gateway_api()) else { return };
        let own: &ListenerSet = own;
        if key.kind == Kind::KubernetesGateway {
            let added = gateways.sets_for(key).map(|set| -> &ListenerSet { set });
            let mut sets: Vec<&ListenerSet> =
                added.filter(|set| set.listeners.iter().any(|listener| listener.served)).collect();
            status.attached_listener_sets = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            sets.push(own);
            let reach = Reach::of(self.0, &sets);
            status.addresses = reach.addresses(key, self.0);
            status.conditions.push(reach.programmed());
        } else if status.condition(ConditionType::Programmed).is_none() {
            status.conditions.push(Reach::of(self.0, &[own]).programmed());
        }
        status.conditions.sort_by_key(|condition| condition.ty);
    }

    /// All statuses, by object.
    pub fn iter(self) -> impl Iterator<Item = (ObjectKey, Status)> + use<'s> {
        let in_force = self.0.objects.keys().filter(|key| has_status(key.kind)).cloned();
        // Objects without any version that can be used.
        let refused = self.0.facts.keys().filter_map(|key| match key {
            FactKey::Refused(key) => Some(key.clone()),
            _ => None,
        });
        let keys: BTreeSet<ObjectKey> = in_force.chain(refused).collect();
        keys.into_iter().filter_map(move |key| self.get(&key).map(|status| (key, status)))
    }

    /// Statuses that have changed, `None` for objects that are gone. Costs what changed between the two
    /// snapshots.
    pub fn changed_since(self, before: &Snapshot) -> Vec<(ObjectKey, Option<Status>)> {
        let facts = changed_keys(&self.0.facts, &before.facts).filter_map(|key| match key {
            FactKey::Refused(object) => Some(object),
            _ => None,
        });
        let objects = changed_keys(&self.0.objects, &before.objects);
        let outcomes = changed_keys(&self.0.outcomes, &before.outcomes);
        let mut keys: BTreeSet<&ObjectKey> = facts.chain(objects).chain(outcomes).collect();
        let attached = changed_keys(&self.0.attached, &before.attached).filter_map(Parent::gateway);
        keys.extend(attached);
        let changed_hosts = || {
            let services = self.0.services.changed_since(&before.services);
            services.into_iter().chain(self.0.endpoints.changed_since(&before.endpoints)).collect()
        };
        let services = keys.iter().copied().filter(|key| key.kind == Kind::Service);
        let services: Vec<&ObjectKey> = services.collect();
        let gateways = self.0.gateways.concerned_since(&before.gateways, changed_hosts, services.into_iter());
        keys.extend(&gateways);
        let policies = ancestors::concerned_since(self.0, before);
        keys.extend(&policies);
        let ingresses = ingress::concerned_since(self.0, before);
        keys.extend(&ingresses);
        let entries = entries::concerned_since(self.0, before);
        keys.extend(&entries);
        let changed = keys.into_iter().filter_map(|key| {
            let (was, is) = (before.statuses().get(key), self.get(key));
            (was != is).then(|| (key.clone(), is))
        });
        changed.collect()
    }
}

/// Kinds that configure the mesh have a status. What runs in a cluster has one of its own, which others
/// write.
fn has_status(kind: Kind) -> bool {
    kind.layout() == Layout::Spec && kind != Kind::ReferenceGrant
}

/// Whether it is a class of gateways that somebody else serves.
fn is_foreign(object: &Object) -> bool {
    object.spec::<GatewayClass>().is_some_and(|class| !serves_controller(&class.controller_name))
}

fn accepted(refusal: Option<&Refusal>) -> Condition {
    match refusal {
        None => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
        Some(Refusal { message, last_good: true }) => {
            let message = format!("{message}; the last good version stays in use");
            Condition::new(ConditionType::Accepted, false, "LastGoodInUse", message)
        }
        Some(Refusal { message, last_good: false }) => {
            Condition::new(ConditionType::Accepted, false, "Invalid", message.clone())
        }
    }
}

//! The addresses that hosts of a ServiceEntry have been allocated.

use std::collections::BTreeSet;

use navarch_model::kinds::Kind;
use navarch_model::networking::ServiceEntry;
use navarch_model::object::ObjectKey;
use navarch_model::service::{Registry, Service};
use navarch_model::status::HostAddress;
use navarch_model::{Hashed, Name};

use crate::snapshot::Snapshot;

/// The hosts of an entry with their addresses, in the order in which it names them.
pub(super) fn allocated(snapshot: &Snapshot, key: &ObjectKey) -> Vec<HostAddress> {
    let entry = snapshot.objects.get(key).and_then(|object| object.spec::<ServiceEntry>());
    let mut known = BTreeSet::new();
    let hosts = entry.into_iter().flat_map(|entry| &entry.hosts).filter(|host| known.insert(host.as_str()));
    let service = |host: &String| {
        let of_host = snapshot.services.get(host).into_iter().flatten();
        of_host
            .map(|service| -> &Hashed<Service> { service })
            .find(|service| key_of(service) == Some(key.clone()))
    };
    let addresses = hosts.filter_map(service).flat_map(|service| {
        let host = &service.hostname;
        service
            .auto_allocated_addresses
            .iter()
            .map(|value| HostAddress { host: host.clone(), value: value.clone() })
    });
    addresses.collect()
}

/// Entries of hosts that are others than before: an address follows from the other hosts, too.
pub(super) fn concerned_since(now: &Snapshot, before: &Snapshot) -> BTreeSet<ObjectKey> {
    let changed: Vec<Name> = now.services.changed_since(&before.services);
    let of = |snapshot: &Snapshot, host: &Name| -> Vec<ObjectKey> {
        let services = snapshot.services.get(host).into_iter().flatten();
        services.filter_map(|service| key_of(service)).collect()
    };
    changed.iter().flat_map(|host| [of(now, host), of(before, host)]).flatten().collect()
}

/// The ServiceEntry that a service is from.
fn key_of(service: &Service) -> Option<ObjectKey> {
    (service.registry == Registry::ServiceEntry)
        .then(|| ObjectKey::new(Kind::ServiceEntry, &service.namespace, &service.name))
}

//! Addresses for hosts of ServiceEntries that declare none, so that a proxy can tell connections to them
//! apart where it answers the workload's questions for names (`ISTIO_META_DNS_CAPTURE`).
//!
//! An address follows from the hash of namespace and host. Of hosts with one hash the older one has it, and
//! the other the next that is free. So who has which depends on the configuration alone: it is the same on
//! every replica and after every restart. The cost: an entry that is new and yet counts as older (files have
//! no times, and names decide) takes an address from one that shares its hash, one in 65,000 for each host
//! that there is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use navarch_model::networking::{Resolution, ServiceEntry};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::{Name, Precedence};

/// Switches it off for an entry.
const LABEL: &str = "networking.istio.io/enable-autoallocate-ip";
/// 240.240.0.0/16, as Istio has it: nobody routes class E.
const V4: [u8; 2] = [240, 240];
/// Of each 256 the first and the last look like a network and its broadcast address, and are left out.
const V4_HOSTS: u32 = 254;
const V4_SLOTS: u32 = 256 * V4_HOSTS;
/// 2001:2::/48, as Istio has it: for benchmarks (RFC 5180), and routed by nobody.
const V6: u128 = 0x2001_0002 << 96;
const V6_HOST_BITS: u32 = 80;

/// A host in a namespace.
type Host = (Name, Name);

/// Whether hosts of the entry get addresses.
pub(super) fn is_wanted(object: &Object, entry: &ServiceEntry) -> bool {
    let opted_out =
        object.metadata.labels.get(LABEL).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    !opted_out && entry.addresses.is_empty() && entry.resolution != Resolution::None
}

/// Addresses of a host that the entry states itself, where a controller of Istio has written them: the last
/// one of each family.
pub(super) fn stated(entry: &ServiceEntry, host: &str) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let (mut v4, mut v6) = (None, None);
    for address in entry.status_addresses.iter().filter(|address| address.host == host) {
        match address.value.parse() {
            Ok(IpAddr::V4(address)) => v4 = Some(address),
            Ok(IpAddr::V6(address)) => v6 = Some(address),
            Err(_) => {}
        }
    }
    (v4, v6)
}

/// The address of IPv6. There is room enough for no two hosts to have one hash.
pub(super) fn v6_of(namespace: &str, host: &str) -> Ipv6Addr {
    let hash = hash(namespace, host);
    let own = (hash ^ (hash >> V6_HOST_BITS)) & ((1 << V6_HOST_BITS) - 1);
    Ipv6Addr::from_bits(V6 | own)
}

/// FNV-1a: the same on every replica and after every restart.
fn hash(namespace: &str, host: &str) -> u128 {
    let bytes = namespace.bytes().chain([b'/']).chain(host.bytes());
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The place that a host would like best.
fn first_slot(namespace: &str, host: &str) -> u32 {
    let hash = hash(namespace, host);
    let folded = (hash ^ (hash >> 64)) as u64;
    ((folded ^ (folded >> 32)) % u64::from(V4_SLOTS)) as u32
}

fn address_of(slot: u32) -> Ipv4Addr {
    let (third, last) = (slot / V4_HOSTS, slot % V4_HOSTS + 1);
    Ipv4Addr::new(V4[0], V4[1], third as u8, last as u8)
}

/// Which host has which address.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    /// Hosts that are to get one, in the order in which they choose.
    wishes: BTreeMap<Precedence, Name>,
    /// Addresses that entries state.
    taken: BTreeMap<ObjectKey, Vec<Ipv4Addr>>,
    given: HashMap<Host, Ipv4Addr>,
    is_settled: bool,
}

impl Allocation {
    /// Notes what an object says now, and what it said before.
    pub fn set(&mut self, key: &ObjectKey, before: Option<&Object>, after: Option<&Object>) {
        let (old, new) = (wishes_of(before), wishes_of(after));
        if old == new {
            return;
        }
        self.is_settled = false;
        for precedence in old.0.into_keys() {
            self.wishes.remove(&precedence);
        }
        self.wishes.extend(new.0);
        match new.1.is_empty() {
            true => self.taken.remove(key),
            false => self.taken.insert(key.clone(), new.1),
        };
    }

    /// Gives every host its address, and returns the objects with a host that has another one now.
    pub fn settle(&mut self) -> BTreeSet<ObjectKey> {
        if std::mem::replace(&mut self.is_settled, true) {
            return BTreeSet::new();
        }
        let mut used: HashSet<Ipv4Addr> = self.taken.values().flatten().copied().collect();
        let mut given: HashMap<Host, Ipv4Addr> = HashMap::with_capacity(self.wishes.len());
        for (precedence, host) in &self.wishes {
            let own = (precedence.key.namespace.clone(), host.clone());
            if given.contains_key(&own) {
                continue;
            }
            let first = first_slot(&own.0, &own.1);
            let slots = (0..V4_SLOTS).map(|step| address_of((first + step) % V4_SLOTS));
            if let Some(address) = slots.into_iter().find(|address| !used.contains(address)) {
                used.insert(address);
                given.insert(own, address);
            }
        }
        let before = std::mem::replace(&mut self.given, given);
        let is_changed = |(precedence, host): &(&Precedence, &Name)| {
            let own = (precedence.key.namespace.clone(), (*host).clone());
            before.get(&own) != self.given.get(&own)
        };
        self.wishes.iter().filter(is_changed).map(|(precedence, _)| precedence.key.clone()).collect()
    }

    /// The address of a host.
    pub fn v4_of(&self, namespace: &Name, host: &str) -> Option<Ipv4Addr> {
        self.given.get(&(namespace.clone(), Name::from(host))).copied()
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub fn assert_empty(&self) {
        assert!(self.wishes.is_empty() && self.taken.is_empty() && self.given.is_empty());
    }
}

/// The hosts of an object that are to get an address, and the addresses that it states.
fn wishes_of(object: Option<&Object>) -> (BTreeMap<Precedence, Name>, Vec<Ipv4Addr>) {
    let mut wishes = BTreeMap::new();
    let mut taken = Vec::new();
    let Some((object, entry)) = object.and_then(|object| Some((object, object.spec::<ServiceEntry>()?)))
    else {
        return (wishes, taken);
    };
    if !is_wanted(object, entry) {
        return (wishes, taken);
    }
    for (position, host) in (0..).zip(&entry.hosts) {
        match stated(entry, host) {
            (Some(address), _) => taken.push(address),
            (None, None) if !host.contains('*') => {
                let created_at = object.metadata.creation_timestamp;
                let precedence = Precedence { created_at, key: object.key.clone(), position };
                wishes.insert(precedence, Name::from(host.as_str()));
            }
            (None, _) => {}
        }
    }
    (wishes, taken)
}

#[cfg(test)]
mod tests {
    use navarch_model::document::parse_text;
    use std::sync::Arc;

    use super::*;

    fn entry(name: &str, hosts: &str, more: &str) -> Arc<Object> {
        let text = format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, namespace: shop}}, spec: {{hosts: [{hosts}], resolution: DNS, ports: [{{number: 80, name: tcp, protocol: TCP}}]}}{more}}}"
        );
        read(&text)
    }

    fn read(text: &str) -> Arc<Object> {
        let parsed = parse_text("entry.yaml", text);
        parsed.objects.into_iter().next().map(Arc::new).expect("an object")
    }

    fn allocate(objects: &[Arc<Object>]) -> Allocation {
        let mut made = Allocation::default();
        for object in objects {
            made.set(&object.key, None, Some(object));
        }
        made.settle();
        made
    }

    fn of(allocation: &Allocation, host: &str) -> Option<String> {
        allocation.v4_of(&Name::from("shop"), host).map(|address| address.to_string())
    }

    #[test]
    fn an_address_stays_whatever_else_there_is() {
        let mut objects: Vec<_> =
            (0..2000).map(|n| entry(&format!("e{n}"), &format!("h{n}.example.com"), "")).collect();
        let all = allocate(&objects);
        let addresses: BTreeSet<_> = all.given.values().collect();
        assert_eq!(addresses.len(), 2000, "two hosts have one address");
        objects.reverse();
        assert_eq!(allocate(&objects).given, all.given, "the order of edits counts");
        assert!(
            all.given
                .values()
                .all(|address| address.octets()[..2] == V4 && ![0, 255].contains(&address.octets()[3]))
        );
        // Written down: it must not change with a release.
        assert_eq!(of(&allocate(&objects[..1]), "h1999.example.com").as_deref(), Some("240.240.165.83"));
        assert_eq!(v6_of("shop", "h1.example.com").to_string(), "2001:2:0:72e0:15b2:f215:c94f:ecf");
    }

    #[test]
    fn of_two_with_one_hash_the_first_keeps_it() {
        let slot = |n: usize| first_slot("shop", &format!("h{n}.example.com"));
        let mut seen = HashMap::new();
        let (one, other) =
            (0..).find_map(|n| seen.insert(slot(n), n).map(|known| (known, n))).expect("two of them");
        let (one, other) = (format!("h{one}.example.com"), format!("h{other}.example.com"));
        let (a, b) = (entry("a", &one, ""), entry("b", &other, ""));
        let mut both = allocate(&[b.clone(), a.clone()]);
        assert_eq!(of(&both, &one), of(&allocate(std::slice::from_ref(&a)), &one));
        assert_ne!(of(&both, &one), of(&both, &other));
        both.set(&a.key, Some(&a), None);
        assert_eq!(both.settle(), BTreeSet::from([b.key.clone()]));
        assert_eq!(of(&both, &other), of(&allocate(std::slice::from_ref(&b)), &other));
        both.set(&b.key, Some(&b), None);
        both.settle();
        both.assert_empty();
    }

    #[test]
    fn what_an_entry_states_is_taken() {
        let a = entry("a", "a.example.com", "");
        let own = of(&allocate(std::slice::from_ref(&a)), "a.example.com").expect("an address");
        let status = format!(", status: {{addresses: [{{value: {own}, host: b.example.com}}]}}");
        let both = allocate(&[entry("b", "b.example.com", &status), a]);
        assert_eq!(of(&both, "b.example.com"), None, "it has its own");
        assert_ne!(of(&both, "a.example.com"), Some(own));
    }

    #[test]
    fn some_get_none() {
        // One host of many, and hosts whose callers know the address.
        for hosts in ["'*.example.com'", "a.example.com"] {
            let text = format!(
                "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a, namespace: shop}}, spec: {{hosts: [{hosts}], resolution: NONE, ports: [{{number: 80, name: http, protocol: HTTP}}]}}}}"
            );
            assert_eq!(allocate(&[read(&text)]).given.len(), 0, "{hosts}");
        }
    }
}

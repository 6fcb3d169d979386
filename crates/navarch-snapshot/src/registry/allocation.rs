//! Addresses for hosts of ServiceEntries that declare none, so that a proxy can tell connections to them
//! apart where it answers the workload's questions for names (`ISTIO_META_DNS_CAPTURE`).
//!
//! An address follows from the hash of namespace and host. Of hosts with one hash the older one has it, and
//! the other the next that is free. So who has which depends on the configuration alone: it is the same on
//! every replica and after every restart. The cost: an entry that is new and yet counts as older (files have
//! no times, and names decide) takes an address from one that shares its hash, one in 65,000 for each host
//! that there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// A host, and when it chooses.
type Chooser = (Precedence, Host);

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

fn slot_of(address: Ipv4Addr) -> Option<u32> {
    let [first, second, third, last] = address.octets();
    let is_ours = [first, second] == V4 && (1..=V4_HOSTS).contains(&u32::from(last));
    is_ours.then(|| u32::from(third) * V4_HOSTS + u32::from(last) - 1)
}

/// Which host has which address: a hash table with open addressing in which the older entry has the place,
/// and so the same one whatever came first. A change moves only those in the same run of places.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    hosts: HashMap<Host, Wish>,
    /// Who has a place, and when it chose.
    places: HashMap<u32, Chooser>,
    /// Places that entries state, and how many do.
    stated: HashMap<u32, usize>,
    /// Hosts that have to choose, the older ones first.
    choosing: BTreeSet<Chooser>,
    /// Hosts that may have another place since they were settled last, with the one they had.
    moved: BTreeMap<Host, Option<u32>>,
    /// Whether some hosts have no place since there are too many.
    is_full: bool,
}

/// A host that is to get an address.
#[derive(Debug, Default)]
struct Wish {
    /// The entries that ask for it. The first one says when it chooses.
    by: BTreeSet<Precedence>,
    slot: Option<u32>,
}

impl Allocation {
    /// Notes what an object says now, and what it said before.
    pub fn set(&mut self, key: &ObjectKey, before: Option<&Object>, after: Option<&Object>) {
        let (old, new) = (wishes_of(before), wishes_of(after));
        if old == new {
            return;
        }
        let own = |host: &Name| (key.namespace.clone(), host.clone());
        for (precedence, host) in &old.0 {
            self.wish(&own(host), |by| _ = by.remove(precedence));
        }
        for (precedence, host) in new.0 {
            self.wish(&own(&host), |by| _ = by.insert(precedence));
        }
        for slot in old.1 {
            let count = self.stated.get_mut(&slot).map(|count| {
                *count -= 1;
                *count
            });
            if count == Some(0) {
                self.stated.remove(&slot);
                self.vacate(slot);
            }
        }
        for slot in new.1 {
            *self.stated.entry(slot).or_default() += 1;
            if let Some(chooser) = self.places.remove(&slot) {
                self.choose_again(chooser);
            }
        }
    }

    /// Gives every host its address, and returns the objects with a host that has another one now.
    pub fn settle(&mut self) -> BTreeSet<ObjectKey> {
        if self.choosing.is_empty() && self.moved.is_empty() {
            return BTreeSet::new();
        }
        let is_full = self.hosts.len() + self.stated.len() > V4_SLOTS as usize;
        // Who has none may be anywhere in the order: everybody chooses again.
        if std::mem::replace(&mut self.is_full, is_full) || is_full {
            self.places.clear();
            let everybody = self.hosts.iter();
            let everybody =
                everybody.filter_map(|(host, wish)| Some((wish.by.first()?.clone(), host.clone())));
            let everybody: Vec<Chooser> = everybody.collect();
            everybody.into_iter().for_each(|chooser| self.choose_again(chooser));
        }
        for chooser in std::mem::take(&mut self.choosing) {
            if self.places.len() + self.stated.len() == V4_SLOTS as usize {
                break;
            }
            self.place(chooser);
        }
        let moved = std::mem::take(&mut self.moved).into_iter();
        let wishes =
            moved.filter_map(|(host, before)| self.hosts.get(&host).filter(|wish| wish.slot != before));
        wishes.flat_map(|wish| &wish.by).map(|precedence| precedence.key.clone()).collect()
    }

    /// The address of a host.
    pub fn v4_of(&self, namespace: &Name, host: &str) -> Option<Ipv4Addr> {
        self.hosts.get(&(namespace.clone(), Name::from(host)))?.slot.map(address_of)
    }

    /// What is asked for a host changes, and with it perhaps when the host chooses.
    fn wish(&mut self, host: &Host, change: impl FnOnce(&mut BTreeSet<Precedence>)) {
        let by = &mut self.hosts.entry(host.clone()).or_default().by;
        let before = by.first().cloned();
        change(by);
        let after = by.first().cloned();
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.choosing.remove(&(before, host.clone()));
        }
        let slot = self.leave(host);
        match after {
            Some(after) => _ = self.choosing.insert((after, host.clone())),
            None => _ = self.hosts.remove(host),
        }
        if let Some(slot) = slot {
            self.places.remove(&slot);
            self.vacate(slot);
        }
    }

    /// A host finds a place. A younger one goes on looking from where it was.
    fn place(&mut self, mut chooser: Chooser) {
        let (_, (namespace, host)) = &chooser;
        let first = first_slot(namespace, host);
        for slot in (0..V4_SLOTS).map(|step| (first + step) % V4_SLOTS).cycle() {
            let is_older = |(precedence, _): &Chooser| *precedence < chooser.0;
            if self.stated.contains_key(&slot) || self.places.get(&slot).is_some_and(is_older) {
                continue;
            }
            if let Some(wish) = self.hosts.get_mut(&chooser.1) {
                wish.slot = Some(slot);
            }
            let Some(displaced) = self.places.insert(slot, chooser) else { return };
            self.leave(&displaced.1);
            chooser = displaced;
        }
    }

    /// A place has become free: whoever had to go past it chooses again. They are all in the run behind it.
    fn vacate(&mut self, slot: u32) {
        for slot in (1..V4_SLOTS).map(|step| (slot + step) % V4_SLOTS) {
            match self.places.remove(&slot) {
                Some(chooser) => self.choose_again(chooser),
                None if self.stated.contains_key(&slot) => {}
                None => return,
            }
        }
    }

    /// A host whose place has been taken from it looks for another one.
    fn choose_again(&mut self, chooser: Chooser) {
        self.leave(&chooser.1);
        self.choosing.insert(chooser);
    }

    /// A host has no place any more. The one it had.
    fn leave(&mut self, host: &Host) -> Option<u32> {
        let slot = self.hosts.get_mut(host).and_then(|wish| wish.slot.take());
        self.moved.entry(host.clone()).or_insert(slot);
        slot
    }

    /// Whether nothing is kept of objects that are gone.
    #[cfg(test)]
    pub fn assert_empty(&self) {
        assert!(self.hosts.is_empty() && self.places.is_empty() && self.stated.is_empty());
        assert!(self.choosing.is_empty() && self.moved.is_empty());
    }
}

/// The hosts of an object that are to get an address, and the places of the addresses that it states.
fn wishes_of(object: Option<&Object>) -> (BTreeMap<Precedence, Name>, Vec<u32>) {
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
            (Some(address), _) => taken.extend(slot_of(address)),
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
    use std::sync::{Arc, LazyLock};

    use navarch_model::Kind;
    use navarch_model::document::parse_text;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, hosts: &str, more: &str) -> Arc<Object> {
        let text = format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, namespace: shop}}, spec: {{hosts: [{hosts}], resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}{more}}}"
        );
        read(&text)
    }

    fn read(text: &str) -> Arc<Object> {
        let parsed = parse_text("entry.yaml", text);
        let object = parsed.objects.into_iter().next();
        Arc::new(object.unwrap_or_else(|| panic!("{:?}", parsed.findings)))
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
        assert_eq!(all.places.len(), 2000);
        objects.reverse();
        assert_eq!(allocate(&objects).places, all.places, "the order of edits counts");
        for slot in 0..V4_SLOTS {
            let address = address_of(slot);
            assert!(address.octets()[..2] == V4 && ![0, 255].contains(&address.octets()[3]), "{address}");
            assert_eq!(slot_of(address), Some(slot));
        }
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

    /// Hosts that all like one of few places best, over the end of the table.
    fn crowded(count: usize) -> Vec<String> {
        let hosts = (0..).map(|n| format!("h{n}.example.com"));
        hosts.filter(|host| (first_slot("shop", host) + 12) % V4_SLOTS < 16).take(count).collect()
    }

    proptest! {
        #[test]
        fn edits_end_where_a_start_from_nothing_does(
            edits in prop::collection::vec(prop::collection::vec((0..24_usize, 0..4_usize, 0..24_usize), 1..6), 1..30),
        ) {
            static HOSTS: LazyLock<Vec<String>> = LazyLock::new(|| crowded(24));
            let mut objects: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
            let mut edited = Allocation::default();
            let mut known = HashMap::new();
            for batch in edits {
                let mut touched = BTreeSet::new();
                for (name, shape, host) in batch {
                    let stated = format!("{{value: {}, host: {}}}", address_of(host as u32 % 8), HOSTS[host]);
                    let object = match shape {
                        0 => None,
                        1 => Some(entry(&format!("e{name}"), &HOSTS[host], "")),
                        2 if host != name => Some(entry(&format!("e{name}"), &format!("{}, {}", HOSTS[host], HOSTS[name]), "")),
                        _ => {
                            let status = format!(", status: {{addresses: [{stated}]}}");
                            Some(entry(&format!("e{name}"), &HOSTS[host], &status))
                        }
                    };
                    let key = ObjectKey::new(Kind::ServiceEntry, "shop", &format!("e{name}"));
                    let before = match &object {
                        Some(object) => objects.insert(key.clone(), object.clone()),
                        None => objects.remove(&key),
                    };
                    edited.set(&key, before.as_deref(), object.as_deref());
                    touched.insert(key);
                }
                touched.extend(edited.settle());
                let whole = allocate(&objects.values().cloned().collect::<Vec<_>>());
                prop_assert_eq!(&edited.places, &whole.places);
                // Whoever has another address now is told so.
                for (key, object) in &objects {
                    let wishes = wishes_of(Some(object)).0;
                    let addresses: Vec<_> = wishes.values().map(|host| of(&edited, host)).collect();
                    let before = known.insert(key.clone(), addresses.clone());
                    prop_assert!(before == Some(addresses) || touched.contains(key), "{key:?}");
                }
            }
            for (key, object) in objects {
                edited.set(&key, Some(&object), None);
            }
            edited.settle();
            edited.assert_empty();
        }
    }

    #[test]
    fn more_hosts_than_addresses() {
        let hosts: Vec<String> = (0..V4_SLOTS + 50).map(|n| format!("h{n}.example.com")).collect();
        let entries: Vec<_> = (0..)
            .zip(hosts.chunks(200))
            .map(|(n, hosts)| entry(&format!("e{n:03}"), &hosts.join(", "), ""))
            .collect();
        let mut full = allocate(&entries);
        assert_eq!(full.places.len(), V4_SLOTS as usize);
        assert!(of(&full, &hosts[0]).is_some());
        assert_eq!(of(&full, &hosts[hosts.len() - 1]), None, "the last ones have none");
        full.set(&entries[0].key, Some(&entries[0]), None);
        full.settle();
        assert_eq!(full.places.len(), hosts.len() - 200);
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
            assert_eq!(allocate(&[read(&text)]).places.len(), 0, "{hosts}");
        }
    }
}

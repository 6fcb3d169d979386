//! Which virtual hosts of a client claim a name, and what is left to each: what
//! [`navarch_translate::routes::RouteConfiguration`] decides for all hosts at once, for a few of them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use imbl::OrdSet;
use navarch_model::{Hashed, Name};
use navarch_translate::routes::{Domain, Rank, Ranked, VirtualHost};

use super::hosts::Hosts;
use super::seen::AllHosts;
use super::targets::ConfigKey;

/// Where hosts come from: a bucket, or behind the buckets wildcard hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u16);

impl From<Place> for usize {
    fn from(place: Place) -> usize {
        place.0.into()
    }
}

/// A domain, or the name of a host or of its service, within one route configuration, whatever its letter
/// case. Of two names that are taken for one, both are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash(u64);

impl NameHash {
    fn of(config: &ConfigKey, text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        config.hash(&mut hasher);
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            text.to_ascii_lowercase().hash(&mut hasher);
        } else {
            text.hash(&mut hasher);
        }
        NameHash(hasher.finish())
    }
}

/// Where each name is claimed. Those of clients in different namespaces differ in little, and share the rest.
#[derive(Clone, Debug, Default)]
pub struct Claims(OrdSet<(NameHash, Place)>);

impl Claims {
    /// With other names at one place.
    pub fn replacing(mut self, place: Place, old: &BTreeSet<NameHash>, new: &BTreeSet<NameHash>) -> Self {
        for name in old.difference(new) {
            self.0.remove(&(*name, place));
        }
        for name in new.difference(old) {
            self.0.insert((*name, place));
        }
        self
    }

    /// Where a name is claimed.
    pub fn places(&self, name: NameHash) -> impl Iterator<Item = Place> {
        self.0.range((name, Place(0))..=(name, Place(u16::MAX))).map(|(_, place)| *place)
    }
}

/// The virtual hosts of a client in one namespace.
pub struct Claimants<'a> {
    pub hosts: &'a AllHosts,
    pub namespace: &'a str,
}

/// A virtual host and what decides about it: the first of several has a domain.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    order: (&'a Rank, Place, usize),
    host: &'a VirtualHost,
}

impl<'a> Claimants<'a> {
    /// All places, in the order in which hosts are put together.
    pub fn all_places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..=u16::try_from(self.hosts.buckets.len()).unwrap_or(u16::MAX)).map(Place)
    }

    fn at(&self, place: Place) -> &'a Hosts {
        self.hosts.buckets.get(usize::from(place)).unwrap_or(&self.hosts.wildcards)
    }

    /// Whether these clients may have other hosts at a place than those.
    pub fn differ_at(&self, other: &Self, place: Place) -> bool {
        let (ours, theirs) = (self.at(place), other.at(place));
        let short = |hosts: &Hosts| {
            let has = |namespace: &str| hosts.short_names.contains(namespace);
            self.namespace != other.namespace && (has(self.namespace) || has(other.namespace))
        };
        !std::ptr::eq(ours, theirs) || short(ours)
    }

    fn ranked(&self, place: Place) -> impl Iterator<Item = (&'a ConfigKey, usize, &'a Ranked)> {
        let configs = self.at(place).configs.iter();
        configs.flat_map(|(config, hosts)| {
            hosts.iter().enumerate().map(move |(index, ranked)| (config, index, ranked))
        })
    }

    /// The names that are claimed at a place.
    pub fn names_at(&self, place: Place) -> BTreeSet<NameHash> {
        let hosts = self.ranked(place).map(|(config, _, ranked)| (config, ranked.host_for(self.namespace)));
        hosts.flat_map(|(config, host)| names(config, host)).collect()
    }

    /// All names of the hosts at a place that are called one of `wanted`.
    pub fn names_with_hosts_named(&self, place: Place, wanted: &BTreeSet<NameHash>) -> Vec<NameHash> {
        let hosts = self.ranked(place).map(|(config, _, ranked)| (config, ranked.host_for(self.namespace)));
        let called = hosts.filter(|(config, host)| wanted.contains(&NameHash::of(config, &host.name)));
        called.flat_map(|(config, host)| names(config, host)).collect()
    }

    /// The hosts at a place that have something left, with the name of their route configuration and the
    /// domains, if those are not all that it claims.
    pub fn left_to<'c>(
        &'c self,
        place: Place,
        claims: &'c Claims,
    ) -> impl Iterator<Item = (&'a Name, &'a Arc<Hashed<VirtualHost>>, Option<Vec<String>>)> + use<'a, 'c>
    {
        let contested = self.contested(place, claims);
        self.ranked(place).filter_map(move |(config, index, ranked)| {
            let shared = ranked.host_for(self.namespace);
            let this = Claimant { order: (&ranked.rank, place, index), host: shared };
            let is_alone = !names(config, shared).any(|name| contested.contains(&name));
            let domains = match is_alone {
                true => shared.domains.iter().map(|domain| domain.text.as_str()).collect(),
                false => self.domains(config, this, claims),
            };
            let domains = served(config, shared, domains)?;
            let all = domains.len() == shared.domains.len();
            let left = (!all).then(|| domains.into_iter().map(str::to_owned).collect());
            Some((&config.name, shared, left))
        })
    }

    /// The names at a place that more than one host claims there or elsewhere, or one host more than once, as
    /// far as that decides anything. Nearly always there are none.
    fn contested(&self, place: Place, claims: &Claims) -> BTreeSet<NameHash> {
        let mut contested = BTreeSet::new();
        let mut known: BTreeMap<NameHash, usize> = BTreeMap::new();
        for (config, index, ranked) in self.ranked(place) {
            let host: &VirtualHost = ranked.host_for(self.namespace);
            let own: Vec<NameHash> = names(config, host).collect();
            for (position, name) in own.iter().copied().enumerate() {
                let is_first = known.insert(name, index).is_none_or(|other| other == index);
                let is_again =
                    position < host.domains.len() && own.iter().take(position).any(|other| *other == name);
                let gives_way = host.domains.get(position).is_some_and(|domain| is_full_name(host, domain));
                if !is_first || is_again || gives_way {
                    contested.insert(name);
                }
            }
        }
        contested.extend(known.into_keys().filter(|name| claims.places(*name).any(|other| other != place)));
        contested
    }

    /// The domains that are left to a host; none if another has its name.
    fn domains(&self, config: &ConfigKey, this: Claimant<'a>, claims: &Claims) -> Vec<&'a str> {
        let found = Found { claimants: self, config, claims };
        if found.is_dropped(this) {
            return Vec::new();
        }
        let mut left: Vec<&str> = Vec::with_capacity(this.host.domains.len());
        for domain in &this.host.domains {
            let again = left.iter().any(|known| known.eq_ignore_ascii_case(&domain.text));
            if !again && found.winner(&domain.text) == Some(this.order) && !found.gives_way(domain) {
                left.push(&domain.text);
            }
        }
        left
    }
}

/// The domains of a host that its route configuration serves; nothing if there are none.
fn served<'a>(config: &ConfigKey, host: &VirtualHost, mut domains: Vec<&'a str>) -> Option<Vec<&'a str>> {
    let only_with_port = config.all_ports && !host.name.ends_with(":80");
    domains.retain(|domain| !only_with_port || domain.contains(':'));
    (!domains.is_empty()).then_some(domains)
}

/// Whether a short form is a full name of the service behind this host.
fn is_full_name(host: &VirtualHost, domain: &Domain) -> bool {
    let full = host.service.iter().flat_map(|service| [&**service, host.name.as_str()]);
    domain.alternative && full.into_iter().any(|name| *name == *domain.text)
}

/// The claimants of names of one route configuration.
struct Found<'c, 'a> {
    claimants: &'c Claimants<'a>,
    config: &'c ConfigKey,
    claims: &'c Claims,
}

impl<'a> Found<'_, 'a> {
    /// Those that claim a name, and maybe others at the same places.
    fn of(&self, text: &str) -> impl Iterator<Item = Claimant<'a>> {
        let places = self.claims.places(NameHash::of(self.config, text));
        places.flat_map(|place| {
            let hosts = self.claimants.at(place).configs.get(self.config);
            let ranked = hosts.into_iter().flat_map(|hosts| hosts.iter().enumerate());
            let namespace = self.claimants.namespace;
            ranked.map(move |(index, ranked)| Claimant {
                order: (&ranked.rank, place, index),
                host: ranked.host_for(namespace),
            })
        })
    }

    /// Whether a host before it has its name.
    fn is_dropped(&self, this: Claimant<'a>) -> bool {
        self.of(&this.host.name).any(|other| other.host.name == this.host.name && other.order < this.order)
    }

    /// Whether a short form is the full name of somebody else.
    fn gives_way(&self, domain: &Domain) -> bool {
        domain.alternative && self.of(&domain.text).any(|other| is_full_name(other.host, domain))
    }

    /// Who has a domain.
    fn winner(&self, text: &str) -> Option<(&'a Rank, Place, usize)> {
        let claims = |other: &Claimant<'a>| {
            let same = other.host.domains.iter().filter(|domain| domain.text.eq_ignore_ascii_case(text));
            same.into_iter().any(|domain| !self.gives_way(domain)) && !self.is_dropped(*other)
        };
        self.of(text).filter(claims).map(|other| other.order).min()
    }
}

/// The names that a host claims.
fn names(config: &ConfigKey, host: &VirtualHost) -> impl Iterator<Item = NameHash> {
    let domains = host.domains.iter().map(|domain| domain.text.as_str());
    let own = host.service.iter().map(|service| &**service).chain([host.name.as_str()]);
    domains.chain(own).map(|text| NameHash::of(config, text))
}

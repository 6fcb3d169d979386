//! The hosts that a Sidecar's egress listener imports.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::Name;

use crate::host::{covers, is_wildcard, overlap};

/// Egress hosts `<namespace>/<host>`, by namespace; `*` stands for every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostFilter {
    by_namespace: BTreeMap<Name, HostSet>,
    /// Every import names one host of one namespace.
    exact: bool,
}

/// The hosts of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct HostSet {
    exact: BTreeSet<Name>,
    wildcards: BTreeSet<Name>,
    /// Hosts with the prefix `~`, which are left out even if another entry imports them.
    excluded: BTreeSet<Name>,
}

const EVERY_NAMESPACE: &str = "*";

impl HostFilter {
    /// Everything that is visible.
    pub fn everything() -> Self {
        Self::parse(["*/*"], "")
    }

    /// Reads egress hosts for a client in `namespace`. Entries that are not of the form `<namespace>/<host>`
    /// are left out; validation reports them.
    pub fn parse<'a>(hosts: impl IntoIterator<Item = &'a str>, namespace: &str) -> Self {
        let mut filter = HostFilter { by_namespace: BTreeMap::new(), exact: true };
        for entry in hosts {
            let Some((stated, host)) = entry.split_once('/') else { continue };
            if host.contains('/') {
                continue;
            }
            let (stated, excluded) = match stated.strip_prefix('~') {
                Some("") => (EVERY_NAMESPACE, true),
                Some(rest) => (rest, true),
                None => (stated, false),
            };
            let stated = if stated == "." { namespace } else { stated };
            let set = filter.by_namespace.entry(Name::from(stated)).or_default();
            if excluded {
                set.excluded.insert(Name::from(host));
                continue;
            }
            if is_wildcard(host) {
                set.wildcards.insert(Name::from(host));
            } else {
                set.exact.insert(Name::from(host));
            }
            filter.exact &= !is_wildcard(host) && stated != EVERY_NAMESPACE;
        }
        filter
    }

    /// Whether every import names one host of one namespace.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether nothing that is visible is left out.
    pub(super) fn is_everything(&self) -> bool {
        let all = self.by_namespace.get(EVERY_NAMESPACE);
        all.is_some_and(|set| set.wildcards.iter().any(|host| &**host == "*"))
            && self.by_namespace.values().all(|set| set.excluded.is_empty())
    }

    /// Whether the imports name a namespace.
    pub(super) fn names(&self, namespace: &str) -> bool {
        self.by_namespace.contains_key(namespace)
    }

    /// The namespaces from which something is imported; `None` if it may be any.
    pub(super) fn namespaces(&self) -> Option<impl Iterator<Item = &Name>> {
        let imports = |set: &HostSet| !set.exact.is_empty() || !set.wildcards.is_empty();
        if self.by_namespace.get(EVERY_NAMESPACE).is_some_and(imports) {
            return None;
        }
        Some(self.by_namespace.iter().filter(move |(_, set)| imports(set)).map(|(namespace, _)| namespace))
    }

    /// Whether a service with this host in this namespace is imported.
    pub fn includes(&self, host: &str, namespace: &str) -> bool {
        self.import(host, namespace).is_some()
    }

    /// The set that imports a service, which also decides which of its aliases are imported.
    fn import(&self, host: &str, namespace: &str) -> Option<&HostSet> {
        if self.sets(namespace).any(|set| set.excludes(host)) {
            return None;
        }
        self.sets(namespace).find(|set| set.includes(host))
    }

    /// Those of a service's aliases that are imported along with it.
    pub(super) fn aliases(&self, host: &str, namespace: &str, aliases: &[Name]) -> Vec<Name> {
        match self.import(host, namespace) {
            Some(set) => aliases.iter().filter(|alias| set.includes(alias)).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Whether routes for hosts, of an object in `namespace`, are imported: one of the hosts overlaps with an
    /// import, and is not excluded.
    pub(super) fn includes_routes(&self, hosts: &[Name], namespace: &str) -> bool {
        self.sets(namespace).any(|set| {
            hosts.iter().any(|host| set.overlaps(host) && !self.sets(namespace).any(|set| set.excludes(host)))
        })
    }

    /// The imports from one namespace: those that name it, then those from every namespace.
    fn sets(&self, namespace: &str) -> impl Iterator<Item = &HostSet> {
        self.by_namespace.get(namespace).into_iter().chain(self.by_namespace.get(EVERY_NAMESPACE))
    }
}

impl HostSet {
    fn excludes(&self, host: &str) -> bool {
        self.excluded.iter().any(|excluded| covers(excluded, host))
    }

    fn includes(&self, host: &str) -> bool {
        self.exact.contains(host) || self.wildcards.iter().any(|import| covers(import, host))
    }

    /// As `includes`, in both directions: routes for `*.example.com` concerns who imports `a.example.com`.
    fn overlaps(&self, host: &str) -> bool {
        self.exact.contains(host)
            || self.wildcards.iter().any(|import| overlap(import, host))
            || (is_wildcard(host) && self.exact.iter().any(|import| overlap(import, host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(hosts: &[&str]) -> HostFilter {
        HostFilter::parse(hosts.iter().copied(), "shop")
    }

    #[test]
    fn services_are_imported_by_namespace_and_host() {
        let check = |hosts: &[&str], host: &str, namespace: &str, expected: bool| {
            assert_eq!(filter(hosts).includes(host, namespace), expected, "{hosts:?} {namespace}/{host}");
        };
        check(&["*/*"], "a.com", "any", true);
        check(&["./*"], "a.com", "shop", true);
        check(&["./*"], "a.com", "other", false);
        check(&["other/a.com"], "a.com", "other", true);
        check(&["other/a.com"], "b.com", "other", false);
        check(&["*/*.com"], "a.com", "other", true);
        check(&["*/*.com"], "a.org", "other", false);
        check(&["*/a.com"], "*.com", "other", false);
        check(&["~/*"], "a.com", "shop", false);
        check(&["*/*", "~other/a.com"], "a.com", "other", false);
        check(&["*/*", "~other/a.com"], "a.com", "shop", true);
        check(&["no-slash", "too/many/slashes"], "a.com", "shop", false);
    }

    #[test]
    fn routes_are_imported_by_overlap() {
        let check = |hosts: &[&str], virtual_hosts: &[&str], expected: bool| {
            let virtual_hosts: Vec<Name> = virtual_hosts.iter().copied().map(Name::from).collect();
            let found = filter(hosts).includes_routes(&virtual_hosts, "other");
            assert_eq!(found, expected, "{hosts:?} {virtual_hosts:?}");
        };
        check(&["other/a.com"], &["a.com"], true);
        check(&["other/a.com"], &["*.com"], true);
        check(&["other/*.com"], &["a.com"], true);
        check(&["other/a.com"], &["b.com"], false);
        check(&["other/a.com"], &["b.com", "a.com"], true);
        check(&["shop/*"], &["a.com"], false);
        check(&["*/*", "~other/a.com"], &["a.com"], false);
        check(&["*/*", "~other/a.com"], &["a.com", "b.com"], true);
    }

    #[test]
    fn exactness() {
        assert!(filter(&["other/a.com", "./b.com"]).is_exact());
        assert!(!filter(&["*/a.com"]).is_exact());
        assert!(!filter(&["other/*"]).is_exact());
        assert!(filter(&["*/*"]).is_everything());
        assert!(!filter(&["*/*", "~other/a.com"]).is_everything());
        assert!(!filter(&["./*"]).is_everything());
    }
}

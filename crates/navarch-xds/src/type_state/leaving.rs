//! What is no longer configured and stays with the client until nothing of its own can refer to it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use navarch_envoy::Resource;

use crate::brake::Recent;
use crate::order;

/// Resources that are not in the set any more, and that the client may still hold.
///
/// Invariants: what may have another version is among the resources, and no name is both among the resources
/// and among the names.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
    /// What the client may hold from an earlier stream: there is nothing but the name.
    by_name: BTreeSet<Arc<str>>,
    /// Resources that the client may hold in another version, because a response with them was rejected.
    maybe_other_version: BTreeSet<Arc<str>>,
    /// What the client has lost in the last seconds.
    pub recent: Recent,
}

/// What goes now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Going {
    /// Resources.
    pub resources: Vec<Arc<Resource>>,
    /// What only the name is known of.
    pub names: BTreeSet<Arc<str>>,
}

impl Leaving {
    /// Whether nothing is leaving.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.by_name.is_empty()
    }

    /// How many are leaving.
    pub fn len(&self) -> usize {
        self.resources.len() + self.by_name.len()
    }

    /// Whether this one is leaving.
    pub fn has(&self, name: &str) -> bool {
        self.resources.contains_key(name) || self.has_name_only(name)
    }

    /// Whether something is leaving that only the name is known of.
    pub fn has_names_only(&self) -> bool {
        !self.by_name.is_empty()
    }

    /// Whether this one is leaving, and only its name is known.
    pub fn has_name_only(&self, name: &str) -> bool {
        self.by_name.contains(name)
    }

    /// The resource of this name, if it is leaving.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// The resources.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Whether the client may hold one of the resources in another version.
    pub fn is_any_version_unknown(&self) -> bool {
        !self.maybe_other_version.is_empty()
    }

    /// A resource that is no longer configured stays for now.
    pub fn stay(&mut self, name: Arc<str>, resource: Arc<Resource>) {
        self.by_name.remove(&name);
        self.resources.insert(name, resource);
    }

    /// What the client holds from an earlier stream stays for now.
    pub fn stay_by_name(&mut self, name: Arc<str>) {
        if !self.resources.contains_key(&name) {
            self.by_name.insert(name);
        }
    }

    /// A response with these names was rejected: those that leave may be held in another version.
    pub fn doubt<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        let resources = &self.resources;
        let leaving = names.into_iter().filter(|name| resources.contains_key(*name));
        self.maybe_other_version.extend(leaving.cloned());
    }

    /// A resource is configured again. Whether the client holds just this, for sure.
    pub fn come_back(&mut self, resource: &Arc<Resource>) -> bool {
        let name = resource.name();
        self.by_name.remove(name);
        let was = self.resources.remove(name);
        !self.maybe_other_version.remove(name) && was.is_some_and(|old| old == *resource)
    }

    /// A resource is sent: it does not leave as what the client held.
    pub fn is_sent(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// The client does not hold it, or does not want it any more.
    pub fn forget(&mut self, name: &str) {
        self.resources.remove(name);
        self.by_name.remove(name);
        self.maybe_other_version.remove(name);
    }

    /// Forgets the resources that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&Resource) -> bool) {
        self.resources.retain(|_, resource| keep(resource));
        let resources = &self.resources;
        self.maybe_other_version.retain(|name| resources.contains_key(name));
    }

    /// Forgets all resources; names stay.
    pub fn forget_resources(&mut self) {
        self.retain(|_| false);
    }

    /// Everything that is not `pinned`. It leaves no longer: it goes.
    pub fn go(&mut self, pinned: impl Fn(&str) -> bool) -> Going {
        let (staying, going) = mem::take(&mut self.resources).into_iter().partition(|(name, _)| pinned(name));
        self.resources = staying;
        let resources = &self.resources;
        self.maybe_other_version.retain(|name| resources.contains_key(name));
        let (staying, names) = mem::take(&mut self.by_name).into_iter().partition(|name| pinned(name));
        self.by_name = staying;
        Going { resources: BTreeMap::into_values(going).collect(), names }
    }

    /// Listeners whose address one of `configured` takes: Envoy would reject that one. They go at once.
    pub fn give_way<'a>(&mut self, configured: impl Iterator<Item = &'a Arc<Resource>>) -> Vec<Arc<str>> {
        let taken: BTreeSet<_> = configured.filter_map(|r| order::listener_address(&r.body())).collect();
        let gives_way = |r: &Resource| order::listener_address(&r.body()).is_some_and(|a| taken.contains(&a));
        let going = self.resources.iter().filter(|(_, r)| gives_way(r)).map(|(name, _)| name.clone());
        let going: Vec<_> = going.collect();
        going.iter().for_each(|name| self.forget(name));
        going
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::XdsType;

    use super::*;

    fn resource(name: &str, content: &str) -> Arc<Resource> {
        Arc::new(Resource::of(XdsType::Cds, name, content.as_bytes()))
    }

    fn leaving(names: &[&str]) -> Leaving {
        let mut leaving = Leaving::default();
        names.iter().for_each(|name| leaving.stay((*name).into(), resource(name, "1")));
        leaving
    }

    #[test]
    fn what_comes_back_is_held_only_if_it_is_the_same_for_sure() {
        assert!(leaving(&["a"]).come_back(&resource("a", "1")));
        assert!(!leaving(&["a"]).come_back(&resource("a", "2")));
        assert!(!leaving(&["b"]).come_back(&resource("a", "1")));
        let mut doubted = leaving(&["a"]);
        doubted.doubt([&"a".into(), &"never seen".into()]);
        assert!(!doubted.come_back(&resource("a", "1")));
        assert!(doubted.is_empty() && !doubted.is_any_version_unknown());
        let mut by_name = Leaving::default();
        by_name.stay_by_name("a".into());
        assert!(!by_name.come_back(&resource("a", "1")));
        assert!(by_name.is_empty());
    }

    #[test]
    fn a_name_leaves_once() {
        let mut leaving = leaving(&["a"]);
        leaving.stay_by_name("a".into());
        assert_eq!((leaving.len(), leaving.has_names_only()), (1, false));
        leaving.stay_by_name("b".into());
        leaving.stay("b".into(), resource("b", "1"));
        assert_eq!((leaving.len(), leaving.has_names_only()), (2, false));
    }

    #[test]
    fn what_is_pinned_stays() {
        let mut leaving = leaving(&["a", "b"]);
        leaving.stay_by_name("c".into());
        leaving.stay_by_name("d".into());
        let going = leaving.go(|name| matches!(name, "a" | "c"));
        assert_eq!(going.resources, [resource("b", "1")]);
        assert_eq!(going.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["d"]);
        assert!(leaving.has("a") && leaving.has("c") && leaving.len() == 2);
    }
}

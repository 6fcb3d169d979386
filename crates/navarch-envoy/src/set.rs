//! Sets of resources: immutable, cheap to clone, cheap to compare.
//!
//! A class of proxies gets one [`ResourceSet`] per type. A set is a list of [`Layer`]s, and layers are
//! shared: what all sidecars of a namespace have in common is one layer, what only one workload has is
//! another. A change makes new layers out of old ones by structural sharing, so the difference of two sets
//! costs what changed, not what is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::resource::{Resource, Version};
use crate::types::XdsType;

/// Part of a set, shared between sets.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    resources: OrdMap<Arc<str>, Arc<Resource>>,
    /// Alias and name, for the few resources that have aliases. Several may share one: a service and its
    /// workloads are all found by the address of the service.
    aliases: OrdSet<(Arc<str>, Arc<str>)>,
    /// Of all resources.
    total: Sum,
    /// Of those that are not part of the wildcard.
    on_demand: Sum,
}

/// What is known of some resources together. Sums do not depend on order or layering and can be kept up to
/// date by adding and subtracting.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    len: usize,
    hash: u128,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.len += other.len;
        self.hash = self.hash.wrapping_add(other.hash);
    }

    fn subtract(&mut self, other: Sum) {
        self.len = self.len.saturating_sub(other.len);
        self.hash = self.hash.wrapping_sub(other.hash);
    }

    fn of(resource: &Resource) -> Self {
        Self { len: 1, hash: resource.set_hash() }
    }
}

impl Layer {
    /// A layer of these resources; the last one of a name wins.
    pub fn new(resources: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        Self::default().update(resources, [])
    }

    /// This layer with resources put in or replaced, and then others taken out. O(changes · log n).
    #[must_use]
    pub fn update<'a>(
        &self,
        inserts: impl IntoIterator<Item = Arc<Resource>>,
        removals: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut next = self.clone();
        for resource in inserts {
            // An equal resource keeps its place, so that layers which share it go on sharing it.
            if next.resources.get(resource.name()).is_some_and(|known| *known == resource) {
                continue;
            }
            next.total.add(Sum::of(&resource));
            if resource.is_on_demand() {
                next.on_demand.add(Sum::of(&resource));
            }
            if let Some(old) = next.resources.insert(resource.name().clone(), resource.clone()) {
                next.forget(&old);
            }
            for alias in resource.aliases() {
                next.aliases.insert((alias.clone(), resource.name().clone()));
            }
        }
        for name in removals {
            if let Some(old) = next.resources.remove(name) {
                next.forget(&old);
            }
        }
        next
    }

    fn forget(&mut self, old: &Resource) {
        self.total.subtract(Sum::of(old));
        if old.is_on_demand() {
            self.on_demand.subtract(Sum::of(old));
        }
        for alias in old.aliases() {
            self.aliases.remove(&(alias.clone(), old.name().clone()));
        }
    }

    /// The resources with this alias.
    fn with_alias(&self, alias: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let start = (!self.aliases.is_empty()).then(|| (Arc::from(alias), Arc::from("")));
        let found = start.into_iter().flat_map(|start: (Arc<str>, Arc<str>)| {
            let alias = start.0.clone();
            self.aliases.range(start..).take_while(move |(known, _)| *known == alias)
        });
        found.filter_map(|(_, name)| self.resources.get(name))
    }

    /// The resource of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// The resources whose names start so, in the order of their names.
    fn with_prefix(&self, prefix: Arc<str>) -> impl Iterator<Item = &Arc<Resource>> {
        let from = self.resources.range(prefix.clone()..);
        from.take_while(move |(name, _)| name.starts_with(&*prefix)).map(|(_, resource)| resource)
    }

    /// Number of resources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are no resources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The resources in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}

impl FromIterator<Arc<Resource>> for Layer {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        Self::new(resources)
    }
}

/// All resources of one type for one class of proxies.
///
/// The layers of a set must not have names in common: a response may not contain a name twice (Envoy rejects
/// it as a whole).
#[derive(Clone, Debug)]
pub struct ResourceSet {
    layers: Arc<[Arc<Layer>]>,
    total: Sum,
    on_demand: Sum,
    own: bool,
}

impl ResourceSet {
    /// A set of these layers.
    #[must_use]
    pub fn new(layers: impl IntoIterator<Item = Arc<Layer>>) -> Self {
        let layers: Arc<[Arc<Layer>]> = layers.into_iter().filter(|layer| !layer.is_empty()).collect();
        let mut set = Self { total: Sum::default(), on_demand: Sum::default(), layers, own: false };
        for layer in set.layers.iter() {
            set.total.add(layer.total);
            set.on_demand.add(layer.on_demand);
        }
        debug_assert!(set.layers_are_disjoint(), "two layers have a name in common");
        set
    }

    /// This set, and resources that one client has alone.
    #[must_use]
    pub fn with_own(&self, layer: Arc<Layer>) -> Self {
        Self { own: true, ..Self::new(self.layers.iter().cloned().chain([layer])) }
    }

    /// Whether the set is of one client alone, so that nobody else compares it with another.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// A set of one layer.
    #[must_use]
    pub fn of(resources: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        Self::new([Arc::new(Layer::new(resources))])
    }

    fn layers_are_disjoint(&self) -> bool {
        self.layers.iter().enumerate().all(|(position, layer)| {
            let others = self.layers.get(..position).unwrap_or_default();
            others.is_empty() || layer.iter().all(|r| others.iter().all(|o| o.get(r.name()).is_none()))
        })
    }

    /// The resource of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.layers.iter().find_map(|layer| layer.get(name))
    }

    /// The resource of this name, and all with this alias.
    pub fn resolve(&self, name: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.get(name).into_iter().chain(self.layers.iter().flat_map(move |layer| layer.with_alias(name)))
    }

    /// The resources, layer by layer, in each layer in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.layers.iter().flat_map(|layer| layer.iter())
    }

    /// The resources whose names start so, layer by layer, in each layer in the order of their names.
    pub fn with_prefix(&self, prefix: Arc<str>) -> impl Iterator<Item = &Arc<Resource>> {
        self.layers.iter().flat_map(move |layer| layer.with_prefix(prefix.clone()))
    }

    /// The layers that are not empty.
    #[must_use]
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Number of resources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total.len
    }

    /// Number of resources that are part of the wildcard.
    #[must_use]
    pub fn wildcard_len(&self) -> usize {
        self.total.len - self.on_demand.len
    }

    /// Whether there are no resources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total.len == 0
    }

    /// Whether all resources are part of the wildcard.
    #[must_use]
    pub fn is_all_wildcard(&self) -> bool {
        self.on_demand.len == 0
    }

    /// The content hash. Equal for equal content, however it is layered, on every replica.
    #[must_use]
    pub fn version(&self) -> Version {
        Version(self.total.hash)
    }

    /// The content hash of what a client gets that asks for everything.
    #[must_use]
    pub fn wildcard_version(&self) -> Version {
        Version(self.total.hash.wrapping_sub(self.on_demand.hash))
    }

    /// This set, without keeping it.
    #[must_use]
    pub fn downgrade(&self) -> WeakResourceSet {
        WeakResourceSet { layers: Arc::downgrade(&self.layers) }
    }
}

/// A [`ResourceSet`] that somebody else keeps. Identity is by address, and no other set takes the address
/// meanwhile.
#[derive(Clone, Debug)]
pub struct WeakResourceSet {
    layers: Weak<[Arc<Layer>]>,
}

impl WeakResourceSet {
    /// Whether it is this very set. Says less than `==` of sets, which is as cheap.
    #[must_use]
    pub fn is(&self, set: &ResourceSet) -> bool {
        std::ptr::addr_eq(self.layers.as_ptr(), Arc::as_ptr(&set.layers))
    }

    /// Whether somebody still has the set.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.layers.strong_count() > 0
    }
}

impl Default for ResourceSet {
    fn default() -> Self {
        Self { layers: Arc::from([]), total: Sum::default(), on_demand: Sum::default(), own: false }
    }
}

/// Equal content.
impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.total.hash == other.total.hash && self.total.len == other.total.len
    }
}

impl Eq for ResourceSet {}

/// What separates two sets. Both lists are in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDelta {
    /// Resources that are new or have new content.
    pub changed: Vec<Arc<Resource>>,
    /// Names that are no longer there.
    pub removed: Vec<Arc<str>>,
}

impl SetDelta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What leads from `old` to `new`.
///
/// Layers that are the same in memory are skipped, the others are compared in pairs by structure: O(changes ·
/// log n) if the new layers were made from the old ones with [`Layer::update`]. A name that only moved to
/// another layer is not a change.
#[must_use]
pub fn diff(old: &ResourceSet, new: &ResourceSet) -> SetDelta {
    if old == new {
        return SetDelta::default();
    }
    let unmatched = |ours: &ResourceSet, theirs: &ResourceSet| -> Vec<Arc<Layer>> {
        let shared = |layer: &Arc<Layer>| theirs.layers.iter().any(|other| Arc::ptr_eq(layer, other));
        ours.layers.iter().filter(|layer| !shared(layer)).cloned().collect()
    };
    let (before, after) = (unmatched(old, new), unmatched(new, old));
    let empty = Arc::new(Layer::default());
    let mut changed = BTreeMap::new();
    let mut gone = BTreeMap::new();
    for position in 0..before.len().max(after.len()) {
        let (from, to) = (before.get(position).unwrap_or(&empty), after.get(position).unwrap_or(&empty));
        for item in from.resources.diff(&to.resources) {
            match item {
                DiffItem::Add(name, resource) => changed.insert(name.clone(), resource.clone()),
                DiffItem::Update { new: (name, resource), .. } => {
                    changed.insert(name.clone(), resource.clone())
                }
                DiffItem::Remove(name, resource) => gone.insert(name.clone(), resource.clone()),
            };
        }
    }
    // A name that left one layer and turned up in another has moved.
    gone.retain(|name, resource| match changed.get(name) {
        Some(moved) if moved == resource => {
            changed.remove(name);
            false
        }
        Some(_) => false,
        None => new.get(name).is_none(),
    });
    SetDelta { changed: changed.into_values().collect(), removed: gone.into_keys().collect() }
}

/// Everything one class of proxies gets at one revision of the world.
#[derive(Clone, Debug, Default)]
pub struct ProxyResources {
    revision: u64,
    sets: [ResourceSet; XdsType::COUNT],
}

impl ProxyResources {
    /// Nothing of any type.
    #[must_use]
    pub fn new(revision: u64) -> Self {
        Self { revision, sets: std::array::from_fn(|_| ResourceSet::default()) }
    }

    /// This, with the resources of one type replaced.
    #[must_use]
    pub fn with(mut self, ty: XdsType, set: ResourceSet) -> Self {
        if let Some(slot) = self.sets.get_mut(ty.index()) {
            *slot = set;
        }
        self
    }

    /// The same resources as of a later revision, which changed none of them.
    #[must_use]
    pub fn at_revision(&self, revision: u64) -> Self {
        Self { revision, sets: self.sets.clone() }
    }

    /// The revision of the world these were made from. Grows; never reused for other content.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The resources of one type.
    #[must_use]
    pub fn set(&self, ty: XdsType) -> &ResourceSet {
        &self.sets[ty.index()]
    }

    /// All types in push order.
    pub fn iter(&self) -> impl Iterator<Item = (XdsType, &ResourceSet)> {
        XdsType::ALL.into_iter().zip(&self.sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, body: &str) -> Arc<Resource> {
        Arc::new(Resource::of(XdsType::Cds, name, body.as_bytes()))
    }

    /// `"a1 b2"`: resource `a` with body `1`, resource `b` with body `2`.
    fn layer(text: &str) -> Arc<Layer> {
        Arc::new(Layer::new(text.split_whitespace().map(|word| {
            let (name, body) = word.split_at(1);
            resource(name, body)
        })))
    }

    fn set(layers: &[&str]) -> ResourceSet {
        ResourceSet::new(layers.iter().map(|text| layer(text)))
    }

    fn check(old: &[&str], new: &[&str], changed: &str, removed: &str) {
        let (old, new) = (set(old), set(new));
        let delta = diff(&old, &new);
        let names = |names: Vec<&str>| names.join(" ");
        assert_eq!(names(delta.changed.iter().map(|r| &**r.name()).collect()), changed, "{old:?} -> {new:?}");
        assert_eq!(names(delta.removed.iter().map(|n| &**n).collect()), removed, "{old:?} -> {new:?}");
        for resource in &delta.changed {
            assert_eq!(new.get(resource.name()), Some(resource));
        }
    }

    #[test]
    fn diff_lists_what_changed_in_order() {
        check(&[], &[], "", "");
        check(&["a1 b1"], &["a1 b1"], "", "");
        check(&[], &["b1 a1"], "a b", "");
        check(&["a1 b1 c1"], &["a1 b2 d1"], "b d", "c");
        check(&["a1", "b1"], &["a2", "b1"], "a", "");
        check(&["a1", "b1"], &["b1"], "", "a");
        check(&["b1"], &["a1", "b1"], "a", "");
    }

    #[test]
    fn a_name_that_moves_between_layers_is_not_a_change() {
        check(&["a1 b1", "c1"], &["a1", "b1 c1"], "", "");
        check(&["a1 b1", "c1"], &["a1", "b2 c1"], "b", "");
        check(&["a1 b1", "c1"], &["a1 b1 c1"], "", "");
        check(&["a1", "b1"], &["b1", "a2"], "a", "");
    }

    #[test]
    fn version_depends_on_content_only() {
        assert_eq!(set(&["a1 b1 c1"]).version(), set(&["c1", "b1", "a1"]).version());
        assert_ne!(set(&["a1 b2"]).version(), set(&["a2 b1"]).version());
        assert_ne!(set(&["a1"]).version(), set(&["a1 b1"]).version());
        assert_eq!(set(&[""]), ResourceSet::default());
    }

    #[test]
    fn updates_keep_the_version_of_a_layer_made_from_scratch() {
        let start = layer("a1 b1 c1");
        let next = start.update([resource("b", "2"), resource("d", "1")], ["a", "x"]);
        let version = |layer: Layer| ResourceSet::new([Arc::new(layer)]).version();
        assert_eq!(version(next.clone()), set(&["b2 c1 d1"]).version());
        assert_eq!(version((*start).clone()), set(&["a1 b1 c1"]).version());
        assert_eq!(version(next.update([], ["b", "c", "d"])), Version::default());
    }

    #[test]
    fn aliases_resolve_to_the_resource_that_has_them() {
        let with = |name: &str, alias: &str| {
            let builder = Resource::builder(XdsType::Address.type_url(), name, b"x");
            Arc::new(builder.aliases([Arc::from(alias)]).build())
        };
        let check = |layer: &Layer, name: &str, expected: &str| {
            let set = ResourceSet::new([Arc::new(layer.clone())]);
            let found: Vec<_> = set.resolve(name).map(|r| r.name().to_string()).collect();
            assert_eq!(found.join(" "), expected, "{name} in {layer:?}");
        };
        let start = Layer::new([with("a", "x"), with("b", "y")]);
        check(&start, "x", "a");
        check(&start, "b", "b");
        // The alias moves to another resource, and goes with it.
        let moved = start.update([with("a", "z"), with("b", "x")], []);
        check(&moved, "x", "b");
        check(&moved, "y", "");
        check(&moved.update([], ["b"]), "x", "");
        // Several resources have it.
        let shared = start.update([with("b", "x"), with("c", "x"), with("d", "xx")], []);
        check(&shared, "x", "a b c");
        check(&shared.update([], ["a"]), "x", "b c");
    }

    #[test]
    fn what_is_on_demand_is_no_part_of_the_wildcard() {
        let on_demand = |name: &str, body: &str| {
            let builder = Resource::builder(XdsType::Cds.type_url(), name, body.as_bytes());
            Arc::new(builder.on_demand().build())
        };
        let plain = set(&["a1"]);
        let with = |body| ResourceSet::of([resource("a", "1"), on_demand("b", body)]);
        assert!(plain.is_all_wildcard() && !with("1").is_all_wildcard());
        assert_eq!(plain.wildcard_version(), plain.version());
        assert_eq!(with("1").wildcard_version(), plain.version());
        assert_ne!(with("1").version(), with("2").version());
        // To leave the wildcard is a change, of the whole and of the wildcard.
        let moved = diff(&set(&["a1 b1"]), &with("1"));
        assert_eq!(moved.changed.len(), 1);
        // What is not there any more is not counted.
        let gone = Layer::new([on_demand("b", "1")]).update([resource("b", "1")], []);
        assert!(ResourceSet::new([Arc::new(gone)]).is_all_wildcard());
    }

    #[test]
    fn proxy_resources_hold_one_set_per_type() {
        let resources = ProxyResources::new(7).with(XdsType::Rds, set(&["a1"]));
        assert_eq!((resources.revision(), resources.set(XdsType::Rds).len()), (7, 1));
        assert!(resources.set(XdsType::Cds).is_empty());
        assert_eq!(resources.iter().map(|(_, set)| set.len()).sum::<usize>(), 1);
        assert_eq!(resources.at_revision(8).set(XdsType::Rds), resources.set(XdsType::Rds));
    }
}

//! What became of the patches of EnvoyFilters: translators say it beside what they make.
//!
//! Findings are made of it (a patch that was left out, or that hit nothing), and explanations and rejections
//! name the patches behind a resource by it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Deref;
use std::sync::Arc;

use navarch_model::{Name, Origin};

/// How far a patch got. The order is that of a patch's `match`: what it selects within what it selected
/// before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// It selects the workload, but is for another kind of proxy (`context`).
    #[default]
    Workload,
    /// It is for the kind of proxy, but not for its version or metadata.
    Kind,
    /// A proxy, of which it matches no resource.
    Proxy,
    /// A listener or a route configuration.
    Resource,
    /// A filter chain or a virtual host.
    Chain,
    /// The network filter that it works in.
    Filter,
    /// It changed something.
    Done,
}

/// What became of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fate {
    pub reach: Reach,
    /// What it made of the resource, each as "adds the HTTP filter x"; empty where several resources are
    /// summed up.
    pub made: Vec<Name>,
    /// Why it was left out.
    pub refused: Option<Refusal>,
}

/// Why a patch was left out: Envoy would refuse the resource with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refusal {
    /// Name of the resource.
    pub resource: Name,
    /// What Envoy would refuse in it.
    pub words: Name,
}

/// What became of patches, by where they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fates(BTreeMap<Origin, Fate>);

impl Fates {
    /// Nothing is known of any patch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All patches, in the order of their origins.
    pub fn iter(&self) -> impl Iterator<Item = (&Origin, &Fate)> {
        self.0.iter()
    }

    /// What became of one patch.
    pub fn get(&self, origin: &Origin) -> Option<&Fate> {
        self.0.get(origin)
    }

    /// A patch got this far at least.
    pub fn reach(&mut self, origin: &Origin, reach: Reach) {
        match self.0.get_mut(origin) {
            Some(fate) => fate.reach = fate.reach.max(reach),
            None => {
                self.0.insert(origin.clone(), Fate { reach, ..Fate::default() });
            }
        }
    }

    /// A patch was left out of a resource.
    pub fn refuse(&mut self, origin: &Origin, refusal: Refusal) {
        let fate = self.0.entry(origin.clone()).or_default();
        fate.made.clear();
        fate.refused = Some(refusal);
    }

    /// Sums up over resources: the farthest reach, the first refusal; what was made of each is left to each.
    pub fn sum(&mut self, others: &Fates) {
        for (origin, other) in &others.0 {
            match self.0.entry(origin.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Fate { made: Vec::new(), ..other.clone() });
                }
                Entry::Occupied(mut known) => {
                    let fate = known.get_mut();
                    fate.reach = fate.reach.max(other.reach);
                    fate.refused = match (fate.refused.take(), &other.refused) {
                        (Some(one), Some(other)) => Some(one.min(other.clone())),
                        (one, other) => one.or_else(|| other.clone()),
                    };
                }
            }
        }
    }

    /// Those that are so.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(&Fate) -> bool) -> Fates {
        self.0.retain(|_, fate| keep(fate));
        self
    }

    /// Those of one of several resources that were patched together, which what was made names.
    #[must_use]
    pub fn of_resource(&self, name: &str) -> Fates {
        let mut found = Fates::default();
        for (origin, fate) in &self.0 {
            let made: Vec<Name> = fate.made.iter().filter(|made| made.ends_with(name)).cloned().collect();
            let refused = fate.refused.clone().filter(|refusal| refusal.resource.ends_with(name));
            if !made.is_empty() || refused.is_some() {
                found.0.insert(origin.clone(), Fate { reach: fate.reach, made, refused });
            }
        }
        found
    }

    /// All of one resource: what was made of its parts, together.
    pub fn extend(&mut self, others: Fates) {
        for (origin, other) in others.0 {
            let fate = self.0.entry(origin).or_default();
            fate.reach = fate.reach.max(other.reach);
            for made in other.made {
                if !fate.made.contains(&made) {
                    fate.made.push(made);
                }
            }
            fate.refused = fate.refused.take().or(other.refused);
        }
    }
}

/// Records what patches do while a resource is patched.
#[derive(Debug, Default)]
pub struct Trace(RefCell<Fates>);

impl Trace {
    /// A patch got this far at least.
    pub fn reach(&self, origin: &Origin, reach: Reach) {
        self.0.borrow_mut().reach(origin, reach);
    }

    /// A patch did something.
    pub fn did(&self, origin: &Origin, made: impl Into<String>) {
        let mut fates = self.0.borrow_mut();
        let fate = fates.0.entry(origin.clone()).or_default();
        fate.reach = Reach::Done;
        let made = Name::from(made.into());
        if !fate.made.contains(&made) {
            fate.made.push(made);
        }
    }

    /// Adds what was recorded elsewhere of the same resource.
    pub fn extend(&self, others: Fates) {
        self.0.borrow_mut().extend(others);
    }

    /// What was recorded.
    pub fn into_fates(self) -> Fates {
        self.0.into_inner()
    }
}

/// What a translator made, and what became of the patches meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched<T> {
    pub made: T,
    /// Nothing where no patch was concerned.
    fates: Option<Arc<Fates>>,
}

impl<T> Patched<T> {
    /// Something made with these patches.
    pub fn new(made: T, fates: Fates) -> Self {
        let fates = (!fates.is_empty()).then(|| Arc::new(fates));
        Patched { made, fates }
    }

    /// The same, with what became of patches elsewhere in the resource.
    #[must_use]
    pub fn and(self, others: Fates) -> Self {
        if others.is_empty() {
            return self;
        }
        let mut fates = self.fates.map(Arc::unwrap_or_clone).unwrap_or_default();
        fates.extend(others);
        Patched::new(self.made, fates)
    }

    /// What became of the patches; nothing if none was concerned.
    pub fn fates(&self) -> Option<&Arc<Fates>> {
        self.fates.as_ref()
    }
}

impl<T> Deref for Patched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.made
    }
}

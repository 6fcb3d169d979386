//! Whose an object is: one of several control planes that share a cluster.
//!
//! The label `istio.io/rev` of an object, or of its namespace, names a revision of the control plane, or a
//! tag that stands for one. Everybody who asks whose something is asks [`Revision::whose`].

use std::collections::BTreeSet;

use crate::Name;

/// The label of objects, namespaces and pods that names a revision or a tag.
pub const LABEL: &str = "istio.io/rev";

/// What the revision is called that is meant where nothing is said.
pub const DEFAULT: &str = "default";

/// A control plane among several: its name, and the tags that stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub name: Name,
    pub tags: BTreeSet<Name>,
}

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours: we read it, and we alone act upon it: write its status, deploy what it asks for.
    Ours,
    /// Everybody's to read, and another revision's to act upon.
    Shared,
    /// Another revision's alone.
    Others,
}

impl Revision {
    /// A revision without tags.
    pub fn named(name: &str) -> Self {
        Revision { name: name.into(), tags: BTreeSet::new() }
    }

    /// Whether a name means this revision.
    pub fn is_called(&self, name: &str) -> bool {
        name == &*self.name || self.tags.contains(name)
    }

    /// Whose an object is that has this label, in a namespace that has that one; empty if there is none.
    ///
    /// As for istiod an object's own label hides it from the others, and that of its namespace says only who
    /// acts: configuration of a namespace concerns clients of other namespaces, which may have another
    /// control plane. Where neither says anything, whoever is called `default` acts.
    pub fn whose(&self, object: &str, namespace: &str) -> Whose {
        match (object, namespace) {
            ("", "") if self.is_called(DEFAULT) => Whose::Ours,
            ("", namespace) if !namespace.is_empty() && self.is_called(namespace) => Whose::Ours,
            ("", _) => Whose::Shared,
            (object, _) if self.is_called(object) => Whose::Ours,
            _ => Whose::Others,
        }
    }
}

impl Default for Revision {
    fn default() -> Self {
        Revision::named(DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The revision and its tags, the label of the object, the label of its namespace.
    #[test]
    fn labels_say_whose_an_object_is() {
        let check = |revision: &str, object: &str, namespace: &str, expected: Whose| {
            let (name, tags) = revision.split_once('+').unwrap_or((revision, ""));
            let tags = tags.split('+').filter(|tag| !tag.is_empty()).map(Name::from).collect();
            let revision = Revision { name: name.into(), tags };
            assert_eq!(revision.whose(object, namespace), expected, "{revision:?} {object:?} {namespace:?}");
        };
        use Whose::*;
        // Nothing is said: everybody reads it, and one acts.
        check("default", "", "", Ours);
        check("canary", "", "", Shared);
        check("canary+default", "", "", Ours);
        check("canary+prod", "", "", Shared);
        // The object says it.
        check("default", "default", "", Ours);
        check("default", "canary", "", Others);
        check("canary", "canary", "", Ours);
        check("canary", "default", "", Others);
        check("canary+prod", "prod", "", Ours);
        check("canary+default", "default", "", Ours);
        check("canary+prod", "stable", "", Others);
        // Its namespace says it.
        check("default", "", "canary", Shared);
        check("canary", "", "canary", Ours);
        check("canary+prod", "", "prod", Ours);
        check("canary+default", "", "stable", Shared);
        // Both say it: the object's own counts.
        check("default", "default", "canary", Ours);
        check("canary", "default", "canary", Others);
        check("canary", "canary", "stable", Ours);
    }
}

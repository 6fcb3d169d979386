//! `ClientLabels`: the labels of a client, made known one by one as somebody asks.
//!
//! Most labels of a client shape nothing, and which ones do depends on the configuration: selectors of
//! DestinationRules, source labels of routes, failover priorities. So what many clients share is computed for
//! a client about whom nothing is known, and the view notes each label that is asked for. A client that has
//! none of these labels would have had the same answers. For others the computation is repeated with those
//! labels known, until it asks for nothing more that the client has.

use std::collections::BTreeSet;

use navarch_model::{Labels, Name};

use crate::view::View;

/// The labels of a client, as far as they are known. Reading one needs a view, which notes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientLabels {
    known: Labels,
    /// All labels are known, and inputs get all of them.
    exact: bool,
}

impl ClientLabels {
    /// All labels of a client.
    pub fn all(labels: Labels) -> Self {
        ClientLabels { known: labels, exact: false }
    }

    /// All labels of a client, none of which [`ClientLabels::of`] leaves out: what narrowing must not change.
    pub fn exact(labels: Labels) -> Self {
        ClientLabels { known: labels, exact: true }
    }

    /// A label of the client.
    pub fn get(&self, view: &View<'_>, key: &str) -> Option<&Name> {
        view.ask_label(key);
        self.known.get(key)
    }

    /// The keys of the labels that are known.
    pub fn keys(&self) -> impl Iterator<Item = &Name> {
        self.known.keys()
    }

    /// Whether a selector means the client: it has every label with its value. An empty selector means
    /// everybody.
    pub fn are_selected<'a, K, V>(
        &self,
        view: &View<'_>,
        selector: impl IntoIterator<Item = (&'a K, &'a V)>,
    ) -> bool
    where
        K: AsRef<str> + 'a + ?Sized,
        V: AsRef<str> + 'a + ?Sized,
    {
        let mut selector = selector.into_iter();
        selector
            .all(|(key, value)| self.get(view, key.as_ref()).is_some_and(|label| **label == *value.as_ref()))
    }

    /// Those of the labels that have one of these keys, for the input of a translator that looks at no
    /// others.
    pub fn of<'k>(&self, view: &View<'_>, keys: impl IntoIterator<Item = &'k str>) -> Labels {
        let keys: BTreeSet<&str> = keys.into_iter().collect();
        keys.iter().for_each(|key| view.ask_label(key));
        if self.exact {
            return self.known.clone();
        }
        let wanted = self.known.iter().filter(|(key, _)| keys.contains(&***key));
        wanted.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Whether inputs get all labels.
    pub fn are_exact(&self) -> bool {
        self.exact
    }

    /// With those labels of `client` known that were asked for. `None` if they are all known: whoever asked
    /// has had the answers of this client.
    #[must_use]
    pub fn with_asked(&self, client: &ClientLabels, asked: &BTreeSet<Name>) -> Option<ClientLabels> {
        if asked.is_empty() {
            return None;
        }
        let is_known = |key: &Name| self.known.contains_key(key);
        let wanted = client.known.iter().filter(|(key, _)| is_known(key) || asked.contains(*key));
        let known: Labels = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
        (known.len() > self.known.len()).then_some(ClientLabels { known, exact: self.exact })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::World;

    fn labels(pairs: &[(&str, &str)]) -> ClientLabels {
        ClientLabels::all(pairs.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect())
    }

    fn asked(view: &View<'_>) -> Vec<String> {
        view.labels_asked().iter().map(|key| key.to_string()).collect()
    }

    /// A selector asks in the order of its keys, and no further than it has to.
    #[test]
    fn what_is_asked_is_noted() {
        let world = World::new(Default::default());
        let client = labels(&[("app", "web"), ("tier", "front"), ("version", "v1")]);
        let check = |selector: &[(&str, &str)], selected: bool, expected: &[&str]| {
            let view = world.snapshot().view();
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            let selector: BTreeMap<String, String> = selector.iter().map(own).collect();
            assert_eq!(client.are_selected(&view, &selector), selected, "{selector:?}");
            assert_eq!(asked(&view), expected, "{selector:?}");
        };
        check(&[], true, &[]);
        check(&[("app", "web")], true, &["app"]);
        check(&[("app", "web"), ("tier", "front")], true, &["app", "tier"]);
        check(&[("app", "db"), ("tier", "front")], false, &["app"]);
        check(&[("zone", "a")], false, &["zone"]);

        let view = world.snapshot().view();
        assert_eq!(client.of(&view, ["tier", "zone"]).len(), 1);
        assert_eq!(asked(&view), ["tier", "zone"]);
        let exact = ClientLabels::exact(client.known.clone());
        assert_eq!(exact.of(&view, ["tier"]).len(), 3);
    }

    #[test]
    fn labels_become_known_as_they_are_asked_for() {
        let client = labels(&[("app", "web"), ("tier", "front")]);
        let step = |known: &ClientLabels, keys: &[&str]| {
            known.with_asked(&client, &keys.iter().map(|key| Name::from(*key)).collect())
        };
        let nothing = ClientLabels::default();
        assert_eq!(step(&nothing, &[]), None);
        assert_eq!(step(&nothing, &["zone"]), None, "the answer was the right one: there is no such label");
        let app = step(&nothing, &["app", "zone"]).expect("one more");
        assert_eq!(app, labels(&[("app", "web")]));
        assert_eq!(step(&app, &["app"]), None);
        assert_eq!(step(&app, &["tier"]), Some(client.clone()), "what was known stays known");
    }
}

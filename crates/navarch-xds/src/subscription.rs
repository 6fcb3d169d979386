//! What a client wants of one type.
//!
//! One model for both protocols. State-of-the-world names the whole list in every request, delta names what
//! is added and dropped; both end in the same three things: a wildcard mode, names, and glob collections.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_envoy::{Resource, ResourceSet, XdsType, hosts};

use crate::client::ClientRules;
use crate::names;
use crate::response::Protocol;
use crate::wanted::{NameLists, Wanted};

const WILDCARD: &str = "*";

/// How a client asked for everything (xDS spec, "How the client specifies what resources to return").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcard {
    /// It has not asked for anything yet.
    #[default]
    Unset,
    /// Its first request had no names.
    Implicit,
    /// It named `*`.
    Explicit,
    /// It has used names. A request without names now means nothing, not everything.
    Ended,
}

/// The subscription of one stream to one type.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    wildcard: Wildcard,
    names: Wanted,
    globs: BTreeSet<Arc<str>>,
    /// Virtual hosts that are asked for without names: the route configurations that the client names, whose
    /// hosts are the wildcard. `None`: the wildcard is the wildcard.
    routes: Option<BTreeSet<Arc<str>>>,
    /// Hash of the names in the last state-of-the-world request.
    listed: Option<u128>,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// Everything is wanted from now on.
    pub everything: bool,
    /// Names to be answered, whatever has been sent before.
    pub named: Vec<Arc<str>>,
    /// Those among them that were not wanted before.
    pub added: Vec<Arc<str>>,
    /// Glob collections to be answered.
    pub globbed: Vec<Arc<str>>,
    /// Names that are no longer wanted by name.
    pub dropped: Vec<Arc<str>>,
}

impl Subscription {
    /// Whether everything is wanted.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.wildcard, Wildcard::Implicit | Wildcard::Explicit)
    }

    /// How everything was asked for.
    #[must_use]
    pub fn wildcard(&self) -> Wildcard {
        self.wildcard
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_wildcard() && self.explicit() == 0
    }

    /// Whether a resource of this name may be wanted; [`Subscription::wants`] knows once there is one.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        (self.is_wildcard() && self.is_of_named_routes(name)) || self.names_one(name)
    }

    /// Whether a virtual host is one of the wildcard; so is everything that is not a virtual host.
    fn is_of_named_routes(&self, name: &str) -> bool {
        let is_named = |routes: &BTreeSet<_>| hosts::routes_of(name).is_some_and(|of| routes.contains(of));
        self.routes.as_ref().is_none_or(is_named)
    }

    /// Whether the wildcard is the virtual hosts of the route configurations that the client names.
    #[must_use]
    pub fn follows_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// The client names these route configurations: their hosts are part of the wildcard.
    pub fn add_routes(&mut self, named: impl IntoIterator<Item = Arc<str>>) {
        if let Some(routes) = &mut self.routes {
            routes.extend(named);
        }
    }

    /// The client does not name this route configuration any more. Whether its hosts were part of the
    /// wildcard.
    pub fn drop_routes(&mut self, name: &str) -> bool {
        self.routes.as_mut().is_some_and(|routes| routes.remove(name))
    }

    fn names_one(&self, name: &str) -> bool {
        self.names.contains(name) || self.globs.iter().any(|glob| names::glob_matches(glob, name))
    }

    /// Whether a resource is wanted: as part of the wildcard, by its name or by one of its aliases. What is
    /// on demand is not part of the wildcard, and has to be named.
    #[must_use]
    pub fn wants(&self, resource: &Resource) -> bool {
        (self.is_wildcard() && !resource.is_on_demand() && self.is_of_named_routes(resource.name()))
            || self.names_one(resource.name())
            || resource.aliases().iter().any(|alias| self.names.contains(alias))
    }

    /// Whether resources are part of the wildcard. Asked in the order of their names, the virtual hosts of
    /// one route configuration take one look at it.
    pub fn everything(&self) -> impl FnMut(&Resource) -> bool {
        let mut last: Option<(String, bool)> = None;
        move |resource| {
            if resource.is_on_demand() {
                return false;
            }
            let Some(routes) = &self.routes else { return true };
            let Some(of) = hosts::routes_of(resource.name()) else { return false };
            match &last {
                Some((known, is_named)) if known == of => *is_named,
                _ => {
                    let is_named = routes.contains(of);
                    last = Some((of.to_owned(), is_named));
                    is_named
                }
            }
        }
    }

    /// Whether this name is asked for by itself.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The names asked for one by one.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// The glob collections asked for.
    pub fn globs(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.globs.iter()
    }

    /// Number of names and globs asked for one by one.
    #[must_use]
    pub fn explicit(&self) -> usize {
        self.names.len() + self.globs.len()
    }

    /// A state-of-the-world request: the names are the whole list. `known` lends its names, so that a name is
    /// in memory once and not once per stream.
    ///
    /// An acknowledgement lists all names again, which says nothing new; it costs a hash of them.
    pub fn replace(
        &mut self,
        ty: XdsType,
        client: &ClientRules,
        wanted: &[String],
        known: &ResourceSet,
    ) -> SubscriptionChange {
        let listed = names::fingerprint(wanted);
        let repeats = self.listed.replace(listed) == Some(listed);
        let was_wildcard = self.is_wildcard();
        let first = self.wildcard == Wildcard::Unset;
        if repeats && !first {
            return SubscriptionChange::default();
        }
        let mut names = BTreeSet::new();
        let mut globs = BTreeSet::new();
        let mut explicit = false;
        for name in wanted {
            match name.as_str() {
                WILDCARD => explicit = true,
                name if names::is_glob(name) => _ = globs.insert(shared(name, known)),
                name => _ = names.insert(shared(name, known)),
            }
        }
        self.wildcard = match self.wildcard {
            _ if explicit => Wildcard::Explicit,
            Wildcard::Unset if wanted.is_empty() && client.implicit_wildcard(ty, Protocol::Sotw) => {
                Wildcard::Implicit
            }
            // Without names and without a wildcard there is nothing to remember: the next request is still
            // the first.
            Wildcard::Unset if wanted.is_empty() => Wildcard::Unset,
            Wildcard::Implicit if wanted.is_empty() || client.keeps_wildcard_when_naming(ty) => {
                Wildcard::Implicit
            }
            _ => Wildcard::Ended,
        };
        let named: Vec<_> = names.iter().filter(|name| !self.names.contains(name)).cloned().collect();
        let change = SubscriptionChange {
            everything: self.is_wildcard() && (first || !was_wildcard),
            added: if was_wildcard { Vec::new() } else { named.clone() },
            named,
            globbed: globs.difference(&self.globs).cloned().collect(),
            dropped: self.names.iter().filter(|name| !names.contains(*name)).cloned().collect(),
        };
        self.names = names.into_iter().collect();
        self.globs = globs;
        change
    }

    /// A delta request. Names in both lists are first subscribed and then unsubscribed, which is how ztunnel
    /// says "nothing for now". A name that is subscribed again is answered again (xDS spec, "Subscribing to
    /// Resources").
    pub fn change(
        &mut self,
        ty: XdsType,
        client: &ClientRules,
        subscribe: &[String],
        unsubscribe: &[String],
        known: &ResourceSet,
    ) -> SubscriptionChange {
        let was_wildcard = self.is_wildcard();
        let mut change = SubscriptionChange::default();
        if self.wildcard == Wildcard::Unset {
            let nameless = subscribe.is_empty() && unsubscribe.is_empty();
            if nameless && client.implicit_wildcard(ty, Protocol::Delta) {
                self.wildcard = Wildcard::Implicit;
                self.routes = client.asks_for_all_hosts(ty, Protocol::Delta).then(BTreeSet::new);
            } else if !subscribe.is_empty() || !unsubscribe.is_empty() {
                self.wildcard = Wildcard::Ended;
            }
        }
        for name in subscribe {
            match name.as_str() {
                WILDCARD => self.wildcard = Wildcard::Explicit,
                name if names::is_glob(name) => {
                    let name = shared(name, known);
                    self.globs.insert(name.clone());
                    change.globbed.push(name);
                }
                name => {
                    let name = shared(name, known);
                    if self.names.insert(name.clone()) && !was_wildcard {
                        change.added.push(name.clone());
                    }
                    change.named.push(name);
                }
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = Wildcard::Ended;
                continue;
            }
            let name = shared(name, known);
            self.globs.remove(&name);
            let had = self.names.remove(&name);
            change.named.retain(|named| *named != name);
            change.added.retain(|added| *added != name);
            change.globbed.retain(|globbed| *globbed != name);
            if had || self.is_wildcard() {
                change.dropped.push(name);
            }
        }
        change.everything = self.is_wildcard() && !was_wildcard;
        change
    }

    /// Keeps names that other streams ask for too together with them.
    pub fn share(&mut self, lists: &NameLists) {
        self.names.share(lists);
    }

    /// Adds names that the client holds and wants to hear of, although it did not list them.
    pub fn adopt(&mut self, held: impl IntoIterator<Item = Arc<str>>) {
        held.into_iter().for_each(|name| _ = self.names.insert(name));
    }
}

/// A name, in the allocation the resource already has if there is one.
pub(crate) fn shared(name: &str, known: &ResourceSet) -> Arc<str> {
    let name = names::canonical(name);
    known.get(&name).map_or_else(|| Arc::from(&*name), |resource| resource.name().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    #[test]
    fn a_list_says_what_it_says_however_often_and_in_whatever_order() {
        let envoy = ClientRules::of(&Node { user_agent_name: "envoy".into(), ..Node::default() });
        let mut subscription = Subscription::default();
        let mut check = |wanted: &str, expected: &str| {
            let wanted: Vec<String> = wanted.split_whitespace().map(str::to_owned).collect();
            let change = subscription.replace(XdsType::Cds, &envoy, &wanted, &ResourceSet::default());
            let named = change.named.iter().map(|name| format!("+{name}"));
            let dropped = change.dropped.iter().map(|name| format!("-{name}"));
            let everything = change.everything.then(|| "*".to_owned());
            let said: Vec<String> = everything.into_iter().chain(named).chain(dropped).collect();
            assert_eq!(said.join(" "), expected, "{wanted:?}");
        };
        for (wanted, expected) in [
            ("", "*"),
            ("", ""),
            ("a b", "+a +b"),
            ("a b", ""),
            ("b a", ""),
            ("b a b", ""),
            ("a", "-b"),
            ("a b", "+b"),
            ("a b *", ""),
            ("", "-a -b"),
            ("", ""),
            ("a", "+a"),
            ("* a", "*"),
            ("a *", ""),
        ] {
            check(wanted, expected);
        }
    }
}

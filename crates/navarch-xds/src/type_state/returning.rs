//! What a client says it holds from an earlier stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, ResourceSet, Version};

use crate::names;

/// What the first request of a type says about an earlier stream. It counts until the first answer.
///
/// In delta that is `initial_resource_versions`, one version per name; in state-of-the-world `version_info`,
/// one version of all that the client was given (xDS spec, "ACK/NACK and resource type instance version").
#[derive(Debug, Default)]
pub(crate) struct Returning {
    /// Delta: the version of each name; `None` if it cannot be read, which counts as no version that we know.
    held: Option<BTreeMap<Arc<str>, Option<Version>>>,
    /// State-of-the-world: the version of everything.
    version: Option<String>,
    /// What is held at the current version need not be sent, although the client asks for it by name.
    keeps_held: bool,
    /// Nothing is sent until then: whether the client has started, and so whether `keeps_held` is right, is
    /// not known.
    pub start_unknown_until: Option<Instant>,
}

impl Returning {
    /// State-of-the-world: the client comes with this version.
    pub fn at_version(&mut self, version: &str) {
        self.version = (!version.is_empty()).then(|| version.to_owned());
    }

    /// Delta: the client comes with these names and versions. Returns the names.
    pub fn with(&mut self, held: BTreeMap<String, String>) -> impl Iterator<Item = &Arc<str>> {
        let held: BTreeMap<Arc<str>, Option<Version>> = held
            .into_iter()
            .map(|(name, version)| (Arc::from(&*names::canonical(&name)), Version::parse(&version)))
            .collect();
        self.held = (!held.is_empty()).then_some(held);
        self.held.iter().flat_map(BTreeMap::keys)
    }

    /// What is held need not be sent again, except `needed`.
    pub fn keep_held<'a>(&mut self, needed: impl IntoIterator<Item = &'a str>) {
        self.keeps_held = true;
        self.need(needed);
    }

    /// If the client has not shown in time that it has started, what it holds is sent again.
    pub fn let_time_pass(&mut self, now: Instant) {
        if self.start_unknown_until.is_some_and(|until| until <= now) {
            self.keeps_held = false;
            self.start_unknown_until = None;
        }
    }

    /// The client needs these, whether or not it says that it holds them.
    pub fn need<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        if let Some(held) = &mut self.held {
            names.into_iter().for_each(|name| _ = held.remove(name));
        }
    }

    /// The client needs those for which `is_needed`, whether or not it says that it holds them.
    pub fn need_if(&mut self, is_needed: impl Fn(&str) -> bool) {
        if let Some(held) = &mut self.held {
            held.retain(|name, _| !is_needed(name));
        }
    }

    /// Delta: whether the client holds something else of this name.
    pub fn differs(&self, resource: &Resource) -> bool {
        let held = self.held.as_ref().and_then(|held| held.get(resource.name()));
        held.is_some_and(|version| *version != Some(resource.version()))
    }

    /// The client lists these, and may not hold what it lists.
    pub fn doubt_if(&mut self, is_doubtful: impl Fn(&str) -> bool) {
        let held = self.held.iter_mut().flatten();
        held.filter(|(name, _)| is_doubtful(name)).for_each(|(_, version)| *version = None);
    }

    /// Delta: whether the client has said what it holds, and has not been answered yet.
    pub fn is_unanswered(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the client came with something from an earlier stream that it was not told to be different.
    pub fn may_hold_something(&self) -> bool {
        self.held.is_some() || self.version.is_some()
    }

    /// State-of-the-world: whether the client holds exactly the wildcard of this set.
    pub fn is_at(&self, set: &ResourceSet) -> bool {
        self.version.as_ref().is_some_and(|version| *version == set.wildcard_version().to_string())
    }

    /// Delta: the names that the client holds, with whatever content.
    pub fn names(&self) -> Option<impl ExactSizeIterator<Item = &Arc<str>>> {
        self.held.as_ref().map(|held| held.keys())
    }

    /// What is held, for the first answer to a wildcard.
    pub fn take(&mut self) -> Option<HeldVersions> {
        let versions = self.held.take()?;
        Some(HeldVersions { versions, is_enough: true })
    }

    /// What is held, for the first answer to names.
    pub fn take_by_name(&mut self) -> HeldVersions {
        HeldVersions { versions: self.held.take().unwrap_or_default(), is_enough: self.keeps_held }
    }
}

/// Names and versions that a delta client holds.
#[derive(Debug)]
pub(crate) struct HeldVersions {
    versions: BTreeMap<Arc<str>, Option<Version>>,
    /// What is held at the current version need not be sent.
    is_enough: bool,
}

impl HeldVersions {
    /// Whether the client holds this very content, and need not hear of it. What has a time to live it must
    /// hear of: nothing else starts its refreshes.
    pub fn keeps(&self, resource: &Resource) -> bool {
        let held = || self.versions.get(resource.name()) == Some(&Some(resource.version()));
        self.is_enough && resource.ttl().is_none() && held()
    }

    /// Whether the client holds something of this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.versions.contains_key(name)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.versions.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navarch_envoy::XdsType;

    use super::*;

    fn resource(name: &str) -> Resource {
        Resource::of(XdsType::Eds, name, b"x")
    }

    fn with(names: &[&str]) -> Returning {
        let mut returning = Returning::default();
        let versions = names.iter().map(|name| ((*name).to_owned(), resource(name).version().to_string()));
        assert_eq!(returning.with(versions.collect()).count(), names.len());
        returning
    }

    #[test]
    fn held_names_are_kept_only_if_they_may_be() {
        let mut returning = with(&["a", "b"]);
        let held = returning.take_by_name();
        assert!(held.has_name("a") && !held.keeps(&resource("a")));
        let mut returning = with(&["a", "b", "c"]);
        returning.keep_held(["b"]);
        returning.need_if(|name| name == "c");
        let held = returning.take_by_name();
        assert!(held.keeps(&resource("a")) && !held.keeps(&resource("b")) && !held.keeps(&resource("c")));
        assert!(!returning.is_unanswered());
    }

    #[test]
    fn another_version_and_a_time_to_live_are_not_held() {
        let mut returning = with(&["a"]);
        let held = returning.take().expect("something held");
        assert!(!held.keeps(&Resource::of(XdsType::Eds, "a", b"y")));
        let url = XdsType::Eds.type_url();
        let timed = Resource::builder(url, "a", b"x").ttl(Duration::from_secs(9)).build();
        let mut returning = Returning::default();
        returning.with([("a".to_owned(), timed.version().to_string())].into()).for_each(drop);
        assert!(!returning.take().expect("something held").keeps(&timed));
    }

    #[test]
    fn nothing_is_held_by_a_client_that_says_nothing() {
        let mut returning = Returning::default();
        returning.at_version("");
        returning.with(BTreeMap::new()).for_each(drop);
        assert!(!returning.may_hold_something());
        assert!(returning.take().is_none());
    }
}

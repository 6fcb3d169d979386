//! Virtual hosts whose route configuration is not configured any more.
//!
//! A client keeps a route configuration as long as a listener of its own refers to it, whatever the server
//! says ([`navarch_envoy::Removal::Ignored`]), and requests that come meanwhile need its hosts. They go with
//! it, or when it is configured again without them.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use navarch_envoy::{ResourceSet, hosts};

/// Names of hosts without routes that the client may hold.
#[derive(Debug, Default)]
pub(crate) struct Orphans(BTreeSet<Arc<str>>);

impl Orphans {
    /// A host stays if its routes are not in the set. Whether it does.
    pub fn keep(&mut self, name: &Arc<str>, routes: &ResourceSet) -> bool {
        let is_orphan = hosts::routes_of(name).is_some_and(|of| routes.get(of).is_none());
        if is_orphan {
            self.0.insert(name.clone());
        }
        is_orphan
    }

    /// Those of a route configuration. They are no longer among these.
    pub fn take_of(&mut self, routes: &str) -> Vec<Arc<str>> {
        self.take(|of| of == routes)
    }

    /// Those whose route configuration is in the set. They are no longer among these.
    pub fn take_configured(&mut self, routes: &ResourceSet) -> Vec<Arc<str>> {
        self.take(|of| routes.get(of).is_some())
    }

    fn take(&mut self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let is_of = |name: &Arc<str>| hosts::routes_of(name).is_some_and(&is_wanted);
        let (taken, kept) = mem::take(&mut self.0).into_iter().partition(is_of);
        self.0 = kept;
        BTreeSet::into_iter(taken).collect()
    }
}

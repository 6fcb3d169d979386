//! Routes of several sets whose order is by specificity, put together.

use std::cmp::Reverse;

use navarch_model::Hashed;

use super::input::{EncodedRoute, Routes};
use crate::Pure;
use crate::pure::Sealed;

/// The key of [`MergedRoutes`].
#[derive(Clone, Debug, Hash)]
pub struct MergedRoutesInput {
    /// The sets of each host that covers the requests, the most specific host first. Of routes that are as
    /// specific, those of the first set come first.
    pub groups: Vec<Vec<Routes>>,
}

/// The routes of several sets: host by host, and for each the most specific first, up to the first that
/// matches everything. (Gateway API, HTTPRouteRule: rules of several routes for a host are ordered as if they
/// were those of one; HTTPRoute, hostnames: those of the route with the more specific host come first.)
pub struct MergedRoutes;

impl Sealed for MergedRoutes {}

impl Pure for MergedRoutes {
    const NAME: &'static str = "routes.merged";
    type Input = MergedRoutesInput;
    type Output = Hashed<Vec<EncodedRoute>>;

    fn run(input: &MergedRoutesInput) -> Hashed<Vec<EncodedRoute>> {
        let mut routes: Vec<EncodedRoute> = input.groups.iter().flat_map(|sets| merged(sets)).collect();
        // Only the last one may be moved behind what others say about the host.
        let last = routes.len().saturating_sub(1);
        routes.iter_mut().take(last).for_each(|route| route.catch_all = false);
        Hashed::new(routes)
    }
}

fn merged(sets: &[Routes]) -> impl Iterator<Item = EncodedRoute> {
    let mut routes: Vec<&EncodedRoute> = sets.iter().flat_map(|set| set.iter()).collect();
    // Stable: what is as specific stays in the order of the sets.
    routes.sort_by_key(|route| Reverse(route.specificity));
    let end = routes.iter().position(|route| route.catch_all).map_or(routes.len(), |last| last + 1);
    routes.into_iter().take(end).cloned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navarch_model::route::{HttpMatch, PathMatch};

    use super::*;

    fn routes(paths: &[&str]) -> Routes {
        let route = |path: &&str| {
            let condition =
                HttpMatch { path: Some(PathMatch::PathPrefix((*path).into())), ..HttpMatch::default() };
            EncodedRoute {
                bytes: (*path).to_owned().into(),
                catch_all: *path == "/",
                specificity: condition.specificity(),
                origin: None,
            }
        };
        Arc::new(Hashed::new(paths.iter().map(route).collect()))
    }

    fn check(groups: &[&[&[&str]]], expected: &[(&str, bool)]) {
        let groups = groups.iter().map(|sets| sets.iter().map(|paths| routes(paths)).collect()).collect();
        let merged = MergedRoutes::run(&MergedRoutesInput { groups });
        let merged: Vec<(&[u8], bool)> =
            merged.iter().map(|route| (&*route.bytes, route.catch_all)).collect();
        let expected: Vec<(&[u8], bool)> =
            expected.iter().map(|(path, catch_all)| (path.as_bytes(), *catch_all)).collect();
        assert_eq!(merged, expected);
    }

    #[test]
    fn the_most_specific_route_of_any_set_comes_first() {
        check(
            &[&[&["/abc", "/a"], &["/abcd", "/b", "/"], &["/c", "/"]]],
            &[("/abcd", false), ("/abc", false), ("/a", false), ("/b", false), ("/c", false), ("/", true)],
        );
    }

    #[test]
    fn routes_of_a_more_specific_host_come_first() {
        check(
            &[&[&["/a"], &["/"]], &[&["/abc", "/"]]],
            &[("/a", false), ("/", false), ("/abc", false), ("/", true)],
        );
    }
}

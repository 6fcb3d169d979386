//! Merging the routes of a delegate VirtualService into the route that delegates (Istio: "VirtualService",
//! delegate).
//!
//! Both sides are taken apart field by field, so that a field that the API gets cannot be forgotten here.

use std::collections::BTreeMap;

use navarch_model::networking::{HttpMatchRequest, HttpRoute};
use navarch_model::values::StringMatch;

/// A route of a delegate, under the conditions of the route that delegates.
pub(super) struct Merged {
    /// Position in the delegate.
    pub index: usize,
    pub route: HttpRoute,
    /// The route that delegates says where requests are mirrored to.
    pub inherits_mirror: bool,
    pub inherits_mirrors: bool,
}

/// The delegate's routes under the conditions of the root's route. Routes that could never match are left
/// out.
pub(super) fn merge_routes(root: &HttpRoute, delegate: &[HttpRoute]) -> Vec<Merged> {
    let merged = delegate.iter().enumerate().map(|(index, route)| {
        Some(Merged {
            index,
            route: merge_route(root, route)?,
            inherits_mirror: route.mirror.is_none(),
            inherits_mirrors: route.mirrors.is_empty(),
        })
    });
    merged.flatten().collect()
}

/// What the delegate leaves unset, it inherits.
fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let HttpRoute {
        name,
        match_,
        // A route that delegates has no destinations and no redirect, so there are none to inherit.
        route,
        redirect,
        direct_response,
        // One level only: a delegate cannot delegate further.
        delegate: _,
        rewrite,
        timeout,
        retries,
        fault,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percentage,
        cors_policy,
        headers,
    } = delegate;
    Some(HttpRoute {
        name: joined(&root.name, name),
        match_: merge_matches(&root.match_, match_)?,
        route: route.clone(),
        redirect: redirect.clone(),
        direct_response: or(direct_response, &root.direct_response),
        delegate: None,
        rewrite: or(rewrite, &root.rewrite),
        timeout: or(timeout, &root.timeout),
        retries: or(retries, &root.retries),
        fault: or(fault, &root.fault),
        mirror: or(mirror, &root.mirror),
        mirrors: if mirrors.is_empty() { root.mirrors.clone() } else { mirrors.clone() },
        mirror_percent: or(mirror_percent, &root.mirror_percent),
        mirror_percentage: or(mirror_percentage, &root.mirror_percentage),
        cors_policy: or(cors_policy, &root.cors_policy),
        headers: or(headers, &root.headers),
    })
}

fn or<T: Clone>(own: &Option<T>, inherited: &Option<T>) -> Option<T> {
    own.as_ref().or(inherited.as_ref()).cloned()
}

fn or_text(own: &str, inherited: &str) -> String {
    if own.is_empty() { inherited.to_owned() } else { own.to_owned() }
}

fn joined(root: &str, delegate: &str) -> String {
    match (root.is_empty(), delegate.is_empty()) {
        (_, true) => root.to_owned(),
        (true, false) => delegate.to_owned(),
        (false, false) => format!("{root}-{delegate}"),
    }
}

/// The conditions under which both match. `None` if one of the delegate's conditions fits none of the root's.
fn merge_matches(root: &[HttpMatchRequest], delegate: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for condition in delegate {
        let before = merged.len();
        let fitting = root.iter().filter(|root| !conflict(root, condition));
        merged.extend(fitting.map(|root| merge_match(root, condition)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let HttpMatchRequest {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        port,
        source_labels,
        gateways,
        query_params,
        ignore_uri_case,
        without_headers,
        source_namespace,
        stat_prefix,
    } = delegate;
    HttpMatchRequest {
        name: joined(&root.name, name),
        uri: or(uri, &root.uri),
        scheme: or(scheme, &root.scheme),
        method: or(method, &root.method),
        authority: or(authority, &root.authority),
        headers: united(&root.headers, headers),
        port: if *port == 0 { root.port } else { *port },
        source_labels: united(&root.source_labels, source_labels),
        gateways: if gateways.is_empty() { root.gateways.clone() } else { gateways.clone() },
        query_params: united(&root.query_params, query_params),
        // Both are the same, or they would conflict.
        ignore_uri_case: *ignore_uri_case,
        without_headers: united(&root.without_headers, without_headers),
        source_namespace: or_text(source_namespace, &root.source_namespace),
        stat_prefix: or_text(stat_prefix, &root.stat_prefix),
    }
}

/// The delegate's entries over the root's.
fn united<V: Clone>(root: &BTreeMap<String, V>, delegate: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut all = root.clone();
    all.extend(delegate.iter().map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// Whether the delegate's condition is not within the root's.
fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let HttpMatchRequest {
        name: _,
        uri,
        scheme,
        method,
        authority,
        headers,
        port,
        source_labels,
        gateways,
        query_params,
        ignore_uri_case,
        without_headers,
        source_namespace,
        stat_prefix: _,
    } = leaf;
    let texts =
        [(&root.uri, uri), (&root.scheme, scheme), (&root.method, method), (&root.authority, authority)];
    let maps = [
        (&root.headers, headers),
        (&root.without_headers, without_headers),
        (&root.query_params, query_params),
    ];
    texts.into_iter().any(|(root, leaf)| text_conflict(root.as_ref(), leaf.as_ref()))
        || maps
            .into_iter()
            .any(|(root, leaf)| leaf.iter().any(|(key, leaf)| text_conflict(root.get(key), Some(leaf))))
        || root.ignore_uri_case != *ignore_uri_case
        || (root.port != 0 && *port != 0 && root.port != *port)
        || (!root.source_namespace.is_empty() && root.source_namespace != *source_namespace)
        || source_labels
            .iter()
            .any(|(key, leaf)| root.source_labels.get(key).is_some_and(|root| root != leaf))
        || gateway_conflict(&root.gateways, gateways)
}

fn gateway_conflict(root: &[String], leaf: &[String]) -> bool {
    !root.is_empty()
        && !leaf.is_empty()
        && (root.len() < leaf.len() || leaf.iter().any(|gateway| !root.contains(gateway)))
}

/// Texts conflict unless one of them is not stated, or the root's pattern is a prefix that the leaf's
/// extends, or both are equal.
fn text_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (StringMatch::Exact(root), StringMatch::Exact(leaf)) => root != leaf,
        (StringMatch::Prefix(root), StringMatch::Prefix(leaf) | StringMatch::Exact(leaf)) => {
            !leaf.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    fn prefix(text: &str) -> StringMatch {
        StringMatch::Prefix(text.into())
    }

    #[test]
    fn a_leaf_must_be_within_its_root() {
        let check = |root: &StringMatch, leaf: &StringMatch, expected: bool| {
            assert_eq!(text_conflict(Some(root), Some(leaf)), expected, "{root:?} {leaf:?}");
        };
        check(&prefix("/a"), &prefix("/a/b"), false);
        check(&prefix("/a"), &exact("/a/b"), false);
        check(&prefix("/a"), &prefix("/b"), true);
        check(&exact("/a"), &exact("/a"), false);
        check(&exact("/a"), &exact("/b"), true);
        check(&exact("/a"), &prefix("/a"), true);
        check(&StringMatch::Regex(".*".into()), &prefix("/a"), true);
        check(&prefix("/a"), &StringMatch::Regex(".*".into()), true);
        check(&StringMatch::Any, &prefix("/a"), true);
        assert!(!text_conflict(None, Some(&prefix("/a"))) && !text_conflict(Some(&prefix("/a")), None));
    }

    #[test]
    fn routes_inherit_and_names_join() {
        let uri = |text: &str| HttpMatchRequest { uri: Some(prefix(text)), ..HttpMatchRequest::default() };
        let root = HttpRoute {
            name: "root".into(),
            match_: vec![uri("/a"), uri("/b")],
            timeout: Some(std::time::Duration::from_secs(3)),
            ..HttpRoute::default()
        };
        let leaf = |name: &str, uris: &[&str]| HttpRoute {
            name: name.into(),
            match_: uris.iter().map(|text| uri(text)).collect(),
            ..HttpRoute::default()
        };
        let merged =
            merge_routes(&root, &[leaf("one", &["/a/x", "/b/x"]), leaf("no", &["/c"]), leaf("", &[])]);
        let names: Vec<(usize, &str)> =
            merged.iter().map(|merged| (merged.index, merged.route.name.as_str())).collect();
        assert_eq!(names, [(0, "root-one"), (2, "root")]);
        assert_eq!(merged[0].route.match_, [uri("/a/x"), uri("/b/x")]);
        assert_eq!(merged[1].route.match_, [uri("/a"), uri("/b")]);
        assert_eq!(merged[0].route.timeout, root.timeout);
    }
}

//! Merging the routes of a delegate VirtualService into the route that delegates (Istio: "VirtualService", delegate).

use std::collections::BTreeMap;

use navarch_model::networking::{HttpMatchRequest, HttpRoute};
use navarch_model::values::StringMatch;

/// The delegate's routes under the conditions of the root's route. Routes that could never match are left out; their number is
/// the second result.
pub(super) fn merge_routes(root: &HttpRoute, delegate: &[HttpRoute]) -> (Vec<HttpRoute>, usize) {
    let merged: Vec<HttpRoute> = delegate.iter().filter_map(|route| merge_route(root, route)).collect();
    let dropped = delegate.len() - merged.len();
    (merged, dropped)
}

/// What the delegate leaves unset, it inherits.
fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut route = delegate.clone();
    route.match_ = merge_matches(&root.match_, &delegate.match_)?;
    // One level only: a delegate cannot delegate further.
    route.delegate = None;
    route.name = joined(&root.name, &delegate.name);
    macro_rules! inherit {
        ($($field:ident),+) => { $(
            if route.$field.is_none() {
                route.$field.clone_from(&root.$field);
            }
        )+ };
    }
    inherit!(rewrite, direct_response, timeout, retries, fault, mirror, mirror_percent, mirror_percentage);
    inherit!(cors_policy, headers);
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
    }
    Some(route)
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
    let mut merged = delegate.clone();
    merged.name = joined(&root.name, &delegate.name);
    macro_rules! inherit {
        ($($field:ident),+) => { $(
            if merged.$field.is_none() {
                merged.$field.clone_from(&root.$field);
            }
        )+ };
    }
    inherit!(uri, scheme, method, authority);
    merged.headers = united(&root.headers, &delegate.headers);
    merged.without_headers = united(&root.without_headers, &delegate.without_headers);
    merged.query_params = united(&root.query_params, &delegate.query_params);
    merged.source_labels = united(&root.source_labels, &delegate.source_labels);
    if merged.port == 0 {
        merged.port = root.port;
    }
    if merged.source_namespace.is_empty() {
        merged.source_namespace.clone_from(&root.source_namespace);
    }
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&root.gateways);
    }
    if merged.stat_prefix.is_empty() {
        merged.stat_prefix.clone_from(&root.stat_prefix);
    }
    merged
}

/// The delegate's entries over the root's.
fn united<V: Clone>(root: &BTreeMap<String, V>, delegate: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut all = root.clone();
    all.extend(delegate.iter().map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// Whether the delegate's condition is not within the root's.
fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    texts.into_iter().any(|(root, leaf)| text_conflict(root.as_ref(), leaf.as_ref()))
        || maps
            .into_iter()
            .any(|(root, leaf)| leaf.iter().any(|(key, leaf)| text_conflict(root.get(key), Some(leaf))))
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port != 0 && leaf.port != 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace)
        || leaf
            .source_labels
            .iter()
            .any(|(key, leaf)| root.source_labels.get(key).is_some_and(|root| root != leaf))
        || gateway_conflict(&root.gateways, &leaf.gateways)
}

fn gateway_conflict(root: &[String], leaf: &[String]) -> bool {
    !root.is_empty()
        && !leaf.is_empty()
        && (root.len() < leaf.len() || leaf.iter().any(|gateway| !root.contains(gateway)))
}

/// Texts conflict unless one of them is not stated, or the root's pattern is a prefix that the leaf's extends, or both are equal.
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
        let (merged, dropped) =
            merge_routes(&root, &[leaf("one", &["/a/x", "/b/x"]), leaf("", &[]), leaf("no", &["/c"])]);
        assert_eq!(dropped, 1);
        let names: Vec<&str> = merged.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["root-one", "root"]);
        assert_eq!(merged[0].match_, [uri("/a/x"), uri("/b/x")]);
        assert_eq!(merged[1].match_, [uri("/a"), uri("/b")]);
        assert_eq!(merged[0].timeout, root.timeout);
    }
}

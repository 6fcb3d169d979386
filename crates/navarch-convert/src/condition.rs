//! Conditions on requests.

use std::collections::BTreeMap;

use navarch_model::Origin;
use navarch_model::route::{ClientMatch, HttpMatch, PathMatch};
use navarch_model::values::StringMatch;

use crate::manifest::{Match, NamedMatch, TypedValue};
use crate::report::Report;

const EXACT: &str = "Exact";
const PREFIX: &str = "PathPrefix";
const REGEX: &str = "RegularExpression";
/// Stands for a claim of the request's token.
const CLAIM_PREFIX: &str = "@request.auth.claims";
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// A condition in the words of the Gateway API, and as it is there.
pub struct Converted {
    pub stated: Match,
    pub meant: HttpMatch,
}

/// A condition; nothing if a part of it has no counterpart, which would let through other requests.
pub fn convert(condition: &HttpMatch, origin: &Origin, report: &mut Report<'_>) -> Option<Converted> {
    let HttpMatch {
        name: _,
        client,
        path,
        ignore_path_case,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        stat_prefix: _,
        share,
    } = condition;
    let ClientMatch { port, parents, labels, namespace } = client;
    let claims = headers.keys().any(|name| name.to_ascii_lowercase().starts_with(CLAIM_PREFIX));
    let unfit = [
        (port.is_some(), "port"),
        (!parents.is_empty(), "gateways"),
        (!labels.is_empty(), "sourceLabels"),
        (namespace.is_some(), "sourceNamespace"),
        (*ignore_path_case, "ignoreUriCase"),
        (scheme.is_some(), "scheme"),
        (authority.is_some(), "authority"),
        (!without_headers.is_empty(), "withoutHeaders"),
        (claims, "claims of tokens"),
        (share.is_some(), "a share"),
    ];
    let unfit: Vec<&str> = unfit.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
    if !unfit.is_empty() {
        let message = format!("conditions on {} have no counterpart; the rule is left out", unfit.join(", "));
        report.lost(origin, message, "state the condition otherwise");
        return None;
    }
    let method = match method {
        None => None,
        Some(StringMatch::Exact(method)) if METHODS.contains(&method.as_str()) => Some(method.clone()),
        Some(_) => {
            let message = "only one of the methods of HTTP can be a condition; the rule is left out";
            report.lost(origin, message, "make a rule for each method");
            return None;
        }
    };
    let path = self::path(path.as_ref(), origin, report)?;
    let stated =
        Match { path: typed(&path), headers: named(headers), query_params: named(query_params), method };
    let meant = HttpMatch { path: Some(path), ..condition.clone() };
    Some(Converted { stated, meant })
}

fn typed(path: &PathMatch) -> TypedValue {
    let (ty, value) = match path {
        PathMatch::Exact(path) => (EXACT, path),
        PathMatch::Prefix(path) | PathMatch::PathPrefix(path) => (PREFIX, path),
        PathMatch::Regex(pattern) => (REGEX, pattern),
    };
    TypedValue { r#type: ty, value: value.clone() }
}

/// The condition on the path as the Gateway API has it: every condition has one.
fn path(stated: Option<&PathMatch>, origin: &Origin, report: &mut Report<'_>) -> Option<PathMatch> {
    let Some(stated) = stated else { return Some(PathMatch::PathPrefix("/".to_owned())) };
    if let PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::PathPrefix(path) = stated
        && !is_path(path)
    {
        let message = format!("{path:?} cannot be a path in a condition; the rule is left out");
        report.lost(origin, message, "write the path as requests have it");
        return None;
    }
    Some(match stated {
        PathMatch::Prefix(prefix) => {
            segments(prefix, origin, report);
            let trimmed = prefix.trim_end_matches('/');
            PathMatch::PathPrefix(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
        }
        other => other.clone(),
    })
}

/// Prefixes of the Gateway API end at a segment.
fn segments(prefix: &str, origin: &Origin, report: &mut Report<'_>) {
    match prefix.strip_suffix('/') {
        Some("") => {}
        Some(parent) => {
            let message = format!("{prefix} does not take {parent}, and PathPrefix does");
            report.differs(origin, message, "nothing, if that is what is meant");
        }
        None => {
            let message = format!("{prefix} takes {prefix}xyz too, and PathPrefix ends at a segment");
            report.differs(origin, message, "nothing, if that is what is meant");
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !["//", "/./", "/../", "%2f", "%2F", "#", "?", " "].iter().any(|part| path.contains(part))
        && !path.ends_with("/..")
        && !path.ends_with("/.")
}

fn named(conditions: &BTreeMap<String, StringMatch>) -> Vec<NamedMatch> {
    let named = conditions.iter().map(|(name, pattern)| {
        let (ty, value) = match pattern {
            StringMatch::Exact(text) => (EXACT, text.clone()),
            StringMatch::Prefix(text) => (REGEX, format!("{}.*", quoted(text))),
            StringMatch::Any => (REGEX, ".*".to_owned()),
            StringMatch::Regex(pattern) if pattern == "*" => (REGEX, ".*".to_owned()),
            StringMatch::Regex(pattern) => (REGEX, pattern.clone()),
        };
        NamedMatch { name: name.clone(), r#type: ty, value }
    });
    named.collect()
}

/// A regular expression that matches `text` and nothing else.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Whether there may be a request that both conditions take.
pub fn overlap(a: &HttpMatch, b: &HttpMatch) -> bool {
    let differ = |a: &StringMatch, b: &StringMatch| match (a, b) {
        (StringMatch::Exact(a), StringMatch::Exact(b)) => a != b,
        _ => false,
    };
    let by_name = |a: &BTreeMap<String, StringMatch>, b: &BTreeMap<String, StringMatch>| {
        a.iter().any(|(name, own)| b.get(name).is_some_and(|other| differ(own, other)))
    };
    let methods = match (&a.method, &b.method) {
        (Some(a), Some(b)) => differ(a, b),
        _ => false,
    };
    let paths = match (&a.path, &b.path) {
        (Some(a), Some(b)) => apart(a, b),
        _ => false,
    };
    !(methods || paths || by_name(&a.headers, &b.headers) || by_name(&a.query_params, &b.query_params))
}

/// Whether no path meets both conditions.
fn apart(a: &PathMatch, b: &PathMatch) -> bool {
    let within = |path: &str, prefix: &str| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (a, b) {
        (PathMatch::Exact(a), PathMatch::Exact(b)) => a != b,
        (PathMatch::Exact(path), PathMatch::PathPrefix(prefix))
        | (PathMatch::PathPrefix(prefix), PathMatch::Exact(path)) => !within(path, prefix),
        (PathMatch::PathPrefix(a), PathMatch::PathPrefix(b)) => !within(a, b) && !within(b, a),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_overlap_unless_something_differs() {
        let check = |a: PathMatch, b: PathMatch, expected: bool| {
            let with = |path: &PathMatch| HttpMatch { path: Some(path.clone()), ..HttpMatch::default() };
            assert_eq!(overlap(&with(&a), &with(&b)), expected, "{a:?} {b:?}");
            assert_eq!(overlap(&with(&b), &with(&a)), expected, "{b:?} {a:?}");
        };
        let exact = |path: &str| PathMatch::Exact(path.to_owned());
        let prefix = |path: &str| PathMatch::PathPrefix(path.to_owned());
        check(exact("/a"), exact("/a"), true);
        check(exact("/a"), exact("/b"), false);
        check(exact("/a/b"), prefix("/a"), true);
        check(exact("/ab"), prefix("/a"), false);
        check(prefix("/a"), prefix("/"), true);
        check(prefix("/a"), prefix("/b"), false);
        check(PathMatch::Regex("/x".into()), prefix("/a"), true);
    }
}

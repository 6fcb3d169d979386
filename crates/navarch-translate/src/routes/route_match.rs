//! Match conditions of HTTP routes.

use navarch_envoy::proto::envoy::config::core::v3::RuntimeFractionalPercent;
use navarch_envoy::proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::route_match::PathSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use navarch_envoy::proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use navarch_envoy::proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use navarch_envoy::proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
    metadata_matcher,
};
use navarch_model::route::{HttpMatch, PathMatch};
use navarch_model::values::StringMatch;

use super::percent::percent;

/// Header names that stand for a claim of the request's token start with this (Istio: "JWT claim based
/// routing").
const CLAIM_PREFIX: &str = "@request.auth.claims";
/// Filter and key under which the claims of a token are found.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
const JWT_PAYLOAD: &str = "payload";

/// A regular expression in RE2 syntax.
pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// Envoy's form of a text comparison; nothing if none is stated.
pub(super) fn string_matcher(pattern: &StringMatch) -> Option<StringMatcher> {
    let pattern = match pattern {
        StringMatch::Any => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

/// The match of a route without conditions.
pub(super) fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() }
}

/// Translates one match condition, or the absence of any.
///
/// Conditions on the client are decided before this is called; Envoy never sees them.
pub(super) fn route_match(condition: Option<&HttpMatch>) -> RouteMatch {
    let mut out = everything();
    let Some(condition) = condition else { return out };

    for (name, pattern) in &condition.headers {
        match claim_path(name) {
            Some(path) => out.dynamic_metadata.push(claim_matcher(path, pattern, false)),
            None => out.headers.push(header(name, pattern)),
        }
    }
    for (name, pattern) in &condition.without_headers {
        match claim_path(name) {
            Some(path) => out.dynamic_metadata.push(claim_matcher(path, pattern, true)),
            None => out.headers.push(HeaderMatcher {
                invert_match: true,
                // Envoy refuses the flag beside a test for presence.
                treat_missing_header_as_empty: !is_presence(pattern),
                ..header(name, pattern)
            }),
        }
    }
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));

    if let Some(stated) = &condition.path {
        out.path_specifier = Some(path(stated));
    }
    out.case_sensitive = Some(!condition.ignore_path_case);

    let pseudo = [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ];
    for (name, pattern) in pseudo {
        if let Some(pattern) = pattern {
            out.headers.push(header(name, pattern));
        }
    }
    out.query_parameters
        .extend(condition.query_params.iter().map(|(name, pattern)| query_parameter(name, pattern)));
    out.runtime_fraction = condition.share.map(|share| RuntimeFractionalPercent {
        default_value: Some(percent(share)),
        ..RuntimeFractionalPercent::default()
    });
    out
}

fn path(stated: &PathMatch) -> PathSpecifier {
    match stated {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        // Envoy wants no slash at the end, and refuses the prefix that every path has.
        PathMatch::PathPrefix(prefix) if prefix == "/" => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::PathPrefix(prefix) => {
            PathSpecifier::PathSeparatedPrefix(prefix.strip_suffix('/').unwrap_or(prefix).to_owned())
        }
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    }
}

/// A condition without pattern asks for presence; so does the regular expression `*`, which is none.
fn is_presence(pattern: &StringMatch) -> bool {
    match pattern {
        StringMatch::Any => true,
        StringMatch::Regex(text) => text == "*",
        StringMatch::Exact(_) | StringMatch::Prefix(_) => false,
    }
}

fn header(name: &str, pattern: &StringMatch) -> HeaderMatcher {
    let specifier = if is_presence(pattern) {
        Some(HeaderMatchSpecifier::PresentMatch(true))
    } else {
        string_matcher(pattern).map(HeaderMatchSpecifier::StringMatch)
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: specifier, ..HeaderMatcher::default() }
}

fn query_parameter(name: &str, pattern: &StringMatch) -> QueryParameterMatcher {
    let specifier = if is_presence(pattern) {
        Some(QueryParameterMatchSpecifier::PresentMatch(true))
    } else {
        string_matcher(pattern).map(QueryParameterMatchSpecifier::StringMatch)
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: specifier }
}

/// The claim that a header name stands for: `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.
fn claim_path(name: &str) -> Option<Vec<&str>> {
    let (prefix, rest) = name.split_at_checked(CLAIM_PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(CLAIM_PREFIX) {
        return None;
    }
    if let Some(dotted) = rest.strip_prefix('.') {
        let path: Vec<_> = dotted.split('.').collect();
        return path.iter().all(|key| !key.is_empty()).then_some(path);
    }
    let bracketed = rest.strip_prefix('[')?.strip_suffix(']')?;
    let path: Vec<_> = bracketed.split("][").collect();
    path.iter().all(|key| !key.is_empty()).then_some(path)
}

/// Matches a claim that is the text, or a list with the text in it.
fn claim_matcher(path: Vec<&str>, pattern: &StringMatch, invert: bool) -> MetadataMatcher {
    let text = || ValueMatcher { match_pattern: string_matcher(pattern).map(ValuePattern::StringMatch) };
    let in_list = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(text()))) };
    let either = OrMatcher {
        value_matchers: vec![
            ValueMatcher { match_pattern: Some(ValuePattern::ListMatch(Box::new(in_list))) },
            text(),
        ],
    };
    let segment = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    MetadataMatcher {
        filter: JWT_FILTER.to_owned(),
        path: std::iter::once(JWT_PAYLOAD).chain(path).map(segment).collect(),
        value: Some(ValueMatcher { match_pattern: Some(ValuePattern::OrMatch(either)) }),
        invert,
    }
}

/// Whether every request matches: routes behind such a one are never reached.
///
/// Istio: a prefix `/` or the regular expression `.*`, and no condition beside the path.
pub(super) fn is_catch_all(condition: &RouteMatch) -> bool {
    let any_path = match &condition.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex == ".*",
        _ => false,
    };
    any_path
        && condition.headers.is_empty()
        && condition.query_parameters.is_empty()
        && condition.dynamic_metadata.is_empty()
        && condition.runtime_fraction.is_none()
}

/// The path as it is shown in traces.
pub(super) fn operation_path(condition: &RouteMatch) -> String {
    match &condition.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex.clone(),
        _ => "/*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_with_dots_or_brackets() {
        let check = |name: &str, expected: Option<&[&str]>| {
            assert_eq!(claim_path(name).as_deref(), expected, "{name}")
        };
        check("@request.auth.claims.sub", Some(&["sub"]));
        check("@request.auth.claims.a.b", Some(&["a", "b"]));
        check("@request.auth.claims[https://x.example/y][z]", Some(&["https://x.example/y", "z"]));
        check("@Request.Auth.Claims[a.b]", Some(&["a.b"]));
        check("@request.auth.claims", None);
        check("@request.auth.claims.", None);
        check("@request.auth.claims[]", None);
        check("@request.auth.claims[a", None);
        check("x-user", None);
    }

    #[test]
    fn only_a_bare_path_that_matches_all_is_a_catch_all() {
        let check = |condition: HttpMatch, expected: bool| {
            assert_eq!(is_catch_all(&route_match(Some(&condition))), expected, "{condition:?}");
        };
        let path = |path: PathMatch| HttpMatch { path: Some(path), ..HttpMatch::default() };
        check(HttpMatch::default(), true);
        check(path(PathMatch::Prefix("/".into())), true);
        check(path(PathMatch::PathPrefix("/".into())), true);
        check(path(PathMatch::Regex(".*".into())), true);
        check(path(PathMatch::Prefix("/a".into())), false);
        check(path(PathMatch::PathPrefix("/a".into())), false);
        check(path(PathMatch::Exact("/".into())), false);
        let with = |name: &str| HttpMatch {
            headers: [(name.to_owned(), StringMatch::Exact("x".into()))].into(),
            ..HttpMatch::default()
        };
        check(with("x-user"), false);
        check(with("@request.auth.claims.sub"), false);
    }

    #[test]
    fn a_prefix_of_segments_has_no_slash_at_its_end() {
        let check = |stated: PathMatch, expected: PathSpecifier| assert_eq!(path(&stated), expected);
        check(PathMatch::Prefix("/a/".into()), PathSpecifier::Prefix("/a/".into()));
        check(PathMatch::PathPrefix("/a/".into()), PathSpecifier::PathSeparatedPrefix("/a".into()));
        check(PathMatch::PathPrefix("/a".into()), PathSpecifier::PathSeparatedPrefix("/a".into()));
        check(PathMatch::PathPrefix("/".into()), PathSpecifier::Prefix("/".into()));
    }

    #[test]
    fn an_inverted_presence_test_does_not_treat_missing_as_empty() {
        let check = |pattern: StringMatch, missing_as_empty: bool| {
            let condition =
                HttpMatch { without_headers: [("x".to_owned(), pattern)].into(), ..HttpMatch::default() };
            let out = route_match(Some(&condition));
            let flags: Vec<_> =
                out.headers.iter().map(|h| (h.invert_match, h.treat_missing_header_as_empty)).collect();
            assert_eq!(flags, [(true, missing_as_empty)]);
        };
        check(StringMatch::Any, false);
        check(StringMatch::Regex("*".into()), false);
        check(StringMatch::Exact("1".into()), true);
        check(StringMatch::Regex("a|b".into()), true);
    }
}

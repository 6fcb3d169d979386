//! HTTPRoute.

use super::filters::{filters, session};
use super::references::{backend, hostnames, parent_refs, weight};
use super::text::{METHODS, header_name, is_header_value, is_path};
use super::{at_most, default_gateways, rule_names};
use crate::finding::Code;
use crate::gateway_api::{
    HttpHeaderMatch, HttpPathMatch, HttpPathModifierType, HttpRoute, HttpRouteFilter, HttpRouteMatch,
    HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts, MatchType, PathMatchType,
};
use crate::validation::regex::regex;
use crate::validation::{Report, Validate};

const MOST_RULES: usize = 16;
const MOST_MATCHES: usize = 64;
/// In all rules of a route.
const MOST_MATCHES_IN_ALL: usize = 128;
const MOST_CONDITIONS: usize = 16;
const MOST_BACKENDS: usize = 16;
const MOST_HOSTS: usize = 16;
const LONGEST_VALUE: usize = 4096;
const LONGEST_PATH: usize = 1024;

impl Validate for HttpRoute {
    fn validate(&self, report: &mut Report<'_>) {
        let HttpRoute { parent_refs: parents, use_default_gateways, hostnames: hosts, rules } = self;
        parent_refs(report, parents);
        default_gateways(report, *use_default_gateways);
        hostnames(report, hosts, MOST_HOSTS);
        let Some(rules) = rules else { return };
        if rules.is_empty() {
            let message = "the list is empty";
            report.within("rules", |report| report.error(Code::MissingField, message, "add a rule"));
        }
        at_most(report, "rules", rules.len(), MOST_RULES);
        rule_names(report, rules.iter().map(|rule| rule.name.as_deref()));
        let matches: usize = rules.iter().map(|rule| rule.matches.as_ref().map_or(1, Vec::len)).sum();
        if matches > MOST_MATCHES_IN_ALL {
            report.within("rules", |report| {
                let message = format!("the rules have {matches} matches");
                report.error(Code::OutOfRange, message, format!("the limit is {MOST_MATCHES_IN_ALL}"));
            });
        }
        report.each("rules", rules, self::rule);
    }
}

fn rule(report: &mut Report<'_>, rule: &HttpRouteRule) {
    let HttpRouteRule { name: _, matches, filters: own, backend_refs, timeouts, retry, session_persistence } =
        rule;
    let conditions = matches.as_deref().unwrap_or_default();
    at_most(report, "matches", conditions.len(), MOST_MATCHES);
    report.each("matches", conditions, self::condition);
    filters(report, own);
    if own.iter().any(|filter| filter.request_redirect.is_some()) {
        if own.iter().any(|filter| filter.url_rewrite.is_some()) {
            report.within("filters", |report| {
                let message = "RequestRedirect and URLRewrite exclude each other";
                report.error(Code::ExclusiveFields, message, "keep the one that is meant");
            });
        }
        if !backend_refs.is_empty() {
            report.within("backendRefs", |report| {
                let message = "a rule that redirects passes no request on";
                report.error(Code::ExclusiveFields, message, "remove the backends or the redirect");
            });
        }
    }
    at_most(report, "backendRefs", backend_refs.len(), MOST_BACKENDS);
    report.each("backendRefs", backend_refs, |report, to| {
        backend(report, &to.target());
        weight(report, to.weight);
        filters(report, &to.filters);
    });
    let all = own.iter().chain(backend_refs.iter().flat_map(|to| &to.filters));
    if all.into_iter().any(replaces_prefix) && !one_prefix(rule) {
        report.within("matches", |report| {
            let message = "replacePrefixMatch needs exactly one match, of type PathPrefix";
            report.error(Code::InvalidCombination, message, "make a rule of each match");
        });
    }
    report.each_set("timeouts", timeouts.as_ref(), self::timeouts);
    report.each_set("retry", retry.as_ref(), self::retry);
    report.each_set("sessionPersistence", session_persistence.as_ref(), session);
}

fn replaces_prefix(filter: &HttpRouteFilter) -> bool {
    let redirect = filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    let rewrite = filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
    redirect.into_iter().chain(rewrite).any(|path| {
        path.type_ == Some(HttpPathModifierType::ReplacePrefixMatch) && path.replace_prefix_match.is_some()
    })
}

/// Whether the rule has one match and it is a prefix. Without matches it has the prefix `/`.
fn one_prefix(rule: &HttpRouteRule) -> bool {
    match rule.matches.as_deref() {
        None => true,
        Some([one]) => one.path.as_ref().is_none_or(|path| path.type_ == PathMatchType::PathPrefix),
        Some(_) => false,
    }
}

fn condition(report: &mut Report<'_>, condition: &HttpRouteMatch) {
    let HttpRouteMatch { path, headers, query_params, method } = condition;
    report.each_set("path", path.as_ref(), self::path);
    at_most(report, "headers", headers.len(), MOST_CONDITIONS);
    header_matches(report, headers, true);
    at_most(report, "queryParams", query_params.len(), MOST_CONDITIONS);
    let names: Vec<&str> = query_params.iter().map(|param| param.name.as_str()).collect();
    crate::validation::checks::unique(report, "queryParams", names, "the parameter");
    report.each("queryParams", query_params, |report, param| {
        header_name(report, &param.name);
        value(report, param.type_, &param.value, LONGEST_PATH);
    });
    if let Some(method) = method
        && !METHODS.contains(&method.as_str())
    {
        report.within("method", |report| {
            let message = format!("{method:?} is not a method");
            report.error(Code::InvalidValue, message, format!("use one of {}", METHODS.join(", ")));
        });
    }
}

/// Checks conditions on headers. Those of HTTPRoute have the form of header values.
pub(super) fn header_matches(report: &mut Report<'_>, headers: &[HttpHeaderMatch], plain: bool) {
    let names: Vec<&str> = headers.iter().map(|header| header.name.as_str()).collect();
    crate::validation::checks::unique(report, "headers", names, "the header");
    report.each("headers", headers, |report, header| {
        header_name(report, &header.name);
        if plain && !header.value.is_empty() && !is_header_value(&header.value) {
            report.within("value", |report| {
                let message = format!("{:?} is not the value of a header", header.value);
                let hint = "use visible ASCII characters with single spaces between them";
                report.error(Code::InvalidValue, message, hint);
            });
        }
        value(report, header.type_, &header.value, LONGEST_VALUE);
    });
}

fn value(report: &mut Report<'_>, ty: MatchType, value: &str, longest: usize) {
    report.within("value", |report| {
        if value.is_empty() {
            report.error(Code::MissingField, "is required", "state the value");
        } else if value.len() > longest {
            let message = format!("the value has {} characters", value.len());
            report.error(Code::OutOfRange, message, format!("the limit is {longest}"));
        } else if ty == MatchType::RegularExpression {
            regex(report, value);
        }
    });
}

fn path(report: &mut Report<'_>, path: &HttpPathMatch) {
    let HttpPathMatch { type_, value } = path;
    let Some(value) = value else { return };
    report.within("value", |report| {
        if value.len() > LONGEST_PATH {
            let message = format!("the path has {} characters", value.len());
            report.error(Code::OutOfRange, message, format!("the limit is {LONGEST_PATH}"));
            return;
        }
        if *type_ == PathMatchType::RegularExpression {
            regex(report, value);
            return;
        }
        let problem = if !value.starts_with('/') {
            Some("does not start with `/`".to_owned())
        } else if let Some(part) =
            ["//", "/./", "/../", "%2f", "%2F", "#"].into_iter().find(|part| value.contains(part))
        {
            Some(format!("contains {part:?}"))
        } else if let Some(end) = ["/..", "/."].into_iter().find(|end| value.ends_with(end)) {
            Some(format!("ends with {end:?}"))
        } else {
            (!is_path(value)).then(|| "has characters that a path cannot have".to_owned())
        };
        if let Some(problem) = problem {
            let hint = "write the path as requests have it; encode other characters with %";
            report.error(Code::InvalidValue, format!("{value:?} {problem}"), hint);
        }
    });
}

fn timeouts(report: &mut Report<'_>, timeouts: &HttpRouteTimeouts) {
    let HttpRouteTimeouts { request, backend_request } = timeouts;
    if let (Some(request), Some(backend_request)) = (request, backend_request)
        && !request.0.is_zero()
        && backend_request > request
    {
        report.within("backendRequest", |report| {
            let message = "it is longer than the timeout of the whole request";
            report.error(Code::InvalidCombination, message, "make it shorter, or request longer");
        });
    }
}

fn retry(report: &mut Report<'_>, retry: &HttpRouteRetry) {
    let HttpRouteRetry { codes, attempts, backoff: _ } = retry;
    report.each("codes", codes, |report, code| {
        if !(400..=599).contains(code) {
            report.error(Code::OutOfRange, format!("{code} is not an error"), "use 400 to 599");
        }
    });
    if let Some(attempts) = attempts {
        crate::validation::checks::not_negative(report, "attempts", *attempts);
    }
}

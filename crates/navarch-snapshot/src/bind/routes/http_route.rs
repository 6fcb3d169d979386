//! HTTPRoute.

use std::collections::BTreeMap;
use std::time::Duration;

use navarch_model::gateway_api::{
    HttpBackendRef, HttpFilterType, HttpHeaderFilter, HttpHeaderMatch, HttpPathMatch,
    HttpRequestMirrorFilter, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule,
    HttpRouteTimeouts, MatchType, PathMatchType,
};
use navarch_model::networking::{CorsPolicy, Headers, HttpDirectResponse, HttpRedirect, HttpRetry};
use navarch_model::route::{
    Forward, HttpAction, HttpBackend, HttpMatch, HttpRule, Mirror, MissingBackend, PathMatch, Rewrite,
};
use navarch_model::service::PersistentSession;
use navarch_model::values::{Percent, StringMatch};
use navarch_model::{Name, Origin};

use super::backend::{Backends, Problem};
use super::filter;
use super::rules::Rules;
use super::session::session;

/// What is tried again besides the stated codes: connection errors. (HTTPRouteRetry.)
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
/// Attempts if none are stated.
const ATTEMPTS: i32 = 2;

/// The rules of a route, the most specific first.
pub(super) fn rules(backends: &Backends<'_>, route: &HttpRoute) -> Rules {
    // The default of the specification: everything, without backends.
    let everything = [HttpRouteRule::default()];
    let stated = route.rules.as_deref().unwrap_or(&everything);
    let mut lowered = Vec::new();
    let mut problems = Vec::new();
    for (index, rule) in stated.iter().enumerate() {
        let conditions = rule.matches.as_deref().filter(|matches| !matches.is_empty());
        let conditions: Vec<HttpMatch> = match conditions {
            Some(conditions) => conditions.iter().map(condition).collect(),
            None => vec![condition(&HttpRouteMatch::default())],
        };
        let mut draft = Draft::new(backends, index, rule.name.as_deref());
        let key = &backends.object.key;
        draft.session =
            rule.session_persistence.as_ref().map(|stated| session(stated, key, index, &conditions));
        let rules = http_rules(backends, draft, rule, &mut problems);
        for condition in conditions {
            lowered.extend(rules.iter().map(|(share, rule)| {
                let condition = HttpMatch { share: *share, ..condition.clone() };
                HttpRule { matches: vec![condition], ..rule.clone() }
            }));
        }
    }
    finish(lowered, problems)
}

/// Puts rules into the order of their conditions. There are none if one of them is beyond use.
pub(super) fn finish(mut http: Vec<HttpRule>, problems: Vec<Problem>) -> Rules {
    let specificity = |rule: &HttpRule| rule.matches.first().map(HttpMatch::specificity).unwrap_or_default();
    http.sort_by_key(|rule| std::cmp::Reverse(specificity(rule)));
    if problems.iter().any(|problem| problem.fatal) {
        http.clear();
    }
    Rules { http, problems, ..Rules::default() }
}

/// A rule that its filters are added to.
#[derive(Clone)]
pub(super) struct Draft {
    pub origin: Origin,
    name: String,
    headers: Option<Headers>,
    cors: Option<CorsPolicy>,
    redirect: Option<HttpRedirect>,
    rewrite: Option<Rewrite>,
    mirrors: Vec<Mirror>,
    pub session: Option<PersistentSession>,
}

impl Draft {
    /// A rule without a name is called after its place.
    pub fn new(backends: &Backends<'_>, index: usize, name: Option<&str>) -> Self {
        let key = &backends.object.key;
        Draft {
            origin: Origin::field(key.clone(), &format!("spec.rules[{index}]")),
            name: match name {
                Some(name) => name.to_owned(),
                None => format!("{}.{}.{index}", key.namespace, key.name),
            },
            headers: None,
            cors: None,
            redirect: None,
            rewrite: None,
            mirrors: Vec::new(),
            session: None,
        }
    }

    pub fn headers(&mut self) -> &mut Headers {
        self.headers.get_or_insert_default()
    }

    pub fn add_mirror(
        &mut self,
        backends: &Backends<'_>,
        field: &str,
        mirror: &HttpRequestMirrorFilter,
        problems: &mut Vec<Problem>,
    ) {
        let field = format!("{field}.requestMirror.backendRef");
        let before = problems.len();
        let backend = backends.resolve(&mirror.backend_ref, &field, problems);
        // What cannot be mirrored to is left out: copies are nobody's answers.
        if problems.len() == before {
            let origin = Origin::field(self.origin.key.clone(), &field);
            self.mirrors.push(Mirror { backend, share: filter::share(mirror), origin });
        }
    }

    /// The rule, with its backends. Without any that has a weight, requests are answered with 500.
    /// (HTTPRouteRule, backendRefs.)
    pub fn finish(self, backends: Vec<HttpBackend>, timing: Timing) -> HttpRule {
        let Draft { origin, name, headers, cors, redirect, rewrite, mirrors, session } = self;
        let Timing { timeout, retries } = timing;
        let action = match redirect {
            Some(redirect) => HttpAction::Redirect(redirect),
            None if backends.is_empty() => {
                HttpAction::Respond(HttpDirectResponse { status: 500, ..HttpDirectResponse::default() })
            }
            None => HttpAction::Forward(Forward {
                backends,
                missing: MissingBackend::InternalError,
                rewrite,
                timeout,
                retries,
                mirrors,
                session,
            }),
        };
        HttpRule { origin, name, matches: Vec::new(), action, headers, fault: None, cors }
    }
}

/// How long requests may take and how often they are tried.
#[derive(Clone, Default)]
pub(super) struct Timing {
    timeout: Option<Duration>,
    retries: Option<HttpRetry>,
}

/// The rules that a rule of the API becomes, with the shares of requests that they are for: one, unless a
/// backend has filters that Envoy has for whole routes only.
fn http_rules(
    backends: &Backends<'_>,
    mut draft: Draft,
    rule: &HttpRouteRule,
    problems: &mut Vec<Problem>,
) -> Vec<(Option<Percent>, HttpRule)> {
    let HttpRouteRule { name: _, matches: _, filters, backend_refs, timeouts, retry, session_persistence: _ } =
        rule;
    for (position, stated) in filters.iter().enumerate() {
        let field = format!("{}.filters[{position}]", draft.origin.field);
        add_filter(backends, &mut draft, &field, stated, problems);
    }
    let timing = timing(timeouts.as_ref(), retry.as_ref());
    let to = http_backends(backends, &draft, backend_refs, problems);
    if to.iter().all(|(_, own)| own.is_none()) {
        return vec![(None, draft.finish(to.into_iter().map(|(backend, _)| backend).collect(), timing))];
    }
    let total: u64 = to.iter().map(|(backend, _)| u64::from(backend.weight)).sum();
    let mut so_far: u64 = 0;
    let rules = to.into_iter().map(|(backend, own)| {
        so_far += u64::from(backend.weight);
        let share = (so_far < total).then(|| filter::portion(so_far, total));
        (share, own.unwrap_or_else(|| draft.clone()).finish(vec![backend], timing.clone()))
    });
    rules.collect()
}

fn add_filter(
    backends: &Backends<'_>,
    draft: &mut Draft,
    field: &str,
    stated: &HttpRouteFilter,
    problems: &mut Vec<Problem>,
) {
    // The type says which of the others is set; validation sees to it.
    let HttpRouteFilter {
        type_,
        request_header_modifier,
        response_header_modifier,
        request_mirror,
        request_redirect,
        url_rewrite,
        cors,
        external_auth: _,
        extension_ref: _,
    } = stated;
    if let Some(headers) = request_header_modifier {
        draft.headers().request = Some(filter::headers(headers));
    }
    if let Some(headers) = response_header_modifier {
        draft.headers().response = Some(filter::headers(headers));
    }
    if let Some(mirror) = request_mirror {
        draft.add_mirror(backends, field, mirror, problems);
    }
    if let Some(redirect) = request_redirect {
        draft.redirect = Some(filter::redirect(redirect));
    }
    if let Some(rewrite) = url_rewrite {
        draft.rewrite = filter::rewrite(rewrite);
    }
    if let Some(cors) = cors {
        draft.cors = Some(filter::cors(cors));
    }
    if let Some(ty @ (HttpFilterType::ExternalAuth | HttpFilterType::ExtensionRef)) = type_ {
        problems.push(unsupported(field, ty.as_str()));
    }
}

/// A filter that must not be skipped, so the route with it is not used. (HTTPRouteFilter: an extension that
/// is not known.)
pub(super) fn unsupported(field: &str, ty: &str) -> Problem {
    let message = format!("filters of type {ty} are not supported");
    Problem::fatal("InvalidFilter", field, message, "remove the filter")
}

/// What the filters of one backend do to headers; they do nothing else. Each is what it does to requests, to
/// responses, and its type.
pub(super) fn backend_headers<'a>(
    field: &str,
    filters: impl Iterator<Item = (Option<&'a HttpHeaderFilter>, Option<&'a HttpHeaderFilter>, &'a str)>,
    problems: &mut Vec<Problem>,
) -> Option<Headers> {
    let mut headers: Option<Headers> = None;
    for (position, (request, response, ty)) in filters.enumerate() {
        if request.is_none() && response.is_none() {
            problems.push(unsupported(&format!("{field}.filters[{position}]"), ty));
            continue;
        }
        let headers = headers.get_or_insert_default();
        headers.request = request.map(filter::headers).or(headers.request.take());
        headers.response = response.map(filter::headers).or(headers.response.take());
    }
    headers
}

/// The backends that get requests, and for those with filters of their own beyond headers what becomes of the
/// rule.
fn http_backends(
    backends: &Backends<'_>,
    draft: &Draft,
    stated: &[HttpBackendRef],
    problems: &mut Vec<Problem>,
) -> Vec<(HttpBackend, Option<Draft>)> {
    let mut all = Vec::new();
    for (position, to) in stated.iter().enumerate() {
        let Some(weight) = positive(to.weight) else { continue };
        let field = format!("{}.backendRefs[{position}]", draft.origin.field);
        let (of_headers, others): (Vec<_>, Vec<_>) =
            to.filters.iter().enumerate().partition(|(_, filter)| filter.is_of_headers());
        let filters = of_headers.into_iter().map(|(_, own)| {
            (own.request_header_modifier.as_ref(), own.response_header_modifier.as_ref(), "")
        });
        let headers = backend_headers(&field, filters, problems);
        let mut own = (!others.is_empty()).then(|| draft.clone());
        for (index, filter) in others {
            if let Some(own) = &mut own {
                add_filter(backends, own, &format!("{field}.filters[{index}]"), filter, problems);
            }
        }
        let backend = backends.resolve(&to.target(), &field, problems);
        all.push((HttpBackend { backend, weight, headers, field: Name::from(field) }, own));
    }
    all
}

/// The weight of a backend that gets something; 1 if none is stated.
pub(super) fn positive(weight: Option<i32>) -> Option<u32> {
    u32::try_from(weight.unwrap_or(1)).ok().filter(|weight| *weight > 0)
}

fn timing(timeouts: Option<&HttpRouteTimeouts>, retry: Option<&HttpRouteRetry>) -> Timing {
    // Zero turns a timeout off.
    let stated = |duration: Option<navarch_model::gateway_api::RouteDuration>| {
        duration.map(|duration| duration.0).filter(|duration| !duration.is_zero())
    };
    let request = timeouts.and_then(|timeouts| stated(timeouts.request));
    let each_try = timeouts.and_then(|timeouts| stated(timeouts.backend_request));
    let Some(HttpRouteRetry { codes, attempts, backoff }) = retry else {
        // Without retries there is one try.
        return Timing { timeout: each_try.or(request), retries: None };
    };
    let attempts = attempts.unwrap_or(ATTEMPTS);
    // Envoy counts a try that takes too long among resets. (HTTPRouteRetry: connection errors and timeouts.)
    let reset = each_try.map(|_| "reset");
    let retry_on = RETRY_ON.iter().copied().chain(reset).map(str::to_owned);
    let retry_on = retry_on.chain(codes.iter().map(u32::to_string));
    let retries = HttpRetry {
        attempts,
        per_try_timeout: each_try,
        retry_on: if attempts == 0 { String::new() } else { retry_on.collect::<Vec<_>>().join(",") },
        backoff: backoff.map(|backoff| backoff.0),
        ..HttpRetry::default()
    };
    Timing { timeout: request, retries: Some(retries) }
}

fn condition(stated: &HttpRouteMatch) -> HttpMatch {
    let HttpRouteMatch { path, headers, query_params, method } = stated;
    let mut query = BTreeMap::new();
    for param in query_params {
        query.entry(param.name.clone()).or_insert_with(|| text(param.type_, &param.value));
    }
    HttpMatch {
        path: Some(self::path(path.as_ref())),
        headers: header_matches(headers),
        query_params: query,
        method: method.clone().map(StringMatch::Exact),
        ..HttpMatch::default()
    }
}

/// Conditions on headers. Of several for one header the first counts.
pub(super) fn header_matches(stated: &[HttpHeaderMatch]) -> BTreeMap<String, StringMatch> {
    let mut headers: BTreeMap<String, StringMatch> = BTreeMap::new();
    for HttpHeaderMatch { type_, name, value } in stated {
        if !headers.keys().any(|known| known.eq_ignore_ascii_case(name)) {
            headers.insert(name.clone(), text(*type_, value));
        }
    }
    headers
}

pub(super) fn text(ty: MatchType, value: &str) -> StringMatch {
    match ty {
        MatchType::Exact => StringMatch::Exact(value.to_owned()),
        MatchType::RegularExpression => StringMatch::Regex(value.to_owned()),
    }
}

fn path(stated: Option<&HttpPathMatch>) -> PathMatch {
    let everything = HttpPathMatch::default();
    let HttpPathMatch { type_, value } = stated.unwrap_or(&everything);
    let value = value.clone().unwrap_or_else(|| "/".to_owned());
    match type_ {
        // A slash at the end counts for nothing. (HTTPPathMatch, PathPrefix.)
        PathMatchType::PathPrefix => match value.strip_suffix('/') {
            Some(prefix) if !prefix.is_empty() => PathMatch::PathPrefix(prefix.to_owned()),
            _ => PathMatch::PathPrefix(value),
        },
        PathMatchType::Exact => PathMatch::Exact(value),
        PathMatchType::RegularExpression => PathMatch::Regex(value),
    }
}

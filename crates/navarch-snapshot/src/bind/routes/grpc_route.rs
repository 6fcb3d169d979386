//! GRPCRoute. A call is a request for the path `/<service>/<method>`.

use navarch_model::gateway_api::{
    GrpcBackendRef, GrpcFilterType, GrpcMethodMatch, GrpcRoute, GrpcRouteFilter, GrpcRouteMatch,
    GrpcRouteRule, MatchType,
};
use navarch_model::route::{HttpBackend, HttpMatch, HttpRule, PathMatch};
use navarch_model::{Name, Origin};

use super::backend::{Backends, Problem};
use super::filter;
use super::http_route::{Draft, Timing, backend_headers, finish, header_matches, positive, unsupported};
use super::rules::Rules;
use super::session::session;

/// The rules of a route, the most specific first.
pub(super) fn rules(backends: &Backends<'_>, route: &GrpcRoute) -> Rules {
    let mut lowered = Vec::new();
    let mut problems = Vec::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let mut draft = Draft::new(backends, index, rule.name.as_deref());
        let conditions: Vec<HttpMatch> = rule.matches.iter().map(condition).collect();
        let key = &backends.object.key;
        draft.session =
            rule.session_persistence.as_ref().map(|stated| session(stated, key, index, &conditions));
        let own = grpc_rule(backends, draft, rule, &mut problems);
        if rule.matches.is_empty() {
            lowered.push(own);
            continue;
        }
        lowered.extend(
            conditions.into_iter().map(|condition| HttpRule { matches: vec![condition], ..own.clone() }),
        );
    }
    finish(lowered, problems)
}

fn grpc_rule(
    backends: &Backends<'_>,
    mut draft: Draft,
    rule: &GrpcRouteRule,
    problems: &mut Vec<Problem>,
) -> HttpRule {
    let GrpcRouteRule { name: _, matches: _, filters, backend_refs, session_persistence: _ } = rule;
    for (position, stated) in filters.iter().enumerate() {
        let field = format!("{}.filters[{position}]", draft.origin.field);
        let GrpcRouteFilter {
            type_,
            request_header_modifier,
            response_header_modifier,
            request_mirror,
            extension_ref: _,
        } = stated;
        if let Some(headers) = request_header_modifier {
            draft.headers().request = Some(filter::headers(headers));
        }
        if let Some(headers) = response_header_modifier {
            draft.headers().response = Some(filter::headers(headers));
        }
        if let Some(mirror) = request_mirror {
            draft.add_mirror(backends, &field, mirror, problems);
        }
        if *type_ == Some(GrpcFilterType::ExtensionRef) {
            problems.push(unsupported(&field, GrpcFilterType::ExtensionRef.as_str()));
        }
    }
    let to = grpc_backends(backends, &draft.origin, backend_refs, problems);
    draft.finish(to, Timing::default())
}

/// The backends that get calls.
fn grpc_backends(
    backends: &Backends<'_>,
    origin: &Origin,
    stated: &[GrpcBackendRef],
    problems: &mut Vec<Problem>,
) -> Vec<HttpBackend> {
    let mut all = Vec::new();
    for (position, to) in stated.iter().enumerate() {
        let Some(weight) = positive(to.weight) else { continue };
        let field = format!("{}.backendRefs[{position}]", origin.field);
        let filters = to.filters.iter().map(|own| {
            let ty = own.type_.map_or("", GrpcFilterType::as_str);
            (own.request_header_modifier.as_ref(), own.response_header_modifier.as_ref(), ty)
        });
        let headers = backend_headers(&field, filters, problems);
        let backend = backends.resolve(&to.target(), &field, problems);
        all.push(HttpBackend { backend, weight, headers, field: Name::from(field) });
    }
    all
}

fn condition(stated: &GrpcRouteMatch) -> HttpMatch {
    let GrpcRouteMatch { method, headers } = stated;
    HttpMatch {
        path: method.as_ref().and_then(path),
        headers: header_matches(headers),
        ..HttpMatch::default()
    }
}

/// The path of the calls of a service, of a method or of both.
fn path(stated: &GrpcMethodMatch) -> Option<PathMatch> {
    let GrpcMethodMatch { type_, service, method } = stated;
    Some(match (type_, service.as_deref(), method.as_deref()) {
        (_, None, None) => return None,
        (MatchType::Exact, Some(service), None) => PathMatch::PathPrefix(format!("/{service}/")),
        (MatchType::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (_, None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{method}")),
        (MatchType::RegularExpression, Some(service), None) => PathMatch::Regex(format!("/{service}/.+")),
        (MatchType::RegularExpression, Some(service), Some(method)) => {
            PathMatch::Regex(format!("/{service}/{method}"))
        }
    })
}

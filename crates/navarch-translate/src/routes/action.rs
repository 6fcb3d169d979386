//! What happens to a request that matched: forwarded, redirected or answered.

use navarch_envoy::proto::envoy::config::core::v3::data_source::Specifier;
use navarch_envoy::proto::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent};
use navarch_envoy::proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use navarch_envoy::proto::envoy::config::route::v3::route::Action;
use navarch_envoy::proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
    RequestMirrorPolicy,
};
use navarch_envoy::proto::envoy::config::route::v3::route_match::PathSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use navarch_envoy::proto::envoy::config::route::v3::{
    Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch, WeightedCluster,
};
use navarch_envoy::proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use navarch_envoy::proto::envoy::r#type::v3::FractionalPercent;
use navarch_envoy::wkt;
use navarch_model::networking::{
    ConsistentHashLb, HttpBody, HttpDirectResponse, HttpRedirect, HttpRetry, RedirectPort,
    RedirectPortSelection,
};
use navarch_model::route::{Forward, HttpBackend, MissingBackend, PathRewrite, Share};
use navarch_model::values::Percent;
use prost::Message;

use super::hash_policy::hash_policy;
use super::headers::HeaderMutations;
use super::input::{EncodedRoute, HttpRoutesInput, RouteContext};
use super::percent::{percent, whole_percent};
use super::route_match::regex;
use super::{retry, route_match};
use crate::{names, standard_metrics};

/// Answers with a redirect; nothing if the status code is none that redirects.
pub(super) fn redirect(
    redirect: &HttpRedirect,
    matched: Option<&RouteMatch>,
    context: &RouteContext,
) -> Option<Action> {
    let code = match redirect.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = match (redirect.prefix_rewrite.as_str(), separated_prefix(matched)) {
        ("", _) => PathRewriteSpecifier::PathRedirect(redirect.uri.clone()),
        // What follows the segments that go starts with a slash of its own.
        ("/", Some(prefix)) => PathRewriteSpecifier::RegexRewrite(without_prefix(prefix)),
        (rewrite, _) => PathRewriteSpecifier::PrefixRewrite(rewrite.to_owned()),
    };
    let scheme = (!redirect.scheme.is_empty())
        .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.clone()));
    Some(Action::Redirect(RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: redirect_port(redirect, context),
        response_code: code.into(),
        path_rewrite_specifier: Some(path),
        scheme_rewrite_specifier: scheme,
        ..RedirectAction::default()
    }))
}

/// The port of a redirect; zero leaves the authority as it is, or without its port if that is the default of
/// the request's scheme.
fn redirect_port(redirect: &HttpRedirect, context: &RouteContext) -> u32 {
    let of_request = if context.tls { "https" } else { "http" };
    let scheme = if redirect.scheme.is_empty() { of_request } else { &redirect.scheme };
    let port = match redirect.redirect_port {
        Some(RedirectPort::Port(port)) => port,
        // Envoy cannot take the port from the request; but these routes are for one port only.
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromRequestPort)) => u32::from(context.port),
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault)) => {
            // Clients state a port that is not the default. It is one of another scheme, and has to go; Envoy
            // takes it away only for another one.
            let stated = default_port(of_request) != Some(context.port)
                && scheme != of_request
                && redirect.authority.is_empty();
            return default_port(scheme).filter(|_| stated).map_or(0, u32::from);
        }
        None => 0,
    };
    if default_port(scheme).is_some_and(|default| u32::from(default) == port) { 0 } else { port }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Answers without asking anyone.
pub(super) fn direct_response(response: &HttpDirectResponse) -> Action {
    let body = response.body.as_ref().map(|body| DataSource {
        specifier: Some(match body {
            HttpBody::String(text) => Specifier::InlineString(text.clone()),
            HttpBody::Bytes(bytes) => Specifier::InlineBytes(bytes.0.clone().into()),
        }),
        ..DataSource::default()
    });
    Action::DirectResponse(DirectResponseAction {
        status: response.status,
        body,
        ..DirectResponseAction::default()
    })
}

/// Sets the time that a response may take: forever, unless stated.
///
/// `max_grpc_timeout` follows, so that the `grpc-timeout` of clients is respected; proxyless gRPC clients
/// know only `max_stream_duration`.
pub(super) fn set_timeout(action: &mut RouteAction, timeout: Option<std::time::Duration>, proxyless: bool) {
    let timeout = wkt::duration(timeout.unwrap_or_default());
    action.timeout = Some(timeout);
    if proxyless {
        action.max_stream_duration =
            Some(MaxStreamDuration { max_stream_duration: Some(timeout), ..MaxStreamDuration::default() });
    } else {
        action.max_grpc_timeout = Some(timeout);
    }
}

/// Forwards to the backends of a rule; adds what the backends say about headers to `out`.
pub(super) fn forward(
    out: &mut Route,
    forward: &Forward,
    index: usize,
    authority: Option<String>,
    input: &HttpRoutesInput,
) {
    let context = &input.context;
    let mut action = RouteAction::default();
    set_timeout(&mut action, forward.timeout, context.proxyless);
    if forward.missing == MissingBackend::InternalError {
        action.cluster_not_found_response_code = ClusterNotFoundResponseCode::InternalServerError.into();
    }
    let mut authority = authority;
    if let Some(rewrite) = &forward.rewrite {
        action.append_x_forwarded_host = context.x_forwarded_host;
        rewrite_path(&mut action, rewrite.path.as_ref(), out.r#match.as_ref());
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    action.request_mirror_policies = mirrors(forward, input);

    let mut sticky = false;
    if let [backend] = forward.backends.as_slice() {
        sticky = single(out, &mut action, backend, (index, 0), input);
    } else {
        weighted(&mut action, &forward.backends, index, input);
    }
    let retries = forward.retries.as_ref().or(context.default_retries.as_deref().map(|retries| &**retries));
    action.retry_policy = retry::policy(retries, sticky);
    out.action = Some(Action::Route(action));
}

fn rewrite_path(action: &mut RouteAction, rewrite: Option<&PathRewrite>, matched: Option<&RouteMatch>) {
    match rewrite {
        None => {}
        Some(PathRewrite::Matched(path)) => action.prefix_rewrite.clone_from(path),
        Some(PathRewrite::Prefix(path)) => {
            // All that the prefix of every path matches is its slash.
            let slash = if separated_prefix(matched).is_some() { "" } else { "/" };
            action.prefix_rewrite = format!("{path}{slash}");
        }
        Some(PathRewrite::Regex(stated)) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(regex(&stated.match_)),
                substitution: stated.rewrite.clone(),
            });
        }
        Some(PathRewrite::RemovePrefix) => {
            action.regex_rewrite = Some(without_prefix(separated_prefix(matched).unwrap_or_default()));
        }
    }
}

/// The prefix of whole segments that a route matches, if it is not that of every path.
fn separated_prefix(matched: Option<&RouteMatch>) -> Option<&str> {
    match matched?.path_specifier.as_ref()? {
        PathSpecifier::PathSeparatedPrefix(prefix) => Some(prefix),
        _ => None,
    }
}

/// Takes away a prefix of whole segments. What is left starts with a slash.
fn without_prefix(prefix: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex(&format!("^{}(/?)(.*)", quoted(prefix)))),
        substitution: r"/\2".to_owned(),
    }
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

fn mirrors(forward: &Forward, input: &HttpRoutesInput) -> Vec<RequestMirrorPolicy> {
    let share = |share: Share| match share {
        Share::Percent(0) | Share::Fine(Percent::ZERO) => None,
        Share::Percent(share) => Some(whole_percent(share)),
        Share::Fine(share) => Some(percent(share)),
    };
    let mirrored = forward.mirrors.iter().filter_map(|to| {
        let mut policy = mirror(input.cluster(&to.backend), share(to.share)?);
        if to.backend.service().is_some_and(|service| input.untold.contains(&service.host)) {
            policy.request_headers_mutations.push(standard_metrics::removal());
        }
        Some(policy)
    });
    mirrored.collect()
}

fn mirror(cluster: String, share: FractionalPercent) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(share),
            ..RuntimeFractionalPercent::default()
        }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}

/// Forwards to one cluster; says whether the cluster is chosen by consistent hashing.
fn single(
    out: &mut Route,
    action: &mut RouteAction,
    backend: &HttpBackend,
    position: (usize, usize),
    input: &HttpRoutesInput,
) -> bool {
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(input.cluster(&backend.backend)));
    if let Some(headers) = &backend.headers {
        let mutations = HeaderMutations::of(headers);
        out.request_headers_to_add.extend(mutations.request_add);
        out.request_headers_to_remove.extend(mutations.request_remove);
        out.response_headers_to_add.extend(mutations.response_add);
        out.response_headers_to_remove.extend(mutations.response_remove);
        // What the rule says about the host goes first, as it would with several backends.
        if action.host_rewrite_specifier.is_none() {
            action.host_rewrite_specifier = mutations.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
        }
    }
    let hash = input.hashes.get(&position);
    action.hash_policy.extend(hash.and_then(hash_policy));
    hash.is_some()
}

/// Forwards to several clusters by weight; those without weight get nothing.
fn weighted(action: &mut RouteAction, backends: &[HttpBackend], index: usize, input: &HttpRoutesInput) {
    let mut clusters = Vec::with_capacity(backends.len());
    for (position, backend) in backends.iter().enumerate().filter(|(_, backend)| backend.weight > 0) {
        let mut cluster = ClusterWeight {
            name: input.cluster(&backend.backend),
            weight: Some(backend.weight),
            ..ClusterWeight::default()
        };
        if let Some(headers) = &backend.headers {
            let mutations = HeaderMutations::of(headers);
            cluster.request_headers_to_add = mutations.request_add;
            cluster.request_headers_to_remove = mutations.request_remove;
            cluster.response_headers_to_add = mutations.response_add;
            cluster.response_headers_to_remove = mutations.response_remove;
            cluster.host_rewrite_specifier =
                mutations.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral);
        }
        action.hash_policy.extend(input.hashes.get(&(index, position)).and_then(hash_policy));
        clusters.push(cluster);
    }
    action.cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }));
}

/// The name of the operation in traces: the destination if there is one, else the object that has the route.
pub(super) fn operation(action: Option<&Action>, owner: &str, port: u16, path: &str) -> String {
    if let Some(Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..
    })) = action
    {
        let parts: Vec<_> = cluster.split('|').collect();
        if let [_, port, _, host] = parts.as_slice() {
            return format!("{host}:{port}{path}");
        }
    }
    format!("{owner}:{port}{path}")
}

/// The route to a port of a service for which there are no other routes.
///
/// The retry policy takes no notice of consistent hashing, as istiod's does not.
pub fn default_route(
    host: &str,
    port: u16,
    default_retries: Option<&HttpRetry>,
    hash: Option<&ConsistentHashLb>,
) -> EncodedRoute {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(names::outbound(port, "", host))),
        retry_policy: retry::policy(default_retries, false),
        hash_policy: hash.and_then(hash_policy).into_iter().collect(),
        ..RouteAction::default()
    };
    set_timeout(&mut action, None, false);
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(route_match::everything()),
        decorator: Some(Decorator { operation: format!("{host}:{port}/*"), ..Decorator::default() }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    EncodedRoute::without_rule(route.encode_to_vec(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_quoted() {
        assert_eq!(quoted("/a.b(c)$"), r"/a\.b\(c\)\$");
    }

    #[track_caller]
    fn check_port(scheme: &str, context: (u16, bool), port: Option<RedirectPort>, expected: u32) {
        let redirect =
            HttpRedirect { scheme: scheme.to_owned(), redirect_port: port, ..HttpRedirect::default() };
        let context = RouteContext { port: context.0, tls: context.1, ..RouteContext::default() };
        assert_eq!(redirect_port(&redirect, &context), expected);
    }

    #[test]
    fn default_ports_are_left_out_of_redirects() {
        let (plain, tls) = ((443, false), (443, true));
        let derived = |selection| Some(RedirectPort::DerivePort(selection));
        check_port("", plain, None, 0);
        check_port("", plain, Some(RedirectPort::Port(80)), 0);
        check_port("https", plain, Some(RedirectPort::Port(80)), 80);
        check_port("", tls, Some(RedirectPort::Port(443)), 0);
        check_port("", plain, derived(RedirectPortSelection::FromRequestPort), 443);
        check_port("", tls, derived(RedirectPortSelection::FromRequestPort), 0);
        check_port("", tls, derived(RedirectPortSelection::FromProtocolDefault), 0);
    }

    #[test]
    fn another_scheme_takes_away_a_port_that_clients_state() {
        let port = || Some(RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault));
        check_port("https", (8080, false), port(), 443);
        check_port("http", (8443, true), port(), 80);
        check_port("https", (80, false), port(), 0);
        check_port("http", (443, true), port(), 0);
        check_port("http", (8080, false), port(), 0);
    }
}

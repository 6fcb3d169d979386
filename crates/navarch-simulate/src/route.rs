//! What a route does.

use std::time::Duration;

use navarch_envoy::ProxyResources;
use navarch_envoy::proto::envoy::config::core::v3::{HeaderValueOption, data_source::Specifier};
use navarch_envoy::proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, SchemeRewriteSpecifier,
};
use navarch_envoy::proto::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use navarch_envoy::proto::envoy::config::route::v3::route_match::PathSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use navarch_envoy::proto::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as ClusterHost;
use navarch_envoy::proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost,
    route::Action as Kind,
};
use navarch_envoy::proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use navarch_envoy::proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use navarch_envoy::proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use regex::Regex;

use crate::outcome::{Action, Changes, Fault, Mirror, Retries};
use crate::{Call, endpoints, reading};

/// Envoy's timeout of a route that states none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Follows a request along the route that took it.
pub fn act(
    resources: &ProxyResources,
    call: &Call,
    routes: &RouteConfiguration,
    host: &VirtualHost,
    route: &Route,
    changes: &mut Changes,
) -> Result<Action, Action> {
    add_headers(changes, &route.request_headers_to_add, &route.response_headers_to_add);
    remove_headers(changes, &route.request_headers_to_remove, &route.response_headers_to_remove);
    changes.fault = fault(route, host);
    let action = match &route.action {
        Some(Kind::Route(action)) => forward(resources, call, host, route, action, changes),
        Some(Kind::Redirect(action)) => redirect(call, route, action),
        Some(Kind::DirectResponse(response)) => Ok(direct(response)),
        Some(Kind::FilterAction(_) | Kind::NonForwardingAction(_)) | None => {
            Err(Action::Unknown("the action of the route is up to a filter".to_owned()))
        }
    };
    // From the most specific to the least, the order in which Envoy applies them.
    add_headers(changes, &host.request_headers_to_add, &host.response_headers_to_add);
    remove_headers(changes, &host.request_headers_to_remove, &host.response_headers_to_remove);
    add_headers(changes, &routes.request_headers_to_add, &routes.response_headers_to_add);
    remove_headers(changes, &routes.request_headers_to_remove, &routes.response_headers_to_remove);
    action
}

fn forward(
    resources: &ProxyResources,
    call: &Call,
    host: &VirtualHost,
    route: &Route,
    action: &RouteAction,
    changes: &mut Changes,
) -> Result<Action, Action> {
    changes.path = new_path(call, route, &action.prefix_rewrite, action.regex_rewrite.as_ref())?;
    changes.host = match &action.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(literal)) => Some(literal.clone()),
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Some("*".to_owned()),
        Some(HostRewriteSpecifier::HostRewriteHeader(header)) => call.header(header),
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => {
            Some(substitute(rewrite, call.bare_path())?)
        }
        _ => None,
    };
    changes.timeout = Some(action.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |t| span(t.seconds, t.nanos)));
    changes.retries = action.retry_policy.as_ref().or(host.retry_policy.as_ref()).and_then(retries);
    let mirrors = if action.request_mirror_policies.is_empty() {
        &host.request_mirror_policies
    } else {
        &action.request_mirror_policies
    };
    changes.mirrors = mirrors
        .iter()
        .map(|mirror| Mirror {
            cluster: mirror.cluster.clone(),
            share: mirror
                .runtime_fraction
                .as_ref()
                .and_then(|fraction| fraction.default_value.as_ref())
                .map_or(100.0, reading::percent),
        })
        .collect();
    let status = match action.cluster_not_found_response_code {
        1 => 404,
        2 => 500,
        _ => 503,
    };
    let shares = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 1)],
        Some(ClusterSpecifier::ClusterHeader(header)) => match call.header(header) {
            Some(name) => vec![(name, 1)],
            None => return Err(Action::Unknown(format!("the cluster is named by header {header}"))),
        },
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            if let [only] = weighted.clusters.as_slice() {
                of_cluster(only, changes);
            }
            weighted
                .clusters
                .iter()
                .map(|cluster| (cluster.name.clone(), cluster.weight.unwrap_or(0)))
                .collect()
        }
        _ => return Err(Action::Unknown("the cluster is chosen by a plugin".to_owned())),
    };
    endpoints::forward(resources, shares, Some(status))
}

/// What the only cluster of a weighted set adds; with several, it depends on the draw.
fn of_cluster(cluster: &ClusterWeight, changes: &mut Changes) {
    if let Some(ClusterHost::HostRewriteLiteral(literal)) = &cluster.host_rewrite_specifier {
        changes.host = Some(literal.clone());
    }
    add_headers(changes, &cluster.request_headers_to_add, &cluster.response_headers_to_add);
    remove_headers(changes, &cluster.request_headers_to_remove, &cluster.response_headers_to_remove);
}

fn add_headers(changes: &mut Changes, request: &[HeaderValueOption], response: &[HeaderValueOption]) {
    let pairs = |options: &[HeaderValueOption]| -> Vec<(String, String)> {
        let headers = options.iter().filter_map(|option| option.header.as_ref());
        headers.map(|header| (header.key.clone(), header.value.clone())).collect()
    };
    changes.request_headers.extend(pairs(request));
    changes.response_headers.extend(pairs(response));
}

fn remove_headers(changes: &mut Changes, request: &[String], response: &[String]) {
    changes.request_headers_removed.extend_from_slice(request);
    changes.response_headers_removed.extend_from_slice(response);
}

/// The path after a rewrite, with its query; none if nothing is rewritten.
fn new_path(
    call: &Call,
    route: &Route,
    prefix_rewrite: &str,
    regex_rewrite: Option<&RegexMatchAndSubstitute>,
) -> Result<Option<String>, Action> {
    let path = call.bare_path();
    let rest = call.path.get(path.len()..).unwrap_or_default();
    if !prefix_rewrite.is_empty() {
        let matched = matched_length(call, route);
        let tail = path.get(matched..).unwrap_or_default();
        return Ok(Some(format!("{prefix_rewrite}{tail}{rest}")));
    }
    match regex_rewrite {
        Some(rewrite) => Ok(Some(format!("{}{rest}", substitute(rewrite, path)?))),
        None => Ok(None),
    }
}

/// How much of the path the route's matcher covers.
fn matched_length(call: &Call, route: &Route) -> usize {
    let specifier = route.r#match.as_ref().and_then(|wanted| wanted.path_specifier.as_ref());
    match specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix.len(),
        _ => call.bare_path().len(),
    }
}

fn substitute(rewrite: &RegexMatchAndSubstitute, text: &str) -> Result<String, Action> {
    let pattern = rewrite.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
    let regex = Regex::new(pattern).map_err(|_| {
        Action::Unknown(format!("the regular expression {pattern:?} cannot be evaluated here"))
    })?;
    Ok(regex.replace_all(text, replacement(&rewrite.substitution).as_str()).into_owned())
}

/// RE2 writes groups as `\1`, the whole match as `\0`, and a backslash as `\\`.
fn replacement(re2: &str) -> String {
    let mut out = String::new();
    let mut rest = re2.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

fn span(seconds: i64, nanos: i32) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
}

/// Retries without a condition or without attempts are none.
fn retries(policy: &RetryPolicy) -> Option<Retries> {
    let attempts = policy.num_retries.unwrap_or(1);
    (attempts > 0 && !policy.retry_on.is_empty()).then(|| Retries {
        attempts,
        on: policy.retry_on.clone(),
        per_try: policy.per_try_timeout.as_ref().map(|t| span(t.seconds, t.nanos)),
    })
}

fn fault(route: &Route, host: &VirtualHost) -> Option<Fault> {
    let config = reading::fault_config(route, host)?;
    let share = |fraction: Option<&_>| fraction.map_or(0.0, reading::percent);
    let delay = config.delay.as_ref().and_then(|delay| match &delay.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(t)) => {
            Some((span(t.seconds, t.nanos), share(delay.percentage.as_ref())))
        }
        _ => None,
    });
    let abort = config.abort.as_ref().and_then(|abort| {
        let status = match &abort.error_type {
            Some(ErrorType::HttpStatus(status)) => status.to_string(),
            Some(ErrorType::GrpcStatus(status)) => format!("grpc {status}"),
            _ => return None,
        };
        Some((status, share(abort.percentage.as_ref())))
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn redirect(call: &Call, route: &Route, action: &RedirectAction) -> Result<Action, Action> {
    let status = match action.response_code {
        1 => 302,
        2 => 303,
        3 => 307,
        4 => 308,
        _ => 301,
    };
    let from = if call.tls.is_some() { "https" } else { "http" };
    let scheme = match &action.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https",
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => scheme,
        _ => from,
    };
    let mut host =
        if action.host_redirect.is_empty() { call.host.clone() } else { action.host_redirect.clone() };
    if action.port_redirect != 0 {
        host = format!("{}:{}", reading::without_port(&host), action.port_redirect);
    } else if scheme != from && (host.ends_with(":80") || host.ends_with(":443")) {
        // The default port of the old scheme goes with it.
        host.truncate(reading::without_port(&host).len());
    }
    let path = match &action.path_rewrite_specifier {
        // An empty path does not redirect the path.
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => call.path.clone(),
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.contains('?') => path.clone(),
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            format!("{path}{}", call.path.get(call.bare_path().len()..).unwrap_or_default())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            new_path(call, route, prefix, None)?.unwrap_or_else(|| call.path.clone())
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            new_path(call, route, "", Some(rewrite))?.unwrap_or_else(|| call.path.clone())
        }
        _ => call.path.clone(),
    };
    let path = if action.strip_query { path.split('?').next().unwrap_or_default() } else { &path };
    Ok(Action::Redirect { status, location: format!("{scheme}://{host}{path}") })
}

fn direct(response: &DirectResponseAction) -> Action {
    let body = match response.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        Some(Specifier::InlineString(text)) => Some(text.clone()),
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).ok(),
        _ => None,
    };
    Action::DirectResponse { status: u16::try_from(response.status).unwrap_or(0), body }
}

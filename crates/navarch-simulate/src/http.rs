//! The HTTP connection manager: HTTP filters, route configuration, virtual host, route.

use navarch_envoy::ProxyResources;
use navarch_envoy::proto::envoy::config::route::v3::route_match::PathSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration, RouteMatch, VirtualHost};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use crate::matching::{self, Tri};
use crate::outcome::{Action, Outcome, Stage};
use crate::{Call, decode, reading, route};

/// Follows a request through a connection manager.
pub fn run(
    resources: &ProxyResources,
    call: &Call,
    manager: &HttpConnectionManager,
    outcome: &mut Outcome,
) -> Result<Action, Action> {
    let programs = filters(manager, outcome);
    let found;
    let routes = match &manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(inline)) => inline,
        Some(RouteSpecifier::Rds(rds)) => {
            outcome.route_configuration = Some(rds.route_config_name.clone());
            found = decode::routes(resources, &rds.route_config_name).ok_or_else(|| {
                let reason = format!("route configuration {} does not exist", rds.route_config_name);
                Action::blocked(Stage::RouteConfiguration, Some(404), reason)
            })?;
            &found
        }
        _ => return Err(Action::Unknown("the connection manager has scoped routes".to_owned())),
    };
    outcome.route_configuration = Some(routes.name.clone());
    let host = find_host(routes, call).ok_or_else(|| {
        let reason = format!("no virtual host of {} has {}", routes.name, call.host);
        Action::blocked(Stage::VirtualHost, Some(404), reason)
    })?;
    outcome.virtual_host = Some(host.name.clone());
    if let Some(redirect) = https_only(host, call) {
        return Ok(redirect);
    }
    let (index, found) = find_route(host, call)?;
    outcome.route = Some(if found.name.is_empty() { format!("#{index}") } else { found.name.clone() });
    let action = route::act(resources, call, routes, host, found, &mut outcome.changes)?;
    // A program may answer, change what routes look at, and clear the cached route.
    match programs {
        Some(program) => {
            Err(Action::Unknown(format!("filter {program} runs code that may change the request")))
        }
        None => Ok(action),
    }
}

/// Notes the filters that may deny the request; gives the first that runs code.
fn filters(manager: &HttpConnectionManager, outcome: &mut Outcome) -> Option<String> {
    const GUARDS: &[&str] =
        &["rbac", "jwt_authn", "ext_authz", "ratelimit", "local_ratelimit", "custom_response"];
    const PROGRAMS: &[&str] = &["lua", "wasm", "ext_proc", "composite", "dynamic_modules"];
    let mut program = None;
    for filter in manager.http_filters.iter().filter(|filter| !filter.disabled) {
        let kind = match &filter.config_type {
            Some(ConfigType::TypedConfig(config)) => {
                let name = config.message_name();
                let rest = name.strip_prefix("envoy.extensions.filters.http.").unwrap_or_default();
                rest.split('.').next().unwrap_or_default().to_owned()
            }
            // What the control plane sends apart is an extension, in Istio always Wasm.
            Some(ConfigType::ConfigDiscovery(_)) => "wasm".to_owned(),
            None => String::new(),
        };
        if GUARDS.contains(&kind.as_str()) {
            outcome.unevaluated.push(filter.name.clone());
        }
        if PROGRAMS.contains(&kind.as_str()) && program.is_none() {
            program = Some(filter.name.clone());
        }
    }
    program
}

/// The virtual host for the request's host, by Envoy's order: exact, longest `*suffix`, longest `prefix*`,
/// `*`.
fn find_host<'a>(routes: &'a RouteConfiguration, call: &Call) -> Option<&'a VirtualHost> {
    let mut host = call.host.to_ascii_lowercase();
    if routes.ignore_port_in_host_matching {
        host.truncate(reading::without_port(&host).len());
    }
    let rank = |domain: &String| {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            return Some((0, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            return (host.len() > suffix.len() && host.ends_with(suffix)).then_some((2, suffix.len()));
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            return (host.len() > prefix.len() && host.starts_with(prefix)).then_some((1, prefix.len()));
        }
        (domain == host).then_some((3, 0))
    };
    let ranked = routes.virtual_hosts.iter().filter_map(|candidate| {
        let best = candidate.domains.iter().filter_map(rank).max()?;
        Some((best, candidate))
    });
    // Domains are unique in a configuration that Envoy accepts, so ties do not happen.
    ranked.max_by_key(|(best, _)| *best).map(|(_, candidate)| candidate)
}

/// `require_tls`: 2 is for all requests, 1 for those from outside, which all calls here are not known to be.
fn https_only(host: &VirtualHost, call: &Call) -> Option<Action> {
    (host.require_tls == 2 && call.tls.is_none())
        .then(|| Action::Redirect { status: 301, location: format!("https://{}{}", call.host, call.path) })
}

fn find_route<'a>(host: &'a VirtualHost, call: &Call) -> Result<(usize, &'a Route), Action> {
    if host.matcher.is_some() {
        return Err(Action::Unknown(format!("virtual host {} has a matching tree", host.name)));
    }
    for (index, route) in host.routes.iter().enumerate() {
        let Some(wanted) = &route.r#match else { continue };
        match matches(wanted, call) {
            Tri::Yes => return Ok((index, route)),
            Tri::No => {}
            Tri::Unknown(reason) => {
                let name = if route.name.is_empty() { format!("#{index}") } else { route.name.clone() };
                return Err(Action::Unknown(format!("whether route {name} matches depends on {reason}")));
            }
        }
    }
    Err(Action::blocked(Stage::Route, Some(404), format!("no route of {} matches {}", host.name, call.path)))
}

/// Whether all conditions of a route hold.
fn matches(wanted: &RouteMatch, call: &Call) -> Tri {
    let mut answer = path(wanted, call);
    for matcher in &wanted.headers {
        answer = answer.and(|| matching::header(matcher, call));
    }
    for matcher in &wanted.query_parameters {
        answer = answer.and(|| matching::query_parameter(matcher, call));
    }
    if wanted.grpc.is_some() {
        answer = answer.and(|| {
            call.header("content-type")
                .is_some_and(|ty| ty == "application/grpc" || ty.starts_with("application/grpc+"))
                .into()
        });
    }
    let open = [
        (!wanted.dynamic_metadata.is_empty(), "dynamic metadata, such as the claims of a token"),
        (!wanted.filter_state.is_empty(), "filter state"),
        (!wanted.cookies.is_empty(), "cookies"),
        (wanted.tls_context.is_some(), "the client's certificate"),
    ];
    for (_, reason) in open.iter().filter(|(open, _)| *open) {
        answer = answer.and(|| Tri::Unknown((*reason).to_owned()));
    }
    match wanted.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value.as_ref()) {
        Some(fraction) => answer.and(|| match reading::percent(fraction) {
            share if share >= 100.0 => Tri::Yes,
            share if share <= 0.0 => Tri::No,
            share => Tri::Unknown(format!("a random draw of {share} %")),
        }),
        None => answer,
    }
}

fn path(wanted: &RouteMatch, call: &Call) -> Tri {
    let fold = |text: &str| {
        if wanted.case_sensitive == Some(false) { text.to_ascii_lowercase() } else { text.to_owned() }
    };
    let path = fold(call.bare_path());
    match &wanted.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => path.starts_with(&fold(prefix)).into(),
        Some(PathSpecifier::Path(exact)) => (path == fold(exact)).into(),
        Some(PathSpecifier::SafeRegex(wanted)) => matching::regex(&wanted.regex, call.bare_path()),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => path
            .strip_prefix(&fold(prefix))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            .into(),
        Some(PathSpecifier::ConnectMatcher(_)) => (call.method == "CONNECT").into(),
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            Tri::Unknown(format!("the path matcher {}", policy.name))
        }
        None => Tri::No,
    }
}

//! TCPRoute, TLSRoute and UDPRoute.

use navarch_model::gateway_api::StreamRouteRule;
use navarch_model::route::{Backend, StreamBackend, TcpRule, TlsMatch, TlsRule};
use navarch_model::{Name, Origin};

use super::backend::{Backends, Problem};
use super::http_route::positive;
use super::rules::{EVERY_NAME, Rules, names};

/// The rules for connections, or for datagrams at listeners for those.
pub(super) fn tcp_rules(backends: &Backends<'_>, stated: &[StreamRouteRule]) -> Rules {
    let mut problems = Vec::new();
    let tcp = stated.iter().enumerate().map(|(index, rule)| {
        let (origin, to) = stream_rule(backends, index, rule, &mut problems);
        TcpRule { origin, matches: Vec::new(), backends: to }
    });
    let tcp = tcp.collect();
    usable(Rules { tcp, problems, ..Rules::default() })
}

pub(super) fn tls_rules(backends: &Backends<'_>, hosts: &[String], stated: &[StreamRouteRule]) -> Rules {
    let server_names = match hosts {
        [] => vec![Name::from(EVERY_NAME)],
        hosts => names(hosts),
    };
    let mut problems = Vec::new();
    let tls = stated.iter().enumerate().map(|(index, rule)| {
        let (origin, to) = stream_rule(backends, index, rule, &mut problems);
        let matches = vec![TlsMatch { server_names: server_names.clone(), ..TlsMatch::default() }];
        TlsRule { origin, matches, backends: to }
    });
    let tls = tls.collect();
    usable(Rules { tls, problems, ..Rules::default() })
}

fn usable(rules: Rules) -> Rules {
    match rules.problems.iter().any(|problem| problem.fatal) {
        true => Rules { problems: rules.problems, ..Rules::default() },
        false => rules,
    }
}

fn stream_rule(
    backends: &Backends<'_>,
    index: usize,
    rule: &StreamRouteRule,
    problems: &mut Vec<Problem>,
) -> (Origin, Vec<StreamBackend>) {
    let origin = Origin::field(backends.object.key.clone(), &format!("spec.rules[{index}]"));
    let mut all = Vec::new();
    for (position, to) in rule.backend_refs.iter().enumerate() {
        let Some(weight) = positive(to.weight) else { continue };
        let field = format!("{}.backendRefs[{position}]", origin.field);
        let backend = backends.resolve(&to.target(), &field, problems);
        all.push(StreamBackend { backend, weight, field: Name::from(field) });
    }
    if all.is_empty() {
        // Connections are refused where nothing has a weight. (TCPRouteRule, backendRefs.)
        let field = Name::from(format!("{}.backendRefs", origin.field));
        all.push(StreamBackend { backend: Backend::Invalid, weight: 1, field });
    }
    (origin, all)
}

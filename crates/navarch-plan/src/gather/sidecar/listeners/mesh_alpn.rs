//! Whether HTTP to a service may be marked as such in the TLS handshake.
//!
//! Marking overrides the application protocols of every cluster that a request may go to. Servers outside the
//! mesh would be offered protocols that they do not know, so nothing is marked if one of the routes may lead
//! there.

use std::collections::BTreeSet;

use navarch_model::EffectiveRule;
use navarch_model::networking::{ClientTlsMode, ClientTlsSettings, TrafficPolicy};
use navarch_model::service::Service;
use navarch_snapshot::host::overlap;

use super::port::PortOf;

/// Whether all routes of a service lead to mesh services.
pub fn applies(service: &PortOf<'_, '_>) -> bool {
    let PortOf { cx, scope, listener, .. } = service;
    let host = &*service.service.hostname;
    let mut sets = scope.listener_routes(cx.view(), listener, host);
    sets.extend(scope.listener_wildcard_routes(cx.view(), listener));
    let sets = sets.iter().filter(|set| set.hosts.iter().any(|pattern| overlap(pattern, host)));
    let targets: BTreeSet<&str> =
        sets.flat_map(|set| set.http_destinations()).map(|destination| &*destination.to.host).collect();
    in_mesh(service, service.service)
        && targets
            .into_iter()
            .filter(|target| *target != host)
            .all(|target| scope.service(cx.view(), target).is_some_and(|target| in_mesh(service, &target)))
}

/// Whether connections to a service use mesh TLS or none.
fn in_mesh(client: &PortOf<'_, '_>, service: &Service) -> bool {
    let labels = Some(&client.proxy.labels);
    let rule = client.scope.destination_rule(client.cx.view(), service, labels);
    !service.mesh_external && !rule.is_some_and(|rule| originates_tls(&rule))
}

fn originates_tls(rule: &EffectiveRule) -> bool {
    let subsets = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    subsets
        .chain(&rule.spec.traffic_policy)
        .flat_map(settings)
        .any(|tls| matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))
}

fn settings(policy: &TrafficPolicy) -> impl Iterator<Item = &ClientTlsSettings> {
    policy.tls.iter().chain(policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref()))
}

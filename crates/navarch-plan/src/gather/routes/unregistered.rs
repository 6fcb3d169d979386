//! Hosts of VirtualServices that are no services.
//!
//! On port 80, a VirtualService may name any host: requests to it are routed although nobody registered it. On other ports its
//! further hosts are served only where one of its hosts is a service. (Both as istiod does.)

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::Hashed;
use navarch_snapshot::Bucket;
use navarch_snapshot::host::{is_wildcard, overlap};
use navarch_snapshot::scope::EgressListener;
use navarch_translate::routes::Semantics;

use super::Client;
use super::sidecar::{
    Collector, Hosts, SharedRule, SharedService, Target, may_be_http, may_route, most_specific_rule,
    port_target, stated_target,
};
use crate::engine::{Cx, Gather};
use crate::gather::upstream::SeenBuckets;

/// The port on which any host may be named.
const ANY_HOST_PORT: u16 = 80;

/// Adds the exact hosts of a bucket that are no services there.
pub(super) fn unregistered(
    collector: &mut Collector<'_, '_>,
    listener: &EgressListener,
    bucket: Bucket,
    services: &[SharedService],
) {
    let client = collector.client;
    let view = collector.cx.view();
    for (host, rules) in client.scope.listener_virtual_services_in(view, listener, bucket) {
        let ports: BTreeSet<u16> =
            rules.iter().flat_map(|rule| other_ports(collector, listener, rule)).collect();
        let mut targets: Vec<Target<'_>> = stated_target(client, listener).into_iter().collect();
        targets.extend(
            ports
                .iter()
                .copied()
                .chain([ANY_HOST_PORT])
                .collect::<BTreeSet<u16>>()
                .into_iter()
                .filter_map(|port| port_target(client, listener, port)),
        );
        for target in targets {
            let registered = services.iter().any(|service| {
                service.hostname.eq_ignore_ascii_case(&host) && target.ports(service).next().is_some()
            });
            if registered {
                continue;
            }
            // Where all ports are served, only port 80 may go without saying.
            let port = target.port.unwrap_or(ANY_HOST_PORT);
            let winner = rules.iter().find_map(|rule| {
                let applies = match target.port {
                    Some(ANY_HOST_PORT) => may_stand_alone(collector, &target, rule),
                    _ => !has_wildcard(rule) && matches_service(collector, &target, rule, port),
                };
                let routes = if applies { collector.routes(&target, rule) } else { None }?;
                let position = rule.hosts.iter().position(|other| *other == host)?;
                Some((rule, position, routes))
            });
            if let Some((rule, position, routes)) = winner {
                collector.add_host(&target, port, rule, position, &routes);
            }
        }
    }
}

fn has_wildcard(rule: &SharedRule) -> bool {
    rule.hosts.iter().any(|host| is_wildcard(host))
}

/// A VirtualService for exactly the host of a service keeps wildcards away from it.
fn has_own_rule(collector: &Collector<'_, '_>, target: &Target<'_>, service: &SharedService) -> bool {
    let (client, view) = (collector.client, collector.cx.view());
    !client.scope.listener_virtual_services(view, target.listener, &service.hostname).is_empty()
}

/// Ports on which services with the exact hosts of a VirtualService may serve HTTP; of one with a single host, none that matter.
fn other_ports(collector: &Collector<'_, '_>, listener: &EgressListener, rule: &SharedRule) -> Vec<u16> {
    if rule.hosts.len() < 2 || has_wildcard(rule) {
        return Vec::new();
    }
    let view = collector.cx.view();
    rule.hosts
        .iter()
        .flat_map(|host| collector.client.scope.listener_services(view, listener, host))
        .flat_map(|service| {
            let http = service.ports.iter().filter(|port| may_be_http(port.protocol));
            http.map(|port| port.port).collect::<Vec<_>>()
        })
        .collect()
}

/// A VirtualService may stand alone on port 80, unless it stems from the Gateway API: that routes services only.
fn may_stand_alone(collector: &Collector<'_, '_>, target: &Target<'_>, rule: &SharedRule) -> bool {
    Semantics::of(&rule.config.annotations) != Semantics::GatewayApi
        || exact_services(collector, target, rule)
            .iter()
            .any(|service| may_route(collector.cx, collector.client, rule, service))
}

/// Whether an exact host of the VirtualService is a service that may serve HTTP on `port`.
fn matches_service(collector: &Collector<'_, '_>, target: &Target<'_>, rule: &SharedRule, port: u16) -> bool {
    exact_services(collector, target, rule).iter().any(|service| {
        may_route(collector.cx, collector.client, rule, service)
            && service.ports.iter().any(|other| other.port == port && may_be_http(other.protocol))
    })
}

fn exact_services(
    collector: &Collector<'_, '_>,
    target: &Target<'_>,
    rule: &SharedRule,
) -> Vec<SharedService> {
    let view = collector.cx.view();
    let exact = rule.hosts.iter().filter(|host| !is_wildcard(host));
    exact
        .flat_map(|host| collector.client.scope.listener_services(view, target.listener, host))
        .filter(|service| target.ports(service).next().is_some())
        .collect()
}

/// Wildcard hosts that no service falls under, and the hosts beside them. Looks at all services, but only if there are wildcard
/// VirtualServices at all.
pub(super) struct UnregisteredWildcards;

impl Gather for UnregisteredWildcards {
    const NAME: &'static str = "unregistered_wildcards";
    type Key = Arc<Hashed<Client>>;
    type Output = Hosts;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> Hosts {
        let mut collector = Collector::new(cx, client);
        for listener in client.scope.egress_listeners() {
            let wildcards = client.scope.listener_wildcard_virtual_services(cx.view(), listener);
            if !wildcards.is_empty() {
                add_wildcards(&mut collector, listener, &wildcards);
            }
        }
        collector.finish()
    }
}

fn add_wildcards(collector: &mut Collector<'_, '_>, listener: &EgressListener, wildcards: &[SharedRule]) {
    let client = collector.client;
    let view = collector.cx.view();
    let seen = collector.cx.gather::<SeenBuckets>(&client.scope);
    let services: Vec<SharedService> =
        seen.iter().flat_map(|bucket| client.scope.listener_services_in(view, listener, bucket)).collect();
    let ports: BTreeSet<u16> = services
        .iter()
        .flat_map(|service| {
            service.ports.iter().filter(|port| may_be_http(port.protocol)).map(|port| port.port)
        })
        .chain([ANY_HOST_PORT])
        .collect();
    let mut targets: Vec<Target<'_>> = stated_target(client, listener).into_iter().collect();
    targets.extend(ports.into_iter().filter_map(|port| port_target(client, listener, port)));
    for target in targets {
        let there: Vec<&SharedService> =
            services.iter().filter(|service| target.ports(service).next().is_some()).collect();
        for rule in wildcards {
            add_rule(collector, &target, rule, wildcards, &there);
        }
    }
}

fn add_rule(
    collector: &mut Collector<'_, '_>,
    target: &Target<'_>,
    rule: &SharedRule,
    wildcards: &[SharedRule],
    services: &[&SharedService],
) {
    let client = collector.client;
    let port = target.port.unwrap_or(ANY_HOST_PORT);
    let gateway_api = Semantics::of(&rule.config.annotations) == Semantics::GatewayApi;
    let names =
        |service: &SharedService| rule.hosts.iter().any(|host| host.eq_ignore_ascii_case(&service.hostname));
    let routed: Vec<&&SharedService> = services
        .iter()
        .filter(|service| {
            names(service)
                || (!gateway_api
                    && most_specific_rule(&service.hostname, wildcards)
                        .is_some_and(|best| Arc::ptr_eq(best, rule))
                    && !has_own_rule(collector, target, service))
        })
        .filter(|service| may_route(collector.cx, client, rule, service))
        .collect();
    if gateway_api && routed.is_empty() {
        return;
    }
    let serves = routed
        .iter()
        .any(|service| service.ports.iter().any(|other| other.port == port && may_be_http(other.protocol)));
    if !serves && target.port != Some(ANY_HOST_PORT) {
        return;
    }
    let Some(routes) = collector.routes(target, rule) else { return };
    for (position, host) in rule.hosts.iter().enumerate() {
        let alone = if is_wildcard(host) {
            gateway_api || !services.iter().any(|service| overlap(host, &service.hostname))
        } else {
            // On port 80 the bucket of the host takes care of it.
            target.port != Some(ANY_HOST_PORT)
                && !services.iter().any(|service| service.hostname.eq_ignore_ascii_case(host))
        };
        if alone {
            collector.add_host(target, port, rule, position, &routes);
        }
    }
}

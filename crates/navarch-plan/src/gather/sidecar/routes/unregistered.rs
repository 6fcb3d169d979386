//! Hosts of routes that are not services.
//!
//! On port 80, routes may name any host: requests to it are routed although nobody registered it. On other
//! ports their further hosts are served only where one of its hosts is a service. (Both as istiod does.)

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::Hashed;
use navarch_model::route::HostMeaning;
use navarch_snapshot::Bucket;
use navarch_snapshot::host::{is_wildcard, overlap};
use navarch_snapshot::scope::EgressListener;

use super::hosts::{Collector, Hosts, may_route, most_specific};
use super::targets::{Target, may_be_http, port_target, stated_target};
use crate::engine::{Cx, Gather};
use crate::gather::shared::routes::{RouteClient, SharedRoutes, SharedService};
use crate::gather::shared::upstream::SeenBuckets;

/// The port on which any host may be named.
const ANY_HOST_PORT: u16 = 80;

/// Adds the exact hosts of a bucket that are not services there.
pub fn unregistered(
    collector: &mut Collector<'_, '_>,
    listener: &EgressListener,
    bucket: Bucket,
    services: &[SharedService],
) {
    let client = collector.client;
    let view = collector.cx.view();
    for (host, sets) in client.scope.listener_routes_in(view, listener, bucket) {
        let ports: BTreeSet<u16> =
            sets.iter().flat_map(|set| other_ports(collector, listener, set)).collect();
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
            let winner = sets.iter().find_map(|set| {
                let applies = match target.port {
                    Some(ANY_HOST_PORT) => may_stand_alone(collector, &target, set),
                    _ => !has_wildcard(set) && matches_service(collector, &target, set, port),
                };
                let routes = if applies { collector.routes(&target, set) } else { None }?;
                let position = set.hosts.iter().position(|other| *other == host)?;
                Some((set, position, routes))
            });
            if let Some((set, position, routes)) = winner {
                collector.add_host(&target, port, set, position, &routes);
            }
        }
    }
}

fn has_wildcard(set: &SharedRoutes) -> bool {
    set.hosts.iter().any(|host| is_wildcard(host))
}

/// Routes for exactly the host of a service keep wildcards away from it.
fn has_own_routes(collector: &Collector<'_, '_>, target: &Target<'_>, service: &SharedService) -> bool {
    let (client, view) = (collector.client, collector.cx.view());
    !client.scope.listener_routes(view, target.listener, &service.hostname).is_empty()
}

/// Ports on which services with the exact hosts of a set may serve HTTP; of one with a single host, none that
/// matter.
fn other_ports(collector: &Collector<'_, '_>, listener: &EgressListener, set: &SharedRoutes) -> Vec<u16> {
    if set.hosts.len() < 2 || has_wildcard(set) {
        return Vec::new();
    }
    let view = collector.cx.view();
    set.hosts
        .iter()
        .flat_map(|host| collector.client.scope.listener_services(view, listener, host))
        .flat_map(|service| {
            let http = service.ports.iter().filter(|port| may_be_http(port.protocol));
            http.map(|port| port.port).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a set may stand alone on port 80, or its hosts have to be services.
fn may_stand_alone(collector: &Collector<'_, '_>, target: &Target<'_>, set: &SharedRoutes) -> bool {
    set.host_meaning != HostMeaning::Services
        || exact_services(collector, target, set)
            .iter()
            .any(|service| may_route(collector.cx, collector.client, set, service))
}

/// Whether an exact host of the set is a service that may serve HTTP on `port`.
fn matches_service(
    collector: &Collector<'_, '_>,
    target: &Target<'_>,
    set: &SharedRoutes,
    port: u16,
) -> bool {
    exact_services(collector, target, set).iter().any(|service| {
        may_route(collector.cx, collector.client, set, service)
            && service.ports.iter().any(|other| other.port == port && may_be_http(other.protocol))
    })
}

fn exact_services(
    collector: &Collector<'_, '_>,
    target: &Target<'_>,
    set: &SharedRoutes,
) -> Vec<SharedService> {
    let view = collector.cx.view();
    let exact = set.hosts.iter().filter(|host| !is_wildcard(host));
    exact
        .flat_map(|host| collector.client.scope.listener_services(view, target.listener, host))
        .filter(|service| target.ports(service).next().is_some())
        .collect()
}

/// Wildcard hosts that no service falls under, and the hosts beside them. Looks at all services, but only if
/// there are wildcard routes at all.
pub struct UnregisteredWildcards;

impl Gather for UnregisteredWildcards {
    const NAME: &'static str = "routes.wildcard_hosts";
    type Key = Arc<Hashed<RouteClient>>;
    type Output = Hosts;

    fn run(client: &Self::Key, cx: &Cx<'_>) -> Hosts {
        let mut collector = Collector::new(cx, client);
        for listener in client.scope.egress_listeners() {
            let wildcards = client.scope.listener_wildcard_routes(cx.view(), listener);
            if !wildcards.is_empty() {
                add_wildcards(&mut collector, listener, &wildcards);
            }
        }
        collector.finish()
    }
}

fn add_wildcards(collector: &mut Collector<'_, '_>, listener: &EgressListener, wildcards: &[SharedRoutes]) {
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
        for set in wildcards {
            add_set(collector, &target, set, wildcards, &there);
        }
    }
}

fn add_set(
    collector: &mut Collector<'_, '_>,
    target: &Target<'_>,
    set: &SharedRoutes,
    wildcards: &[SharedRoutes],
    services: &[&SharedService],
) {
    let client = collector.client;
    let port = target.port.unwrap_or(ANY_HOST_PORT);
    let services_only = set.host_meaning == HostMeaning::Services;
    let names =
        |service: &SharedService| set.hosts.iter().any(|host| host.eq_ignore_ascii_case(&service.hostname));
    let routed: Vec<&&SharedService> = services
        .iter()
        .filter(|service| {
            names(service)
                || (!services_only
                    && most_specific(&service.hostname, wildcards).is_some_and(|best| Arc::ptr_eq(best, set))
                    && !has_own_routes(collector, target, service))
        })
        .filter(|service| may_route(collector.cx, client, set, service))
        .collect();
    if services_only && routed.is_empty() {
        return;
    }
    let serves = routed
        .iter()
        .any(|service| service.ports.iter().any(|other| other.port == port && may_be_http(other.protocol)));
    if !serves && target.port != Some(ANY_HOST_PORT) {
        return;
    }
    let Some(routes) = collector.routes(target, set) else { return };
    for (position, host) in set.hosts.iter().enumerate() {
        let alone = if is_wildcard(host) {
            services_only || !services.iter().any(|service| overlap(host, &service.hostname))
        } else {
            // On port 80 the bucket of the host takes care of it.
            target.port != Some(ANY_HOST_PORT)
                && !services.iter().any(|service| service.hostname.eq_ignore_ascii_case(host))
        };
        if alone {
            collector.add_host(target, port, set, position, &routes);
        }
    }
}

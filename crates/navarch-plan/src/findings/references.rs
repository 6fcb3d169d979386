//! Destinations of routes that are not there: hosts nobody registers, subsets and ports that nobody defines.
//!
//! Requests that are sent there fail. The answers are gathered bucket by bucket, so an edit looks again only
//! at the routes that name something in a bucket that it changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::object::ObjectKey;
use navarch_model::route::{BackendPart, Destination, Parent, RouteSet};
use navarch_model::{Hashed, Name};
use navarch_snapshot::host::{covers, is_wildcard};
use navarch_snapshot::{BUCKETS, Bucket, HostBucket, View};

use super::credentials::CredentialProblems;
use super::problem::Problem;
use crate::engine::{Cx, Gather};

/// All of them.
pub struct References;

impl Gather for References {
    const NAME: &'static str = "references.all";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            (0..BUCKETS).flat_map(|bucket| (*cx.gather::<InBucket>(&bucket)).clone()).collect();
        problems.extend(cx.gather::<OfWildcards>(&()).iter().cloned());
        problems.extend(cx.gather::<CredentialProblems>(&()).iter().cloned());
        let listeners = cx.view().gateways().flat_map(|set| &set.listeners);
        for parent in listeners.map(|listener| listener.parent.clone()).collect::<BTreeSet<_>>() {
            for place in cx.view().gateway_buckets(&parent).iter() {
                problems.extend(cx.gather::<OfGateway>(&(parent.clone(), place)).iter().cloned());
            }
        }
        // Routes of a delegate are looked at once for each of those that delegate to it.
        let mut known: BTreeSet<(ObjectKey, String, Finding)> = BTreeSet::new();
        problems.retain(|Problem { key, path, finding }| {
            known.insert((key.clone(), path.clone(), finding.clone()))
        });
        problems
    }
}

/// Routes of sidecars whose first host is in a bucket.
struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "references.bucket";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let sets = cx.view().routes_in(*bucket).iter();
        // A set is filed under each of its hosts.
        let first = sets.flat_map(|(host, sets)| sets.iter().filter(|set| is_first(set, host)));
        first.flat_map(|set| missing(cx.view(), set)).collect()
    }
}

/// Whether it is the first exact host of the set. One with a wildcard host is looked at with those.
pub(super) fn is_first(set: &RouteSet, host: &Name) -> bool {
    !set.hosts.iter().any(|host| is_wildcard(host)) && set.hosts.first() == Some(host)
}

/// Routes of sidecars with wildcard hosts.
struct OfWildcards;

impl Gather for OfWildcards {
    const NAME: &'static str = "references.wildcards";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        cx.view().wildcard_routes().iter().flat_map(|set| missing(cx.view(), set)).collect()
    }
}

/// Routes of a gateway that are not for sidecars too, in one bucket of hosts.
struct OfGateway;

impl Gather for OfGateway {
    const NAME: &'static str = "references.gateway";
    type Key = (Parent, HostBucket);
    type Output = Vec<Problem>;

    fn run((gateway, place): &Self::Key, cx: &Cx<'_>) -> Vec<Problem> {
        only_at_gateways(cx.view(), gateway, *place).flat_map(|set| missing(cx.view(), set)).collect()
    }
}

/// Routes of a gateway that are not for sidecars too, each in one place: with its first gateway, and where
/// its first exact host is, or with wildcards if it has any.
pub(super) fn only_at_gateways<'s>(
    view: &View<'s>,
    gateway: &Parent,
    place: HostBucket,
) -> impl Iterator<Item = &'s Arc<Hashed<RouteSet>>> {
    let hosts = view.gateway_routes_in(gateway, place).iter();
    hosts.flat_map(move |(host, sets)| {
        sets.iter().filter(move |set| {
            let first = set.hosts.iter().find(|host| is_wildcard(host)).or(set.hosts.first());
            !set.for_mesh() && set.parents.first() == Some(gateway) && first == Some(host)
        })
    })
}

/// The destinations of a set that are not there.
fn missing(view: &View<'_>, set: &RouteSet) -> Vec<Problem> {
    let mut entered = None;
    let problems = set.destinations().filter_map(|destination| {
        let (part, finding) = check(view, &destination).or_else(|| {
            let entered = entered.get_or_insert_with(|| ports_entered(view, set));
            Some((BackendPart::Host, without_port(view, &destination, entered)?))
        })?;
        let path = set.backend_fields.path(destination.field, part);
        Some(Problem { key: destination.key.clone(), path, finding })
    });
    problems.collect()
}

/// The ports on which what the set routes arrives: those of its hosts, and of its gateways.
fn ports_entered(view: &View<'_>, set: &RouteSet) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    if set.for_mesh() {
        let hosts = set.hosts.iter().flat_map(|host| view.services(host));
        ports.extend(hosts.flat_map(|service| service.ports.iter().map(|port| port.port)));
    }
    if set.parents.iter().any(|parent| *parent != Parent::Mesh) {
        let listeners = view.gateways().flat_map(|gateway| &gateway.listeners);
        let own = listeners.filter(|listener| set.parents.contains(&listener.parent));
        ports.extend(own.map(|listener| listener.port));
    }
    ports
}

/// A destination that states no port means the one that a request came in on, unless its service has one
/// only. (Istio, Destination.port.)
fn without_port(view: &View<'_>, destination: &Destination<'_>, entered: &BTreeSet<u16>) -> Option<Finding> {
    let to = destination.to;
    if to.port.is_some() {
        return None;
    }
    let services = view.services(&to.host.to_ascii_lowercase());
    let ports: BTreeSet<u16> =
        services.iter().flat_map(|service| &service.ports).map(|port| port.port).collect();
    let missing = *entered.iter().find(|port| !ports.contains(port))?;
    (ports.len() > 1).then(|| {
        let message = format!(
            "{} has several ports, and none of them is {missing}: what comes in on that port fails",
            to.host
        );
        Finding::warning(Code::InvalidReference, message).hint("state port.number of the destination")
    })
}

/// What is wrong with a destination, and which part of it says so.
fn check(view: &View<'_>, destination: &Destination<'_>) -> Option<(BackendPart, Finding)> {
    let to = destination.to;
    let host = to.host.to_ascii_lowercase();
    let services = view.services(&host);
    if services.is_empty() && !is_covered(view, &host) {
        let message = format!("no Service or ServiceEntry has the host {host}; what is sent there fails");
        let hint = format!(
            "correct the host, or add a ServiceEntry; a short name is completed with the namespace {}",
            destination.key.namespace
        );
        return Some((BackendPart::Host, Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    if !to.subset.is_empty() && !has_subset(view, &host, &to.subset) {
        let message =
            format!("no DestinationRule for {host} defines subset {:?}; what is sent there fails", to.subset);
        let hint = "add the subset to the DestinationRule, or correct its name";
        return Some((BackendPart::Subset, Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    let port = to.port?;
    let known = services.iter().any(|service| service.ports.iter().any(|own| own.port == port));
    if !services.is_empty() && !known {
        let message = format!("{host} has no port {port}; what is sent there fails");
        let hint = "name a port of the service, not of its workloads";
        return Some((BackendPart::Port, Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    None
}

/// Whether a wildcard service covers a host.
pub(super) fn is_covered(view: &View<'_>, host: &str) -> bool {
    let dots = host.match_indices('.').map(|(position, _)| format!("*{}", &host[position..]));
    dots.chain(["*".to_owned()]).any(|pattern| !view.services(&pattern).is_empty())
}

fn has_subset(view: &View<'_>, host: &str, subset: &str) -> bool {
    let wildcards = view.wildcard_destination_rules().iter().filter(|rule| covers(&rule.host, host));
    view.destination_rules(host)
        .iter()
        .chain(wildcards)
        .any(|rule| rule.config.spec.subsets.iter().any(|own| own.name == subset))
}

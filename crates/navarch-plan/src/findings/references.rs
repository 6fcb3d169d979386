//! Destinations of VirtualServices that are not there: hosts nobody registers, subsets and ports that nobody defines.
//!
//! Requests that are sent there fail. The answers are gathered bucket by bucket, so an edit looks again only at the VirtualServices that
//! name something in a bucket that it changed.

use std::sync::Arc;

use navarch_model::Config;
use navarch_model::Name;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::networking::{Destination, Gateway, VirtualService};
use navarch_model::object::ObjectKey;
use navarch_snapshot::bound::BoundVirtualService;
use navarch_snapshot::host::{MESH_GATEWAY, covers, is_wildcard};
use navarch_snapshot::{BUCKETS, Bucket, Snapshot, View};

use super::Problem;
use crate::engine::{Cx, Engine, Gather, Root};

/// Finds destinations that are not there.
pub struct References {
    engine: Engine,
    root: Root<AllReferences>,
}

impl References {
    /// Nothing has been looked at yet.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let engine = Engine::new(snapshot);
        References { root: engine.root(&()), engine }
    }

    /// The problems of a snapshot.
    pub fn problems(&mut self, snapshot: &Arc<Snapshot>) -> Arc<Vec<Problem>> {
        self.engine.advance(snapshot.clone());
        let (problems, _) = self.root.get(&self.engine);
        if self.engine.needs_sweep() {
            self.engine.sweep();
        }
        problems
    }
}

struct AllReferences;

impl Gather for AllReferences {
    const NAME: &'static str = "references";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            (0..BUCKETS).flat_map(|bucket| (*cx.gather::<InBucket>(&bucket)).clone()).collect();
        problems.extend(cx.gather::<OfWildcards>(&()).iter().cloned());
        for gateway in cx.view().all_objects::<Gateway>() {
            let name = Name::from(format!("{}/{}", gateway.namespace, gateway.name));
            problems.extend(cx.gather::<OfGateway>(&name).iter().cloned());
        }
        problems
    }
}

/// VirtualServices of sidecars whose first host is in a bucket.
struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "references.bucket";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let rules = cx.view().virtual_services_in(*bucket).iter();
        // A VirtualService is filed under each of its hosts.
        let first = rules.flat_map(|(host, rules)| rules.iter().filter(|rule| is_first(rule, host)));
        first.flat_map(|rule| missing(cx.view(), rule)).collect()
    }
}

/// Whether it is the first exact host of the VirtualService. One with a wildcard host is looked at with those.
fn is_first(rule: &BoundVirtualService, host: &Name) -> bool {
    !rule.hosts.iter().any(|host| is_wildcard(host)) && rule.hosts.first() == Some(host)
}

/// VirtualServices of sidecars with wildcard hosts.
struct OfWildcards;

impl Gather for OfWildcards {
    const NAME: &'static str = "references.wildcards";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        cx.view().wildcard_virtual_services().iter().flat_map(|rule| missing(cx.view(), rule)).collect()
    }
}

/// VirtualServices of a gateway, `<namespace>/<name>`, that are not for sidecars too.
struct OfGateway;

impl Gather for OfGateway {
    const NAME: &'static str = "references.gateway";
    type Key = Name;
    type Output = Vec<Problem>;

    fn run(gateway: &Name, cx: &Cx<'_>) -> Vec<Problem> {
        let rules = cx.view().gateway_virtual_services(gateway).iter();
        let own = rules.filter(|rule| {
            // One that is bound to several is looked at with the first.
            let first = rule.gateways.iter().find(|name| &***name != MESH_GATEWAY);
            !rule.for_mesh() && first == Some(gateway)
        });
        own.flat_map(|rule| missing(cx.view(), rule)).collect()
    }
}

/// The destinations of a VirtualService that are not there.
fn missing(view: &View<'_>, rule: &BoundVirtualService) -> Vec<Problem> {
    let config = &**rule.config;
    // With delegates the routes are merged: their positions are not those in the file.
    let delegates = rule.sources.len() > 1;
    let mut problems = Vec::new();
    for (path, destination) in destinations(&config.spec) {
        if let Some((field, finding)) = check(view, config, destination) {
            let path = if delegates && path.starts_with("spec.http") {
                "spec.http".to_owned()
            } else {
                format!("{path}.{field}")
            };
            let key = ObjectKey::new(Kind::VirtualService, &config.namespace, &config.name);
            problems.push(Problem { key, path, finding });
        }
    }
    problems
}

/// All destinations, with the paths of the fields that name them.
fn destinations(spec: &VirtualService) -> Vec<(String, &Destination)> {
    let mut found = Vec::new();
    for (index, http) in spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (position, to) in http.route.iter().enumerate() {
            let to = to.destination.iter();
            found.extend(to.map(|to| (format!("{path}.route[{position}].destination"), to)));
        }
        found.extend(http.mirror.iter().map(|to| (format!("{path}.mirror"), to)));
        for (position, mirror) in http.mirrors.iter().enumerate() {
            let to = mirror.destination.iter();
            found.extend(to.map(|to| (format!("{path}.mirrors[{position}].destination"), to)));
        }
    }
    let tls = spec.tls.iter().enumerate().map(|(index, tls)| ("tls", index, &tls.route));
    let tcp = spec.tcp.iter().enumerate().map(|(index, tcp)| ("tcp", index, &tcp.route));
    for (field, index, routes) in tls.chain(tcp) {
        for (position, to) in routes.iter().enumerate() {
            let to = to.destination.iter();
            found.extend(to.map(|to| (format!("spec.{field}[{index}].route[{position}].destination"), to)));
        }
    }
    found
}

/// What is wrong with a destination, and which of its fields says so.
fn check(
    view: &View<'_>,
    config: &Config<VirtualService>,
    destination: &Destination,
) -> Option<(&'static str, Finding)> {
    let host = destination.host.to_ascii_lowercase();
    let services = view.services(&host);
    if services.is_empty() && !is_covered(view, &host) {
        let message = format!("no Service or ServiceEntry has the host {host}; what is sent there fails");
        let hint = format!(
            "correct the host, or add a ServiceEntry; a short name is completed with the namespace {}",
            config.namespace
        );
        return Some(("host", Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    if !destination.subset.is_empty() && !has_subset(view, &host, &destination.subset) {
        let message = format!(
            "no DestinationRule for {host} defines subset {:?}; what is sent there fails",
            destination.subset
        );
        let hint = "add the subset to the DestinationRule, or correct its name";
        return Some(("subset", Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    let port = destination.port.as_ref()?.number;
    let known = services.iter().any(|service| service.ports.iter().any(|own| u32::from(own.port) == port));
    if !services.is_empty() && !known {
        let message = format!("{host} has no port {port}; what is sent there fails");
        let hint = "name a port of the service, not of its workloads";
        return Some(("port.number", Finding::warning(Code::InvalidReference, message).hint(hint)));
    }
    None
}

/// Whether a wildcard service covers a host.
fn is_covered(view: &View<'_>, host: &str) -> bool {
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

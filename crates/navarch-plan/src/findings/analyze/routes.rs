//! Routes of VirtualServices that their gateways cannot serve.

use std::collections::BTreeSet;

use navarch_model::Hashed;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::listener::{GatewayListener, ListenerSet};
use navarch_model::networking::ServerTlsMode;
use navarch_model::object::ObjectKey;
use navarch_model::route::{ClientMatch, Parent, RouteSet};
use navarch_model::security::RequestAuthentication;
use navarch_snapshot::host::overlap;
use navarch_snapshot::{BUCKETS, Bucket, HostBucket, View};

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;
use crate::findings::references::{is_first, only_at_gateways};

/// What the names of headers start with that stand for claims of a token.
const CLAIMS: &str = "@request.auth.claims";

/// What is wrong with routes, bucket by bucket.
pub(super) fn all(cx: &Cx<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        (0..BUCKETS).flat_map(|bucket| (*cx.gather::<InBucket>(&bucket)).clone()).collect();
    problems.extend(cx.gather::<OfWildcards>(&()).iter().cloned());
    for gateway in cx.view().gateways_named() {
        for place in cx.view().gateway_buckets(gateway).iter() {
            problems.extend(cx.gather::<OfGateway>(&(gateway.clone(), place)).iter().cloned());
        }
    }
    // Routes of a delegate are looked at once for each of those that delegate to it.
    let mut known: BTreeSet<(ObjectKey, String, Finding)> = BTreeSet::new();
    problems
        .retain(|Problem { key, path, finding }| known.insert((key.clone(), path.clone(), finding.clone())));
    problems
}

/// Routes that are bound to a gateway, there or not, and not for sidecars too, in one bucket of hosts.
struct OfGateway;

impl Gather for OfGateway {
    const NAME: &'static str = "analyzers.gateway_routes";
    type Key = (Parent, HostBucket);
    type Output = Vec<Problem>;

    fn run((parent, place): &Self::Key, cx: &Cx<'_>) -> Vec<Problem> {
        only_at_gateways(cx.view(), parent, *place).flat_map(|set| problems(cx.view(), set)).collect()
    }
}

struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "analyzers.routes";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let sets = cx.view().routes_in(*bucket).iter();
        let first = sets.flat_map(|(host, sets)| sets.iter().filter(|set| is_first(set, host)));
        first.flat_map(|set| problems(cx.view(), set)).collect()
    }
}

struct OfWildcards;

impl Gather for OfWildcards {
    const NAME: &'static str = "analyzers.wildcard_routes";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        cx.view().wildcard_routes().iter().flat_map(|set| problems(cx.view(), set)).collect()
    }
}

fn problems(view: &View<'_>, set: &RouteSet) -> Vec<Problem> {
    // Routes of the Gateway API say what became of them in their status.
    if set.key().kind != Kind::VirtualService {
        return Vec::new();
    }
    let mut found = Found { set, problems: Vec::new() };
    let named: Vec<(usize, &ObjectKey)> = set
        .parents
        .iter()
        .enumerate()
        .filter_map(|(index, parent)| Some((index, parent.gateway()?)))
        .collect();
    let mut gateways: Vec<&Hashed<ListenerSet>> = Vec::new();
    for (index, key) in named {
        match view.gateways().find(|gateway| gateway.key() == key) {
            Some(gateway) => gateways.push(gateway),
            None => found.gateway_is_missing(view, index, key),
        }
    }
    found.parents_of_matches();
    found.claims(view, &gateways);
    // What is missing has been said; routes for sidecars do something all the same.
    if gateways.is_empty() || set.parents.iter().any(|parent| parent.gateway().is_none()) {
        return found.problems;
    }
    let listeners: Vec<&GatewayListener> =
        gateways.iter().flat_map(|gateway| &gateway.listeners).map(|listener| &***listener).collect();
    found.hosts_of_gateways(&listeners);
    found.ports_of_matches(&listeners);
    found.problems
}

struct Found<'a> {
    set: &'a RouteSet,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, key: &ObjectKey, path: String, finding: Finding) {
        self.problems.push(Problem { key: key.clone(), path, finding });
    }

    fn gateway_is_missing(&mut self, view: &View<'_>, index: usize, key: &ObjectKey) {
        let namesake = view.gateways().find(|gateway| gateway.key().name == key.name);
        let hint = match namesake {
            Some(other) => format!("write {}/{}", other.key().namespace, other.key().name),
            None => {
                "correct the name, or add the Gateway; one of another namespace is named as namespace/name"
                    .to_owned()
            }
        };
        let message = format!("there is no Gateway {}/{}", key.namespace, key.name);
        let finding = Finding::error(Code::InvalidReference, message).hint(hint);
        let own = self.set.key().clone();
        self.add(&own, format!("spec.gateways[{index}]"), finding);
    }

    /// Conditions on gateways that the routes are not bound to never hold.
    fn parents_of_matches(&mut self) {
        let mut found = Vec::new();
        for (origin, index, client) in clients(self.set) {
            let holds = |parent: &Parent| self.set.parents.contains(parent);
            if !client.parents.is_empty() && !client.parents.iter().any(holds) {
                found.push((origin.key.clone(), format!("{}.match[{index}].gateways", origin.field)));
            }
        }
        for (key, path) in found {
            let message = "none of these gateways is among those that the routes are bound to; the condition never holds";
            let finding =
                Finding::warning(Code::Unreachable, message).hint("add the gateway to spec.gateways");
            self.add(&key, path, finding);
        }
    }

    /// Conditions on claims of tokens that nobody checks: they never hold.
    fn claims(&mut self, view: &View<'_>, gateways: &[&Hashed<ListenerSet>]) {
        let root = view.mesh().config.root_namespace.as_str();
        let namespaces = gateways.iter().map(|gateway| &*gateway.key().namespace).chain([root]);
        let mut found = Vec::new();
        for rule in &self.set.http {
            for (index, matches) in rule.matches.iter().enumerate() {
                let mut names = matches.headers.keys().chain(matches.without_headers.keys());
                if names.any(|name| name.starts_with(CLAIMS)) {
                    found.push((rule.origin.key.clone(), format!("{}.match[{index}]", rule.origin.field)));
                }
            }
        }
        let is_checked = |namespace: &str| !view.objects::<RequestAuthentication>(namespace).is_empty();
        if found.is_empty() || namespaces.into_iter().any(is_checked) {
            return;
        }
        for (key, path) in found {
            let message =
                "no RequestAuthentication checks tokens at its gateways; a condition on a claim never holds";
            let finding = Finding::error(Code::InvalidReference, message)
                .hint("add a RequestAuthentication that selects the gateway");
            self.add(&key, path, finding);
        }
    }

    fn ports_of_matches(&mut self, listeners: &[&GatewayListener]) {
        let ports: BTreeSet<u16> = listeners.iter().map(|listener| listener.port).collect();
        let mut found = Vec::new();
        for (origin, index, client) in clients(self.set) {
            if let Some(port) = client.port.filter(|port| !ports.contains(port)) {
                found.push((origin.key.clone(), format!("{}.match[{index}].port", origin.field), port));
            }
        }
        for (key, path, port) in found {
            let message =
                format!("none of the gateways has a server with port {port}; the condition never holds");
            let finding = Finding::warning(Code::Unreachable, message)
                .hint("name the port of a server, or leave the condition out");
            self.add(&key, path, finding);
        }
    }

    /// Hosts that no server of the gateways has, and rules of a kind that none of the servers with the host
    /// can serve.
    fn hosts_of_gateways(&mut self, listeners: &[&GatewayListener]) {
        let set = self.set;
        let mut serving: Vec<&GatewayListener> = Vec::new();
        for host in &set.hosts {
            let with_host = |listener: &&&GatewayListener| {
                listener.hosts_for(set.namespace()).any(|own| overlap(own, host))
            };
            let of_host: Vec<&GatewayListener> = listeners.iter().filter(with_host).copied().collect();
            if of_host.is_empty() {
                let message =
                    format!("no server of its gateways has the host {host}; the routes do nothing for it");
                let finding = Finding::warning(Code::Unreachable, message)
                    .hint("add the host to a server, or correct it; servers may name the namespaces whose routes they take");
                self.add(set.key(), set.host_field(host).to_owned(), finding);
            }
            serving.extend(of_host);
        }
        if serving.is_empty() {
            return;
        }
        let passes_on = |listener: &&GatewayListener| {
            let mode = listener.tls.as_ref().map(|tls| tls.mode);
            matches!(mode, Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
        };
        let serves_http = |listener: &&GatewayListener| {
            let protocol = listener.protocol();
            protocol.is_http() || protocol == navarch_model::service::Protocol::Https && !passes_on(listener)
        };
        if !set.http.is_empty() && !serving.iter().any(serves_http) {
            let message = "the servers with its hosts pass bytes on; routes for HTTP do nothing there";
            let hint = "use tls or tcp routes, or let the server terminate TLS";
            let origin = set.http.first().map(|rule| rule.origin.clone());
            self.add_at(origin, "spec.http", message, hint);
        }
        if !set.tls.is_empty() && !serving.iter().any(passes_on) {
            let message =
                "no server with its hosts passes TLS through; routes by server name do nothing there";
            let hint = "use http routes, or tls.mode PASSTHROUGH on the server";
            self.add_at(set.tls.first().map(|rule| rule.origin.clone()), "spec.tls", message, hint);
        }
    }

    fn add_at(&mut self, origin: Option<navarch_model::Origin>, path: &str, message: &str, hint: &str) {
        let key = origin.map_or_else(|| self.set.key().clone(), |origin| origin.key);
        self.add(&key, path.to_owned(), Finding::warning(Code::Unreachable, message).hint(hint));
    }
}

/// The conditions on clients, with the rule and the position among its conditions.
fn clients(set: &RouteSet) -> impl Iterator<Item = (&navarch_model::Origin, usize, &ClientMatch)> {
    let http = set.http.iter().flat_map(|rule| {
        rule.matches.iter().enumerate().map(|(index, matches)| (&rule.origin, index, &matches.client))
    });
    let tls = set.tls.iter().flat_map(|rule| {
        rule.matches.iter().enumerate().map(|(index, matches)| (&rule.origin, index, &matches.client))
    });
    let tcp = set.tcp.iter().flat_map(|rule| {
        rule.matches.iter().enumerate().map(|(index, matches)| (&rule.origin, index, &matches.client))
    });
    http.chain(tls).chain(tcp)
}

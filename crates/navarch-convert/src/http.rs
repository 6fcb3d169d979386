//! Routes of requests.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::route::{
    Audience, Forward, HttpAction, HttpBackend, HttpMatch, HttpRule, Parent, PathMatch, RouteSet,
};
use navarch_model::service::Visibility;
use navarch_model::{Kind, Name, Origin};
use navarch_snapshot::host::is_wildcard;

use crate::condition;
use crate::filters;
use crate::gateway::MadeGateway;
use crate::manifest::{BackendRef, Filter, HttpRoute, HttpRule as Rule, Manifest, ParentRef, Spec, Timeouts};
use crate::report::{Report, below};
use crate::services::{Services, object_key};

const KIND: &str = "HTTPRoute";
const RULES_MAX: usize = 16;
const MATCHES_MAX: usize = 64;
const MATCHES_IN_ALL_MAX: usize = 128;
const HOSTS_MAX: usize = 16;

/// What routes are converted with.
pub struct Routes<'a, 's> {
    pub gateways: &'a BTreeMap<Parent, MadeGateway>,
    pub services: &'a mut Services,
    pub report: &'a mut Report<'s>,
}

/// A condition of a rule that was made, and where it is in the order.
#[derive(Clone, Debug)]
pub struct Placed {
    pub condition: HttpMatch,
    pub origin: Origin,
    /// Namespace and name of the route: what decides between conditions that are as specific.
    pub route: (String, String),
}

/// What a set became.
#[derive(Default)]
pub struct Converted {
    pub manifests: Vec<Manifest>,
    pub placed: Vec<Placed>,
}

impl Routes<'_, '_> {
    /// The routes of a set; several if one cannot have all of its rules.
    pub fn convert(&mut self, set: &RouteSet, name: &str) -> Converted {
        if set.http.is_empty() {
            return Converted::default();
        }
        let (parent_refs, plain_ports) = self.parents(set);
        let Some(hostnames) = self.hostnames(set) else { return Converted::default() };
        if parent_refs.is_empty() {
            return Converted::default();
        }
        let mut rules: Vec<(Rule, Vec<HttpMatch>, Origin)> = Vec::new();
        for rule in &set.http {
            rules.extend(self.rule(set, rule, plain_ports));
        }
        let namespace = set.namespace();
        let mut converted = Converted::default();
        for (index, chunk) in chunks(rules).into_iter().enumerate() {
            let name = if index == 0 { name.to_owned() } else { format!("{name}-{:02}", index + 1) };
            for (_, conditions, origin) in &chunk {
                converted.placed.extend(conditions.iter().map(|condition| Placed {
                    condition: condition.clone(),
                    origin: origin.clone(),
                    route: (namespace.to_string(), name.clone()),
                }));
            }
            let route = HttpRoute {
                parent_refs: parent_refs.clone(),
                hostnames: hostnames.clone(),
                rules: chunk.into_iter().map(|(rule, ..)| rule).collect(),
            };
            converted.manifests.push(Manifest::new(namespace, &name, Spec::HttpRoute(route)));
        }
        converted
    }

    /// What the set is attached to, and whether all ports are the default ones.
    fn parents(&mut self, set: &RouteSet) -> (Vec<ParentRef>, bool) {
        let mut refs: BTreeSet<ParentRef> = BTreeSet::new();
        let mut plain_ports = true;
        for parent in &set.parents {
            match parent {
                Parent::Mesh => {
                    refs.extend(self.services_of(set));
                    plain_ports = false;
                }
                Parent::Gateway(key) | Parent::Listener { gateway: key, .. } => {
                    match self.gateways.get(parent) {
                        Some(gateway) => {
                            refs.extend(gateway.for_requests(set.namespace()));
                            plain_ports &= gateway.listeners.iter().all(|listener| {
                                listener.has_default_port() || !matches!(listener.protocol, "HTTP" | "HTTPS")
                            });
                        }
                        None => {
                            let message = format!(
                                "{key} is not among what was read, or has nothing that can be converted"
                            );
                            let origin = Origin::field(set.key().clone(), "spec.gateways");
                            self.report.lost(&origin, message, "add it to what is converted");
                        }
                    }
                }
            }
        }
        (refs.into_iter().collect(), plain_ports)
    }

    /// The Services whose clients the set is for.
    fn services_of(&mut self, set: &RouteSet) -> Vec<ParentRef> {
        let mut refs = Vec::new();
        for (host, field) in set.hosts.iter().zip(&set.host_fields) {
            let origin = Origin::field(set.key().clone(), field);
            let Some(service) = self.services.get(host) else {
                let message = format!("{host} is not a Service of what was read; its clients are not routed");
                self.report.lost(&origin, message, "add the Service to what is converted");
                continue;
            };
            let is_own = service.namespace == *set.namespace();
            let only_own = match &set.export_to {
                Visibility::Public => false,
                Visibility::Nobody => true,
                Visibility::Namespaces(names) => names.iter().all(|name| name == set.namespace()),
            };
            let exact = set.audience == Audience::ProducerOrConsumer
                || (is_own && set.export_to == Visibility::Public)
                || (!is_own && only_own);
            if !exact {
                let message = match is_own {
                    true => {
                        format!("a route of the namespace of {host} is for all clients, and this one is not")
                    }
                    false => format!(
                        "a route of another namespace than that of {host} is for its own clients only"
                    ),
                };
                self.report.differs(
                    &origin,
                    message,
                    "move it to the namespace of the Service, or of the clients",
                );
            }
            let key = object_key(service);
            refs.push(ParentRef {
                group: Some(""),
                kind: Some("Service"),
                namespace: (key.namespace != *set.namespace()).then(|| key.namespace.to_string()),
                name: key.name.to_string(),
                section_name: None,
            });
        }
        refs
    }

    /// The hosts at gateways; none for all. Nothing if there are too many or they cannot be stated.
    fn hostnames(&mut self, set: &RouteSet) -> Option<Vec<String>> {
        let all = Vec::new();
        if !set.parents.iter().any(|parent| *parent != Parent::Mesh) {
            return Some(all);
        }
        if set.hosts.iter().any(|host| &**host == "*") {
            return Some(all);
        }
        let origin = Origin::field(set.key().clone(), "spec.hosts");
        let odd = |host: &&Name| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            is_wildcard(name) || name.parse::<std::net::IpAddr>().is_ok() || name.contains('/')
        };
        if set.hosts.len() > HOSTS_MAX || set.hosts.iter().any(|host| odd(&host)) {
            let message = "more than 16 hosts, addresses, and wildcards within a name have no counterpart";
            self.report.lost(&origin, message, "split the hosts, or state names");
            return None;
        }
        Some(set.hosts.iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    fn rule(
        &mut self,
        set: &RouteSet,
        rule: &HttpRule,
        plain_ports: bool,
    ) -> Option<(Rule, Vec<HttpMatch>, Origin)> {
        let HttpRule { origin, name: _, matches, action, headers, fault, cors } = rule;
        let everything = [HttpMatch::default()];
        let stated = if matches.is_empty() { &everything[..] } else { matches };
        let mut conditions = Vec::new();
        for condition in stated {
            conditions.push(condition::convert(condition, origin, self.report)?);
        }
        if conditions.len() > MATCHES_MAX {
            self.report.lost(origin, "a rule has at most 64 conditions; it is left out", "split the rule");
            return None;
        }
        if fault.is_some() {
            let message = "faults have no counterpart; they are left out";
            self.report.lost(&below(origin, "fault"), message, "remove the fault");
        }
        let matched: Vec<PathMatch> =
            conditions.iter().filter_map(|condition| condition.meant.path.clone()).collect();
        let mut out = Rule {
            matches: conditions.iter().map(|condition| condition.stated.clone()).collect(),
            filters: filters::headers(headers.as_ref(), &below(origin, "headers"), self.report)?,
            ..Rule::default()
        };
        if let Some(cors) = cors {
            out.filters.push(filters::cors(cors, origin, self.report)?);
        }
        match action {
            HttpAction::Redirect(redirect) => {
                out.filters.push(filters::redirect(redirect, &matched, plain_ports, origin, self.report)?);
            }
            HttpAction::Respond(_) => {
                let message = "answers without a backend have no counterpart; the rule is left out";
                self.report.lost(&below(origin, "directResponse"), message, "use a backend that answers");
                return None;
            }
            HttpAction::Forward(forward) => self.forward(set, forward, &matched, origin, &mut out)?,
        }
        let meant = conditions.into_iter().map(|condition| condition.meant).collect();
        Some((out, meant, origin.clone()))
    }

    fn forward(
        &mut self,
        set: &RouteSet,
        forward: &Forward,
        matched: &[PathMatch],
        origin: &Origin,
        out: &mut Rule,
    ) -> Option<()> {
        let Forward { backends, missing: _, rewrite, timeout, retries, mirrors, session: _ } = forward;
        if let Some(rewrite) = rewrite {
            out.filters.push(filters::rewrite(rewrite, matched, origin, self.report)?);
        }
        for mirror in mirrors {
            let to = mirror.backend.service()?;
            let reference = self.services.reference(to, set.key(), KIND, &mirror.origin, self.report);
            // Copies are nobody's answers: the rule can do without.
            out.filters.extend(reference.map(|backend| filters::mirror(mirror, backend)));
        }
        let mut timeouts = Timeouts {
            request: timeout.and_then(|time| filters::duration(time, origin, self.report)),
            ..Timeouts::default()
        };
        if let Some(retries) = retries {
            let (retry, each_try) = filters::retries(retries, origin, self.report);
            timeouts.backend_request = each_try.and_then(|time| filters::duration(time, origin, self.report));
            out.retry = Some(retry);
        }
        out.timeouts = (timeouts != Timeouts::default()).then_some(timeouts);
        out.backend_refs = self.backends(set, backends, origin)?;
        Some(())
    }

    fn backends(
        &mut self,
        set: &RouteSet,
        backends: &[HttpBackend],
        origin: &Origin,
    ) -> Option<Vec<BackendRef>> {
        self.report.limit_backends(backends.len(), origin)?;
        let mut refs = Vec::new();
        for HttpBackend { backend, weight, headers, field } in backends {
            let origin = Origin::field(origin.key.clone(), field);
            let Some(to) = backend.service() else {
                let message = "the backend cannot be used; the rule is left out";
                self.report.lost(&origin, message, "correct the backend");
                return None;
            };
            let Some(mut reference) = self.services.reference(to, set.key(), KIND, &origin, self.report)
            else {
                self.report.lost(&origin, "the rule is left out", "correct the destination");
                return None;
            };
            reference.filters = filters::headers(headers.as_ref(), &origin, self.report)?;
            // One destination takes everything, whatever its weight.
            reference.weight = (backends.len() > 1).then_some(*weight);
            refs.push(reference);
        }
        Some(refs)
    }
}

/// Rules in lists that a route may have.
fn chunks(rules: Vec<(Rule, Vec<HttpMatch>, Origin)>) -> Vec<Vec<(Rule, Vec<HttpMatch>, Origin)>> {
    let mut chunks: Vec<Vec<(Rule, Vec<HttpMatch>, Origin)>> = Vec::new();
    let mut matches = 0;
    for rule in rules {
        let full = chunks.last().is_none_or(|chunk| chunk.len() == RULES_MAX)
            || matches + rule.1.len() > MATCHES_IN_ALL_MAX;
        if full {
            chunks.push(Vec::new());
            matches = 0;
        }
        matches += rule.1.len();
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(rule);
        }
    }
    chunks
}

/// A redirect to HTTPS, for listeners that do nothing else.
pub fn https_redirect(gateway: &MadeGateway) -> Option<Manifest> {
    let parent_refs = gateway.redirecting();
    if parent_refs.is_empty() {
        return None;
    }
    let redirect = crate::manifest::Redirect {
        scheme: Some("https".to_owned()),
        status_code: 301,
        ..crate::manifest::Redirect::default()
    };
    let filter = Filter { r#type: "RequestRedirect", request_redirect: Some(redirect), ..Filter::default() };
    let path = crate::manifest::TypedValue { r#type: "PathPrefix", value: "/".to_owned() };
    let matches = vec![crate::manifest::Match { path, ..crate::manifest::Match::default() }];
    let rule = Rule { matches, filters: vec![filter], ..Rule::default() };
    let route = HttpRoute { parent_refs, hostnames: Vec::new(), rules: vec![rule] };
    let name = format!("{}-to-https", gateway.name());
    Some(Manifest::new(gateway.namespace(), &name, Spec::HttpRoute(route)))
}

/// A name for the route of a set: that of the object, with a number if it has several.
pub fn route_name(set: &RouteSet) -> String {
    let key = set.key();
    match key.kind {
        Kind::Ingress => format!("{}-{}", key.name, set.precedence.position),
        _ => key.name.to_string(),
    }
}

//! VirtualServices as sets of routes: short names become full names, delegates are merged in.

use std::collections::BTreeSet;

use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::networking::{Delegate, Destination, HttpRoute, VirtualService};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::{BackendFields, HttpRule, Parent, RouteSet, RuleOrder};
use navarch_model::status::{Condition, ConditionType, ParentStatus};
use navarch_model::{Name, Origin, Precedence};

use super::delegate::{Merged, merge_routes};
use super::lower::{self, Dialect, RuleOrigin};
use super::lowered::{Lowered, exported};

use crate::host::{qualify, qualify_gateway};
use crate::outcome::Outcome;
use crate::registry::store::Reader;

/// Lowers a VirtualService. One without hosts is a delegate, which has no effect by itself.
pub(crate) fn virtual_service(reader: &Reader<'_>, key: &ObjectKey) -> Lowered {
    let Some(object) = reader.object(key) else { return Lowered::default() };
    let Some(spec) = object.spec::<VirtualService>() else { return Lowered::default() };
    if spec.hosts.is_empty() {
        return Lowered::default();
    }
    let mut spec = (***spec).clone();
    qualify_all(&mut spec, &key.namespace, reader.domain());
    let dialect = Dialect::of(&object.metadata.annotations);
    let mut findings = Vec::new();
    let VirtualService { hosts, gateways, http, tls, tcp, export_to } = spec;
    let set = RouteSet {
        precedence: Precedence {
            created_at: object.metadata.creation_timestamp,
            key: key.clone(),
            position: 0,
        },
        hosts: hosts.iter().map(|host| Name::from(host.as_str())).collect(),
        host_fields: (0..hosts.len()).map(|index| Name::from(format!("spec.hosts[{index}]"))).collect(),
        parents: match gateways.as_slice() {
            [] => vec![Parent::Mesh],
            stated => stated.iter().map(|gateway| Parent::parse(gateway)).collect(),
        },
        export_to: exported(reader, &export_to, &key.namespace),
        audience: dialect.audience(),
        host_meaning: dialect.host_meaning(),
        order: RuleOrder::AsWritten,
        backend_fields: BackendFields::Destination,
        operation: key.name.clone(),
        http: http_rules(reader, object, http, dialect, &mut findings),
        tls: lower::tls_rules(key, tls),
        tcp: lower::tcp_rules(key, tcp),
    };
    let mut lowered = Lowered::of(vec![set]);
    lowered.outcome = outcome(reader, &lowered, &findings);
    Lowered { findings, ..lowered }
}

/// What becomes of routes: with their delegates, and at each gateway that they are attached to.
fn outcome(reader: &Reader<'_>, routes: &Lowered, findings: &[Finding]) -> Outcome {
    let condition = |ty: ConditionType, reason, finding: &Finding| {
        Condition::new(ty, !ty.is_good(), reason, format!("{}: {}", finding.path, finding.message))
    };
    let missing = findings.iter().find(|finding| finding.code == Code::InvalidReference);
    let left_out = findings.iter().find(|finding| finding.code == Code::Unreachable);
    let missing = missing.map(|found| condition(ConditionType::ResolvedRefs, "DelegateNotUsable", found));
    let left_out = left_out.map(|found| condition(ConditionType::PartiallyInvalid, "RoutesLeftOut", found));

    let gateways = routes.sets.iter().flat_map(|set| &set.parents).filter_map(Parent::gateway);
    let gateways: BTreeSet<&ObjectKey> = gateways.collect();
    let parents = gateways.into_iter().map(|parent| {
        let condition = match reader.exists(parent) {
            true => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
            false => {
                let message = format!("there is no {parent}");
                Condition::new(ConditionType::Accepted, false, "NoMatchingParent", message)
            }
        };
        ParentStatus { parent: parent.clone(), section: None, port: None, conditions: vec![condition] }
    });
    Outcome {
        conditions: missing.into_iter().chain(left_out).collect(),
        parents: parents.collect(),
        ..Outcome::default()
    }
}

/// Makes every host and gateway that the specification names a full name.
fn qualify_all(spec: &mut VirtualService, namespace: &str, domain: &str) {
    let host = |host: &mut String| *host = qualify(host, namespace, domain);
    let gateways = |gateways: &mut Vec<String>| {
        for gateway in gateways {
            *gateway = qualify_gateway(gateway, namespace);
        }
    };
    spec.hosts.iter_mut().for_each(host);
    gateways(&mut spec.gateways);
    for route in &mut spec.http {
        route.match_.iter_mut().for_each(|condition| gateways(&mut condition.gateways));
        http_destinations(route, |destination| host(&mut destination.host));
    }
    for route in &mut spec.tls {
        route.match_.iter_mut().for_each(|condition| gateways(&mut condition.gateways));
        route.route.iter_mut().filter_map(|to| to.destination.as_mut()).for_each(|to| host(&mut to.host));
    }
    for route in &mut spec.tcp {
        route.match_.iter_mut().for_each(|condition| gateways(&mut condition.gateways));
        route.route.iter_mut().filter_map(|to| to.destination.as_mut()).for_each(|to| host(&mut to.host));
    }
}

fn http_destinations(route: &mut HttpRoute, mut each: impl FnMut(&mut Destination)) {
    route.route.iter_mut().filter_map(|to| to.destination.as_mut()).for_each(&mut each);
    route.mirror.iter_mut().for_each(&mut each);
    route.mirrors.iter_mut().filter_map(|to| to.destination.as_mut()).for_each(&mut each);
}

/// The rules for requests. Routes that delegate are replaced by the routes of their delegates.
fn http_rules(
    reader: &Reader<'_>,
    root: &Object,
    routes: Vec<HttpRoute>,
    dialect: Dialect,
    findings: &mut Vec<Finding>,
) -> Vec<HttpRule> {
    let mut rules = Vec::with_capacity(routes.len());
    for (index, route) in routes.into_iter().enumerate() {
        let own = Origin::field(root.key.clone(), &format!("spec.http[{index}]"));
        let Some(delegate) = &route.delegate else {
            rules.push(dialect.http_rule(RuleOrigin::of(own), route));
            continue;
        };
        let path = format!("{}.delegate", own.field);
        let report = |code: Code, message: String, hint: &str| {
            let finding = Finding::warning(code, message).of(root.key.clone()).at(root.locate(&path));
            finding.path(path.clone()).hint(hint)
        };
        let (key, spec) = match find_delegate(reader, delegate, &root.key.namespace) {
            Ok(found) => found,
            Err((message, hint)) => {
                findings.push(report(Code::InvalidReference, message, hint));
                continue;
            }
        };
        let merged = merge_routes(&route, &spec.http);
        let dropped = spec.http.len() - merged.len();
        if dropped > 0 {
            let message = format!(
                "{dropped} of {} routes of {key} are left out: not every one of their matches lies within what this route matches",
                spec.http.len()
            );
            findings.push(report(
                Code::Unreachable,
                message,
                "make each of the delegate's matches narrower than this route's, or put those that are into a route of their own",
            ));
        }
        rules.extend(merged.into_iter().map(|merged| {
            let Merged { index, route, inherits_mirror, inherits_mirrors } = merged;
            let leaf = Origin::field(key.clone(), &format!("spec.http[{index}]"));
            let mirror_origin = |inherited| if inherited { own.clone() } else { leaf.clone() };
            let origin = RuleOrigin {
                mirror: mirror_origin(inherits_mirror),
                mirrors: mirror_origin(inherits_mirrors),
                rule: leaf.clone(),
            };
            dialect.http_rule(origin, route)
        }));
    }
    rules.shrink_to_fit();
    rules
}

type Rejection = (String, &'static str);

/// The delegate, with its names qualified, if it is there, is a delegate and is visible to the root.
fn find_delegate(
    reader: &Reader<'_>,
    delegate: &Delegate,
    namespace: &Name,
) -> Result<(ObjectKey, VirtualService), Rejection> {
    let owner = if delegate.namespace.is_empty() { &**namespace } else { delegate.namespace.as_str() };
    let key = ObjectKey::new(Kind::VirtualService, owner, &delegate.name);
    let found = reader.object(&key).and_then(|object| object.spec::<VirtualService>());
    let Some(spec) = found else {
        let message = format!("{key} does not exist; the route is left out");
        return Err((message, "create it without hosts, or correct the reference"));
    };
    if !spec.hosts.is_empty() {
        let message = format!("{key} has hosts, so it is not a delegate; the route is left out");
        return Err((message, "remove its hosts and gateways"));
    }
    if !exported(reader, &spec.export_to, &key.namespace).includes(namespace) {
        let message = format!("{key} is not exported to namespace {namespace}; the route is left out");
        return Err((message, "add the namespace to its exportTo"));
    }
    let mut spec: VirtualService = (***spec).clone();
    qualify_all(&mut spec, owner, reader.domain());
    Ok((key, spec))
}

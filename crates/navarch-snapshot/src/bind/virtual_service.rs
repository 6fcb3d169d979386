//! VirtualServices: short names become full names, delegates are merged in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::networking::{Delegate, Destination, HttpMatchRequest, HttpRoute, VirtualService};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

use super::delegate::merge_routes;
use crate::bound::{BoundVirtualService, DestinationUse};
use crate::host::{MESH_GATEWAY, qualify, qualify_gateway};
use crate::registry::store::Reader;
use crate::registry::visibility;
use crate::tables::typed;

/// A VirtualService as routing uses it, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BoundRoutes {
    pub rule: Option<Arc<Hashed<BoundVirtualService>>>,
    /// Where it sends the traffic of sidecars.
    pub uses: Vec<Arc<Hashed<DestinationUse>>>,
    pub findings: Vec<Finding>,
}

/// Binds a VirtualService. One without hosts is a delegate, which has no effect by itself.
pub(crate) fn virtual_service(reader: &Reader<'_>, key: &ObjectKey) -> BoundRoutes {
    let Some(object) = reader.object(key) else { return BoundRoutes::default() };
    let Some(mut config) = typed::<VirtualService>(object) else { return BoundRoutes::default() };
    if config.spec.hosts.is_empty() {
        return BoundRoutes::default();
    }
    let mut findings = Vec::new();
    let mut sources = vec![(key.namespace.clone(), key.name.clone())];
    qualify_all(&mut config.spec, &key.namespace, reader.domain());
    if config.spec.http.iter().any(|route| route.delegate.is_some()) {
        let routes = std::mem::take(&mut config.spec.http);
        config.spec.http = with_delegates(reader, object, routes, &mut sources, &mut findings);
    }
    let hosts = config.spec.hosts.iter().map(|host| Name::from(host.as_str())).collect();
    let gateways = match config.spec.gateways.as_slice() {
        [] => vec![Name::from(MESH_GATEWAY)],
        stated => stated.iter().map(|gateway| Name::from(gateway.as_str())).collect(),
    };
    let export_to = exported(reader, &config.spec, &key.namespace);
    let config = Arc::new(Hashed::new(config));
    let rule = BoundVirtualService { config, hosts, gateways, export_to, sources };
    let uses = if rule.for_mesh() { destination_uses(&rule) } else { Vec::new() };
    BoundRoutes { rule: Some(Arc::new(Hashed::new(rule))), uses, findings }
}

fn exported(reader: &Reader<'_>, spec: &VirtualService, namespace: &Name) -> Visibility {
    let defaults = &reader.mesh().config.default_virtual_service_export_to;
    visibility(spec.export_to.iter().map(String::as_str), defaults, namespace)
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

/// Replaces routes that delegate by the routes of their delegates.
fn with_delegates(
    reader: &Reader<'_>,
    root: &Object,
    routes: Vec<HttpRoute>,
    sources: &mut Vec<(Name, Name)>,
    findings: &mut Vec<Finding>,
) -> Vec<HttpRoute> {
    let mut merged = Vec::new();
    for (index, route) in routes.into_iter().enumerate() {
        let Some(delegate) = &route.delegate else {
            merged.push(route);
            continue;
        };
        let path = format!("spec.http[{index}].delegate");
        let report = |code: Code, message: String, hint: &str| {
            let finding = Finding::warning(code, message).of(root.key.clone()).at(root.locate(&path));
            finding.path(path.clone()).hint(hint)
        };
        let (namespace, spec) = match find_delegate(reader, delegate, &root.key.namespace) {
            Ok(found) => found,
            Err((message, hint)) => {
                findings.push(report(Code::InvalidReference, message, hint));
                continue;
            }
        };
        let source = (namespace, Name::from(delegate.name.as_str()));
        let (routes, dropped) = merge_routes(&route, &spec.http);
        if dropped > 0 {
            let message = format!(
                "{dropped} of {} routes of VirtualService {}/{} match nothing that this route matches; they are left out",
                spec.http.len(),
                source.0,
                source.1
            );
            findings.push(report(
                Code::Unreachable,
                message,
                "make the delegate's match narrower than this route's",
            ));
        }
        if !sources.contains(&source) {
            sources.push(source);
        }
        merged.extend(routes);
    }
    merged
}

type Rejection = (String, &'static str);

/// The delegate, with its names qualified, if it is there, is a delegate and is visible to the root.
fn find_delegate(
    reader: &Reader<'_>,
    delegate: &Delegate,
    namespace: &Name,
) -> Result<(Name, VirtualService), Rejection> {
    let owner = if delegate.namespace.is_empty() { &**namespace } else { delegate.namespace.as_str() };
    let key = ObjectKey::new(Kind::VirtualService, owner, &delegate.name);
    let found = reader.object(&key).and_then(|object| object.spec::<VirtualService>());
    let Some(spec) = found else {
        let message =
            format!("VirtualService {owner}/{} does not exist; the route is left out", delegate.name);
        return Err((message, "create it without hosts, or correct the reference"));
    };
    if !spec.hosts.is_empty() {
        let message = format!(
            "VirtualService {owner}/{} has hosts, so it is no delegate; the route is left out",
            delegate.name
        );
        return Err((message, "remove its hosts and gateways"));
    }
    if !exported(reader, spec, &key.namespace).includes(namespace) {
        let message = format!(
            "VirtualService {owner}/{} is not exported to namespace {namespace}; the route is left out",
            delegate.name
        );
        return Err((message, "add the namespace to its exportTo"));
    }
    let mut spec: VirtualService = (***spec).clone();
    qualify_all(&mut spec, owner, reader.domain());
    Ok((key.namespace, spec))
}

/// Which hosts the routes send traffic to, on which ports, for clients in which namespaces.
fn destination_uses(rule: &BoundVirtualService) -> Vec<Arc<Hashed<DestinationUse>>> {
    type Sources = Option<BTreeSet<Name>>;
    let mut uses: BTreeMap<(Name, Sources), BTreeSet<u16>> = BTreeMap::new();
    let mut add = |to: &Destination, sources: &Sources| {
        let port = to.port.as_ref().and_then(|port| u16::try_from(port.number).ok()).unwrap_or(0);
        uses.entry((Name::from(to.host.as_str()), sources.clone())).or_default().insert(port);
    };
    let spec = &rule.config.spec;
    for route in &spec.http {
        let sources = source_namespaces(&route.match_);
        let mirrors = route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref());
        let destinations = route.route.iter().filter_map(|to| to.destination.as_ref());
        destinations.chain(&route.mirror).chain(mirrors).for_each(|to| add(to, &sources));
    }
    let tls = spec.tls.iter().flat_map(|route| &route.route);
    let tcp = spec.tcp.iter().flat_map(|route| &route.route);
    tls.chain(tcp).filter_map(|to| to.destination.as_ref()).for_each(|to| add(to, &None));
    let uses = uses.into_iter().map(|((host, source_namespaces), ports)| DestinationUse {
        host,
        ports,
        source_namespaces,
        namespace: rule.config.namespace.clone(),
        name: rule.config.name.clone(),
        created_at: rule.config.created_at,
        virtual_hosts: rule.hosts.clone(),
        export_to: rule.export_to.clone(),
    });
    uses.map(Hashed::new).map(Arc::new).collect()
}

/// The namespaces of clients that a route is for, if one of its conditions names one.
fn source_namespaces(conditions: &[HttpMatchRequest]) -> Option<BTreeSet<Name>> {
    let stated = conditions.iter().map(|condition| condition.source_namespace.as_str());
    let names: BTreeSet<Name> = stated.filter(|name| !name.is_empty()).map(Name::from).collect();
    (!names.is_empty()).then_some(names)
}

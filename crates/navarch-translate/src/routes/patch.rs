//! EnvoyFilter on routes: route configurations, virtual hosts and single routes.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use navarch_envoy::dynamic::{self, Lists};
use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::route::v3::route::Action;
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use navarch_envoy::{Resource, XdsType};
use navarch_model::networking::{
    ApplyTo, EnvoyConfigObjectPatch, ObjectTypes, PatchContext, PatchOperation, RouteConfigurationMatch,
    RouteMatchAction,
};
use navarch_model::values::Json;
use navarch_model::{Hashed, Origin};
use prost::{Message, Name};

use crate::encoded::Encoded;
use crate::guard::{self, Contribution};
use crate::patching::{Fates, Patched, Reach, Trace};
use crate::pure::{Pure, Sealed};

/// What is changed, and to what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteValue {
    Configuration(Encoded<RouteConfiguration>),
    Host(Encoded<VirtualHost>),
    Route(Encoded<Route>),
}

/// A change to routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePatch {
    pub origin: Origin,
    pub context: PatchContext,
    /// `None` matches everything.
    pub matches: Option<RouteConfigurationMatch>,
    pub operation: PatchOperation,
    pub value: RouteValue,
}

/// Changes in the order in which they are made.
pub type RoutePatches = Arc<Hashed<Vec<RoutePatch>>>;

impl Contribution for RoutePatch {
    fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl RoutePatch {
    /// Reads a patch; nothing if it is not for routes, or its value does not fit (validation has said so).
    pub fn parse(origin: Origin, patch: &EnvoyConfigObjectPatch) -> Option<Self> {
        let change = patch.patch.as_ref()?;
        let json = change.value.as_ref();
        let value = match patch.apply_to {
            ApplyTo::RouteConfiguration => RouteValue::Configuration(read(json)?),
            ApplyTo::VirtualHost => RouteValue::Host(read(json)?),
            ApplyTo::HttpRoute => RouteValue::Route(read(json)?),
            _ => return None,
        };
        let operation = match (change.operation, &value) {
            (operation, RouteValue::Route(_)) => operation,
            // Only routes have an order to insert by.
            (
                PatchOperation::InsertFirst | PatchOperation::InsertBefore | PatchOperation::InsertAfter,
                RouteValue::Configuration(_) | RouteValue::Host(_),
            ) => PatchOperation::Add,
            (operation, _) => operation,
        };
        let matches = patch.match_.as_ref();
        Some(RoutePatch {
            origin,
            context: matches.map_or(PatchContext::Any, |matches| matches.context),
            matches: matches.and_then(|matches| match &matches.object_types {
                Some(ObjectTypes::RouteConfiguration(wanted)) => Some(wanted.clone()),
                _ => None,
            }),
            operation,
            value,
        })
    }

    /// How lists are merged; nothing if this is not a merge.
    fn lists(&self) -> Option<Lists> {
        match self.operation {
            PatchOperation::Merge => Some(Lists::Append),
            PatchOperation::MergeAndReplaceList => Some(Lists::Replace),
            _ => None,
        }
    }

    fn is_for_host(&self, host: &VirtualHost) -> bool {
        let Some(wanted) = self.matches.as_ref().and_then(|matches| matches.vhost.as_ref()) else {
            return true;
        };
        (wanted.name.is_empty() || wanted.name == host.name)
            && (wanted.domain_name.is_empty() || host.domains.contains(&wanted.domain_name))
    }

    fn names_route(&self) -> bool {
        let host = self.matches.as_ref().and_then(|matches| matches.vhost.as_ref());
        host.is_some_and(|host| host.route.is_some())
    }

    /// A removed route matches only patches that match every route.
    fn is_for_route(&self, route: Option<&Route>) -> bool {
        let host = self.matches.as_ref().and_then(|matches| matches.vhost.as_ref());
        let Some(wanted) = host.and_then(|host| host.route.as_ref()) else { return true };
        let Some(route) = route else { return false };
        if !wanted.name.is_empty() && wanted.name != route.name {
            return false;
        }
        match (wanted.action, &route.action) {
            (RouteMatchAction::Any, _) => true,
            (wanted, Some(Action::Route(_))) => wanted == RouteMatchAction::Route,
            (wanted, Some(Action::Redirect(_))) => wanted == RouteMatchAction::Redirect,
            (wanted, Some(Action::DirectResponse(_))) => wanted == RouteMatchAction::DirectResponse,
            _ => true,
        }
    }
}

fn read<M: Message + Name + Default>(json: Option<&Json>) -> Option<Encoded<M>> {
    let Some(json) = json else { return Some(Encoded::new(M::default())) };
    let (message, _) = from_json_lenient(&M::full_name(), &json.to_serde()).ok()?;
    Some(Encoded::new(M::decode(dynamic::encode(&message)).ok()?))
}

fn merge<M: Message + Name + Default>(base: &mut M, patch: &M, lists: Lists) {
    let merged = || {
        let mut merged = dynamic::from_typed(base).ok()?;
        dynamic::merge(&mut merged, &dynamic::from_typed(patch).ok()?, lists).ok()?;
        M::decode(dynamic::encode(&merged)).ok()
    };
    if let Some(merged) = merged() {
        *base = merged;
    }
}

/// Whose route configuration it is, as far as patches ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PatchTarget {
    pub context: PatchContext,
    /// Gateways: the port numbers of the servers behind the port of the route configuration.
    pub server_ports: BTreeSet<u16>,
}

impl PatchTarget {
    fn is_meant_by(&self, patch: &RoutePatch, name: &str) -> bool {
        if patch.context != PatchContext::Any && patch.context != self.context {
            return false;
        }
        let Some(wanted) = &patch.matches else { return true };
        if !wanted.name.is_empty() && wanted.name != name {
            return false;
        }
        if self.context != PatchContext::Gateway {
            return wanted.port_number == 0 || wanted.port_number == port_of(name);
        }
        let parts = gateway_parts(name);
        (wanted.port_name.is_empty() || wanted.port_name == parts.port_name)
            && (wanted.gateway.is_empty() || wanted.gateway == parts.gateway)
            && (wanted.port_number == 0
                || self.server_ports.iter().any(|port| u32::from(*port) == wanted.port_number))
    }

    /// Makes all changes to a route configuration but those that would make Envoy refuse it.
    pub fn apply(&self, patches: &[RoutePatch], configuration: &mut RouteConfiguration) -> Fates {
        let patches: Vec<&RoutePatch> =
            patches.iter().filter(|patch| self.is_meant_by(patch, &configuration.name)).collect();
        if patches.is_empty() {
            return Fates::default();
        }
        let name = format!("route configuration {}", configuration.name);
        let (patched, fates) = guard::accepted(&name, &patches, |patches, trace| {
            Some(changed(configuration.clone(), patches, trace))
        });
        if let Some(patched) = patched {
            *configuration = patched;
        }
        fates
    }
}

fn changed(
    mut configuration: RouteConfiguration,
    patches: &[&RoutePatch],
    trace: &Trace,
) -> RouteConfiguration {
    for patch in patches {
        trace.reach(&patch.origin, Reach::Resource);
        if let (RouteValue::Configuration(value), Some(lists)) = (&patch.value, patch.lists()) {
            trace.did(&patch.origin, "changes the route configuration");
            merge(&mut configuration, value, lists);
        }
    }
    let mut removed: BTreeSet<String> = BTreeSet::new();
    for host in &mut configuration.virtual_hosts {
        if !patch_host(patches, host, trace) {
            removed.insert(host.name.clone());
        }
    }
    for patch in patches {
        if let (RouteValue::Host(value), PatchOperation::Add) = (&patch.value, patch.operation) {
            trace.did(&patch.origin, format!("adds the virtual host {}", value.name));
            configuration.virtual_hosts.push(VirtualHost::clone(value));
        }
    }
    configuration.virtual_hosts.retain(|host| !removed.contains(&host.name));
    configuration
}

/// Changes a virtual host; false if it is to be removed.
fn patch_host(patches: &[&RoutePatch], host: &mut VirtualHost, trace: &Trace) -> bool {
    for patch in patches.iter().filter(|patch| patch.is_for_host(host)) {
        trace.reach(&patch.origin, Reach::Chain);
    }
    for patch in patches {
        let RouteValue::Host(value) = &patch.value else { continue };
        if !patch.is_for_host(host) {
            continue;
        }
        match patch.operation {
            PatchOperation::Remove => {
                trace.did(&patch.origin, format!("removes the virtual host {}", host.name));
                return false;
            }
            PatchOperation::Replace => {
                trace.did(&patch.origin, format!("replaces the virtual host {}", host.name));
                *host = VirtualHost::clone(value);
            }
            _ => {
                if let Some(lists) = patch.lists() {
                    trace.did(&patch.origin, format!("changes the virtual host {}", host.name));
                    merge(host, value, lists);
                }
            }
        }
    }
    patch_routes(patches, host, trace);
    true
}

fn patch_routes(patches: &[&RoutePatch], host: &mut VirtualHost, trace: &Trace) {
    let of_routes: Vec<(&RoutePatch, &Encoded<Route>)> = patches
        .iter()
        .filter_map(|patch| match &patch.value {
            RouteValue::Route(value) if patch.is_for_host(host) => Some((*patch, value)),
            _ => None,
        })
        .collect();
    if of_routes.is_empty() {
        return;
    }
    let mut routes: Vec<Option<Route>> = std::mem::take(&mut host.routes).into_iter().map(Some).collect();
    for slot in &mut routes {
        patch_route(&of_routes, slot, &host.name, trace);
    }
    for (patch, value) in of_routes {
        if insert(patch, Route::clone(value), &mut routes) {
            let made = format!("adds the route {:?} to the virtual host {}", value.name, host.name);
            trace.did(&patch.origin, made);
        }
    }
    host.routes = routes.into_iter().flatten().collect();
}

fn patch_route(
    patches: &[(&RoutePatch, &Encoded<Route>)],
    slot: &mut Option<Route>,
    host: &str,
    trace: &Trace,
) {
    for (patch, value) in patches {
        if !patch.is_for_route(slot.as_ref()) {
            continue;
        }
        if patch.operation == PatchOperation::Remove {
            trace.did(&patch.origin, format!("removes a route from the virtual host {host}"));
            *slot = None;
            return;
        }
        if let (Some(route), Some(lists)) = (slot.as_mut(), patch.lists()) {
            trace.did(&patch.origin, format!("changes routes of the virtual host {host}"));
            merge(route, value, lists);
        }
    }
}

/// Adds a route; relative to a route if the patch names one, which then has to be there. Whether it did.
fn insert(patch: &RoutePatch, route: Route, routes: &mut Vec<Option<Route>>) -> bool {
    let found = || routes.iter().position(|other| patch.is_for_route(other.as_ref()));
    let position = match patch.operation {
        PatchOperation::Add => Some(routes.len()),
        PatchOperation::InsertAfter if patch.names_route() => found().map(|index| index + 1),
        PatchOperation::InsertAfter => Some(routes.len()),
        PatchOperation::InsertBefore if patch.names_route() => found(),
        PatchOperation::InsertFirst if patch.names_route() => found().map(|_| 0),
        PatchOperation::InsertBefore | PatchOperation::InsertFirst => Some(0),
        _ => None,
    };
    if let Some(position) = position {
        routes.insert(position.min(routes.len()), Some(route));
    }
    position.is_some()
}

/// The port in the name of a sidecar's route configuration; zero if there is none.
fn port_of(name: &str) -> u32 {
    let port = if name.starts_with("inbound|") { name.split('|').nth(1).unwrap_or_default() } else { name };
    port.parse().unwrap_or(0)
}

/// What the name of a gateway's route configuration says.
#[derive(Default)]
struct GatewayParts<'a> {
    port: u16,
    port_name: &'a str,
    gateway: String,
}

fn gateway_parts(name: &str) -> GatewayParts<'_> {
    if let Some(port) = name.strip_prefix("http.") {
        return GatewayParts { port: port.parse().unwrap_or(0), ..GatewayParts::default() };
    }
    let parts: Vec<_> = name.split('.').collect();
    match parts.as_slice() {
        ["https", port, port_name, gateway, namespace] => GatewayParts {
            port: port.parse().unwrap_or(0),
            port_name,
            gateway: format!("{namespace}/{gateway}"),
        },
        _ => GatewayParts::default(),
    }
}

/// The port number that the name of a gateway's route configuration says; zero if none.
pub fn gateway_port(name: &str) -> u16 {
    gateway_parts(name).port
}

/// The key of [`PatchedRoutes`].
#[derive(Clone, Debug)]
pub struct PatchedRoutesInput {
    pub resource: Arc<Resource>,
    pub target: PatchTarget,
    pub patches: RoutePatches,
}

impl Hash for PatchedRoutesInput {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let PatchedRoutesInput { resource, target, patches } = self;
        // The version is the content.
        (resource.name(), resource.version(), target, patches).hash(state);
    }
}

/// A route configuration with all changes made.
pub struct PatchedRoutes;

impl Sealed for PatchedRoutes {}

impl Pure for PatchedRoutes {
    const NAME: &'static str = "routes.patched";
    type Input = PatchedRoutesInput;
    type Output = Patched<Arc<Resource>>;

    fn run(input: &PatchedRoutesInput) -> Patched<Arc<Resource>> {
        let Ok(mut configuration) = RouteConfiguration::decode(input.resource.body()) else {
            return Patched::new(input.resource.clone(), Fates::default());
        };
        let fates = input.target.apply(&input.patches, &mut configuration);
        let made = Resource::of(XdsType::Rds, configuration.name.as_str(), &configuration.encode_to_vec());
        Patched::new(Arc::new(made), fates)
    }

    fn fates(output: &Patched<Arc<Resource>>) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::networking::{EnvoyConfigObjectMatch, Patch};
    use navarch_model::{Kind, ObjectKey};

    fn patch(
        apply_to: ApplyTo,
        context: PatchContext,
        matches: serde_json::Value,
        operation: PatchOperation,
        value: serde_json::Value,
    ) -> RoutePatch {
        let text = |key: &str| matches.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let route = matches.get("route").map(|name| navarch_model::networking::RouteMatch {
            name: name.as_str().unwrap_or_default().to_owned(),
            ..Default::default()
        });
        let vhost = (matches.get("vhost").is_some() || route.is_some()).then(|| {
            navarch_model::networking::VirtualHostMatch { name: text("vhost"), route, ..Default::default() }
        });
        let wanted = RouteConfigurationMatch {
            port_number: matches.get("port").and_then(|v| v.as_u64()).unwrap_or(0) as u32,
            port_name: text("port_name"),
            gateway: text("gateway"),
            name: text("name"),
            vhost,
        };
        let origin = Origin::object(ObjectKey::new(Kind::EnvoyFilter, "default", "patches"));
        let patch = EnvoyConfigObjectPatch {
            apply_to,
            match_: Some(EnvoyConfigObjectMatch {
                context,
                object_types: Some(ObjectTypes::RouteConfiguration(wanted)),
                ..EnvoyConfigObjectMatch::default()
            }),
            patch: Some(Patch { operation, value: Some(Json::from(&value)), ..Patch::default() }),
        };
        RoutePatch::parse(origin, &patch).expect("a patch for routes")
    }

    fn configuration(name: &str) -> RouteConfiguration {
        let route = |name: &str| Route { name: name.to_owned(), ..Route::default() };
        let host = |name: &str| VirtualHost {
            name: name.to_owned(),
            domains: vec![name.to_owned()],
            routes: vec![route("first"), route("second")],
            ..VirtualHost::default()
        };
        RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts: vec![host("a"), host("b")],
            ..RouteConfiguration::default()
        }
    }

    /// Names of virtual hosts with those of their routes.
    fn check(patches: &[RoutePatch], expected: &[(&str, &[&str])]) {
        let target = PatchTarget { context: PatchContext::SidecarOutbound, server_ports: BTreeSet::new() };
        let mut changed = configuration("80");
        target.apply(patches, &mut changed);
        let got: Vec<(&str, Vec<&str>)> = changed
            .virtual_hosts
            .iter()
            .map(|host| (host.name.as_str(), host.routes.iter().map(|route| route.name.as_str()).collect()))
            .collect();
        let expected: Vec<(&str, Vec<&str>)> =
            expected.iter().map(|(name, routes)| (*name, routes.to_vec())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn virtual_hosts_are_added_replaced_and_removed() {
        use serde_json::json;
        let host = |matches, operation, value| {
            patch(ApplyTo::VirtualHost, PatchContext::Any, matches, operation, value)
        };
        let both: &[&str] = &["first", "second"];
        check(&[host(json!({"vhost": "a"}), PatchOperation::Remove, json!({}))], &[("b", both)]);
        check(
            &[host(json!({}), PatchOperation::Add, json!({"name": "c", "domains": ["c"]}))],
            &[("a", both), ("b", both), ("c", &[])],
        );
        check(
            &[host(json!({"vhost": "b"}), PatchOperation::Replace, json!({"name": "c", "domains": ["c"]}))],
            &[("a", both), ("c", &[])],
        );
        check(&[host(json!({"port": 81}), PatchOperation::Remove, json!({}))], &[("a", both), ("b", both)]);
    }

    #[test]
    fn routes_are_inserted_where_the_patch_says() {
        use serde_json::json;
        let at = |matches, operation| {
            patch(
                ApplyTo::HttpRoute,
                PatchContext::SidecarOutbound,
                matches,
                operation,
                json!({"name": "new"}),
            )
        };
        let b: (&str, &[&str]) = ("b", &["first", "second"]);
        let on = |route: &str| json!({"vhost": "a", "route": route});
        let all = json!({"vhost": "a"});
        check(&[at(all.clone(), PatchOperation::Add)], &[("a", &["first", "second", "new"]), b]);
        check(&[at(all.clone(), PatchOperation::InsertFirst)], &[("a", &["new", "first", "second"]), b]);
        check(&[at(all, PatchOperation::InsertAfter)], &[("a", &["first", "second", "new"]), b]);
        check(&[at(on("first"), PatchOperation::InsertAfter)], &[("a", &["first", "new", "second"]), b]);
        check(&[at(on("second"), PatchOperation::InsertBefore)], &[("a", &["first", "new", "second"]), b]);
        check(&[at(on("second"), PatchOperation::InsertFirst)], &[("a", &["new", "first", "second"]), b]);
        check(&[at(on("third"), PatchOperation::InsertFirst)], &[("a", &["first", "second"]), b]);
        check(&[at(on("first"), PatchOperation::Remove)], &[("a", &["second"]), b]);
    }

    #[test]
    fn gateways_are_matched_by_server_port_and_name() {
        use serde_json::json;
        let target = PatchTarget { context: PatchContext::Gateway, server_ports: BTreeSet::from([443]) };
        let check = |matches, expected: bool| {
            let patch = patch(
                ApplyTo::VirtualHost,
                PatchContext::Gateway,
                matches,
                PatchOperation::Remove,
                json!({}),
            );
            assert_eq!(target.is_meant_by(&patch, "https.443.https-web.main.edge"), expected);
        };
        check(json!({}), true);
        check(json!({"port": 443}), true);
        check(json!({"port": 8443}), false);
        check(json!({"port_name": "https-web"}), true);
        check(json!({"gateway": "edge/main"}), true);
        check(json!({"gateway": "main"}), false);
        check(json!({"name": "https.443.https-web.main.edge"}), true);
    }
}

//! The HTTP routes of a VirtualService.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use navarch_envoy::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use navarch_envoy::proto::envoy::config::route::v3::{Decorator, Route};
use navarch_envoy::wkt;
use navarch_model::networking::{
    ConsistentHashLb, Destination, HttpMatchRequest, HttpRetry, HttpRoute, VirtualService,
};
use navarch_model::service::PersistentSession;
use navarch_model::{Config, Hashed, Labels, Name};
use prost::Message;

use super::filter_config::{
    CORS_FILTER, FAULT_FILTER, STATEFUL_SESSION_FILTER, cors, fault, stateful_session,
};
use super::headers::{HeaderMutations, header_value};
use super::{Semantics, action, outbound_cluster, route_match};
use crate::Pure;

/// The gateway that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// The cluster of a destination that names no host: only an invalid backend of the Gateway API.
const UNKNOWN_SERVICE: &str = "UnknownService";

/// Seconds that clients remember that HTTP/3 is offered.
const ALT_SVC_MAX_AGE_SECS: u32 = 86_400;

/// What routes are made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteContext {
    /// The port of the listener; zero for HTTP proxies and Unix sockets, which serve all ports.
    pub port: u16,
    /// `mesh`, or the gateway as `<namespace>/<name>`.
    pub gateway: Option<Name>,
    /// The connection is terminated TLS.
    pub tls: bool,
    /// Responses offer HTTP/3 on the same port.
    pub alt_svc: bool,
    /// `proxyHeaders.xForwardedHost`.
    pub x_forwarded_host: bool,
    /// For a gRPC client without Envoy.
    pub proxyless: bool,
    /// MeshConfig `defaultHttpRetryPolicy`.
    pub default_retries: Option<Arc<Hashed<HttpRetry>>>,
}

/// Who asks, as far as a VirtualService looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    pub namespace: Option<Name>,
    pub labels: Labels,
}

impl Source {
    /// The part of a client's identity that the conditions of a VirtualService mention. Clients that differ in nothing
    /// that is mentioned share the routes.
    pub fn mentioned(virtual_service: &VirtualService, namespace: &Name, labels: &Labels) -> Self {
        let conditions = || virtual_service.http.iter().flat_map(|route| &route.match_);
        Source {
            namespace: conditions().any(|c| !c.source_namespace.is_empty()).then(|| namespace.clone()),
            labels: labels
                .iter()
                .filter(|(key, _)| conditions().any(|c| c.source_labels.contains_key(&***key)))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }
}

/// What routes need to know of a service that is a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DestinationService {
    /// The port, if the service has exactly one.
    pub only_port: Option<u16>,
    /// The host that an ExternalName service stands for.
    pub external_name: Option<Name>,
    pub session: Option<PersistentSession>,
}

/// The key of [`HttpRoutes`].
#[derive(Clone, Debug, Hash)]
pub struct HttpRoutesInput {
    pub virtual_service: Arc<Hashed<Config<VirtualService>>>,
    pub context: RouteContext,
    pub source: Source,
    /// Destinations that are known, by host. A host that is missing here is taken as it is.
    pub services: BTreeMap<Name, DestinationService>,
    /// Consistent hashing of destinations, by index of the route and of the destination in it.
    pub hashes: BTreeMap<(usize, usize), ConsistentHashLb>,
}

impl HttpRoutesInput {
    fn service(&self, host: &str) -> Option<&DestinationService> {
        self.services.get(host)
    }

    /// The cluster of a destination: its port is the stated one, else the only one of the service, else the listener's.
    pub(super) fn cluster(&self, destination: Option<&Destination>) -> String {
        let Some(destination) = destination.filter(|destination| !destination.host.is_empty()) else {
            return UNKNOWN_SERVICE.to_owned();
        };
        let service = self.service(&destination.host);
        let host = service.and_then(|service| service.external_name.as_deref()).unwrap_or(&destination.host);
        let port = match &destination.port {
            Some(port) => port.number,
            None => u32::from(service.and_then(|service| service.only_port).unwrap_or(self.context.port)),
        };
        outbound_cluster(port, &destination.subset, host)
    }
}

/// Routes that several virtual hosts may have.
pub type Routes = Arc<Hashed<Vec<EncodedRoute>>>;

/// A route as it stands in a virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EncodedRoute {
    /// The encoded `envoy.config.route.v3.Route`.
    pub bytes: Bytes,
    /// Matches every request.
    pub catch_all: bool,
}

/// The routes of a VirtualService, in order, up to the first that matches everything. Empty if none applies to the client and
/// the port; the VirtualService then counts as absent.
pub struct HttpRoutes;

impl Pure for HttpRoutes {
    const NAME: &'static str = "http_routes";
    type Input = HttpRoutesInput;
    type Output = Hashed<Vec<EncodedRoute>>;

    fn run(input: &HttpRoutesInput) -> Hashed<Vec<EncodedRoute>> {
        Hashed::new(translate_all(input))
    }
}

fn translate_all(input: &HttpRoutesInput) -> Vec<EncodedRoute> {
    let mut out = Vec::new();
    for (index, route) in input.virtual_service.spec.http.iter().enumerate() {
        if route.match_.is_empty() {
            out.push(translate(input, index, route, None));
            break;
        }
        for condition in route.match_.iter().filter(|condition| applies(condition, input)) {
            let route = translate(input, index, route, Some(condition));
            let stop = route.catch_all;
            out.push(route);
            if stop {
                return out;
            }
        }
    }
    out
}

/// Whether the conditions that the control plane decides hold: port, gateway, labels and namespace of the client.
///
/// Conditions on the gateway replace those on the client.
fn applies(condition: &HttpMatchRequest, input: &HttpRoutesInput) -> bool {
    let context = &input.context;
    if condition.port != 0 && condition.port != u32::from(context.port) {
        return false;
    }
    if !condition.gateways.is_empty() {
        let gateway = context.gateway.as_deref().unwrap_or(MESH_GATEWAY);
        return condition.gateways.iter().any(|stated| stated == gateway);
    }
    let label_holds = |(key, value): (&String, &String)| {
        input.source.labels.get(&**key).is_some_and(|label| **label == **value)
    };
    condition.source_labels.iter().all(label_holds)
        && (condition.source_namespace.is_empty()
            || input.source.namespace.as_deref() == Some(condition.source_namespace.as_str()))
}

fn translate(
    input: &HttpRoutesInput,
    index: usize,
    route: &HttpRoute,
    condition: Option<&HttpMatchRequest>,
) -> EncodedRoute {
    let config = &input.virtual_service;
    let semantics = Semantics::of(&config.annotations);
    let matched = route_match::route_match(semantics, condition);
    let catch_all = route_match::is_catch_all(&matched);
    let path = route_match::operation_path(&matched);
    let mut out = Route {
        name: match condition {
            Some(condition) if !condition.name.is_empty() => format!("{}.{}", route.name, condition.name),
            _ => route.name.clone(),
        },
        stat_prefix: condition.map(|condition| condition.stat_prefix.clone()).unwrap_or_default(),
        r#match: Some(matched),
        metadata: Some(config_metadata(&config.namespace, &config.name)),
        ..Route::default()
    };
    let mut authority = None;
    if let Some(headers) = &route.headers {
        let mutations = HeaderMutations::of(headers);
        out.request_headers_to_add = mutations.request_add;
        out.request_headers_to_remove = mutations.request_remove;
        out.response_headers_to_add = mutations.response_add;
        out.response_headers_to_remove = mutations.response_remove;
        authority = mutations.authority;
    }
    if let Some(redirect) = &route.redirect {
        out.action = action::redirect(redirect, &input.context);
    } else if let Some(response) = &route.direct_response {
        out.action = Some(action::direct_response(response));
    } else {
        action::forward(&mut out, route, index, authority, input, semantics);
        if let Some(session) = session(route, input) {
            out.typed_per_filter_config.insert(STATEFUL_SESSION_FILTER.to_owned(), stateful_session(session));
        }
    }
    out.decorator = Some(Decorator {
        operation: action::operation(out.action.as_ref(), &config.name, input.context.port, &path),
        ..Decorator::default()
    });
    if let Some(injected) = &route.fault {
        out.typed_per_filter_config.insert(FAULT_FILTER.to_owned(), fault(injected));
    }
    if let Some(policy) = &route.cors_policy {
        out.typed_per_filter_config.insert(CORS_FILTER.to_owned(), cors(policy));
    }
    if input.context.alt_svc {
        let offer = format!("h3=\":{}\"; ma={ALT_SVC_MAX_AGE_SECS}", input.context.port);
        out.response_headers_to_add.push(header_value(
            "alt-svc",
            &offer,
            HeaderAppendAction::AppendIfExistsOrAdd,
        ));
    }
    EncodedRoute { bytes: out.encode_to_vec().into(), catch_all }
}

/// The session of the destinations that get requests. If several have one the first counts, but a destination without
/// session before the second takes it away (istiod's rule, kept for equal answers).
fn session<'i>(route: &HttpRoute, input: &'i HttpRoutesInput) -> Option<&'i PersistentSession> {
    let several = route.route.len() > 1;
    let mut found = None;
    for destination in route.route.iter().filter(|destination| !several || destination.weight > 0) {
        let service =
            destination.destination.as_ref().and_then(|destination| input.service(&destination.host));
        let session = service.and_then(|service| service.session.as_ref());
        if session.is_some() && found.is_some() {
            break;
        }
        found = session;
    }
    found
}

/// Where a route comes from, for people who read dumps.
fn config_metadata(namespace: &str, name: &str) -> navarch_envoy::proto::envoy::config::core::v3::Metadata {
    let path = format!("/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}");
    wkt::metadata("istio", wkt::structure([("config", wkt::string(path))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::proto::envoy::config::route::v3::route::Action;
    use navarch_envoy::proto::envoy::config::route::v3::route_action::ClusterSpecifier;
    use navarch_model::networking::{HttpRouteDestination, PortSelector};
    use navarch_model::values::StringMatch;

    fn config(http: Vec<HttpRoute>) -> Arc<Hashed<Config<VirtualService>>> {
        Arc::new(Hashed::new(Config {
            namespace: "shop".into(),
            name: "vs".into(),
            created_at: 0,
            labels: Default::default(),
            annotations: Default::default(),
            spec: VirtualService { http, ..VirtualService::default() },
        }))
    }

    fn input(http: Vec<HttpRoute>) -> HttpRoutesInput {
        HttpRoutesInput {
            virtual_service: config(http),
            context: RouteContext { port: 80, ..RouteContext::default() },
            source: Source::default(),
            services: BTreeMap::new(),
            hashes: BTreeMap::new(),
        }
    }

    fn to(host: &str, weight: i32) -> HttpRouteDestination {
        let destination = Destination { host: host.to_owned(), ..Destination::default() };
        HttpRouteDestination { destination: Some(destination), weight, headers: None }
    }

    fn routes(input: &HttpRoutesInput) -> Vec<Route> {
        HttpRoutes::run(input)
            .iter()
            .map(|route| Route::decode(route.bytes.clone()).expect("a route"))
            .collect()
    }

    fn clusters(route: &Route) -> Vec<String> {
        match &route.action {
            Some(Action::Route(action)) => match &action.cluster_specifier {
                Some(ClusterSpecifier::Cluster(cluster)) => vec![cluster.clone()],
                Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                    weighted.clusters.iter().map(|cluster| cluster.name.clone()).collect()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    #[test]
    fn conditions_on_the_client_select_routes() {
        let check = |condition: HttpMatchRequest, expected: bool| {
            let mut input = input(vec![HttpRoute {
                match_: vec![condition.clone()],
                route: vec![to("a", 0)],
                ..HttpRoute::default()
            }]);
            let labels = Labels::from([(Name::from("tier"), Name::from("gold")), ("x".into(), "y".into())]);
            input.source = Source::mentioned(&input.virtual_service.spec, &"shop".into(), &labels);
            assert!(!input.source.labels.contains_key("x"));
            assert_eq!(!HttpRoutes::run(&input).is_empty(), expected, "{condition:?}");
        };
        let any = HttpMatchRequest::default;
        let gold = |value: &str| [("tier".to_owned(), value.to_owned())].into();
        check(any(), true);
        check(HttpMatchRequest { port: 80, ..any() }, true);
        check(HttpMatchRequest { port: 81, ..any() }, false);
        check(HttpMatchRequest { source_labels: gold("gold"), ..any() }, true);
        check(HttpMatchRequest { source_labels: gold("lead"), ..any() }, false);
        check(HttpMatchRequest { source_namespace: "shop".into(), ..any() }, true);
        check(HttpMatchRequest { source_namespace: "other".into(), ..any() }, false);
        check(HttpMatchRequest { gateways: vec!["mesh".into()], source_labels: gold("lead"), ..any() }, true);
        check(HttpMatchRequest { gateways: vec!["shop/gw".into()], ..any() }, false);
    }

    #[test]
    fn routes_end_with_the_first_that_matches_everything() {
        let prefix = |path: &str| HttpMatchRequest {
            uri: Some(StringMatch::Prefix(path.to_owned())),
            ..HttpMatchRequest::default()
        };
        let route = |match_: Vec<HttpMatchRequest>| HttpRoute { match_, ..HttpRoute::default() };
        let count = |http: Vec<HttpRoute>| HttpRoutes::run(&input(http)).len();
        assert_eq!(
            count(vec![route(vec![prefix("/a"), prefix("/b")]), route(vec![]), route(vec![prefix("/c")])]),
            3
        );
        assert_eq!(count(vec![route(vec![prefix("/"), prefix("/b")]), route(vec![])]), 1);
    }

    #[test]
    fn the_port_of_a_destination_is_stated_or_the_only_one_or_the_listeners() {
        let check = |stated: Option<u32>, only_port: Option<u16>, expected: &str| {
            let mut destination = to("a", 0);
            if let Some(destination) = &mut destination.destination {
                destination.port = stated.map(|number| PortSelector { number });
            }
            let mut input = input(vec![HttpRoute { route: vec![destination], ..HttpRoute::default() }]);
            input
                .services
                .insert("a".into(), DestinationService { only_port, ..DestinationService::default() });
            assert_eq!(routes(&input).iter().map(clusters).next(), Some(vec![expected.to_owned()]));
        };
        check(Some(9000), Some(8080), "outbound|9000||a");
        check(None, Some(8080), "outbound|8080||a");
        check(None, None, "outbound|80||a");
    }

    #[test]
    fn destinations_without_weight_get_nothing() {
        let input = input(vec![HttpRoute {
            route: vec![to("a", 90), to("b", 0), to("c", 10)],
            ..HttpRoute::default()
        }]);
        assert_eq!(
            routes(&input).iter().map(clusters).next(),
            Some(vec!["outbound|80||a".into(), "outbound|80||c".into()])
        );
        let operations: Vec<_> = routes(&input)
            .into_iter()
            .filter_map(|route| route.decorator)
            .map(|decorator| decorator.operation)
            .collect();
        assert_eq!(operations, ["vs:80/*"]);
    }
}

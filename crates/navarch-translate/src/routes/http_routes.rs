//! The HTTP routes of a set of rules.

use navarch_envoy::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use navarch_envoy::proto::envoy::config::route::v3::{Decorator, Route};
use navarch_model::Hashed;
use navarch_model::route::{Forward, HttpAction, HttpMatch, HttpRule};
use navarch_model::service::PersistentSession;
use prost::Message;

use super::filter_config::{
    CORS_FILTER, FAULT_FILTER, STATEFUL_SESSION_FILTER, cors, fault, stateful_session,
};
use super::headers::{HeaderMutations, header_value};
use super::input::{EncodedRoute, HttpRoutesInput};
use super::{action, route_match};
use crate::origin;
use crate::pure::{Pure, Sealed};

/// The version of the API by which istiod names the objects that routes stem from.
const CONFIG_VERSION: &str = "v1";

/// Seconds that clients remember that HTTP/3 is offered.
const ALT_SVC_MAX_AGE_SECS: u32 = 86_400;

/// The routes of a set, in order, up to the first that matches everything. Empty if none applies to the
/// client and the port; the set then counts as absent.
pub struct HttpRoutes;

impl Sealed for HttpRoutes {}

impl Pure for HttpRoutes {
    const NAME: &'static str = "routes.http";
    type Input = HttpRoutesInput;
    type Output = Hashed<Vec<EncodedRoute>>;

    fn run(input: &HttpRoutesInput) -> Hashed<Vec<EncodedRoute>> {
        Hashed::new(translate_all(input))
    }
}

fn translate_all(input: &HttpRoutesInput) -> Vec<EncodedRoute> {
    let mut out = Vec::new();
    for (index, rule) in input.set.http.iter().enumerate() {
        if rule.matches.is_empty() {
            out.push(translate(input, index, rule, None));
            break;
        }
        for condition in rule.matches.iter().filter(|condition| applies(condition, input)) {
            let route = translate(input, index, rule, Some(condition));
            let stop = route.catch_all;
            out.push(route);
            if stop {
                return out;
            }
        }
    }
    out
}

/// Whether the conditions that the control plane decides hold: port, gateway, labels and namespace of the
/// client.
///
/// Conditions on the gateway replace those on the client.
fn applies(condition: &HttpMatch, input: &HttpRoutesInput) -> bool {
    let (client, context) = (&condition.client, &input.context);
    if !client.holds_on(context.port) {
        return false;
    }
    if !client.parents.is_empty() {
        return client.holds_at(&context.parent);
    }
    client.holds_for(&input.source.labels)
        && (client.namespace.is_none() || client.namespace == input.source.namespace)
}

fn translate(
    input: &HttpRoutesInput,
    index: usize,
    rule: &HttpRule,
    condition: Option<&HttpMatch>,
) -> EncodedRoute {
    let key = input.set.key();
    let matched = route_match::route_match(condition);
    let catch_all = route_match::is_catch_all(&matched);
    let path = route_match::operation_path(&matched);
    let mut out = Route {
        name: match condition {
            Some(condition) if !condition.name.is_empty() => format!("{}.{}", rule.name, condition.name),
            _ => rule.name.clone(),
        },
        stat_prefix: condition.map(|condition| condition.stat_prefix.clone()).unwrap_or_default(),
        r#match: Some(matched),
        metadata: Some(origin::metadata(CONFIG_VERSION, key)),
        ..Route::default()
    };
    let mut authority = None;
    if let Some(headers) = &rule.headers {
        let mutations = HeaderMutations::of(headers);
        out.request_headers_to_add = mutations.request_add;
        out.request_headers_to_remove = mutations.request_remove;
        out.response_headers_to_add = mutations.response_add;
        out.response_headers_to_remove = mutations.response_remove;
        authority = mutations.authority;
    }
    match &rule.action {
        HttpAction::Redirect(redirect) => {
            out.action = action::redirect(redirect, out.r#match.as_ref(), &input.context);
        }
        HttpAction::Respond(response) => out.action = Some(action::direct_response(response)),
        HttpAction::Forward(forward) => {
            action::forward(&mut out, forward, index, authority, input);
            if let Some(session) = session(forward, input) {
                out.typed_per_filter_config
                    .insert(STATEFUL_SESSION_FILTER.to_owned(), stateful_session(session));
            }
        }
    }
    out.decorator = Some(Decorator {
        operation: action::operation(out.action.as_ref(), &input.set.operation, input.context.port, &path),
        ..Decorator::default()
    });
    if let Some(injected) = &rule.fault {
        out.typed_per_filter_config.insert(FAULT_FILTER.to_owned(), fault(injected));
    }
    if let Some(policy) = &rule.cors {
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
    EncodedRoute {
        bytes: out.encode_to_vec().into(),
        catch_all,
        specificity: condition.map(HttpMatch::specificity).unwrap_or_default(),
        origin: Some(rule.origin.clone()),
    }
}

/// The session of the rule, else of the backends that get requests. If several have one the first counts, but
/// a backend without session before the second takes it away (istiod's rule, kept for equal answers).
fn session<'i>(forward: &'i Forward, input: &'i HttpRoutesInput) -> Option<&'i PersistentSession> {
    if forward.session.is_some() {
        return forward.session.as_ref();
    }
    let several = forward.backends.len() > 1;
    let mut found = None;
    for to in forward.backends.iter().filter(|to| !several || to.weight > 0) {
        let service = to.backend.service().and_then(|to| input.service(&to.host));
        let session = service.and_then(|service| service.session.as_ref());
        if session.is_some() && found.is_some() {
            break;
        }
        found = session;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::super::input::{DestinationService, RouteContext, Source};
    use super::*;
    use navarch_envoy::proto::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation};
    use navarch_envoy::proto::envoy::config::route::v3::route::Action;
    use navarch_envoy::proto::envoy::config::route::v3::route_action::ClusterSpecifier;
    use navarch_model::route::{
        Audience, Backend, BackendFields, ClientMatch, HostMeaning, HttpBackend, Mirror, Parent, PathMatch,
        RouteSet, RuleOrder, ServiceBackend, Share,
    };
    use navarch_model::service::Visibility;
    use navarch_model::{Kind, Labels, Name, ObjectKey, Origin, Precedence};

    /// Rules may be of any kind.
    fn owner() -> ObjectKey {
        ObjectKey::new(Kind::ServiceEntry, "shop", "vs")
    }

    fn input(http: Vec<HttpRule>) -> HttpRoutesInput {
        let key = owner();
        let set = RouteSet {
            precedence: Precedence { created_at: 0, key, position: 0 },
            hosts: Vec::new(),
            host_fields: Vec::new(),
            parents: vec![Parent::Mesh],
            export_to: Visibility::Public,
            audience: Audience::Everyone,
            host_meaning: HostMeaning::AnyName,
            order: RuleOrder::AsWritten,
            backend_fields: BackendFields::Destination,
            operation: "vs".into(),
            http,
            tls: Vec::new(),
            tcp: Vec::new(),
        };
        HttpRoutesInput {
            set: Arc::new(Hashed::new(set)),
            context: RouteContext { port: 80, ..RouteContext::default() },
            source: Source::default(),
            services: BTreeMap::new(),
            hashes: BTreeMap::new(),
            untold: BTreeSet::new(),
        }
    }

    fn rule(matches: Vec<HttpMatch>, backends: Vec<HttpBackend>) -> HttpRule {
        HttpRule {
            origin: Origin::object(owner()),
            name: String::new(),
            matches,
            action: HttpAction::Forward(Forward { backends, ..Forward::default() }),
            headers: None,
            fault: None,
            cors: None,
        }
    }

    fn to(host: &str, port: Option<u16>, weight: u32) -> HttpBackend {
        let service = ServiceBackend { host: host.into(), port, subset: "".into() };
        HttpBackend { backend: Backend::Service(service), weight, headers: None, field: "".into() }
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
        let check = |client: ClientMatch, expected: bool| {
            let condition = HttpMatch { client, ..HttpMatch::default() };
            let mut input = input(vec![rule(vec![condition.clone()], vec![to("a", None, 0)])]);
            let labels = Labels::from([(Name::from("tier"), Name::from("gold")), ("x".into(), "y".into())]);
            input.source = Source { namespace: Some("shop".into()), labels };
            assert_eq!(!HttpRoutes::run(&input).is_empty(), expected, "{condition:?}");
        };
        let any = ClientMatch::default;
        let gold = |value: &str| Labels::from([(Name::from("tier"), Name::from(value))]);
        let gateway = Parent::parse("shop/gw");
        check(any(), true);
        check(ClientMatch { port: Some(80), ..any() }, true);
        check(ClientMatch { port: Some(81), ..any() }, false);
        check(ClientMatch { labels: gold("gold"), ..any() }, true);
        check(ClientMatch { labels: gold("lead"), ..any() }, false);
        check(ClientMatch { namespace: Some("shop".into()), ..any() }, true);
        check(ClientMatch { namespace: Some("other".into()), ..any() }, false);
        check(ClientMatch { parents: vec![Parent::Mesh], labels: gold("lead"), ..any() }, true);
        check(ClientMatch { parents: vec![gateway], ..any() }, false);
    }

    #[test]
    fn routes_end_with_the_first_that_matches_everything() {
        let prefix =
            |path: &str| HttpMatch { path: Some(PathMatch::Prefix(path.to_owned())), ..HttpMatch::default() };
        let route = |matches: Vec<HttpMatch>| rule(matches, Vec::new());
        let count = |http: Vec<HttpRule>| HttpRoutes::run(&input(http)).len();
        assert_eq!(
            count(vec![route(vec![prefix("/a"), prefix("/b")]), route(vec![]), route(vec![prefix("/c")])]),
            3
        );
        assert_eq!(count(vec![route(vec![prefix("/"), prefix("/b")]), route(vec![])]), 1);
    }

    #[test]
    fn the_port_of_a_backend_is_stated_or_the_only_one_or_the_listeners() {
        let check = |stated: Option<u16>, only_port: Option<u16>, expected: &str| {
            let mut input = input(vec![rule(Vec::new(), vec![to("a", stated, 0)])]);
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
    fn mirrored_requests_say_whose_they_are_only_within_the_mesh() {
        let mirror = |host| Mirror {
            backend: to(host, None, 0).backend,
            share: Share::Percent(100),
            origin: Origin::object(owner()),
        };
        let mut rule = rule(Vec::new(), vec![to("a", None, 1)]);
        let HttpAction::Forward(forward) = &mut rule.action else { panic!("it does not forward") };
        forward.mirrors = vec![mirror("inside"), mirror("outside")];
        let mut input = input(vec![rule]);
        input.untold.insert("outside".into());
        let found: Vec<_> = routes(&input)
            .into_iter()
            .filter_map(|route| match route.action {
                Some(Action::Route(action)) => Some(action.request_mirror_policies),
                _ => None,
            })
            .flatten()
            .map(|policy| (policy.cluster, policy.request_headers_mutations))
            .collect();
        let removal = HeaderMutation {
            action: Some(header_mutation::Action::Remove("x-envoy-peer-metadata".to_owned())),
        };
        let expected = [("outbound|80||inside", Vec::new()), ("outbound|80||outside", vec![removal])];
        assert_eq!(found, expected.map(|(cluster, removed)| (cluster.to_owned(), removed)));
    }

    #[test]
    fn backends_without_weight_get_nothing() {
        let backends = vec![to("a", None, 90), to("b", None, 0), to("c", None, 10)];
        let input = input(vec![rule(Vec::new(), backends)]);
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

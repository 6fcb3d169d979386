//! Where nothing is said not to fit, proxies do with every call what they did: compared by simulation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use navarch_convert::{Conversion, convert};
use navarch_envoy::ProxyResources;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::finding::Severity;
use navarch_model::object::Object;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, Kind, parse_text};
use navarch_plan::Planner;
use navarch_simulate::{Action, Call, Changes, Retries, Tls, simulate};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use proptest::prelude::*;

const MESH: &str = include_str!("mesh.yaml");

const PROXIES: [(&str, &str, &str); 4] = [
    ("router~10.99.0.1~edge.infra~infra.svc.cluster.local", "istio", "edge"),
    ("router~10.99.0.2~ingress.istio-system~istio-system.svc.cluster.local", "istio", "ingressgateway"),
    ("sidecar~10.99.0.3~a.shop~shop.svc.cluster.local", "app", "a"),
    ("sidecar~10.99.0.4~b.front~front.svc.cluster.local", "app", "b"),
];

fn world(objects: Vec<Object>) -> (Conversion, Vec<Arc<ProxyResources>>) {
    let mut world = World::new(Options::default());
    let snapshot = world.apply(ChangeSet::upserting(objects));
    let conversion = convert(&snapshot, "istio");
    let planner = Planner::new(snapshot);
    let resources = PROXIES.iter().map(|(id, key, value)| {
        let metadata = serde_json::json!({"LABELS": {*key: value}});
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        let facts = ProxyFacts::parse(id, "p", &metadata, Locality::default()).expect("a node");
        planner.resources(&planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts)))))
    });
    let resources = resources.collect();
    (conversion, resources)
}

fn parse(text: &str) -> Vec<Object> {
    let parsed = parse_text("input.yaml", text);
    let errors: Vec<_> =
        parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty() && parsed.rejected.is_empty() && !parsed.incomplete, "{errors:?}\n{text}");
    parsed.objects
}

/// What proxies do before and after, and what was said.
struct Compared {
    conversion: Conversion,
    yaml: String,
    before: Vec<Arc<ProxyResources>>,
    after: Vec<Arc<ProxyResources>>,
}

impl Compared {
    fn of(input: &str) -> Self {
        let objects = parse(&format!("{MESH}{input}"));
        let (conversion, before) = world(objects.clone());
        let yaml = conversion.to_yaml().expect("plain values");
        let is_converted =
            |object: &Object| matches!(object.key.kind, Kind::VirtualService | Kind::Gateway | Kind::Ingress);
        let kept = objects.into_iter().filter(|object| !is_converted(object));
        let (_, after) = world(kept.chain(parse(&yaml)).collect());
        Compared { conversion, yaml, before, after }
    }

    /// The findings, without the file.
    fn findings(&self) -> Vec<String> {
        let all = self.conversion.findings.iter();
        all.map(|finding| format!("{} {}: {}", finding.severity, finding.path, finding.message)).collect()
    }

    fn same(&self, call: &Call) -> Result<(), String> {
        for (index, (before, after)) in self.before.iter().zip(&self.after).enumerate() {
            let (was, is) = (fate(before, call), fate(after, call));
            if was != is {
                let proxy = PROXIES[index].0;
                return Err(format!("{proxy}: {call:?}\nwas {was:#?}\nis {is:#?}\n{}", self.yaml));
            }
        }
        Ok(())
    }
}

/// What becomes of a call, without what only has other names.
fn fate(resources: &ProxyResources, call: &Call) -> (Action, Changes, bool) {
    let outcome = simulate(resources, call);
    let mut changes = outcome.changes;
    // Without codes the word says nothing.
    let plain = |on: &str| on.replace(",retriable-status-codes", "");
    changes.retries = changes.retries.map(|retries| Retries { on: plain(&retries.on), ..retries });
    // No limit may be stated as zero or not at all.
    changes.timeout = changes.timeout.filter(|timeout| *timeout > Duration::ZERO);
    let action = match outcome.action {
        // Nobody is there, in other words.
        Action::Blocked(blocked) => {
            Action::Blocked(navarch_simulate::Blocked { reason: String::new(), ..blocked })
        }
        other => other,
    };
    (action, changes, outcome.tls_terminated)
}

/// Calls to a host with these paths, by plain HTTP and HTTPS unless the host says which port, with methods
/// and a header.
fn calls(hosts: &[&str], paths: &[&str]) -> Vec<Call> {
    let mut calls = Vec::new();
    for (host, path) in hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path))) {
        let stated = host.split_once(':').and_then(|(_, port)| port.parse().ok());
        for port in stated.map_or(vec![80, 443], |port| vec![port]) {
            for (method, header) in [("GET", None), ("POST", None), ("GET", Some("1")), ("GET", Some("22"))] {
                let mut call = Call::http(SocketAddr::from(([10, 96, 1, 1], port)), *host);
                call.path = (*path).to_owned();
                call.method = method.to_owned();
                call.headers = header.map(|value| ("x-v".to_owned(), value.to_owned())).into_iter().collect();
                call.tls = (port == 443).then(|| Tls { sni: (*host).to_owned(), ..Tls::default() });
                calls.push(call);
            }
        }
    }
    calls
}

const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/ab", "/b?q=1", "/items/7", "/old/x?y=1", "/old"];
const HOSTS: [&str; 5] = [
    "a.example",
    "b.a.example",
    "other.test",
    "web.shop.svc.cluster.local",
    "api.shop.svc.cluster.local:8080",
];

/// The input fits, and calls go where they went.
#[track_caller]
fn fits(input: &str) -> Compared {
    let compared = Compared::of(input);
    assert_eq!(compared.findings(), Vec::<String>::new(), "{}", compared.yaml);
    for call in calls(&HOSTS, &PATHS) {
        compared.same(&call).unwrap_or_else(|difference| panic!("{difference}"));
    }
    compared
}

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
---
";

fn route(gateways: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: r, namespace: shop}}
spec:
  hosts: [a.example]
  gateways: {gateways}
  http: {rules}
---
"
    )
}

#[test]
fn routes_at_a_gateway_go_where_they_went() {
    let compared = fits(&format!(
        "{GATEWAY}{}",
        route(
            "[infra/edge]",
            "
  - match: [{uri: {exact: /a}, method: {exact: POST}}, {uri: {exact: /a/b}, headers: {x-v: {prefix: '2'}}}]
    route: [{destination: {host: web}}]
  - match: [{uri: {exact: /a}}]
    redirect: {uri: /there, authority: b.example, redirectCode: 302}
  - match: [{uri: {exact: /old}}]
    rewrite: {uri: /new, authority: inner.example}
    route: [{destination: {host: web}, headers: {request: {set: {x-b: w}}}}]
  - name: rest
    timeout: 3s
    retries: {attempts: 3, retryOn: 'connect-failure,refused-stream,unavailable,cancelled,503'}
    headers: {request: {set: {x-set: a}, remove: [x-gone]}, response: {add: {x-r: b}}}
    mirrors: [{destination: {host: api, port: {number: 9000}}, percentage: {value: 12.5}}]
    corsPolicy: {allowOrigins: [{exact: 'https://b.example'}], allowMethods: [GET], maxAge: 60s, unmatchedPreflights: IGNORE}
    route:
    - {destination: {host: web}, weight: 75}
    - {destination: {host: api.shop.svc.cluster.local, port: {number: 8080}}, weight: 25}
"
        )
    ));
    let kinds: Vec<&str> = compared.conversion.manifests.iter().map(|manifest| manifest.kind()).collect();
    assert_eq!(kinds, ["Gateway", "HTTPRoute"]);
}

#[test]
fn clients_of_a_service_are_routed_as_they_were() {
    fits(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {exact: /a}}]
    route: [{destination: {host: api, port: {number: 8080}}}]
  - route: [{destination: {host: web}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own, namespace: front}
spec:
  hosts: [api.shop.svc.cluster.local]
  exportTo: ['.']
  http: [{timeout: 1s, route: [{destination: {host: api.shop.svc.cluster.local, port: {number: 8080}}}]}]
---
",
    );
}

#[test]
fn backends_of_other_namespaces_are_granted() {
    let compared = fits(&format!(
        "{GATEWAY}{}",
        route("[infra/edge]", "[{route: [{destination: {host: db.data.svc.cluster.local}}]}]")
    ));
    assert!(compared.yaml.contains("kind: ReferenceGrant"), "{}", compared.yaml);
}

#[test]
fn a_grant_has_as_many_targets_as_it_may() {
    let check = |services: usize, grants: &[&str]| {
        let made = |index: usize| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: data}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n"
            )
        };
        let to =
            |index: usize| format!("{{destination: {{host: s{index}.data.svc.cluster.local}}, weight: 1}}");
        let (one, other): (Vec<usize>, Vec<usize>) = (0..services).partition(|index| index % 2 == 0);
        let list = |of: &[usize]| of.iter().map(|index| to(*index)).collect::<Vec<_>>().join(", ");
        let rules = format!(
            "[{{match: [{{uri: {{exact: /a}}}}], route: [{}]}}, {{route: [{}]}}]",
            list(&one),
            list(&other)
        );
        let services: String = (0..services).map(made).collect();
        let compared = fits(&format!("{services}{GATEWAY}{}", route("[infra/edge]", &rules)));
        let named = compared.yaml.lines().filter_map(|line| line.trim().strip_prefix("name: "));
        let made: Vec<&str> = named.filter(|name| name.starts_with("httproute-from-")).collect();
        assert_eq!(made, grants, "{}", compared.yaml);
    };
    check(16, &["httproute-from-shop"]);
    check(17, &["httproute-from-shop", "httproute-from-shop.2"]);
}

#[test]
fn a_rule_has_as_many_destinations_as_it_may() {
    let check = |kind: &str, rule: &str, count: usize, expected: &[&str]| {
        let to = vec!["{destination: {host: web, port: {number: 80}}, weight: 1}"; count].join(", ");
        let input = format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  selector: {{istio: edge}}
  servers:
  - {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}
  - {{port: {{number: 443, name: tls, protocol: TLS}}, hosts: ['*'], tls: {{mode: PASSTHROUGH}}}}
  - {{port: {{number: 9000, name: tcp, protocol: TCP}}, hosts: ['*']}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: r, namespace: shop}}
spec: {{hosts: [a.example], gateways: [infra/edge], {kind}: [{{{rule}route: [{to}]}}]}}
"
        );
        let compared = Compared::of(&input);
        assert_eq!(compared.findings(), expected, "{kind} {count}");
        let routes = compared.conversion.manifests.iter().filter(|manifest| manifest.kind() != "Gateway");
        assert_eq!(routes.count(), usize::from(expected.is_empty()), "{kind} {count}: {}", compared.yaml);
    };
    let said = |kind: &str| {
        format!("error spec.{kind}[0]: a rule has at most 16 destinations; the rule is left out")
    };
    for (kind, rule) in [
        ("http", ""),
        ("tls", "match: [{port: 443, sniHosts: [a.example]}], "),
        ("tcp", "match: [{port: 9000}], "),
    ] {
        check(kind, rule, 16, &[]);
        check(kind, rule, 17, &[&said(kind)]);
    }
}

#[test]
fn plain_requests_are_redirected_where_they_were() {
    let input = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: c}}
---
";
    let compared =
        Compared::of(&format!("{input}{}", route("[infra/edge]", "[{route: [{destination: {host: web}}]}]")));
    assert_eq!(compared.findings(), Vec::<String>::new());
    for call in calls(&["a.example"], &PATHS).into_iter().filter(|call| call.tls.is_none()) {
        let (was, _, _) = fate(&compared.before[0], &call);
        let (is, _, _) = fate(&compared.after[0], &call);
        assert!(matches!(was, Action::Redirect { status: 301, .. }), "{was:?}");
        assert_eq!(was, is);
    }
}

#[test]
fn connections_by_name_and_by_port_go_where_they_went() {
    let input = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.example'], tls: {mode: PASSTHROUGH}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes, namespace: data}
spec:
  hosts: ['a.example', 'b.example']
  gateways: [infra/edge]
  tls:
  - match: [{port: 443, sniHosts: [a.example]}]
    route: [{destination: {host: db}}]
  - match: [{port: 443, sniHosts: [b.example]}]
    route: [{destination: {host: db}, weight: 1}, {destination: {host: web.shop.svc.cluster.local}, weight: 3}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes-too, namespace: data}
spec: {hosts: ['*'], gateways: [infra/edge], tcp: [{match: [{port: 9000}], route: [{destination: {host: db}}]}]}
---
";
    let compared = fits(input);
    for (port, sni) in [(443, "a.example"), (443, "b.example"), (443, "c.example"), (9000, "")] {
        let mut call = Call::tcp(SocketAddr::from(([10, 96, 2, 1], port)));
        call.tls = (!sni.is_empty()).then(|| Tls { sni: sni.to_owned(), ..Tls::default() });
        compared.same(&call).unwrap_or_else(|difference| panic!("{difference}"));
    }
    let (action, _, _) = fate(&compared.after[0], &Call::tcp(SocketAddr::from(([10, 96, 2, 1], 9000))));
    assert!(matches!(action, Action::Forward(_)), "{action:?}");
}

#[test]
fn ingresses_of_a_class_go_where_they_went() {
    let ingress = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: {namespace}, annotations: \
             {{kubernetes.io/ingress.class: istio}}}}\nspec: {spec}\n---\n"
        )
    };
    let to = |service: &str, port: &str| format!("{{service: {{name: {service}, port: {{{port}}}}}}}");
    let first = format!(
        "{{tls: [{{hosts: [a.example], secretName: c}}], rules: [{{host: a.example, http: {{paths: [{{path: /a, pathType: Prefix, \
         backend: {}}}, {{path: /a/b, pathType: Exact, backend: {}}}]}}}}, {{http: {{paths: [{{path: /b, pathType: Prefix, \
         backend: {}}}]}}}}]}}",
        to("web", "number: 80"),
        to("api", "name: http-more"),
        to("api", "number: 8080"),
    );
    let second = format!("{{defaultBackend: {}, rules: [{{host: b.a.example}}]}}", to("web", "name: http"));
    let compared = fits(&(ingress("first", "shop", &first) + &ingress("second", "shop", &second)));
    let hosts =
        compared.conversion.manifests.iter().filter(|manifest| manifest.kind() == "HTTPRoute").count();
    assert_eq!(hosts, 3, "{}", compared.yaml);
}

/// What does not fit is said where it is written.
#[track_caller]
fn says(rules: &str, expected: &[&str]) {
    let compared = Compared::of(&format!("{GATEWAY}{}", route("[infra/edge]", rules)));
    assert_eq!(compared.findings(), expected);
    assert!(compared.conversion.findings.iter().all(|finding| finding.position.is_some()), "at a place");
}

#[test]
fn what_does_not_fit_is_said() {
    let to = "route: [{destination: {host: web}}]";
    says(
        &format!("[{{match: [{{uri: {{prefix: /a}}}}], {to}}}]"),
        &["warning spec.http[0]: /a takes /axyz too, and PathPrefix ends at a segment"],
    );
    says(
        &format!("[{{{to}}}, {{match: [{{uri: {{exact: /a}}}}], {to}}}]"),
        &[
            "warning spec.http[1]: spec.http[0] was tried before it, and this rule, whose condition is more specific, comes first now",
        ],
    );
    says(
        &format!("[{{match: [{{withoutHeaders: {{x: {{}}}}, sourceNamespace: y}}], {to}}}]"),
        &[
            "error spec.http[0]: conditions on sourceNamespace, withoutHeaders have no counterpart; the rule is left out",
        ],
    );
    says(
        &format!("[{{fault: {{abort: {{httpStatus: 500, percentage: {{value: 1}}}}}}, {to}}}]"),
        &["error spec.http[0].fault: faults have no counterpart; they are left out"],
    );
    says(
        "[{directResponse: {status: 200}}]",
        &[
            "error spec.http[0].directResponse: answers without a backend have no counterpart; the rule is left out",
        ],
    );
    says(
        "[{route: [{destination: {host: web, subset: v1}}]}]",
        &[
            "error spec.http[0].route[0].destination: the rule is left out",
            "error spec.http[0].route[0].destination: the subset v1 of web.shop.svc.cluster.local has no counterpart",
        ],
    );
    says(
        &format!("[{{retries: {{attempts: 2, retryOn: 5xx}}, {to}}}]"),
        &[
            "warning spec.http[0].retries: what is tried again will be cancelled,connect-failure,refused-stream,unavailable, and is 5xx",
        ],
    );
}

/// A rule with conditions that may be in one another's way.
fn any_rule() -> impl Strategy<Value = String> {
    let uri = prop_oneof![
        Just(""),
        Just("uri: {exact: /a}, "),
        Just("uri: {exact: /a/b}, "),
        Just("uri: {prefix: /}, "),
        Just("uri: {prefix: /a}, "),
        Just("uri: {regex: '/a.*'}, "),
        Just("uri: {regex: '/items/[0-9]+'}, "),
    ];
    let method = prop_oneof![Just(""), Just("method: {exact: GET}, "), Just("method: {exact: POST}, ")];
    let header = prop_oneof![
        Just(""),
        Just("headers: {x-v: {exact: '1'}}, "),
        Just("headers: {x-v: {prefix: '2'}}, "),
        Just("headers: {x-v: {}}, "),
    ];
    let action = prop_oneof![
        Just("route: [{destination: {host: web}}]"),
        Just("route: [{destination: {host: api, port: {number: 8080}}}]"),
        Just("timeout: 2s, route: [{destination: {host: api, port: {number: 9000}}}]"),
        Just("redirect: {authority: b.example}"),
        Just("rewrite: {uri: /new}, route: [{destination: {host: web}}]"),
        Just(
            "route: [{destination: {host: web}, weight: 10}, {destination: {host: api, port: {number: 8080}}, weight: 90}]"
        ),
    ];
    (uri, method, header, action).prop_map(|(uri, method, header, action)| {
        let condition = format!("{uri}{method}{header}");
        let condition = condition.trim_end_matches(", ");
        match condition {
            "" => format!("{{{action}}}"),
            condition => format!("{{match: [{{{condition}}}], {action}}}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the rules are: they are converted exactly, or it is said that they are not.
    #[test]
    fn rules_are_exact_or_it_is_said(
        rules in prop::collection::vec(any_rule(), 1..4),
        more in prop::option::of(any_rule()),
    ) {
        let second = more.map(|rule| {
            route("[infra/edge]", &format!("[{rule}]")).replace("name: r,", "name: second,")
        });
        let input = format!("{GATEWAY}{}{}", route("[infra/edge]", &format!("[{}]", rules.join(", "))), second.unwrap_or_default());
        let compared = Compared::of(&input);
        if compared.conversion.findings.is_empty() {
            for call in calls(&["a.example"], &PATHS) {
                prop_assert_eq!(compared.same(&call), Ok(()), "{}", input);
            }
        }
    }
}

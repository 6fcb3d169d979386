//! Policies reach the proxies that they are for, and no others; what cannot work is said.

use std::sync::Arc;

use navarch_envoy::{ProxyResources, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::fact::{Fact, FactKey, TrustBundle};
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, Position, Severity, parse_text};
use navarch_plan::{ClassPlan, Planner, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: front}
spec:
  clusterIP: 10.0.0.1
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
";

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("test.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

/// A sidecar in each of the namespaces `front` and `back`, and a gateway in `edge`.
struct Rig {
    world: World,
    planner: Planner,
    plans: Vec<(&'static str, ClassPlan)>,
    last: Vec<Arc<ProxyResources>>,
}

impl Rig {
    fn new() -> Self {
        let mut world = World::new(Options::default());
        let gateway = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: main, namespace: edge}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";
        let planner = Planner::new(world.apply(change(&format!("{SERVICE}---\n{gateway}"))));
        let node = |kind: &str, namespace: &str, labels: serde_json::Value| {
            let id = format!("{kind}~10.99.0.1~p.{namespace}~{namespace}.svc.cluster.local");
            let metadata =
                serde_json::json!({"NAMESPACE": namespace, "LABELS": labels, "ISTIO_VERSION": "1.32.0"});
            let metadata = metadata.as_object().expect("an object").clone();
            let facts = ProxyFacts::parse(&id, "p", &metadata, Locality::default()).expect("a node");
            planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
        };
        let plans = vec![
            ("front", node("sidecar", "front", serde_json::json!({"app": "web"}))),
            ("back", node("sidecar", "back", serde_json::json!({"app": "db"}))),
            ("edge", node("router", "edge", serde_json::json!({"istio": "edge"}))),
        ];
        let last = plans.iter().map(|(_, plan)| planner.resources(plan)).collect();
        Rig { world, planner, plans, last }
    }

    /// What an edit changes, as `<proxy> <type> <resource>`.
    fn edit(&mut self, text: &str) -> Vec<String> {
        self.apply(change(text))
    }

    fn apply(&mut self, change: ChangeSet) -> Vec<String> {
        self.planner.advance(self.world.apply(change));
        let mut changed = Vec::new();
        for ((name, plan), last) in self.plans.iter().zip(&mut self.last) {
            let next = self.planner.resources(plan);
            for ty in XdsType::ALL {
                let delta = diff(last.set(ty), next.set(ty));
                changed
                    .extend(delta.changed.iter().map(|resource| format!("{name} {ty} {}", resource.name())));
                changed.extend(delta.removed.iter().map(|gone| format!("{name} {ty} -{gone}")));
            }
            *last = next;
        }
        changed.sort();
        changed
    }
}

fn policy(kind: &str, namespace: &str, spec: &str) -> String {
    let group = match kind {
        "Telemetry" => "telemetry.istio.io/v1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        _ => "security.istio.io/v1",
    };
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn a_policy_changes_inbound_listeners_of_the_proxies_that_it_is_for() {
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}";
    let one = "{selector: {matchLabels: {app: web}}, jwtRules: [{issuer: a, jwks: '{\"keys\":[]}'}]}";
    for (kind, namespace, spec, expected) in [
        ("AuthorizationPolicy", "front", deny, &["front LDS virtualInbound"][..]),
        ("AuthorizationPolicy", "other", deny, &[]),
        ("AuthorizationPolicy", "edge", deny, &["edge LDS 0.0.0.0_80"]),
        (
            "AuthorizationPolicy",
            "istio-system",
            deny,
            &["back LDS virtualInbound", "edge LDS 0.0.0.0_80", "front LDS virtualInbound"],
        ),
        ("RequestAuthentication", "istio-system", one, &["front LDS virtualInbound"]),
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.edit(&policy(kind, namespace, spec)), expected, "{kind} {namespace}");
        assert_eq!(rig.edit(SERVICE), Vec::<String>::new(), "nothing changes twice");
    }
}

#[test]
fn patches_change_what_they_name_on_the_proxies_that_they_are_for() {
    let merge = |apply_to: &str, context: &str, value: &str| {
        format!(
            "{{configPatches: [{{applyTo: {apply_to}, match: {{context: {context}}}, patch: {{operation: MERGE, value: {value}}}}}]}}"
        )
    };
    let listener = merge("LISTENER", "SIDECAR_INBOUND", "{per_connection_buffer_limit_bytes: 9}");
    let routes = merge("ROUTE_CONFIGURATION", "SIDECAR_OUTBOUND", "{internal_only_headers: [x]}");
    let cluster = merge("CLUSTER", "GATEWAY", "{alt_stat_name: x}");
    let wrong = merge("LISTENER", "ANY", "{per_connection_buffer_limit_bytes: many}");
    for (namespace, spec, expected) in [
        ("front", &listener, &["front LDS virtualInbound"][..]),
        ("istio-system", &listener, &["back LDS virtualInbound", "front LDS virtualInbound"]),
        ("front", &routes, &["front RDS 80"]),
        ("back", &cluster, &[]),
        ("istio-system", &wrong, &[]),
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.edit(&policy("EnvoyFilter", namespace, spec)), expected, "{namespace} {spec}");
    }
}

/// Keys that somebody states make `jwksUri` work, for who checks tokens with them and for nobody else.
#[test]
fn keys_of_elsewhere_are_used_once_they_are_known() {
    let mut rig = Rig::new();
    let text = policy("RequestAuthentication", "front", "{jwtRules: [{issuer: a, jwksUri: https://a/keys}]}");
    rig.edit(&text);
    let keys = |source: &str| Fact::Jwks { source: source.into(), keys: "{\"keys\":[]}".into() };
    let found = |rig: &Rig| TranslationFindings::default().about(rig.world.snapshot(), &Arc::default()).len();
    let contains = |rig: &Rig, text: &str| {
        let listeners = rig.last[0].set(XdsType::Lds);
        listeners.iter().any(|l| l.body().windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert_eq!(found(&rig), 0, "nobody tries to fetch them");
    let reason = "it is loopback".into();
    rig.apply(ChangeSet::stating([Fact::Unfetched { source: "https://a/keys".into(), reason }]));
    assert_eq!(found(&rig), 1, "every token is refused");
    assert!(!contains(&rig, "{\"keys\":[]}"));
    assert_eq!(rig.apply(ChangeSet::stating([keys("https://b/keys")])), [""; 0]);
    let changed = rig.apply(ChangeSet::stating([keys("https://a/keys")]));
    assert!(!changed.is_empty() && changed.iter().all(|what| what.starts_with("front LDS")), "{changed:?}");
    assert!(contains(&rig, "{\"keys\":[]}"));
    assert_eq!(found(&rig), 1, "old keys are used");
    let retracted = vec![FactKey::Unfetched("https://a/keys".into())];
    assert_eq!(rig.apply(ChangeSet { retracted, ..ChangeSet::default() }), [""; 0]);
    assert_eq!(found(&rig), 0);
    let retracted = vec![FactKey::Jwks("https://a/keys".into())];
    assert_eq!(rig.apply(ChangeSet { retracted, ..ChangeSet::default() }), changed);
    assert!(!contains(&rig, "{\"keys\":[]}"));
}

/// Where a Secret appears in a namespace that no object declares, it is not missed any more.
#[test]
fn a_secret_that_appears_elsewhere_is_not_missed_any_more() {
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: edge}\nspec:\n  selector: {istio: edge}\n  \
         servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: web}}]\n";
    let secret = |namespace: &str, name: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n")
    };
    let mut world = World::new(Options::default());
    let mut findings = TranslationFindings::default();
    // Proxies may run there or not: that is worth a note.
    let mut found = |snapshot: &Arc<Snapshot>| {
        let found = findings.about(snapshot, &Arc::default());
        found.iter().filter(|finding| finding.severity == Severity::Error).count()
    };
    assert_eq!(found(&world.apply(change(gateway))), 1);
    assert_eq!(found(&world.apply(change(&secret("b", "other")))), 1);
    assert_eq!(found(&world.apply(change(&secret("b", "web")))), 0);
    let gone = parse_text("test.yaml", &secret("b", "web")).objects.remove(0).key.clone();
    assert_eq!(found(&world.apply(ChangeSet { removals: vec![gone], ..ChangeSet::default() })), 1);
    assert_eq!(found(&world.apply(change(&secret("a", "web")))), 0);
}

/// Roots that are fetched vouch for the trust domains that they are stated for; what is wrong is said.
#[test]
fn roots_of_other_trust_domains_are_in_the_bundle_once_they_are_known() {
    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let url = "https://them.test/bundle";
    let text = "caCertificates: [{spiffeBundleUrl: them.test/bundle, trustDomains: [them]}]";
    let (config, findings) = navarch_model::mesh::parse_mesh_config(text, "mesh.yaml", 1);
    assert_eq!(findings, []);
    let settings = navarch_model::mesh::MeshSettings { config, ..Default::default() };
    let bundle = |domain: &str, roots: &str| Fact::TrustBundle {
        domain: domain.into(),
        bundle: TrustBundle { roots: roots.into(), lists: None },
    };
    let mut rig = Rig::new();
    rig.apply(ChangeSet::stating([Fact::MeshConfig(Arc::new(settings)), bundle("cluster.local", "own")]));
    let has = |rig: &Rig, text: &str| {
        let roots = rig.last[0].set(XdsType::Sds).iter().find(|secret| **secret.name() == *"ROOTCA");
        let body = roots.expect("the roots").body();
        body.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let said = |rig: &Rig| {
        let found = TranslationFindings::default().about(rig.world.snapshot(), &Arc::default());
        found.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("\n")
    };
    assert!(has(&rig, "own") && !has(&rig, "spiffe"), "nobody of them is known");
    let reason = "it is loopback".into();
    rig.apply(ChangeSet::stating([Fact::Unfetched { source: url.into(), reason }]));
    assert!(said(&rig).contains("it is loopback; certificates that lead to them are refused"));
    rig.apply(ChangeSet::stating([bundle(url, ROOT)]));
    assert!(has(&rig, "envoy.tls.cert_validator.spiffe") && has(&rig, "MAA="));
    assert!(said(&rig).contains("the roots that were fetched before stay in use"));
    // Nobody of them is trusted any more.
    rig.apply(ChangeSet::stating([bundle(url, "")]));
    assert!(has(&rig, "own") && !has(&rig, "spiffe"));
}

#[test]
fn credentials_that_are_missing_useless_or_old_are_said_where_they_are_named() {
    let gateway = |name: &str, mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: edge}}\nspec:\n  selector: {{istio: edge}}\n  \
             servers:\n  - port: {{number: 443, name: https, protocol: HTTPS}}\n    hosts: ['*']\n    tls: {{mode: {mode}, credentialName: {name}}}\n"
        )
    };
    let secret = |namespace: &str, data: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: web, namespace: {namespace}}}\nstringData: {data}\n"
        )
    };
    let named = "9: spec.servers[0].tls.credentialName: ";
    let check = |text: String, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|text| format!("{named}{text}")).collect();
        check(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check(gateway("web", "SIMPLE"), &["there is no Secret edge/web; connections that need it are refused"]);
    check(gateway("builtin://", "SIMPLE"), &[]);
    // Proxies may run in another namespace than who configures them, which need not be declared.
    let proxies = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: proxies}\n";
    let elsewhere = "there is no Secret edge/web; one of namespace proxies has the name, and only proxies that run there get it";
    check(gateway("web", "SIMPLE") + proxies + &secret("proxies", "{tls.crt: a}"), &[elsewhere]);
    let missing = "Secret edge/web cannot be used: it has neither cert and key nor tls.crt and tls.key; connections that need it are refused";
    check(gateway("web", "SIMPLE") + &secret("edge", "{tls.crt: a}"), &[missing]);
    let both = "Secret edge/web-cacert cannot be used: it has neither cacert nor ca.crt; connections that need it are refused";
    check(gateway("web", "MUTUAL") + &secret("edge", "{tls.crt: a}"), &[missing, both]);
    check(
        gateway("'configmap://edge/roots'", "SIMPLE"),
        &["there is no ConfigMap edge/roots; connections that need it are refused"],
    );
    check(gateway("kubernetes-gateway://other/web", "SIMPLE"), &[]);
}

/// The findings of translation, as `line: path: message`.
fn check(text: &str, expected: &[&str]) {
    let snapshot = World::new(Options::default()).apply(change(text));
    let found = TranslationFindings::default().about(&snapshot, &Arc::default());
    let lines: Vec<String> = found
        .iter()
        .map(|finding| {
            let line = finding.position.as_ref().and_then(Position::line).unwrap_or(0);
            format!("{line}: {}: {}", finding.path, finding.message)
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn what_cannot_work_is_said_with_its_place() {
    check(
        &policy(
            "AuthorizationPolicy",
            "front",
            "\n  action: CUSTOM\n  provider: {name: oauth}\n  rules: [{}]",
        ),
        &[
            "6: spec.provider.name: \"oauth\" cannot be asked: no extension provider for external authorization has this \
             name; what the policy matches is denied",
        ],
    );
    check(
        &policy("Telemetry", "front", "\n  accessLogging:\n  - providers: [{name: otel}, {name: envoy}]"),
        &[
            "6: spec.accessLogging[0].providers[0].name: there is no extension provider \"otel\"; nothing is sent to it",
        ],
    );
    check(
        &policy(
            "EnvoyFilter",
            "front",
            "\n  configPatches:\n  - applyTo: CLUSTER\n    patch:\n      operation: MERGE\n      value:\n        lb_policy: BEST",
        ),
        &["10: spec.configPatches[0].patch.value.lb_policy: does not fit envoy.config.cluster.v3.Cluster: \
             envoy.config.cluster.v3.Cluster.LbPolicy has no value \"BEST\"; the patch is left out"],
    );
    check(
        &policy(
            "EnvoyFilter",
            "front",
            "{configPatches: [{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}}]}",
        ),
        &[],
    );
    check(
        &policy(
            "EnvoyFilter",
            "front",
            "{configPatches: [{applyTo: BOOTSTRAP, patch: {operation: ADD, value: {}}}]}",
        ),
        &[
            "4: spec.configPatches[0].patch.operation: only MERGE changes a bootstrap; the patch changes nothing",
        ],
    );
    check(
        &policy(
            "Telemetry",
            "front",
            "\n  metrics:\n  - providers: [{name: prometheus}]\n    overrides: [{disabled: true}]",
        ),
        &[],
    );
    check(
        &policy("Telemetry", "front", METRICS),
        &[
            "6: spec.metrics[0].providers[0].name: nothing is counted for \"stackdriver\": only providers of kind prometheus are served",
            "6: spec.metrics[0].providers[1].name: there is no extension provider \"nobody\"; nothing is counted for it",
            "7: spec.metrics[0].reportingInterval: reportingInterval has no effect: the bytes of a connection are counted when it ends",
            "9: spec.metrics[0].overrides[0].match.customMetric: \"mine\" is not a standard metric, and nobody counts it",
            "10: spec.metrics[0].overrides[1].match.metric: stock Envoy does not count messages by peer",
            "12: spec.metrics[0].overrides[2].tagOverrides.tier.value: stock Envoy does not join texts with +; label \"tier\" stays as it is",
        ],
    );
    check(SERVICE, &[]);
}

/// Telemetry that says of metrics what is not done.
const METRICS: &str = "
  metrics:
  - providers: [{name: stackdriver}, {name: nobody}]
    reportingInterval: 1s
    overrides:
    - {match: {customMetric: mine}}
    - {match: {metric: GRPC_REQUEST_MESSAGES}}
    - tagOverrides:
        tier: {value: \"'a' + request.host\"}
        gone: {operation: REMOVE}";

/// An object that moves in its file has not changed, but its findings are elsewhere.
#[test]
fn findings_follow_objects_that_move() {
    let text = policy("Telemetry", "front", "\n  metrics: [{reportingInterval: 1s}]");
    let mut world = World::new(Options::default());
    let mut findings = TranslationFindings::default();
    let line =
        |found: Vec<navarch_model::finding::Finding>| found[0].position.as_ref().and_then(Position::line);
    let before = line(findings.about(&world.apply(change(&text)), &Arc::default()));
    let after = line(findings.about(&world.apply(change(&format!("# a comment\n{text}"))), &Arc::default()));
    assert_eq!((before, after), (Some(5), Some(6)));
}

#[test]
fn what_has_been_refused_or_replaced_is_said_where_it_is_written() {
    let filter = |value: &str| {
        format!(
            "\n  configPatches:\n  - applyTo: HTTP_FILTER\n    patch: {{operation: INSERT_BEFORE, value: {{name: x, {value}}}}}"
        )
    };
    check(
        &policy(
            "EnvoyFilter",
            "front",
            &filter("typed_config: {'@type': type.googleapis.com/envoy.config.filter.http.lua.v2.Lua}"),
        ),
        &[
            "7: spec.configPatches[0].patch.value.typed_config: does not fit envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter: \
             unknown message type \"type.googleapis.com/envoy.config.filter.http.lua.v2.Lua\", which is of an API that Envoy does not have \
             any more; use envoy.extensions.filters.http.lua.v3.Lua; the patch is left out",
        ],
    );
    check(
        &policy(
            "EnvoyFilter",
            "front",
            &filter(
                "typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, inline_code: 'if end'}",
            ),
        ),
        &[
            "7: spec.configPatches[0].patch.value: Envoy would refuse it: `typed_config.inline_code` is not a Lua script: line 1: unexpected \
             `end`; the patch is left out",
        ],
    );
}

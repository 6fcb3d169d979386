//! Which labels of clients make a difference, and what a difference costs: counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use serde_json::json;

/// Gathers that run once per bucket of hosts.
const PER_BUCKET: [&str; 4] =
    ["clusters.bucket", "endpoints.bucket", "listeners.bucket_contributions", "routes.bucket_hosts"];

fn services(number: usize) -> String {
    let service = |index: usize| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: shop}}\nspec:\n  clusterIP: 10.0.{}.{}\n  \
             ports: [{{name: http, port: 80}}, {{name: tcp, port: 9000}}]\n---\n",
            index / 250,
            index % 250 + 1
        )
    };
    (0..number).map(service).collect()
}

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("mesh.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

fn plan(planner: &Planner, namespace: &str, labels: serde_json::Value) -> ClassPlan {
    let id = format!("sidecar~10.9.0.1~web.{namespace}~{namespace}.svc.cluster.local");
    let metadata = json!({ "LABELS": labels });
    let facts = ProxyFacts::parse(&id, "web", metadata.as_object().expect("an object"), Locality::default());
    planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts.expect("a node")))))
}

/// How often the gathers of buckets ran while `work` was done.
fn runs(planner: &Planner, work: impl FnOnce()) -> BTreeMap<&'static str, u64> {
    let before = planner.inspect(|engine| engine.runs());
    work();
    let after = planner.inspect(|engine| engine.runs());
    let grown = |name: &&'static str| after.get(*name).unwrap_or(&0) - before.get(*name).unwrap_or(&0);
    PER_BUCKET.iter().map(|name| (*name, grown(name))).filter(|(_, number)| *number > 0).collect()
}

/// A class that differs from a planned one in its labels costs the buckets that ask for one of them, and no
/// others.
#[test]
fn only_buckets_that_ask_for_a_label_are_computed_for_it() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: shop}\nspec:\n  host: s7\n  \
                workloadSelector: {matchLabels: {tier: front}}\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}\n";
    let http = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: h, namespace: shop}\nspec:\n  hosts: [s7]\n  \
                http:\n  - match: [{sourceLabels: {tier: front}}]\n    timeout: 1s\n    route: [{destination: {host: s7}}]\n  \
                - route: [{destination: {host: s7}}]\n";
    let tcp = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: t, namespace: shop}\nspec:\n  hosts: [s7]\n  \
               tcp:\n  - match: [{sourceLabels: {tier: front}}]\n    route: [{destination: {host: s8}}]\n";
    let check = |config: &str, labels: serde_json::Value, expected: &[(&'static str, u64)]| {
        let mut world = World::new(Options::default());
        let planner = Planner::new(world.apply(change(&format!("{}{config}", services(100)))));
        let first = plan(&planner, "shop", json!({"app": "web"}));
        planner.resources(&first);
        let second = plan(&planner, "shop", labels.clone());
        let made = runs(&planner, || drop(planner.resources(&second)));
        assert_eq!(made, expected.iter().copied().collect(), "{labels} {config}");
        assert_ne!(first.class().fingerprint(), second.class().fingerprint());
    };
    let other = || json!({"app": "other", "version": "v2"});
    let front = || json!({"app": "other", "tier": "front"});
    check("", other(), &[]);
    check("", front(), &[]);
    check(rule, other(), &[]);
    check(rule, front(), &PER_BUCKET.map(|name| (name, 1)));
    check(http, other(), &[]);
    check(http, front(), &[("routes.bucket_hosts", 1)]);
    check(tcp, other(), &[]);
    // In its namespace, nobody had asked for the anonymous client.
    check(tcp, front(), &[("listeners.bucket_contributions", 2)]);
}

/// A rule that starts to look at a label, and one that stops.
#[test]
fn clients_part_and_join_as_rules_come_and_go() {
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&services(20))));
    let plans =
        [json!({"tier": "front"}), json!({"tier": "back"})].map(|labels| plan(&planner, "shop", labels));
    let same = |planner: &Planner| {
        let [a, b] = plans.each_ref().map(|plan| planner.resources(plan));
        navarch_envoy::XdsType::ALL.into_iter().all(|ty| a.set(ty).version() == b.set(ty).version())
    };
    assert!(same(&planner));
    let rule = |selector: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec:\n  host: s7\n  \
             workloadSelector: {{matchLabels: {selector}}}\n  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 5}}}}}}\n"
        )
    };
    planner.advance(world.apply(change(&rule("{tier: front}"))));
    assert!(!same(&planner), "the rule is for one of them");
    planner.advance(world.apply(change(&rule("{tier: middle}"))));
    assert!(same(&planner), "the rule is for neither");
    planner.advance(world.apply(change(&rule("{zone: a, tier: back}"))));
    assert!(same(&planner), "neither has the first label");
    planner.advance(world.apply(change(&rule("{tier: back}"))));
    assert!(!same(&planner), "the rule is for the other one");
}

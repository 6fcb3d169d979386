//! Destinations that are not there are found, each where it is written.

use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::finding::Finding;
use navarch_model::object::ObjectKey;
use navarch_model::{kinds::Kind, parse_text};
use navarch_plan::TranslationFindings;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec: {hosts: ['*.example.com'], resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
";

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("test.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

fn texts(findings: &[Finding]) -> Vec<String> {
    let text = |finding: &Finding| format!("{}: {}", finding.path, finding.message);
    findings.iter().map(text).collect()
}

/// A VirtualService and what is found.
fn check(spec: &str, expected: &[&str]) {
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: shop}}\nspec: {spec}\n"
    );
    let mut world = World::new(Options::default());
    world.apply(change(SERVICES));
    let snapshot = world.apply(change(&rule));
    assert_eq!(texts(&TranslationFindings::default().about(&snapshot, &Arc::default())), expected, "{spec}");
}

#[test]
fn destinations_that_are_not_there_are_found() {
    const NO_HOST: &str =
        "no Service or ServiceEntry has the host ratings.shop.svc.cluster.local; what is sent there fails";
    check(
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1, port: {number: 80}}}]}]}",
        &[],
    );
    check("{hosts: [x.example.com], http: [{route: [{destination: {host: x.example.com}}]}]}", &[]);
    check(
        "{hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}",
        &[&format!("spec.http[0].route[0].destination.host: {NO_HOST}")],
    );
    check(
        "{hosts: [a, b], http: [{route: [{destination: {host: reviews}}], mirror: {host: ratings}}]}",
        &[&format!("spec.http[0].mirror.host: {NO_HOST}")],
    );
    check(
        "{hosts: ['*.shop.com', reviews], tcp: [{route: [{destination: {host: ratings}}]}]}",
        &[&format!("spec.tcp[0].route[0].destination.host: {NO_HOST}")],
    );
    check(
        "{hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: ratings}}]}]}",
        &[&format!("spec.http[0].route[0].destination.host: {NO_HOST}")],
    );
    check(
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}",
        &[
            "spec.http[0].route[0].destination.subset: no DestinationRule for reviews.shop.svc.cluster.local defines subset \
           \"v2\"; what is sent there fails",
        ],
    );
    check(
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 8080}}}]}]}",
        &[
            "spec.http[0].route[0].destination.port.number: reviews.shop.svc.cluster.local has no port 8080; what is sent \
           there fails",
        ],
    );
}

#[test]
fn what_a_delegate_names_is_found_in_the_delegate() {
    let rule = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: \
             shop}}\nspec: {spec}\n---\n"
        )
    };
    let leaf = "{http: [{route: [{destination: {host: ratings}}]}]}";
    let root = |host: &str| format!("{{hosts: [{host}], http: [{{delegate: {{name: leaf}}}}]}}");
    let mut world = World::new(Options::default());
    world.apply(change(SERVICES));
    let rules = [rule("leaf", leaf), rule("one", &root("one.com")), rule("two", &root("two.com"))];
    let snapshot = world.apply(change(&rules.concat()));
    let found = TranslationFindings::default().about(&snapshot, &Arc::default());
    let objects: Vec<_> =
        found.iter().map(|finding| (finding.object.clone(), finding.path.as_str())).collect();
    let key = ObjectKey::new(Kind::VirtualService, "shop", "leaf");
    assert_eq!(objects, [(Some(key), "spec.http[0].route[0].destination.host")]);
}

#[test]
fn findings_come_and_go_with_what_is_named() {
    let mut world = World::new(Options::default());
    let mut findings = TranslationFindings::default();
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: shop}\nspec: {hosts: \
                [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}\n";
    let mut count = |snapshot: &Arc<_>| findings.about(snapshot, &Arc::default()).len();
    assert_eq!(count(&world.apply(change(rule))), 1, "nothing is there");
    assert_eq!(count(&world.apply(change(SERVICES))), 0);
    let gone = |kind| ChangeSet::removing([ObjectKey::new(kind, "shop", "reviews")]);
    assert_eq!(count(&world.apply(gone(Kind::DestinationRule))), 1, "the subset went");
    assert_eq!(count(&world.apply(gone(Kind::Service))), 1, "and then the host");
    assert_eq!(count(&world.apply(change(SERVICES))), 0);
}

//! What has no effect yet is said, never silently dropped.

use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::parse_text;
use navarch_plan::findings::TranslationFindings;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

fn check(yaml: &str, expected: &[&str]) {
    let parsed = parse_text("mesh.yaml", yaml);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let snapshot = World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects));
    let findings = TranslationFindings::default().about(&snapshot, &Arc::default());
    let found: Vec<String> = findings
        .iter()
        .map(|finding| {
            let place = finding.position.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{place} {}", finding.path)
        })
        .collect();
    assert_eq!(found, expected, "{findings:#?}");
}

#[test]
fn kinds_and_fields_without_effect_are_found() {
    check(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: g}\nspec: {template: {serviceAccount: x}}\n",
        &[],
    );
    check(
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: p}\nspec: {image: {imageType: debug}, concurrency: 2}\n",
        &["mesh.yaml:4:8 spec.image"],
    );
    check(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec:\n  workloadSelector: {labels: {a: b}}\n  ingress:\n  \
         - port: {number: 443, protocol: HTTPS, name: https}\n    defaultEndpoint: 127.0.0.1:8080\n    tls: {mode: SIMPLE, privateKey: /k, \
         serverCertificate: /c}\n",
        &["mesh.yaml:9:5 spec.ingress[0].tls"],
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    serviceSettings: \
         [{settings: {clusterLocal: true}, hosts: ['*']}]\n",
        &["mesh.yaml:6:5 data.mesh"],
    );
    check(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {egress: [{hosts: ['./*']}]}\n",
        &[],
    );
}

#[test]
fn who_asks_for_ambient_mode_is_told_that_there_is_none() {
    let object = |kind: &str, name: &str, labels: &str, rest: &str| {
        format!("apiVersion: {kind}\nmetadata:\n  {name}\n  labels: {labels}\n{rest}\n")
    };
    let namespace = |labels: &str| object("v1\nkind: Namespace", "name: shop", labels, "");
    check(&namespace("{istio.io/use-waypoint: none, istio.io/dataplane-mode: none}"), &[]);
    check(
        &namespace("{istio.io/use-waypoint: w, istio.io/dataplane-mode: ambient}"),
        &[
            "mesh.yaml:5:35 metadata.labels[\"istio.io/use-waypoint\"]",
            "mesh.yaml:5:63 metadata.labels[\"istio.io/dataplane-mode\"]",
        ],
    );
    let service = object(
        "v1\nkind: Service",
        "name: web",
        "{istio.io/use-waypoint: w}",
        "spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}",
    );
    check(&service, &["mesh.yaml:5:35 metadata.labels[\"istio.io/use-waypoint\"]"]);
    let entry = object(
        "networking.istio.io/v1\nkind: ServiceEntry",
        "name: web",
        "{istio.io/use-waypoint: w}",
        "spec: {hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}",
    );
    check(&entry, &["mesh.yaml:5:35 metadata.labels[\"istio.io/use-waypoint\"]"]);
}

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

//! Effective mutual TLS modes.

mod common;

use common::*;
use navarch_snapshot::authn::{MtlsMode, mtls_mode, namespace_mtls_mode};

fn policies(given: &[(&str, &str)]) -> String {
    given
        .iter()
        .enumerate()
        .map(|(index, (key, spec))| {
            let (namespace, name) = key.split_once('/').unwrap();
            let year = 2010 + index;
            format!(
                "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z'}}
spec: {{{spec}}}
---"
            )
        })
        .collect()
}

#[test]
fn the_most_specific_policy_counts() {
    let check = |given: &[(&str, &str)], namespace: &str, port: u32, expected: MtlsMode| {
        let snapshot = snapshot(&policies(given));
        let view = snapshot.view();
        let mode = mtls_mode(&view, namespace, &labels_of(&["app=a"]), port);
        assert_eq!(mode, expected, "{given:?} {namespace} {port}");
    };
    let strict = "mtls: {mode: STRICT}";
    let disable = "mtls: {mode: DISABLE}";
    let unset = "mtls: {mode: UNSET}";
    let of_a = |rest: &str| format!("selector: {{matchLabels: {{app: a}}}}, {rest}");
    check(&[], "n", 80, MtlsMode::Permissive);
    check(&[("istio-system/mesh", strict)], "n", 80, MtlsMode::Strict);
    check(&[("istio-system/mesh", strict), ("n/ns", disable)], "n", 80, MtlsMode::Disable);
    check(&[("istio-system/mesh", strict), ("n/ns", unset)], "n", 80, MtlsMode::Strict);
    check(&[("n/older", strict), ("n/newer", disable)], "n", 80, MtlsMode::Strict);
    check(&[("n/ns", strict), ("n/w", &of_a(disable))], "n", 80, MtlsMode::Disable);
    check(&[("n/ns", strict), ("n/w", &of_a(unset))], "n", 80, MtlsMode::Strict);
    check(&[("istio-system/w", &of_a(strict))], "istio-system", 80, MtlsMode::Permissive);
    check(&[("istio-system/w", &of_a(strict))], "n", 80, MtlsMode::Permissive);
    let ports = of_a("mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}, 81: {mode: UNSET}}");
    check(&[("n/w", &ports)], "n", 80, MtlsMode::Disable);
    check(&[("n/w", &ports)], "n", 81, MtlsMode::Strict);
    check(&[("n/w", &ports)], "n", 82, MtlsMode::Strict);
    check(
        &[("n/w", "selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}")],
        "n",
        80,
        MtlsMode::Permissive,
    );
}

#[test]
fn clients_look_at_policies_for_the_namespace() {
    let check = |given: &[(&str, &str)], expected: Option<MtlsMode>| {
        let snapshot = snapshot(&policies(given));
        assert_eq!(namespace_mtls_mode(&snapshot.view(), "n"), expected, "{given:?}");
    };
    check(&[], None);
    check(&[("istio-system/mesh", "mtls: {mode: UNSET}")], Some(MtlsMode::Permissive));
    check(&[("istio-system/mesh", "mtls: {mode: STRICT}")], Some(MtlsMode::Strict));
    check(&[("n/ns", "mtls: {mode: UNSET}")], Some(MtlsMode::Permissive));
    check(
        &[("n/ns", "mtls: {mode: DISABLE}"), ("istio-system/mesh", "mtls: {mode: STRICT}")],
        Some(MtlsMode::Disable),
    );
    check(&[("n/w", "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}")], None);
}

//! No input makes the reader panic, and what it accepts it can be asked about.

use navarch_model::mesh::{parse_mesh_config, parse_mesh_networks};
use navarch_model::{Kind, parse_bytes, parse_text};
use proptest::prelude::*;

fn read(bytes: &[u8]) {
    let parsed = parse_bytes("input.yaml", bytes);
    for finding in &parsed.findings {
        let _ = finding.to_string();
    }
    for object in &parsed.objects {
        let _ = object.locate("spec.http[0].route[1].weight");
    }
}

/// Text that looks like a document of a random kind, cut and spliced.
fn almost_a_document() -> impl Strategy<Value = String> {
    let kinds: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| {
            let name = kind.as_str();
            format!("apiVersion: {}\nkind: {name}\nmetadata:\n  name: a\nspec:\n", kind.api_version())
        })
        .collect();
    let line = prop_oneof![
        "[ ]{2,6}(- )?[a-zA-Z]{1,12}: ?[-a-z0-9*./:%{}\\[\\]\"&']{0,12}",
        Just("  http: [{route: [{destination: {host: a}}], timeout: 1s}]".to_owned()),
        Just("  hosts: [\"*\", a, \"\"]".to_owned()),
        Just("  ports: [{number: 80, name: http, protocol: HTTP}]".to_owned()),
        Just(
            "  trafficPolicy: {loadBalancer: {consistentHash: {maglev: {tableSize: 18446744073709551615}}}}"
                .to_owned()
        ),
        Just(
            "  rules: [{from: [{source: {principals: [\"*\"]}}], to: [{operation: {paths: [\"/{**}\"]}}]}]"
                .to_owned()
        ),
        Just("  selector: {matchLabels: {app: a}}".to_owned()),
        Just("  parentRefs: [{name: a, port: 4294967295, sectionName: ''}, {group: '', kind: Service}]".to_owned()),
        Just(
            "  rules: [{matches: [{path: {type: RegularExpression, value: '('}}], timeouts: {request: 99999h}}]"
                .to_owned()
        ),
        Just(
            "  rules: [{filters: [{type: RequestMirror, requestMirror: {percent: -1, fraction: {denominator: 0}}}], \
             backendRefs: [{port: 70000, weight: -2147483648}], retry: {attempts: -1}}]"
                .to_owned()
        ),
        Just(
            "  listeners: [{port: 4294967295, protocol: TLS, hostname: '*.*', tls: {certificateRefs: [{}]}}, {}]"
                .to_owned()
        ),
        Just("  targetRefs: [{}]".to_owned()),
        Just("---".to_owned()),
    ];
    (prop::sample::select(kinds), prop::collection::vec(line, 0..12))
        .prop_map(|(head, lines)| head + &lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn on_any_text(text in "\\PC{0,200}") {
        read(text.as_bytes());
    }

    #[test]
    fn on_yaml_punctuation(text in "[-:?,\\[\\]{}#&*!|>'\"%@`~ \n\ta0<=]{0,120}") {
        read(text.as_bytes());
        parse_mesh_config(&text, "mesh", 1);
        parse_mesh_networks(&text, "networks", 1);
    }

    #[test]
    fn on_almost_documents(text in almost_a_document()) {
        read(text.as_bytes());
    }

    /// Reading is a function of the text: the same text gives the same objects and findings.
    #[test]
    fn reading_is_deterministic(text in almost_a_document()) {
        prop_assert_eq!(parse_text("a", &text), parse_text("a", &text));
    }
}

//! `docs/analyzers.md` says which finding says what an analyzer of Istio says. Each row that names one is
//! tried.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use navarch_model::change::ChangeSet;
use navarch_model::parse_text;
use navarch_plan::{TranslationFindings, presumed_fates, unmatched};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

/// A service and a gateway, each with a pod.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1, namespace: shop}}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
status: {phase: Running, podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {istio: edge}}
status: {phase: Running, podIP: 10.1.0.9}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.shop.test']}]
";

/// A number of Istio's, what it is about, as `<kind> <spec>` of one object or more, and the code of ours.
const CASES: &[(u16, &[&str], u16)] = &[
    (
        2,
        &[
            "VirtualService {hosts: [web], http: [{corsPolicy: {allowOrigin: ['*']}, route: [{destination: {host: web}}]}]}",
        ],
        311,
    ),
    (
        101,
        &[
            "VirtualService {hosts: [a.shop.test], gateways: [nowhere], http: [{route: [{destination: {host: web}}]}]}",
        ],
        308,
    ),
    (106, &["DestinationRule {hots: web, host: web}"], 101),
    (
        109,
        &[
            "VirtualService {hosts: [web], http: [{route: [{destination: {host: web}}]}]}",
            "VirtualService {hosts: [web], http: [{route: [{destination: {host: web}}]}]}",
        ],
        310,
    ),
    (
        110,
        &[
            "Sidecar {workloadSelector: {labels: {app: web}}, egress: [{hosts: ['./*']}]}",
            "Sidecar {workloadSelector: {labels: {app: web}}, egress: [{hosts: ['./*']}]}",
        ],
        310,
    ),
    (111, &["Sidecar {egress: [{hosts: ['./*']}]}", "Sidecar {egress: [{hosts: ['./*']}]}"], 310),
    (
        128,
        &["DestinationRule {host: web, trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}}"],
        317,
    ),
    (
        129,
        &[
            "DestinationRule {host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, insecureSkipVerify: true}}]}}",
        ],
        317,
    ),
    (
        130,
        &[
            "VirtualService {hosts: [web], http: [{route: [{destination: {host: web}}]}, {match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}]}",
        ],
        310,
    ),
    (
        131,
        &[
            "VirtualService {hosts: [web], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}, {match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], route: [{destination: {host: web}}]}]}",
        ],
        310,
    ),
    (
        132,
        &[
            "VirtualService {hosts: [other.test], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}",
        ],
        310,
    ),
    (133, &["DestinationRule {hots: web, host: web}"], 101),
    (
        134,
        &[
            "ServiceEntry {hosts: [a.test], ports: [{number: 9000, name: tcp, protocol: TCP}], resolution: DNS}",
            "ServiceEntry {hosts: [b.test], ports: [{number: 9000, name: tcp, protocol: TCP}], resolution: DNS}",
        ],
        310,
    ),
    (
        145,
        &[
            "Gateway {selector: {istio: edge}, servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]}",
        ],
        310,
    ),
    (
        149,
        &[
            "VirtualService {hosts: [a.shop.test], gateways: [edge], http: [{match: [{headers: {'@request.auth.claims.group': {exact: a}}}], route: [{destination: {host: web}}]}]}",
        ],
        308,
    ),
    (
        153,
        &[
            "EnvoyFilter {configPatches: [{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {portNumber: 4711}}, patch: {operation: REMOVE}}]}",
        ],
        312,
    ),
    (157, &["Telemetry {accessLogging: [{providers: [{name: nobody}]}]}"], 308),
    (
        159,
        &[
            "Telemetry {selector: {matchLabels: {app: web}}, accessLogging: [{disabled: true}]}",
            "Telemetry {selector: {matchLabels: {app: web}}, accessLogging: [{disabled: true}]}",
        ],
        310,
    ),
    (
        160,
        &["Telemetry {accessLogging: [{disabled: true}]}", "Telemetry {accessLogging: [{disabled: true}]}"],
        310,
    ),
    (
        161,
        &[
            "Gateway {selector: {istio: other}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: nowhere}}]}",
        ],
        308,
    ),
    (173, &["DestinationRule {host: web, subsets: [{name: v9, labels: {version: v9}}]}"], 308),
    (174, &["DestinationRule {host: nobody.test}"], 308),
    (
        177,
        &[
            "ServiceEntry {hosts: [a.test], ports: [{number: 80, name: a, protocol: HTTP}], resolution: DNS}",
            "ServiceEntry {hosts: [a.test], ports: [{number: 80, name: a, protocol: TCP}], resolution: DNS}",
        ],
        314,
    ),
    (
        112,
        &[
            "ServiceEntry {hosts: [two.test], ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: grpc, protocol: GRPC}], resolution: DNS}",
            "VirtualService {hosts: [a.shop.test], gateways: [edge], http: [{route: [{destination: {host: two.test}}]}]}",
        ],
        308,
    ),
    (127, &["Sidecar {workloadSelector: {labels: {app: wbe}}, egress: [{hosts: ['./*']}]}"], 312),
    (
        138,
        &[
            "Gateway {selector: {istio: a}, servers: [{port: {number: 8443, name: a, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: one}}]}",
            "Gateway {selector: {istio: a}, servers: [{port: {number: 8443, name: b, protocol: HTTPS}, hosts: [b.test], tls: {mode: SIMPLE, credentialName: one}}]}",
        ],
        317,
    ),
];

/// Rows that take more than objects of these kinds, and where they are tried.
const ELSEWHERE: &[(u16, &str)] = &[
    (107, "navarch-model: annotations"),
    (108, "navarch-model: annotations"),
    (125, "navarch-model: annotations"),
    (126, "navarch-model: mesh settings"),
    (135, "navarch-model: annotations"),
    (150, "navarch-model: Services"),
    (162, "tests/analyzers.rs, selectors_select_workloads_that_are_listed"),
];

/// The codes of all findings about a mesh with these objects.
fn codes(objects: &[&str]) -> BTreeSet<String> {
    let mut text = MESH.to_owned();
    for (index, object) in objects.iter().enumerate() {
        let (kind, spec) = object.split_once(' ').expect("a kind and a specification");
        let version = match kind {
            "Telemetry" => "telemetry.istio.io/v1",
            "EnvoyFilter" => "networking.istio.io/v1alpha3",
            _ => "networking.istio.io/v1",
        };
        text += &format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: o{index}, namespace: shop}}\nspec: {spec}\n"
        );
    }
    let parsed = parse_text("mesh.yaml", &text);
    let mut findings = parsed.findings;
    let snapshot = World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects));
    findings.extend(snapshot.findings().iter().cloned());
    findings.extend(TranslationFindings::default().about(&snapshot, &presumed_fates(&snapshot)));
    findings.extend(unmatched(&snapshot));
    findings.iter().map(|finding| finding.code.to_string()).collect()
}

/// A row of the table: Istio's numbers, and what is said of ours.
struct Row {
    numbers: Vec<RangeInclusive<u16>>,
    ours: String,
}

impl Row {
    fn has(&self, number: u16) -> bool {
        self.numbers.iter().any(|numbers| numbers.contains(&number))
    }

    fn names_a_finding(&self) -> bool {
        self.ours.starts_with("NAV") || self.ours.starts_with("as IST")
    }
}

/// Numbers after a prefix, one by one and as `A to B`.
fn numbers(text: &str, prefix: &str) -> Vec<RangeInclusive<u16>> {
    let digits = |text: &str| text.get(..4).and_then(|digits| digits.parse::<u16>().ok());
    let mut found: Vec<RangeInclusive<u16>> = Vec::new();
    let mut before = "";
    for part in text.split(prefix) {
        if let Some(number) = digits(part) {
            match found.last_mut() {
                Some(last) if before.ends_with(" to ") => *last = *last.start()..=number,
                _ => found.push(number..=number),
            }
        }
        before = part;
    }
    found
}

fn table() -> Vec<Row> {
    let lines = include_str!("../../../docs/analyzers.md").lines();
    let rows = lines.filter(|line| line.starts_with("| IST"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        Row { numbers: numbers(cells[1], "IST"), ours: cells[3].to_owned() }
    };
    rows.map(row).collect()
}

#[test]
fn what_istio_finds_is_found() {
    let table = table();
    assert!(table.len() > 50, "{} rows", table.len());
    let before = codes(&[]);
    let mut missed = Vec::new();
    for (number, objects, expected) in CASES {
        let found = codes(objects);
        let code = format!("NAV{expected:04}");
        if !found.contains(&code) || before.contains(&code) {
            missed.push(format!("IST{number:04}: {code} is not in {found:?}"));
        }
        let row = table.iter().find(|row| row.has(*number)).expect("a row");
        let named = numbers(&row.ours, "NAV").iter().any(|codes| codes.contains(expected));
        if !named && !row.ours.starts_with("as IST") {
            missed.push(format!("IST{number:04} is not {code}: {}", row.ours));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_row_that_names_a_finding_is_tried() {
    let tried = |row: &Row| {
        let elsewhere = ELSEWHERE.iter().map(|(number, _)| number);
        CASES.iter().map(|(number, ..)| number).chain(elsewhere).any(|number| row.has(*number))
    };
    for row in table() {
        assert_eq!(tried(&row), row.names_a_finding(), "{:?}: {}", row.numbers, row.ours);
    }
}

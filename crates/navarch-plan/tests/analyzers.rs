//! What objects do wrong together: each row is what is added to a small mesh, and the findings that it makes.

use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::parse_text;
use navarch_plan::TranslationFindings;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

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
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers:
    - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.shop.test']}
    - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['raw.test'], tls: {mode: PASSTHROUGH}}
";

/// `path: start of the message` of each finding.
#[track_caller]
fn check(kind: &str, spec: &str, expected: &[&str]) {
    let object = |kind: &str, name: &str, spec: &str| {
        let version = match kind {
            "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io/v1",
            "Telemetry" => "telemetry.istio.io/v1",
            _ => "networking.istio.io/v1",
        };
        format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let specs = spec.split(" // ").enumerate();
    let added: String = specs.map(|(index, spec)| object(kind, &format!("o{index}"), spec)).collect();
    let parsed = parse_text("mesh.yaml", &format!("{MESH}{added}"));
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let snapshot = World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects));
    let found = TranslationFindings::default().about(&snapshot, &Arc::default());
    let lines: Vec<String> =
        found.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
    let as_expected = lines.len() == expected.len()
        && lines.iter().zip(expected).all(|(line, expected)| line.starts_with(expected));
    assert!(as_expected, "{spec}\n{lines:#?}\n{expected:#?}");
}

const TO_WEB: &str = "http: [{route: [{destination: {host: web}}]}]";

#[test]
fn routes_fit_their_gateways() {
    let check = |spec: &str, expected: &[&str]| {
        check("VirtualService", &format!("{{{}}}", spec.replace("TO_WEB", TO_WEB)), expected);
    };
    check("hosts: [a.shop.test], gateways: [edge], TO_WEB", &[]);
    check(
        "hosts: [a.shop.test], gateways: [egde], TO_WEB",
        &["spec.gateways[0]: there is no Gateway shop/egde"],
    );
    check(
        "hosts: [a.shop.test], gateways: [edge, mesh, other/edge], TO_WEB",
        &["spec.gateways[2]: there is no Gateway other/edge"],
    );
    check(
        "hosts: [a.else.test], gateways: [edge], TO_WEB",
        &["spec.hosts[0]: no server of its gateways has the host"],
    );
    check(
        "hosts: [raw.test], gateways: [edge], TO_WEB",
        &["spec.http: the servers with its hosts pass bytes on"],
    );
    check(
        "hosts: [a.shop.test], gateways: [edge], tls: [{match: [{sniHosts: [a.shop.test]}], route: [{destination: {host: web}}]}]",
        &["spec.tls: no server with its hosts passes TLS through"],
    );
    let matched = |condition: &str| {
        format!(
            "hosts: [a.shop.test], gateways: [edge], http: [{{match: [{{{condition}}}], route: [{{destination: {{host: web}}}}]}}]"
        )
    };
    check(&matched("port: 80"), &[]);
    check(
        &matched("port: 81"),
        &["spec.http[0].match[0].port: none of the gateways has a server with port 81"],
    );
    check(&matched("gateways: [edge]"), &[]);
    check(
        &matched("gateways: [mesh]"),
        &["spec.http[0].match[0].gateways: none of these gateways is among those"],
    );
    check(
        &matched("headers: {'@request.auth.claims.group': {exact: a}}"),
        &["spec.http[0].match[0]: no RequestAuthentication checks tokens"],
    );
}

#[test]
fn rules_are_for_what_is_there() {
    let check = |spec: &str, expected: &[&str]| check("DestinationRule", spec, expected);
    check("{host: web, subsets: [{name: v1, labels: {version: v1}}]}", &[]);
    check("{host: wbe}", &["spec.host: no Service or ServiceEntry has the host wbe.shop.svc.cluster.local"]);
    check(
        "{host: web, subsets: [{name: v2, labels: {version: v2}}]}",
        &[
            "spec.subsets[0].labels: no endpoint of web.shop.svc.cluster.local has the labels of subset \"v2\"",
        ],
    );
    check(
        "{host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}",
        &["spec.trafficPolicy.tls.mode: the mesh's certificates are asked for"],
    );
}

#[test]
fn of_two_servers_one_has_the_port_or_the_host() {
    let server = |port: u16, protocol: &str, host: &str, tls: &str| {
        format!(
            "{{selector: {{istio: other}}, servers: [{{port: {{number: {port}, name: p, protocol: {protocol}}}, hosts: [{host}]{tls}}}]}}"
        )
    };
    let http = server(80, "HTTP", "a.test", "");
    let raw = server(80, "TLS", "b.test", ", tls: {mode: PASSTHROUGH}");
    check(
        "Gateway",
        &format!("{http} // {raw}"),
        &["spec.servers[0]: proxies that serve both ignore this server: port 80"],
    );
    let secret = ", tls: {mode: SIMPLE, serverCertificate: /a.pem, privateKey: /a.key}";
    let (one, two) = (server(443, "HTTPS", "a.test", secret), server(443, "HTTPS", "a.test", secret));
    check(
        "Gateway",
        &format!("{one} // {two}"),
        &["spec.servers[0]: proxies that serve both ignore this server: the host"],
    );
    check("Gateway", &format!("{http} // {}", server(80, "HTTP", "b.test", "")), &[]);
}

#[test]
fn bytes_do_not_say_where_they_want_to_go() {
    let entry = |host: &str, more: &str| {
        format!(
            "{{hosts: [{host}], ports: [{{number: 3306, name: tcp, protocol: TCP}}], resolution: DNS{more}}}"
        )
    };
    check(
        "ServiceEntry",
        &format!("{} // {}", entry("a.test", ""), entry("b.test", "")),
        &["spec.ports[0]: connections to port 3306 say nothing of the host"],
    );
    check(
        "ServiceEntry",
        &format!("{} // {}", entry("a.test", ""), entry("b.test", ", addresses: [240.1.1.1]")),
        &[],
    );
    check(
        "ServiceEntry",
        "{hosts: [a.test], ports: [{number: 443, name: http, protocol: HTTP}], resolution: DNS}",
        &["spec.ports[0].protocol: port 443 speaks HTTPS"],
    );
}

#[test]
fn one_object_has_the_workloads_that_several_claim() {
    check(
        "Sidecar",
        "{egress: [{hosts: ['./*']}]} // {egress: [{hosts: ['*/*']}]}",
        &["spec: Sidecar shop/o0 is for all"],
    );
    check(
        "Telemetry",
        "{accessLogging: [{disabled: true}]} // {tracing: []}",
        &["spec: Telemetry shop/o0 is for all"],
    );
}

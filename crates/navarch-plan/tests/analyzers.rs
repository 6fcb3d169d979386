//! What objects do wrong together: each row is what is added to a small mesh, and the findings that it makes.

use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::finding::Finding;
use navarch_model::parse_text;
use navarch_plan::{TranslationFindings, unmatched};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

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
    let snapshot = snapshot(&format!("{MESH}{added}"));
    let found = TranslationFindings::default().about(&snapshot, &Arc::default());
    compare(spec, &found, expected);
}

#[track_caller]
fn snapshot(text: &str) -> Arc<Snapshot> {
    let parsed = parse_text("mesh.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects))
}

#[track_caller]
fn compare(spec: &str, found: &[Finding], expected: &[&str]) {
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
    let http = entry("b.test", "").replace("TCP", "HTTP");
    let told = &["spec.ports[0]: proxies without interception (INTERCEPTION_MODE NONE) listen on port 3306"];
    check("ServiceEntry", &format!("{} // {http}", entry("a.test", "")), told);
    check("ServiceEntry", &format!("{http} // {}", entry("c.test", "")), told);
    check("ServiceEntry", &format!("{http} // {}", entry("a.test", ", addresses: [240.1.1.1]")), &[]);
    // One host speaks one protocol, which is another finding.
    let same = &["spec.ports[0].protocol: ServiceEntry shop/o0 says that port 3306"];
    check("ServiceEntry", &format!("{} // {http}", entry("b.test", "")), same);
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

/// A destination without a port means the one that a request came in on.
#[test]
fn destinations_say_which_of_several_ports_they_mean() {
    let entry = "hosts: [two.test], ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: grpc, protocol: GRPC}], resolution: DNS";
    let check = |to: &str, expected: &[&str]| {
        let text = format!(
            "{MESH}---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: two, namespace: shop}}\nspec: {{{entry}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{http: [{{route: [{{destination: {{host: two.test{to}}}}}]}}]"
        );
        let mesh = snapshot(&format!("{text}, hosts: [web]}}"));
        compare(to, &TranslationFindings::default().about(&mesh, &Arc::default()), expected);
        let gateway = snapshot(&format!("{text}, hosts: [a.shop.test], gateways: [edge]}}"));
        compare(to, &TranslationFindings::default().about(&gateway, &Arc::default()), expected);
    };
    let several =
        "spec.http[0].route[0].destination.host: two.test has several ports, and none of them is 80:";
    check("", &[several]);
    check(", port: {number: 9090}", &[]);
}

#[test]
fn certificates_are_shown_by_one_gateway() {
    let server = |proxies: &str, port: u16, host: &str, credential: &str| {
        format!(
            "{{selector: {{istio: {proxies}}}, servers: [{{port: {{number: {port}, name: p, protocol: HTTPS}}, hosts: [{host}], tls: {{mode: SIMPLE, credentialName: {credential}}}}}]}}"
        )
    };
    let missing = "spec.servers[0].tls.credentialName: there is no Secret";
    let shared = "spec.servers[0].tls.credentialName: Gateway shop/o0 shows the same certificate";
    let both = |second: String, expected: &[&str]| {
        check("Gateway", &format!("{} // {second}", server("in", 8443, "a.test", "one")), expected);
    };
    both(server("in", 8443, "b.test", "one"), &[missing, missing, shared]);
    both(server("in", 8443, "b.test", "two"), &[missing, missing]);
    // Connections to other proxies or another port are other connections.
    both(server("out", 8443, "b.test", "one"), &[missing, missing]);
    both(server("in", 9443, "b.test", "one"), &[missing, missing]);
}

/// Workloads that a directory lists: selectors select some of them, and Services lead to the ports of
/// gateways.
#[test]
fn selectors_select_workloads_that_are_listed() {
    let edge = "
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {istio: edge, app: edge}}
status: {phase: Running, podIP: 10.1.0.9}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, ports: [{name: http, port: 80, targetPort: 8080}]}
";
    let check = |kind: &str, namespace: &str, spec: &str, expected: &[&str]| {
        let version = if kind == "Telemetry" { "telemetry.istio.io/v1" } else { "networking.istio.io/v1" };
        let text = format!(
            "{MESH}{edge}---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n"
        );
        compare(spec, &unmatched(&snapshot(&text)), expected);
    };
    // The server of the small mesh on port 443.
    let port = "spec.servers[1].port.number: no port of shop/edge leads to port 443 of the gateway";
    let nobody = "spec.workloadSelector: no Pod and no WorkloadEntry of namespace shop has these labels";
    let sidecar = |labels: &str| {
        format!("{{workloadSelector: {{labels: {{{labels}}}}}, egress: [{{hosts: ['./*']}}]}}")
    };
    check("Sidecar", "shop", &sidecar("app: web"), &[port]);
    check("Sidecar", "shop", &sidecar("app: wbe"), &[port, nobody]);
    // Nothing is known of the workloads of this namespace.
    check("Sidecar", "other", &sidecar("app: wbe"), &[port]);
    let telemetry = |labels: &str| format!("{{selector: {{matchLabels: {{{labels}}}}}}}");
    check("Telemetry", "istio-system", &telemetry("app: web"), &[port]);
    let anywhere = "spec.selector: no Pod and no WorkloadEntry of the mesh has these labels";
    check("Telemetry", "istio-system", &telemetry("app: wbe"), &[port, anywhere]);
    let gateway = |name: &str, port: u16| {
        format!(
            "{{selector: {{istio: {name}}}, servers: [{{port: {{number: {port}, name: p, protocol: HTTP}}, hosts: ['*']}}]}}"
        )
    };
    check("Gateway", "other", &gateway("edge", 8080), &[port]);
    check("Gateway", "other", &gateway("egde", 80), &[port, anywhere]);
}

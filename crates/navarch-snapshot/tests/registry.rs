//! Services, endpoints and workloads out of Kubernetes and Istio objects.

mod common;

use common::*;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::{Health, TlsMode};
use navarch_model::proxy::PodPort;
use navarch_model::service::Resolution;
use navarch_snapshot::world::Options;
use navarch_snapshot::{World, workload};

const PODS: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: default, labels: {app: a, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: a, nodeName: n1, containers: [{name: app, ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, namespace: default, labels: {app: a}}
spec: {containers: [{name: app}]}
status: {phase: Running, podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-done, namespace: default, labels: {app: a}}
spec: {containers: [{name: app}]}
status: {phase: Succeeded, podIP: 10.0.0.3}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  clusterIP: 10.96.0.1
  selector: {app: a}
  ports: [{name: http, port: 80, targetPort: web}, {name: tcp, port: 90}, {name: http-alt, port: 81, targetPort: 8080}]
";

const HOST: &str = "a.default.svc.cluster.local";

#[test]
fn without_slices_the_selected_pods_are_the_endpoints() {
    let snapshot = snapshot(PODS);
    assert_eq!(
        endpoints(&snapshot, HOST, "default"),
        [
            "10.0.0.1:8080/http",
            "10.0.0.1:90/tcp",
            "10.0.0.1:8080/http-alt",
            "10.0.0.2:90/tcp",
            "10.0.0.2:8080/http-alt"
        ]
    );
    let view = snapshot.view();
    let set = view.endpoints(HOST, "default").unwrap();
    let first = &set.endpoints[0];
    assert_eq!(
        (first.health, first.tls_mode, &*first.service_account),
        (Health::Healthy, TlsMode::Istio, "a")
    );
    assert_eq!((&*first.locality.region, &*first.locality.zone, &*first.locality.sub_zone), ("r", "z", "s"));
    assert_eq!(first.labels.get("kubernetes.io/hostname").map(|node| &**node), Some("n1"));
    assert_eq!(first.labels.get("topology.istio.io/cluster").map(|node| &**node), Some("Kubernetes"));
    assert_eq!(set.endpoints[3].health, Health::Unhealthy);

    let summary = view.endpoint_summary(HOST, "default").unwrap();
    let identities: Vec<&str> = summary.identities.iter().map(|identity| &**identity).collect();
    assert_eq!(
        identities,
        ["spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/default"]
    );
    let mutual = |port: &str| summary.ports.get(port).map(|port| port.all_mutual_tls);
    assert_eq!((mutual("http"), mutual("tcp")), (Some(true), Some(false)));
}

#[test]
fn slices_rule_where_there_are_any() {
    let check = |conditions: &str, labels: &str, expected: &[(&str, Health)]| {
        let yaml = format!(
            "{PODS}
---
apiVersion: v1
kind: Service
metadata: {{name: s, namespace: default, labels: {{{labels}}}}}
spec: {{clusterIP: 10.96.0.2, selector: {{app: a}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s-1, namespace: default, labels: {{kubernetes.io/service-name: s}}}}
addressType: IPv4
endpoints:
- {{addresses: [10.0.0.1], targetRef: {{kind: Pod, name: a-1, namespace: default}}}}
- {{addresses: [10.0.0.9], targetRef: {{kind: Pod, name: gone, namespace: default}}}}
- {{addresses: [10.1.1.1], conditions: {{{conditions}}}}}
ports: [{{name: http, port: 8080, protocol: TCP}}]
"
        );
        let snapshot = snapshot(&yaml);
        let view = snapshot.view();
        let set = view.endpoints("s.default.svc.cluster.local", "default").unwrap();
        let found: Vec<(String, Health)> =
            set.endpoints.iter().map(|endpoint| (endpoint_text(endpoint), endpoint.health)).collect();
        let mut wanted = vec![("10.0.0.1:8080/http".to_owned(), Health::Healthy)];
        wanted.extend(expected.iter().map(|(text, health)| ((*text).to_owned(), *health)));
        assert_eq!(found, wanted, "{conditions}");
    };
    check("ready: true", "", &[("10.1.1.1:8080/http", Health::Healthy)]);
    check("", "", &[("10.1.1.1:8080/http", Health::Healthy)]);
    check("ready: false, terminating: false", "", &[("10.1.1.1:8080/http", Health::Unhealthy)]);
    check("ready: false", "", &[("10.1.1.1:8080/http", Health::Unhealthy)]);
    check("ready: false, serving: true, terminating: true", "", &[]);
    let session = "istio.io/persistent-session: cookie";
    check(
        "ready: false, serving: true, terminating: true",
        session,
        &[("10.1.1.1:8080/http", Health::Draining)],
    );
    check("ready: false, serving: false, terminating: true", session, &[]);
}

#[test]
fn a_pod_serves_the_services_that_select_it() {
    let yaml = format!(
        "{PODS}
---
apiVersion: v1
kind: Service
metadata: {{name: older, namespace: default, creationTimestamp: '2024-01-01T00:00:00Z'}}
spec: {{clusterIP: None, selector: {{app: a, version: v1}}, ports: [{{name: grpc, port: 70, targetPort: web}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: other, namespace: default}}
spec: {{clusterIP: 10.96.0.4, selector: {{app: other}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: entry, namespace: default}}
spec:
  hosts: [entry.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 443, name: web, protocol: HTTPS}}]
  workloadSelector: {{labels: {{app: a}}}}
"
    );
    let snapshot = snapshot(&yaml);
    let check = |address: &str, expected: &[&str]| {
        let view = snapshot.view();
        let found = workload::of_proxy(&view, &sidecar("default", address, &[]));
        let texts: Vec<String> = found
            .instances
            .iter()
            .map(|instance| {
                format!(
                    "{}:{}->{} {:?}",
                    instance.service.hostname, instance.port, instance.target_port, instance.protocol
                )
            })
            .collect();
        assert_eq!(texts, expected, "{address}");
    };
    check(
        "10.0.0.1",
        &[
            "older.default.svc.cluster.local:70->8080 Grpc",
            "a.default.svc.cluster.local:80->8080 Http",
            "a.default.svc.cluster.local:90->90 Tcp",
            "entry.internal:443->8080 Https",
        ],
    );
    // A pod that is not ready is not an endpoint of a ServiceEntry, and yet its proxy is configured for its
    // services.
    check(
        "10.0.0.2",
        &["a.default.svc.cluster.local:90->90 Tcp", "a.default.svc.cluster.local:81->8080 Http"],
    );
    check("10.0.0.77", &[]);
}

#[test]
fn an_unknown_proxy_is_placed_by_its_labels() {
    let snapshot = snapshot(PODS);
    let view = snapshot.view();
    let mut facts = sidecar("default", "10.7.7.7", &["app=a"]);
    facts.pod_ports = vec![PodPort { name: "web".into(), number: 9999, protocol: "TCP".into() }];
    let found = workload::of_proxy(&view, &facts);
    let ports: Vec<u16> = found.instances.iter().map(|instance| instance.target_port).collect();
    assert_eq!(ports, [9999, 90, 8080]);
}

#[test]
fn on_loopback_only_the_named_workload_is_the_proxys() {
    let snapshot = snapshot(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, labels: {app: web}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db, namespace: default}
spec: {address: 127.0.0.1, labels: {app: db}}
",
    );
    let view = snapshot.view();
    let app = |name: &str| {
        let mut facts = sidecar("default", "127.0.0.1", &["app=own"]);
        facts.id = format!("{name}.default").into();
        workload::of_proxy(&view, &facts).labels.get("app").map(ToString::to_string)
    };
    assert_eq!(app("edge").as_deref(), Some("own"), "neither the endpoint nor the entry is this proxy");
    assert_eq!(app("db").as_deref(), Some("db"));
}

#[test]
fn workload_entries_back_services_and_service_entries() {
    let snapshot = snapshot(
        "
apiVersion: v1
kind: Service
metadata: {name: hybrid, namespace: vm}
spec: {clusterIP: 10.96.0.1, selector: {app: hybrid}, ports: [{name: http, port: 80, targetPort: 8080}, {name: named, port: 81, targetPort: x}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-1, namespace: vm, labels: {app: hybrid}}
spec: {address: 10.8.0.1, serviceAccount: sa, ports: {x: 7777}, locality: r/z/s, weight: 3, network: net, labels: {app: other}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-2, namespace: vm}
spec: {address: vm.example.com, labels: {app: hybrid}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static, namespace: vm}
spec:
  hosts: [static.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8081}, {number: 81, name: x, protocol: HTTP}]
  workloadSelector: {labels: {app: hybrid}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: vm}
spec:
  hosts: [dns.internal]
  location: MESH_INTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: hybrid}}
",
    );
    assert_eq!(
        endpoints(&snapshot, "hybrid.vm.svc.cluster.local", "vm"),
        ["10.8.0.1:8080/http", "10.8.0.1:7777/named"]
    );
    assert_eq!(endpoints(&snapshot, "static.internal", "vm"), ["10.8.0.1:8081/http", "10.8.0.1:7777/x"]);
    assert_eq!(endpoints(&snapshot, "dns.internal", "vm"), ["10.8.0.1:80/http", "vm.example.com:80/http"]);
    let view = snapshot.view();
    let endpoint = &view.endpoints("static.internal", "vm").unwrap().endpoints[0];
    assert_eq!((endpoint.weight, endpoint.tls_mode, endpoint.health), (3, TlsMode::Istio, Health::Unknown));
    assert_eq!((&*endpoint.network, &*endpoint.locality.zone), ("net", "z"));
}

#[test]
fn service_entries_without_workloads() {
    let check = |spec: &str, expected: &[&str]| {
        let yaml = format!(
            "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e, namespace: default}}
spec: {{hosts: [e.example.com], {spec}}}
"
        );
        assert_eq!(endpoints(&snapshot(&yaml), "e.example.com", "default"), expected, "{spec}");
    };
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS, targetPort: 8443}]";
    check(&format!("{ports}, resolution: DNS"), &["e.example.com:80/http", "e.example.com:8443/tls"]);
    check(&format!("{ports}, resolution: NONE"), &[]);
    check(
        &format!("{ports}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: a.example.com}}]"),
        &["a.example.com:80/http", "a.example.com:8443/tls"],
    );
    check(
        "ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 'unix:///var/run/e.sock'}]",
        &["/var/run/e.sock:0/http"],
    );
    check(
        &format!("{ports}, resolution: STATIC, endpoints: [{{address: 1.1.1.1, ports: {{http: 8080}}}}]"),
        &["1.1.1.1:8080/http", "1.1.1.1:8443/tls"],
    );
}

#[test]
fn services_have_the_properties_of_what_declares_them() {
    let snapshot = snapshot(
        "
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: hop.default.svc.cluster.local, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: hop, namespace: default}
spec: {type: ExternalName, externalName: dual.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: loop, namespace: default}
spec: {type: ExternalName, externalName: loop.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata:
  name: dual
  namespace: default
  labels: {istio.io/persistent-session: 'cookie:/path'}
  annotations: {networking.istio.io/exportTo: 'a, .', alpha.istio.io/kubernetes-serviceaccounts: sa}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], trafficDistribution: PreferClose, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: default}
spec:
  hosts: [e.example.com, '*.example.org']
  addresses: [240.0.0.1, 10.0.0.0/8, 240.0.0.2/32]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
",
    );
    let view = snapshot.view();
    let service = |name: &str| view.services(&format!("{name}.default.svc.cluster.local"))[0].clone();
    assert_eq!(
        (service("headless").resolution, service("headless").headless),
        (Resolution::Passthrough, true)
    );
    assert_eq!((service("alias").resolution, service("alias").mesh_external), (Resolution::Alias, true));
    let dual = service("dual");
    let aliases: Vec<&str> = dual.aliases.iter().map(|alias| &**alias).collect();
    assert_eq!(aliases, ["alias.default.svc.cluster.local", "hop.default.svc.cluster.local"]);
    assert!(service("loop").aliases.is_empty());
    assert_eq!(dual.addresses.len(), 2);
    assert!(
        dual.export_to.includes("a") && dual.export_to.includes("default") && !dual.export_to.includes("b")
    );
    assert!(dual.persistent_session.is_some());
    assert_eq!(
        dual.subject_alt_names.iter().next().map(|name| &**name),
        Some("spiffe://cluster.local/ns/default/sa/sa")
    );
    let entry = &view.services("e.example.com")[0];
    let addresses: Vec<&str> = entry.addresses.iter().map(|address| &**address).collect();
    assert_eq!(addresses, ["240.0.0.1", "10.0.0.0/8", "240.0.0.2"]);
    assert!(entry.mesh_external && view.services("*.example.org").len() == 1);
}

#[test]
fn a_dual_stack_pod_is_one_endpoint() {
    let yaml = |cluster_ips: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: p, namespace: default, labels: {{app: d}}}}
status: {{phase: Running, podIP: 10.0.0.1, podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: d, namespace: default}}
spec: {{clusterIP: 10.96.0.1, clusterIPs: [{cluster_ips}], selector: {{app: d}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: d-4, namespace: default, labels: {{kubernetes.io/service-name: d}}}}
addressType: IPv4
endpoints: [{{addresses: [10.0.0.1], targetRef: {{kind: Pod, name: p, namespace: default}}}}]
ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: d-6, namespace: default, labels: {{kubernetes.io/service-name: d}}}}
addressType: IPv6
endpoints: [{{addresses: ['fd00::1'], targetRef: {{kind: Pod, name: p, namespace: default}}}}]
ports: [{{name: http, port: 80}}]
"
        )
    };
    let check = |cluster_ips: &str, expected: &[(&str, usize)]| {
        let snapshot = snapshot(&yaml(cluster_ips));
        let view = snapshot.view();
        let set = view.endpoints("d.default.svc.cluster.local", "default").unwrap();
        let found: Vec<(String, usize)> = set
            .endpoints
            .iter()
            .map(|endpoint| (endpoint_text(endpoint), endpoint.additional_addresses.len()))
            .collect();
        let wanted: Vec<(String, usize)> =
            expected.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect();
        assert_eq!(found, wanted, "{cluster_ips}");
    };
    check("10.96.0.1, 'fd00:96::1'", &[("10.0.0.1:80/http", 1)]);
    check("10.96.0.1", &[("10.0.0.1:80/http", 0), ("fd00::1:80/http", 0)]);
}

#[test]
fn networks_and_their_gateways() {
    let mesh_networks = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-system, labels: {topology.istio.io/network: home}}
---
apiVersion: v1
kind: Service
metadata: {name: eastwest, namespace: istio-system, labels: {topology.istio.io/network: home}}
spec: {type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{name: tls, port: 15443}]}
status: {loadBalancer: {ingress: [{ip: 34.0.0.1}, {ip: 34.0.0.2}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: default, labels: {app: n, topology.istio.io/network: away}}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: default, labels: {app: n}}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: n, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: n}, ports: [{name: http, port: 80}]}
";
    let check = |system_namespace: Option<&str>, expected: [&str; 2]| {
        let options = Options { system_namespace: system_namespace.map(Into::into), ..Options::default() };
        let snapshot = World::new(options).apply(ChangeSet::upserting(objects(mesh_networks)));
        let view = snapshot.view();
        let set = view.endpoints("n.default.svc.cluster.local", "default").unwrap();
        let networks: Vec<&str> = set.endpoints.iter().map(|endpoint| &*endpoint.network).collect();
        assert_eq!(networks, expected, "{system_namespace:?}");
    };
    check(Some("istio-system"), ["away", "home"]);
    check(None, ["away", ""]);
    let snapshot = snapshot(mesh_networks);
    let view = snapshot.view();
    let gateways = view.network_gateways();
    assert_eq!((gateways.of("home").len(), gateways.of_cluster("home", "Kubernetes").len()), (2, 2));
    assert_eq!((gateways.of("home")[0].port, gateways.weight_scale), (15443, 2));
}

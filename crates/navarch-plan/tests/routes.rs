//! Routes, gateways, extensions and secrets as proxies get them: small meshes and what comes out.

use std::sync::Arc;

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::hosts::joined;
use navarch_envoy::proto::envoy::config::listener::v3::{Listener, filter};
use navarch_envoy::proto::envoy::config::route::v3::RouteConfiguration;
use navarch_envoy::{Any, ProxyResources, XdsType};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::Planner;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

/// What a proxy with this node id and these labels gets.
fn plan(id: &str, labels: serde_json::Value, mesh: &str, split_routes: bool) -> Arc<ProxyResources> {
    let parsed = parse_text("mesh.yaml", mesh);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(ChangeSet::upserting(parsed.objects)));
    let metadata = serde_json::json!({"CLUSTER_ID": "Kubernetes", "LABELS": labels});
    let facts = ProxyFacts::parse(id, "test", metadata.as_object().expect("a map"), Locality::default())
        .expect("a node");
    let facts = ProxyFacts { split_routes, ..facts };
    planner.resources(&planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts)))))
}

fn sidecar(namespace: &str, mesh: &str) -> Arc<ProxyResources> {
    plan(
        &format!("sidecar~10.1.0.50~a.{namespace}~{namespace}.svc.cluster.local"),
        serde_json::json!({}),
        mesh,
        false,
    )
}

/// What a gateway gets. With hosts as resources of their own it gets the same, apart.
fn gateway(mesh: &str) -> Arc<ProxyResources> {
    let [whole, apart] = [false, true].map(|split_routes| {
        let id = "router~10.1.0.60~gw.edge~edge.svc.cluster.local";
        plan(id, serde_json::json!({"istio": "gateway"}), mesh, split_routes)
    });
    // Their order in a route configuration makes no difference.
    let content = |resources: &ProxyResources| -> Vec<(String, Option<RouteConfiguration>)> {
        let sorted = |mut routes: RouteConfiguration| {
            routes.virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
            routes
        };
        let names = resources.set(XdsType::Rds).iter().map(|routes| routes.name().to_string());
        names.map(|name| (name.clone(), routes(resources, &name).map(sorted))).collect()
    };
    assert_eq!(content(&joined(&apart)), content(&whole), "hosts apart");
    whole
}

fn routes(resources: &ProxyResources, name: &str) -> Option<RouteConfiguration> {
    let resource = resources.set(XdsType::Rds).get(name)?;
    let packed = Any { type_url: type_url::<RouteConfiguration>(), value: resource.body() };
    Some(unpack(&packed).expect("a route configuration"))
}

/// `<virtual host>: <domains> -> <routes>` for each virtual host of a route configuration.
fn hosts(resources: &ProxyResources, name: &str) -> Vec<String> {
    let found = routes(resources, name).map(|routes| routes.virtual_hosts).unwrap_or_default();
    found
        .into_iter()
        .map(|host| {
            let routes: Vec<String> = host
                .routes
                .iter()
                .map(|route| {
                    let operation = route.decorator.as_ref().map_or("", |decorator| &decorator.operation);
                    format!("{}[{operation}]", route.name)
                })
                .collect();
            let tls = if host.require_tls == 0 { "" } else { " (TLS)" };
            format!("{}: {} -> {}{tls}", host.name, host.domains.join(" "), routes.join(" "))
        })
        .collect()
}

fn service(name: &str, namespace: &str, address: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {address}, ports: [{ports}]}}\n---\n"
    )
}

const HTTP: &str = "{name: http, port: 80, targetPort: 8080, protocol: TCP}";
const BOTH: &str = "{name: http, port: 80, targetPort: 8080, protocol: TCP}, {name: http-b, port: 81, targetPort: 8081, protocol: TCP}";

fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n---\n"
    )
}

#[test]
fn services_have_the_names_that_a_client_may_use() {
    let mesh = service("cart", "shop", "10.0.0.1", HTTP);
    let check = |namespace: &str, expected: &str| {
        let got = hosts(&sidecar(namespace, &mesh), "80");
        assert_eq!(got, [expected, "allow_any: * -> allow_any[]"]);
    };
    check(
        "shop",
        "cart.shop.svc.cluster.local:80: cart.shop.svc.cluster.local cart.shop.svc.cluster.local. cart cart.shop.svc \
         cart.shop 10.0.0.1 -> default[cart.shop.svc.cluster.local:80/*]",
    );
    check(
        "other",
        "cart.shop.svc.cluster.local:80: cart.shop.svc.cluster.local cart.shop.svc.cluster.local. cart.shop \
         cart.shop.svc 10.0.0.1 -> default[cart.shop.svc.cluster.local:80/*]",
    );
}

#[test]
fn a_port_of_unknown_protocol_has_routes_of_its_own() {
    let mesh =
        service("raw", "shop", "10.0.0.1", "{name: data, port: 7000, targetPort: 7000, protocol: TCP}");
    let name = "raw.shop.svc.cluster.local:7000";
    assert_eq!(
        hosts(&sidecar("shop", &mesh), name),
        [format!("{name}: * -> default[raw.shop.svc.cluster.local:7000/*]")]
    );
}

#[test]
fn the_most_specific_virtual_service_routes_a_service() {
    let to = |name: &str| {
        format!("http: [{{name: {name}, route: [{{destination: {{host: cart.shop.svc.cluster.local}}}}]}}]")
    };
    let mesh = service("cart", "shop", "10.0.0.1", HTTP);
    let check = |rules: &[String], expected: &str| {
        let got = hosts(&sidecar("other", &format!("{mesh}{}", rules.concat())), "80");
        let routes =
            got.iter().find(|host| host.starts_with("cart.shop")).and_then(|host| host.split(" -> ").nth(1));
        assert_eq!(routes, Some(expected));
    };
    let wide = rule("wide", "shop", &format!("{{hosts: ['*.local'], {}}}", to("wide")));
    let narrow =
        rule("narrow", "shop", &format!("{{hosts: ['*.shop.svc.cluster.local'], {}}}", to("narrow")));
    let exact = rule("exact", "shop", &format!("{{hosts: [cart], {}}}", to("exact")));
    let elsewhere = rule(
        "elsewhere",
        "shop",
        "{hosts: [cart], http: [{match: [{sourceNamespace: third}], name: x, route: [{destination: {host: cart}}]}]}",
    );
    let operation = "[cart.shop.svc.cluster.local:80/*]";
    check(&[], &format!("default{operation}"));
    check(std::slice::from_ref(&wide), &format!("wide{operation}"));
    check(&[wide.clone(), narrow.clone()], &format!("narrow{operation}"));
    check(&[wide.clone(), narrow, exact], &format!("exact{operation}"));
    // Its conditions hold for no client here, and it keeps the wildcard away.
    check(&[wide, elsewhere], &format!("default{operation}"));
}

#[test]
fn a_host_that_nobody_registered_is_served_on_port_80_or_beside_a_service() {
    let mesh = format!(
        "{}{}{}",
        service("cart", "shop", "10.0.0.1", BOTH),
        rule(
            "alone",
            "shop",
            "{hosts: [alone.example], http: [{route: [{destination: {host: cart, port: {number: 81}}}]}]}"
        ),
        rule(
            "beside",
            "shop",
            "{hosts: [beside.example, cart], http: [{name: b, route: [{destination: {host: cart}}]}]}"
        ),
    );
    let resources = sidecar("shop", &mesh);
    let names = |config: &str| -> Vec<String> {
        hosts(&resources, config)
            .iter()
            .filter_map(|host| host.split(": ").next().map(str::to_owned))
            .collect()
    };
    assert_eq!(
        names("80"),
        ["alone.example:80", "beside.example:80", "cart.shop.svc.cluster.local:80", "allow_any"]
    );
    assert_eq!(names("81"), ["beside.example:81", "cart.shop.svc.cluster.local:81", "allow_any"]);
}

#[test]
fn a_restricted_sidecar_refuses_unknown_hosts() {
    let mesh = format!(
        "{}{}apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: shop}}\n\
         spec: {{egress: [{{hosts: ['./*']}}], outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}}}\n",
        service("cart", "shop", "10.0.0.1", HTTP),
        service("other", "other", "10.0.0.2", HTTP),
    );
    let got = hosts(&sidecar("shop", &mesh), "80");
    assert_eq!(got.len(), 2);
    assert!(got[0].starts_with("cart.shop.svc.cluster.local:80: "), "{got:?}");
    assert_eq!(got[1], "block_all: * -> block_all[]");
}

/// A Gateway with these servers, and a workload for it.
fn servers(servers: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: main, namespace: edge}}\n\
         spec: {{selector: {{istio: gateway}}, servers: [{servers}]}}\n---\n{}",
        service("cart", "shop", "10.0.0.1", HTTP)
    )
}

const TO_CART: &str = "route: [{destination: {host: cart.shop.svc.cluster.local}}]";

#[test]
fn gateways_serve_what_server_and_virtual_service_have_in_common() {
    let check = |hosts_of_server: &str, hosts_of_rule: &str, expected: &[&str]| {
        let mesh = format!(
            "{}{}",
            servers(&format!(
                "{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts_of_server}]}}"
            )),
            rule(
                "r",
                "shop",
                &format!(
                    "{{hosts: [{hosts_of_rule}], gateways: [edge/main], http: [{{name: r, {TO_CART}}}]}}"
                )
            ),
        );
        let got: Vec<String> = hosts(&gateway(&mesh), "http.80");
        let got: Vec<&str> = got.iter().filter_map(|host| host.split(" -> ").next()).collect();
        assert_eq!(got, expected, "{hosts_of_server} / {hosts_of_rule}");
    };
    check("'*.com'", "a.com, b.org", &["a.com:80: a.com"]);
    check("a.com, b.com", "'*.com'", &["a.com:80: a.com b.com"]);
    check("shop/a.com", "a.com", &["a.com:80: a.com"]);
    check("edge/a.com", "a.com", &["blackhole:80: *"]);
    check("./a.com", "a.com", &["blackhole:80: *"]);
    check("'*/a.com'", "A.com", &["blackhole:80: *"]);
}

#[test]
fn several_virtual_services_of_a_host_are_put_together() {
    let mesh = format!(
        "{}{}{}",
        servers(
            "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}, \
             {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: c}}"
        ),
        rule(
            "all",
            "shop",
            &format!("{{hosts: [a.com], gateways: [edge/main], http: [{{name: all, {TO_CART}}}]}}")
        ),
        rule(
            "some",
            "shop",
            &format!(
                "{{hosts: [a.com], gateways: [edge/main], http: [{{name: some, match: [{{uri: {{prefix: /s}}}}], {TO_CART}}}]}}"
            )
        ),
    );
    let resources = gateway(&mesh);
    let both = "some[cart.shop.svc.cluster.local:80/s*] all[cart.shop.svc.cluster.local:80/*]";
    assert_eq!(
        hosts(&resources, "http.80"),
        ["*:80: * ->  (TLS)".to_owned(), format!("a.com:80: a.com -> {both} (TLS)")]
    );
    assert_eq!(hosts(&resources, "https.443.https.main.edge"), [format!("a.com:443: a.com -> {both}")]);
}

fn listener(resources: &ProxyResources, name: &str) -> Option<Listener> {
    let resource = resources.set(XdsType::Lds).get(name)?;
    let packed = Any { type_url: type_url::<Listener>(), value: resource.body() };
    Some(unpack(&packed).expect("a listener"))
}

/// Server names and filters of each chain of a listener.
fn chains(resources: &ProxyResources, name: &str) -> Vec<String> {
    let Some(listener) = listener(resources, name) else { return Vec::new() };
    listener
        .filter_chains
        .into_iter()
        .map(|chain| {
            let names =
                chain.filter_chain_match.map(|matched| matched.server_names.join(" ")).unwrap_or_default();
            let filters: Vec<&str> = chain
                .filters
                .iter()
                .map(|filter| filter.name.rsplit(['.', '/']).next().unwrap_or_default())
                .collect();
            let tls = if chain.transport_socket.is_some() { " TLS" } else { "" };
            format!("[{names}]{tls} {}", filters.join(" "))
        })
        .collect()
}

#[test]
fn tls_servers_are_told_apart_by_server_name() {
    let mesh = format!(
        "{}{}",
        servers(
            "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: c}}, \
             {port: {number: 443, name: tls, protocol: TLS}, hosts: [b.com], tls: {mode: PASSTHROUGH}}, \
             {port: {number: 443, name: mesh, protocol: TLS}, hosts: ['*.shop.svc.cluster.local'], tls: {mode: AUTO_PASSTHROUGH}}, \
             {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}"
        ),
        rule(
            "bytes",
            "shop",
            "{hosts: [b.com], gateways: [edge/main], \
             tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: cart.shop.svc.cluster.local}}]}], \
             tcp: [{match: [{port: 9000}], route: [{destination: {host: cart.shop.svc.cluster.local}}]}]}"
        ),
    );
    let resources = gateway(&mesh);
    assert_eq!(
        chains(&resources, "0.0.0.0_443"),
        [
            "[a.com] TLS http_connection_manager",
            "[b.com] tcp_proxy",
            "[outbound_.80_._.cart.shop.svc.cluster.local] tcp_proxy",
        ]
    );
    assert_eq!(chains(&resources, "0.0.0.0_9000"), ["[] tcp_proxy"]);
    // Nothing is sent on, so there is nothing to listen for.
    let alone = gateway(&servers("{port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}"));
    assert_eq!(chains(&alone, "0.0.0.0_9000"), Vec::<String>::new());
}

#[test]
fn extensions_run_by_priority_where_they_are_meant_to() {
    let extension = |name: &str, spec: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: {name}, namespace: edge}}\n\
             spec: {spec}\n---\n"
        )
    };
    let mesh = format!(
        "{}{}{}{}",
        servers("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}"),
        extension("late", "{priority: 1, lua: {inlineCode: 'function envoy_on_request(h) end'}}"),
        extension("early", "{priority: 9, wasm: {url: 'oci://registry.example/early:v1'}}"),
        extension("inbound", "{match: [{mode: SERVER}], wasm: {url: 'oci://registry.example/inbound:v1'}}"),
    );
    let resources = gateway(&mesh);
    let listener = listener(&resources, "0.0.0.0_80").expect("a listener");
    let manager = listener.filter_chains[0].filters.iter().find_map(|filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => unpack::<
            navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
        >(config)
        .ok(),
        _ => None,
    });
    let names: Vec<String> = manager
        .expect("a connection manager")
        .http_filters
        .into_iter()
        .map(|filter| filter.name)
        .filter(|name| name.starts_with("extensions."))
        .collect();
    let prefix = "extensions.istio.io/trafficextension/edge";
    assert_eq!(names, [format!("{prefix}.early"), format!("{prefix}.late")]);
    let resources: Vec<String> =
        resources.set(XdsType::Ecds).iter().map(|resource| resource.name().to_string()).collect();
    assert_eq!(resources, [format!("{prefix}.early"), format!("{prefix}.inbound")]);
}

#[test]
fn a_gateway_gets_the_authorities_that_its_servers_name_from_its_own_namespace() {
    // A certificate is any DER sequence here: what it says is Envoy's to judge.
    let secret = |name: &str, namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n  \
             ca.crt: |\n    -----BEGIN CERTIFICATE-----\n    MAA=\n    -----END CERTIFICATE-----\n---\n"
        )
    };
    let mesh = format!(
        "{}{}{}{}{}{}",
        servers(
            "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: MUTUAL, credentialName: own}}, \
             {port: {number: 444, name: https-b, protocol: HTTPS}, hosts: [b.com], tls: {mode: MUTUAL, credentialName: foreign}}"
        ),
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: far, namespace: shop}\n\
         spec: {selector: {istio: gateway}, servers: [{port: {number: 445, name: https, protocol: HTTPS}, hosts: [c.com], \
         tls: {mode: MUTUAL, credentialName: far}}]}\n---\n",
        secret("own", "edge"),
        secret("far", "edge"),
        secret("unasked", "edge"),
        secret("foreign", "shop"),
    );
    let names: Vec<String> =
        gateway(&mesh).set(XdsType::Sds).iter().map(|resource| resource.name().to_string()).collect();
    assert_eq!(names, ["kubernetes://far-cacert", "kubernetes://own-cacert"]);
}

#[test]
fn hosts_of_one_set_share_a_virtual_host_wherever_they_are() {
    let gateway_of = |name: &str, hosts: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: edge}}\nspec: {{selector: {{istio: \
             gateway}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}]}}\n---\n"
        )
    };
    let routes_of = |name: &str, gateway: &str, hosts: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: edge}}\nspec: {{hosts: \
             [{hosts}], gateways: [{gateway}], http: [{{name: {name}, route: [{{destination: {{host: a}}}}]}}]}}\n---\n"
        )
    };
    let many: Vec<String> = (0..40).map(|index| format!("h{index}.many.com")).collect();
    let mesh = [
        service("a", "edge", "10.1.0.1", "{name: http, port: 80}"),
        gateway_of("all", "'*/*'"),
        gateway_of("some", "x.d.com, y.d.com, '*.z.com'"),
        routes_of("one", "all", "a.com, b.com, '*.c.com'"),
        routes_of("two", "all", "b.com"),
        routes_of("three", "some", "'*.d.com', e.com, '*.z.com'"),
        routes_of("four", "some", "y.d.com"),
        routes_of("many", "all", &many.join(", ")),
    ];
    let resources = gateway(&mesh.concat());
    let domains: Vec<String> = routes(&resources, "http.80")
        .map(|routes| routes.virtual_hosts)
        .unwrap_or_default()
        .into_iter()
        .map(|host| {
            host.domains
                .iter()
                .map(|domain| domain.split(':').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .filter(|domains| !domains.contains("many"))
        .collect();
    assert_eq!(domains, ["a.com *.c.com", "b.com", "x.d.com *.z.com", "y.d.com"]);
}

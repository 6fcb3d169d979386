//! Endpoints of one service, for clients, rules and networks that differ in one point.

use std::collections::BTreeMap;
use std::net::IpAddr;

use navarch_envoy::proto::envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};
use navarch_model::endpoint::{Address, Endpoint, EndpointSet, Health, Locality, TlsMode};
use navarch_model::networking::{
    ClientTlsMode, ClientTlsSettings, LoadBalancerSettings, LocalityDistribute, LocalityFailover,
    LocalityLoadBalancerSetting, OutlierDetection, Subset, TrafficPolicy,
};
use navarch_model::proxy::IpMode;
use navarch_model::service::{Protocol, Registry, Resolution, ServicePort, TrafficDistribution, Visibility};
use navarch_model::{Labels, Name};

use super::*;

fn name(text: &str) -> Name {
    Name::from(text)
}

fn names(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (name(key), name(value))).collect()
}

/// An endpoint at `10.0.0.<last>` that accepts mutual TLS.
fn endpoint(last: u8, locality: &str) -> Endpoint {
    Endpoint {
        address: Address::Ip(IpAddr::from([10, 0, 0, last])),
        additional_addresses: Vec::new(),
        port: 8080,
        service_port_name: name("http"),
        labels: Default::default(),
        locality: Locality::parse(locality),
        weight: 0,
        network: name(""),
        cluster_id: name("Kubernetes"),
        health: Health::Healthy,
        tls_mode: TlsMode::Istio,
        service_account: name("shop"),
        namespace: name("default"),
        workload_name: name("shop"),
        host_name: name(""),
        sub_domain: name(""),
        node_name: name(""),
        hbone: false,
        cluster_local: false,
    }
}

fn input(endpoints: Vec<Endpoint>) -> EndpointsInput {
    EndpointsInput {
        service: Arc::new(Hashed::new(Service {
            hostname: name("shop.default.svc.cluster.local"),
            name: name("shop"),
            namespace: name("default"),
            registry: Registry::Kubernetes,
            created_at: 0,
            addresses: Vec::new(),
            auto_allocated_addresses: Vec::new(),
            ports: vec![ServicePort {
                name: name("http"),
                port: 80,
                protocol: Protocol::Http,
                target_port: None,
            }],
            resolution: Resolution::ClientSide,
            mesh_external: false,
            export_to: Visibility::Public,
            labels: Default::default(),
            selector: Default::default(),
            subject_alt_names: Default::default(),
            aliases: Vec::new(),
            external_name: None,
            headless: false,
            publish_not_ready_addresses: false,
            node_local: false,
            traffic_distribution: TrafficDistribution::Any,
            persistent_session: None,
            dns_race_first_tcp_connect: false,
        })),
        port: 80,
        rule: None,
        sources: EndpointSources {
            endpoints: Arc::new(Hashed::new(EndpointSet { endpoints })),
            plaintext: Vec::new(),
            cluster_local: false,
            gateways: Arc::new(Hashed::new(NetworkGateways::default())),
            mesh: Arc::new(Hashed::new(EndpointMesh {
                locality_lb: Some(LocalityLoadBalancerSetting {
                    enabled: Some(true),
                    ..LocalityLoadBalancerSetting::default()
                }),
                ..EndpointMesh::default()
            })),
            view: EndpointView {
                kind: ProxyKind::Sidecar,
                ip_mode: IpMode::V4,
                cluster_id: name("Kubernetes"),
                network: name(""),
                network_view: Vec::new(),
                locality: Locality::parse("r1/z1/s1"),
                labels: Default::default(),
                node_name: name(""),
            },
        },
        sni_clusters: false,
        datagrams: false,
    }
}

fn edit_service(input: &mut EndpointsInput, edit: impl FnOnce(&mut Service)) {
    let mut service = (**input.service).clone();
    edit(&mut service);
    input.service = Arc::new(Hashed::new(service));
}

fn with_rule(mut input: EndpointsInput, spec: DestinationRule) -> EndpointsInput {
    input.rule = Some(Arc::new(Hashed::new(EffectiveRule { spec, sources: Vec::new() })));
    input
}

/// A rule that detects outliers and has this setting.
fn failing_over(setting: LocalityLoadBalancerSetting) -> DestinationRule {
    DestinationRule {
        traffic_policy: Some(TrafficPolicy {
            outlier_detection: Some(OutlierDetection::default()),
            load_balancer: Some(LoadBalancerSettings {
                locality_lb_setting: Some(setting),
                ..LoadBalancerSettings::default()
            }),
            ..TrafficPolicy::default()
        }),
        ..DestinationRule::default()
    }
}

/// An assignment in short: per group `priority:weight[last number of each address, with * for mutual TLS]`.
fn show(assignment: &ClusterLoadAssignment) -> String {
    use navarch_envoy::proto::envoy::config::core::v3::address::Address as Wire;
    use navarch_envoy::proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let member = |endpoint: &LbEndpoint| {
        let Some(HostIdentifier::Endpoint(target)) = &endpoint.host_identifier else { return "?".to_owned() };
        let address = match target.address.as_ref().and_then(|address| address.address.as_ref()) {
            Some(Wire::SocketAddress(socket)) => socket.address.rsplit('.').next().unwrap_or("?").to_owned(),
            Some(Wire::Pipe(pipe)) => pipe.path.clone(),
            _ => "?".to_owned(),
        };
        if build::is_mtls(endpoint) { format!("{address}*") } else { address }
    };
    let group = |group: &LocalityLbEndpoints| {
        let members: Vec<String> = group.lb_endpoints.iter().map(member).collect();
        let weight = group.load_balancing_weight.map_or("-".to_owned(), |weight| weight.to_string());
        format!("{}:{weight}[{}]", group.priority, members.join(" "))
    };
    assignment.endpoints.iter().map(group).collect::<Vec<_>>().join(" ")
}

fn check(input: &EndpointsInput, expected: &str) {
    let found: Vec<String> = assignments(input).iter().map(|(_, assignment)| show(assignment)).collect();
    assert_eq!(found.join("; "), expected);
}

#[test]
fn endpoints_are_grouped_by_locality_and_a_cluster_without_any_gets_an_empty_assignment() {
    check(&input(vec![]), "");
    check(
        &input(vec![endpoint(1, "r1/z1"), endpoint(2, "r1/z2"), endpoint(3, "r1/z1")]),
        "0:2[1* 3*] 0:1[2*]",
    );
    let heavy = Endpoint { weight: 7, ..endpoint(1, "") };
    check(&input(vec![heavy, endpoint(2, "")]), "0:8[1* 2*]");
    let other_port = Endpoint { service_port_name: name("metrics"), ..endpoint(1, "") };
    check(&input(vec![other_port]), "");
}

#[test]
fn subsets_get_endpoints_with_their_labels() {
    let v = |last, version| Endpoint { labels: names(&[("version", version)]), ..endpoint(last, "") };
    let subset = |version: &str| Subset {
        name: version.to_owned(),
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        ..Subset::default()
    };
    let rule = DestinationRule { subsets: vec![subset("v1"), subset("v3")], ..DestinationRule::default() };
    check(&with_rule(input(vec![v(1, "v1"), v(2, "v2")]), rule), "0:2[1* 2*]; 0:1[1*]; ");
}

#[test]
fn health_decides_who_is_sent() {
    let with = |health| vec![endpoint(1, ""), Endpoint { health, ..endpoint(2, "") }];
    check(&input(with(Health::Unhealthy)), "0:2[1* 2*]");
    check(&input(with(Health::Terminating)), "0:1[1*]");
    check(&input(with(Health::Draining)), "0:1[1*]");
    let mut sessions = input(with(Health::Draining));
    edit_service(&mut sessions, |service| {
        service.labels = names(&[("istio.io/persistent-session", "session")])
    });
    check(&sessions, "0:2[1* 2*]");
    let rule = |min_health_percent| DestinationRule {
        traffic_policy: Some(TrafficPolicy {
            outlier_detection: Some(OutlierDetection { min_health_percent, ..OutlierDetection::default() }),
            ..TrafficPolicy::default()
        }),
        ..DestinationRule::default()
    };
    check(&with_rule(input(with(Health::Unhealthy)), rule(50)), "0:1[1*]");
    check(&with_rule(input(with(Health::Unhealthy)), rule(0)), "0:2[1* 2*]");
}

#[test]
fn mutual_tls_is_marked_per_endpoint() {
    let plain = || Endpoint { tls_mode: TlsMode::Disabled, ..endpoint(2, "") };
    check(&input(vec![endpoint(1, ""), plain()]), "0:2[1* 2]");
    let mut off = input(vec![endpoint(1, ""), endpoint(2, "")]);
    off.sources.plaintext = vec![0];
    check(&off, "0:2[1 2*]");
    let mode = |mode| DestinationRule {
        traffic_policy: Some(TrafficPolicy {
            tls: Some(ClientTlsSettings { mode, ..ClientTlsSettings::default() }),
            ..TrafficPolicy::default()
        }),
        ..DestinationRule::default()
    };
    check(&with_rule(off.clone(), mode(ClientTlsMode::IstioMutual)), "0:2[1* 2*]");
    check(&with_rule(off.clone(), mode(ClientTlsMode::Disable)), "0:2[1 2]");
    // Connections that are forwarded without being terminated go to endpoints with mutual TLS only.
    let mut gateway = input(vec![endpoint(1, ""), plain()]);
    gateway.sni_clusters = true;
    check(&gateway, "0:2[1* 2]; 0:1[1*]");
}

#[test]
fn clusters_and_nodes_bound_what_is_visible() {
    let remote = Endpoint { cluster_id: name("remote"), ..endpoint(2, "") };
    let mut both = input(vec![endpoint(1, ""), remote]);
    check(&both, "0:2[1* 2*]");
    both.sources.cluster_local = true;
    check(&both, "0:1[1*]");

    let on = |last, node| Endpoint { node_name: name(node), ..endpoint(last, "") };
    let mut local = input(vec![on(1, "n1"), on(2, "n2")]);
    local.sources.view.node_name = name("n2");
    check(&local, "0:2[1* 2*]");
    edit_service(&mut local, |service| service.node_local = true);
    check(&local, "0:1[2*]");
}

#[test]
fn names_are_for_clusters_that_resolve_them() {
    let named = Endpoint { address: Address::Dns(name("db.example.com")), ..endpoint(1, "") };
    let socket = Endpoint { address: Address::Unix(name("/run/app.sock")), port: 0, ..endpoint(2, "") };
    check(&input(vec![named, socket]), "0:1[/run/app.sock*]");
}

#[test]
fn failover_prefers_what_is_near() {
    let places = ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"];
    let all = || (1..).zip(places).map(|(last, place)| endpoint(last, place)).collect::<Vec<_>>();
    // Without outlier detection Envoy would never move on.
    check(&input(all()), "0:1[1*] 0:1[2*] 0:1[3*] 0:1[4*] 0:1[5*]");
    let near = failing_over(LocalityLoadBalancerSetting::default());
    check(&with_rule(input(all()), near), "0:1[1*] 1:1[2*] 2:1[3*] 3:1[4*] 3:1[5*]");
    let to_r3 = failing_over(LocalityLoadBalancerSetting {
        failover: vec![LocalityFailover { from: "r1".into(), to: "r3".into() }],
        ..LocalityLoadBalancerSetting::default()
    });
    check(&with_rule(input(all()), to_r3.clone()), "0:1[1*] 1:1[2*] 2:1[3*] 4:1[4*] 3:1[5*]");
    let far = || all().split_off(3);
    check(&with_rule(input(far()), to_r3), "1:1[4*] 0:1[5*]");
    let off = failing_over(LocalityLoadBalancerSetting {
        enabled: Some(false),
        ..LocalityLoadBalancerSetting::default()
    });
    check(&with_rule(input(all()), off), "0:1[1*] 0:1[2*] 0:1[3*] 0:1[4*] 0:1[5*]");
}

#[test]
fn failover_priority_counts_leading_labels_in_common() {
    let labelled = |last, version, network| Endpoint {
        labels: names(&[("version", version)]),
        network: name(network),
        ..endpoint(last, "r1/z1")
    };
    let endpoints = || {
        vec![
            labelled(1, "v1", "n1"),
            labelled(2, "v2", "n1"),
            labelled(3, "v1", "n2"),
            labelled(4, "v2", "n2"),
        ]
    };
    let priorities = |labels: &[&str]| {
        failing_over(LocalityLoadBalancerSetting {
            failover_priority: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..LocalityLoadBalancerSetting::default()
        })
    };
    let mut input = input(endpoints());
    input.sources.view.labels = names(&[("version", "v1")]);
    input.sources.view.network = name("n1");
    let check_rule =
        |labels: &[&str], expected| check(&with_rule(input.clone(), priorities(labels)), expected);
    check_rule(&["version"], "0:2[1* 3*] 1:2[2* 4*]");
    check_rule(&["version=v2"], "0:2[2* 4*] 1:2[1* 3*]");
    check_rule(&["topology.istio.io/network", "version"], "0:1[1*] 1:1[2*] 2:1[3*] 3:1[4*]");
}

#[test]
fn distribution_sets_weights_and_empties_other_places() {
    let endpoints =
        || vec![endpoint(1, "r1/z1"), endpoint(2, "r1/z2"), endpoint(3, "r2/z1"), endpoint(4, "r3/z1")];
    let rule = |from: &str, to: &[(&str, u32)]| {
        failing_over(LocalityLoadBalancerSetting {
            distribute: vec![LocalityDistribute {
                from: from.into(),
                to: to.iter().map(|(place, share)| ((*place).to_owned(), *share)).collect(),
            }],
            ..LocalityLoadBalancerSetting::default()
        })
    };
    let check_rule = |rule, expected| check(&with_rule(input(endpoints()), rule), expected);
    check_rule(rule("r1/*", &[("r1/z1", 70), ("r2/*", 30)]), "0:70[1*] 0:1[] 0:30[3*] 0:1[]");
    check_rule(rule("r1/*", &[("r1/*", 75), ("r2/*", 25)]), "0:38[1*] 0:38[2*] 0:25[3*] 0:1[]");
    check_rule(rule("r9", &[("r1/z1", 100)]), "0:1[1*] 0:1[2*] 0:1[3*] 0:1[4*]");
}

#[test]
fn traffic_distribution_fails_over_by_health_alone() {
    let mut input = input(vec![endpoint(1, "r1/z1"), endpoint(2, "r1/z2"), endpoint(3, "r2/z1")]);
    edit_service(&mut input, |service| service.traffic_distribution = TrafficDistribution::PreferSameZone);
    check(&input, "0:1[1*] 1:1[2*] 2:1[3*]");
}

#[test]
fn other_networks_are_entered_through_gateways() {
    let on = |last, network| Endpoint { network: name(network), ..endpoint(last, "") };
    let gateway = |last: u8, network: &str| NetworkGateway {
        address: name(&format!("2.2.2.{last}")),
        port: 15443,
        network: name(network),
        cluster_id: name(""),
    };
    let plain = Endpoint { tls_mode: TlsMode::Disabled, ..on(5, "n2") };
    let mut input = input(vec![on(1, "n1"), on(2, "n2"), on(3, "n2"), on(4, "n3"), plain]);
    input.sources.gateways =
        Arc::new(Hashed::new(NetworkGateways::new([gateway(91, "n2"), gateway(92, "n2")])));
    let mut check_from = |network: &str, view: &[&str], expected| {
        input.sources.view.network = name(network);
        input.sources.view.network_view = view.iter().copied().map(Name::from).collect();
        check(&input, expected);
    };
    // Weights are doubled, so that two gateways can share them; n3 has no gateway and is taken for reachable.
    check_from("n1", &[], "0:8[1* 4* 91* 92*]");
    check_from("n2", &[], "0:10[1* 2* 3* 4* 5]");
    check_from("", &[], "0:8[1* 4* 91* 92*]");
    check_from("n1", &["n1"], "0:2[1*]");
}

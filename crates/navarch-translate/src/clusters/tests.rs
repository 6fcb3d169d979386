//! Clusters of one service on port 80, for rules and clients that differ in one point.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use navarch_envoy::any::unpack;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy,
};
use navarch_envoy::proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use navarch_model::endpoint::{Address, Endpoint, EndpointSet, Health, Locality, TlsMode};
use navarch_model::networking::{
    ApplyTo, ClusterMatch, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, ObjectTypes, Patch, PatchOperation,
};
use navarch_model::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, DestinationRule,
    HashAlgorithm, HttpSettings, LbPolicy as Wanted, LoadBalancerSettings, MagLev, OutlierDetection,
    PortSelector, PortTrafficPolicy, ProxyProtocol, SimpleLb, Subset, TcpSettings, TrafficPolicy,
    WarmupConfiguration,
};
use navarch_model::proxy::{IpMode, ProxyKind};
use navarch_model::service::{
    Protocol, Registry, Resolution, Service, ServicePort, TrafficDistribution, Visibility,
};
use navarch_model::values::Json;
use navarch_model::{EffectiveRule, Hashed, Kind, Name, ObjectKey, Origin};

use super::inbound::inbound_cluster;
use super::*;
use crate::Pure;
use crate::endpoints::{EndpointMesh, EndpointSources, EndpointView, NetworkGateways};

const HOST: &str = "shop.default.svc.cluster.local";

fn name(text: &str) -> Name {
    Name::from(text)
}

fn service(resolution: Resolution, protocol: Protocol) -> Service {
    Service {
        hostname: name(HOST),
        name: name("shop"),
        namespace: name("default"),
        registry: Registry::Kubernetes,
        created_at: 0,
        addresses: vec![name("10.0.0.1")],
        auto_allocated_addresses: Vec::new(),
        ports: vec![ServicePort { name: name("main"), port: 80, protocol, target_port: None }],
        resolution,
        mesh_external: false,
        export_to: Visibility::Public,
        labels: Default::default(),
        selector: Default::default(),
        subject_alt_names: BTreeSet::new(),
        aliases: Vec::new(),
        external_name: None,
        headless: false,
        publish_not_ready_addresses: false,
        node_local: false,
        traffic_distribution: TrafficDistribution::Any,
        persistent_session: None,
        dns_race_first_tcp_connect: false,
    }
}

fn view() -> ClusterView {
    ClusterView {
        kind: ProxyKind::Sidecar,
        ip_mode: IpMode::V4,
        preserve_header_case: false,
        client_certificates: None,
        standard_metrics: false,
        backend_certificate: None,
    }
}

fn mesh() -> ClusterMesh {
    ClusterMesh { connect_timeout: Some(Duration::from_secs(10)), auto_mtls: true, ..ClusterMesh::default() }
}

fn input(service: Service, rule: Option<DestinationRule>) -> OutboundInput {
    let rule = rule.map(|spec| {
        Arc::new(Hashed::new(EffectiveRule {
            spec,
            sources: vec![ObjectKey::new(Kind::DestinationRule, "default", "shop")],
        }))
    });
    OutboundInput {
        service: Arc::new(Hashed::new(service)),
        port: 80,
        rule,
        mesh: Arc::new(Hashed::new(mesh())),
        identity: ServiceIdentity {
            names: vec![name("spiffe://cluster.local/ns/default/sa/shop")],
            accepts_mtls: true,
            all_endpoints_accept_mtls: true,
        },
        endpoints: None,
        locality: Arc::default(),
        view: view(),
        sni_clusters: false,
        datagrams: false,
        patches: ClusterPatches::default(),
    }
}

/// The clusters of an HTTP service found over EDS.
fn http(policy: TrafficPolicy) -> Cluster {
    let rule = DestinationRule { traffic_policy: Some(policy), ..DestinationRule::default() };
    first(&input(service(Resolution::ClientSide, Protocol::Http), Some(rule)))
}

fn first(input: &OutboundInput) -> Cluster {
    outbound_clusters(input).into_iter().next().expect("a cluster")
}

fn connections(max_connections: i32) -> Option<ConnectionPoolSettings> {
    Some(ConnectionPoolSettings {
        tcp: Some(TcpSettings { max_connections, ..TcpSettings::default() }),
        ..ConnectionPoolSettings::default()
    })
}

fn max_connections(cluster: &Cluster) -> Option<u32> {
    cluster.circuit_breakers.as_ref()?.thresholds.first()?.max_connections
}

fn discovery_type(cluster: &Cluster) -> Option<DiscoveryType> {
    match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(discovery)) => DiscoveryType::try_from(discovery).ok(),
        _ => None,
    }
}

fn http_options(cluster: &Cluster) -> Option<HttpProtocolOptions> {
    cluster.typed_extension_protocol_options.get(super::draft::HTTP_OPTIONS).map(|any| unpack(any).unwrap())
}

fn tls_context(socket: &TransportSocket) -> UpstreamTlsContext {
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else {
        panic!("no configuration in {}", socket.name)
    };
    unpack(config).unwrap()
}

#[test]
fn policies_of_ports_and_subsets_replace_or_inherit() {
    let at_port = |number, connection_pool| PortTrafficPolicy {
        port: Some(PortSelector { number }),
        connection_pool,
        ..PortTrafficPolicy::default()
    };
    let policy = |connection_pool, port_level_settings: Vec<PortTrafficPolicy>| TrafficPolicy {
        connection_pool,
        port_level_settings,
        ..TrafficPolicy::default()
    };
    let check =
        |rule: TrafficPolicy, subset: Option<TrafficPolicy>, default: Option<i32>, expected: [u32; 2]| {
            let rule = DestinationRule {
                traffic_policy: Some(rule),
                subsets: vec![Subset { name: "v1".into(), traffic_policy: subset, ..Subset::default() }],
                ..DestinationRule::default()
            };
            let mut input = input(service(Resolution::ClientSide, Protocol::Http), Some(rule.clone()));
            let defaults = default.and_then(connections);
            input.mesh = Arc::new(Hashed::new(ClusterMesh { default_connection_pool: defaults, ..mesh() }));
            let found: Vec<u32> = outbound_clusters(&input).iter().filter_map(max_connections).collect();
            assert_eq!(found, expected, "{rule:?} {default:?}");
        };
    let unlimited = u32::MAX;
    check(policy(None, vec![]), None, None, [unlimited; 2]);
    check(policy(connections(5), vec![]), None, None, [5, 5]);
    check(policy(connections(5), vec![at_port(80, connections(6))]), None, None, [6, 6]);
    check(policy(connections(5), vec![at_port(81, connections(6))]), None, None, [5, 5]);
    check(policy(connections(5), vec![at_port(80, None)]), None, None, [unlimited; 2]);
    check(policy(None, vec![]), None, Some(7), [7, 7]);
    check(policy(connections(5), vec![]), None, Some(7), [5, 5]);
    check(policy(connections(5), vec![]), Some(policy(connections(8), vec![])), None, [5, 8]);
    check(policy(connections(5), vec![]), Some(policy(None, vec![])), None, [5, 5]);
    check(policy(connections(5), vec![]), Some(policy(None, vec![at_port(80, None)])), None, [5, unlimited]);
}

#[test]
fn clusters_are_named_after_port_subset_and_host() {
    let subset = |name: &str| Subset { name: name.into(), ..Subset::default() };
    let rule = DestinationRule { subsets: vec![subset("v1"), subset("v2")], ..DestinationRule::default() };
    let mut input = input(service(Resolution::ClientSide, Protocol::Http), Some(rule));
    let names = |input: &OutboundInput| -> Vec<String> {
        outbound_clusters(input).into_iter().map(|cluster| cluster.name).collect()
    };
    let outbound = ["", "v1", "v2"].map(|subset| format!("outbound|80|{subset}|{HOST}"));
    assert_eq!(names(&input), outbound);
    input.sni_clusters = true;
    let sni = ["", "v1", "v2"].map(|subset| format!("outbound_.80_.{subset}_.{HOST}"));
    assert_eq!(names(&input), [outbound, sni].concat());
}

#[test]
fn a_port_for_datagrams_has_its_own_cluster_beside_one_for_connections() {
    let mut both = service(Resolution::ClientSide, Protocol::Udp);
    both.ports.push(ServicePort { name: name("tcp"), protocol: Protocol::Tcp, ..both.ports[0].clone() });
    let subset = Subset { name: "v1".into(), ..Subset::default() };
    let rule = DestinationRule { subsets: vec![subset], ..DestinationRule::default() };
    let mut input = input(both, Some(rule));
    let names = |input: &OutboundInput| -> Vec<String> {
        outbound_clusters(input).into_iter().map(|cluster| cluster.name).collect()
    };
    assert_eq!(names(&input), ["", "v1"].map(|subset| format!("outbound|80|{subset}|{HOST}")));
    input.datagrams = true;
    assert_eq!(names(&input), [format!("outbound_udp|80||{HOST}")]);
    let secured = outbound_clusters(&input)
        .iter()
        .any(|cluster| cluster.transport_socket.is_some() || !cluster.transport_socket_matches.is_empty());
    assert!(!secured, "TLS is for connections");
}

#[test]
fn resolution_decides_how_addresses_are_found() {
    let check = |resolution, kind, expected: &[DiscoveryType]| {
        let mut input = input(service(resolution, Protocol::Tcp), None);
        input.view.kind = kind;
        let found: Vec<_> = outbound_clusters(&input).iter().filter_map(discovery_type).collect();
        assert_eq!(found, expected, "{resolution:?} {kind:?}");
    };
    check(Resolution::ClientSide, ProxyKind::Sidecar, &[DiscoveryType::Eds]);
    check(Resolution::Passthrough, ProxyKind::Sidecar, &[DiscoveryType::OriginalDst]);
    check(Resolution::Passthrough, ProxyKind::Router, &[DiscoveryType::Eds]);
    check(Resolution::Alias, ProxyKind::Sidecar, &[]);
    // A cluster that resolves names and has none would make Envoy reject it.
    check(Resolution::Dns, ProxyKind::Sidecar, &[]);
}

#[test]
fn a_cluster_that_resolves_names_carries_them() {
    let endpoint = Endpoint {
        address: Address::Dns(name("db.example.com")),
        additional_addresses: Vec::new(),
        port: 5432,
        service_port_name: name("main"),
        labels: Default::default(),
        locality: Locality::default(),
        weight: 0,
        network: name(""),
        cluster_id: name("Kubernetes"),
        health: Health::Unknown,
        tls_mode: TlsMode::Disabled,
        service_account: name(""),
        namespace: name("default"),
        workload_name: name("db"),
        host_name: name(""),
        sub_domain: name(""),
        node_name: name(""),
        hbone: false,
        cluster_local: false,
    };
    let check = |resolution, ip_mode, expected: (DiscoveryType, i32)| {
        let mut input = input(service(resolution, Protocol::Tcp), None);
        input.view.ip_mode = ip_mode;
        input.endpoints = Some(EndpointSources {
            endpoints: Arc::new(Hashed::new(EndpointSet { endpoints: vec![endpoint.clone()] })),
            plaintext: Vec::new(),
            cluster_local: false,
            gateways: Arc::new(Hashed::new(NetworkGateways::default())),
            mesh: Arc::new(Hashed::new(EndpointMesh::default())),
            view: EndpointView {
                kind: ProxyKind::Sidecar,
                ip_mode,
                cluster_id: name("Kubernetes"),
                network: name(""),
                network_view: Vec::new(),
                locality: Locality::default(),
                labels: Default::default(),
                node_name: name(""),
            },
        });
        let cluster = first(&input);
        assert_eq!((discovery_type(&cluster).unwrap(), cluster.dns_lookup_family), expected);
        let assignment = cluster.load_assignment.unwrap();
        assert_eq!(assignment.cluster_name, cluster.name);
        assert_eq!(assignment.endpoints[0].lb_endpoints.len(), 1);
        assert_eq!(assignment.endpoints[0].load_balancing_weight, Some(1));
    };
    check(Resolution::Dns, IpMode::V4, (DiscoveryType::StrictDns, 1));
    check(Resolution::Dns, IpMode::V6, (DiscoveryType::StrictDns, 2));
    check(Resolution::DnsRoundRobin, IpMode::Dual, (DiscoveryType::LogicalDns, 4));
}

#[test]
fn tls_is_mutual_where_both_sides_can_or_as_the_rule_says() {
    let tls = |mode| TrafficPolicy {
        tls: Some(ClientTlsSettings { mode, ..ClientTlsSettings::default() }),
        ..TrafficPolicy::default()
    };
    let automatic = http(TrafficPolicy::default());
    let matches: Vec<&str> =
        automatic.transport_socket_matches.iter().map(|candidate| candidate.name.as_str()).collect();
    assert_eq!(matches, ["tlsMode-istio", "tlsMode-disabled"]);
    assert!(automatic.transport_socket.is_none());
    let context = tls_context(automatic.transport_socket_matches[0].transport_socket.as_ref().unwrap());
    assert_eq!(context.sni, format!("outbound_.80_._.{HOST}"));
    assert_eq!(context.common_tls_context.unwrap().alpn_protocols, ["istio-peer-exchange", "istio"]);

    assert!(http(tls(ClientTlsMode::Disable)).transport_socket.is_none());
    let mutual = tls_context(http(tls(ClientTlsMode::IstioMutual)).transport_socket.as_ref().unwrap());
    assert_eq!(mutual.sni, format!("outbound_.80_._.{HOST}"));

    let simple = http(tls(ClientTlsMode::Simple));
    let context = tls_context(simple.transport_socket.as_ref().unwrap());
    assert_eq!((context.sni.as_str(), context.common_tls_context.unwrap().alpn_protocols.len()), ("", 0));
    let from_request = http_options(&simple).unwrap().upstream_http_protocol_options.unwrap();
    assert!(from_request.auto_sni && from_request.auto_san_validation);
    // Without a certificate there is nothing to authenticate with; validation reports it.
    assert!(http(tls(ClientTlsMode::Mutual)).transport_socket.is_none());
}

#[test]
fn automatic_mutual_tls_needs_the_consent_of_the_server() {
    let check = |change: fn(&mut OutboundInput), resolution, expected: (usize, bool)| {
        let mut input = input(service(resolution, Protocol::Tcp), None);
        change(&mut input);
        let cluster = first(&input);
        assert_eq!((cluster.transport_socket_matches.len(), cluster.transport_socket.is_some()), expected);
    };
    check(|_| (), Resolution::ClientSide, (2, false));
    check(|input| input.identity.accepts_mtls = false, Resolution::ClientSide, (0, false));
    check(|input| input.identity.all_endpoints_accept_mtls = false, Resolution::ClientSide, (2, false));
    check(|_| (), Resolution::Passthrough, (0, true));
    check(|input| input.identity.all_endpoints_accept_mtls = false, Resolution::Passthrough, (0, false));
    check(
        |input| input.mesh = Arc::new(Hashed::new(ClusterMesh { auto_mtls: false, ..mesh() })),
        Resolution::ClientSide,
        (0, false),
    );
}

#[test]
fn a_credential_is_for_gateways_and_for_workloads_that_the_rule_selects() {
    let check = |kind, credential: &str, selects: bool, expected: bool| {
        let policy = TrafficPolicy {
            tls: Some(ClientTlsSettings {
                mode: ClientTlsMode::Simple,
                credential_name: credential.to_owned(),
                ..ClientTlsSettings::default()
            }),
            ..TrafficPolicy::default()
        };
        let rule = DestinationRule {
            traffic_policy: Some(policy),
            workload_selector: selects.then(Default::default),
            ..DestinationRule::default()
        };
        let mut input = input(service(Resolution::ClientSide, Protocol::Tcp), Some(rule));
        input.view.kind = kind;
        assert_eq!(first(&input).transport_socket.is_some(), expected, "{kind:?} {credential} {selects}");
    };
    check(ProxyKind::Router, "partner", false, true);
    check(ProxyKind::Sidecar, "partner", false, false);
    check(ProxyKind::Sidecar, "partner", true, true);
    check(ProxyKind::Sidecar, "configmap://default/roots", false, true);
}

#[test]
fn a_gateway_presents_its_certificate_for_backends_where_a_rule_names_none() {
    let certificates = |mode, certificate: Option<&str>| -> Vec<String> {
        let tls = ClientTlsSettings {
            mode,
            credential_name: "configmap://default/roots".to_owned(),
            ..ClientTlsSettings::default()
        };
        let policy = TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() };
        let rule = DestinationRule { traffic_policy: Some(policy), ..DestinationRule::default() };
        let mut input = input(service(Resolution::ClientSide, Protocol::Tcp), Some(rule));
        input.view.kind = ProxyKind::Router;
        input.view.backend_certificate = certificate.map(Name::from);
        let socket = first(&input).transport_socket.unwrap();
        let secrets = tls_context(&socket).common_tls_context.unwrap().tls_certificate_sds_secret_configs;
        secrets.into_iter().map(|secret| secret.name).collect()
    };
    let own = "kubernetes-gateway://infra/client";
    assert_eq!(certificates(ClientTlsMode::Simple, None), [""; 0]);
    assert_eq!(certificates(ClientTlsMode::Simple, Some(own)), [own]);
    assert_eq!(certificates(ClientTlsMode::Mutual, Some(own)), ["configmap://default/roots"]);
}

/// Who says who it is says so to nobody outside of the mesh.
#[test]
fn subsets_of_external_services_say_so_to_who_tells_them_apart() {
    let external = |standard_metrics: bool| -> Vec<bool> {
        let subset = Subset { name: "v1".into(), ..Subset::default() };
        let rule = DestinationRule { subsets: vec![subset], ..DestinationRule::default() };
        let service = Service { mesh_external: true, ..service(Resolution::ClientSide, Protocol::Http) };
        let mut input = input(service, Some(rule));
        input.view.standard_metrics = standard_metrics;
        let is_external = |cluster: Cluster| {
            let istio = cluster.metadata.unwrap().filter_metadata.remove("istio").unwrap();
            istio.fields.contains_key("external")
        };
        outbound_clusters(&input).into_iter().map(is_external).collect()
    };
    assert_eq!(external(true), [true, true]);
    assert_eq!(external(false), [true, false], "as istiod");
}

#[test]
fn the_proxy_protocol_goes_around_every_socket() {
    const WRAPPER: &str = "envoy.transport_sockets.upstream_proxy_protocol";
    let cluster =
        http(TrafficPolicy { proxy_protocol: Some(ProxyProtocol::default()), ..TrafficPolicy::default() });
    for candidate in &cluster.transport_socket_matches {
        assert_eq!(candidate.transport_socket.as_ref().unwrap().name, WRAPPER);
    }
    let plain = http(TrafficPolicy {
        proxy_protocol: Some(ProxyProtocol::default()),
        tls: Some(ClientTlsSettings::default()),
        ..TrafficPolicy::default()
    });
    assert_eq!(plain.transport_socket.unwrap().name, WRAPPER);
}

#[test]
fn load_balancers() {
    let check = |settings: LoadBalancerSettings, policy: LbPolicy, config: fn(&LbConfig) -> bool| {
        let cluster =
            http(TrafficPolicy { load_balancer: Some(settings.clone()), ..TrafficPolicy::default() });
        assert_eq!(cluster.lb_policy, policy as i32, "{settings:?}");
        assert!(cluster.lb_config.as_ref().is_none_or(config), "{settings:?} {:?}", cluster.lb_config);
        assert_eq!(cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 0.0);
    };
    let simple = |simple| LoadBalancerSettings {
        lb_policy: Some(Wanted::Simple(simple)),
        ..LoadBalancerSettings::default()
    };
    let hash = |algorithm| LoadBalancerSettings {
        lb_policy: Some(Wanted::ConsistentHash(ConsistentHashLb {
            hash_algorithm: algorithm,
            ..ConsistentHashLb::default()
        })),
        ..LoadBalancerSettings::default()
    };
    check(LoadBalancerSettings::default(), LbPolicy::LeastRequest, |_| false);
    check(simple(SimpleLb::LeastConn), LbPolicy::LeastRequest, |_| false);
    check(simple(SimpleLb::RoundRobin), LbPolicy::RoundRobin, |_| false);
    check(simple(SimpleLb::Random), LbPolicy::Random, |_| false);
    check(simple(SimpleLb::Passthrough), LbPolicy::ClusterProvided, |_| false);
    check(
        hash(None),
        LbPolicy::RingHash,
        |config| matches!(config, LbConfig::RingHashLbConfig(ring) if ring.minimum_ring_size == Some(1024)),
    );
    check(
        hash(Some(HashAlgorithm::Maglev(MagLev { table_size: 251 }))),
        LbPolicy::Maglev,
        |config| matches!(config, LbConfig::MaglevLbConfig(maglev) if maglev.table_size == Some(251)),
    );
    let warm =
        LoadBalancerSettings { warmup: Some(WarmupConfiguration::default()), ..simple(SimpleLb::RoundRobin) };
    check(warm, LbPolicy::RoundRobin, |config| {
        matches!(config, LbConfig::RoundRobinLbConfig(round_robin)
            if round_robin.slow_start_config.as_ref().is_some_and(|slow| slow.min_weight_percent.unwrap().value == 10.0))
    });
}

#[test]
fn outliers_are_counted_as_configured_and_never_by_success_rate() {
    let check = |outlier: OutlierDetection, expected: (Option<u32>, Option<u32>, f64)| {
        let cluster =
            http(TrafficPolicy { outlier_detection: Some(outlier.clone()), ..TrafficPolicy::default() });
        let found = cluster.outlier_detection.unwrap();
        assert_eq!(found.enforcing_success_rate, Some(0));
        let panic = cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value;
        assert_eq!((found.consecutive_5xx, found.enforcing_consecutive_5xx, panic), expected, "{outlier:?}");
    };
    let errors = |errors| OutlierDetection { consecutive_5xx_errors: errors, ..OutlierDetection::default() };
    check(errors(None), (None, None, 0.0));
    check(errors(Some(7)), (Some(7), Some(100), 0.0));
    check(errors(Some(0)), (Some(0), Some(0), 0.0));
    check(OutlierDetection { min_health_percent: 40, ..errors(None) }, (None, None, 40.0));
}

#[test]
fn the_http_version_follows_protocol_policy_and_client() {
    #[derive(Debug, PartialEq)]
    enum Version {
        Unstated,
        Http2,
        Client,
    }
    let check = |protocol, kind, settings: HttpSettings, mesh_upgrade: bool, expected: Version| {
        let policy = TrafficPolicy {
            connection_pool: Some(ConnectionPoolSettings {
                http: Some(settings.clone()),
                ..ConnectionPoolSettings::default()
            }),
            ..TrafficPolicy::default()
        };
        let rule = DestinationRule { traffic_policy: Some(policy), ..DestinationRule::default() };
        let mut input = input(service(Resolution::ClientSide, protocol), Some(rule));
        input.view.kind = kind;
        input.mesh = Arc::new(Hashed::new(ClusterMesh { h2_upgrade: mesh_upgrade, ..mesh() }));
        let found = match http_options(&first(&input)).and_then(|options| options.upstream_protocol_options) {
            None => Version::Unstated,
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(_)) => Version::Http2,
            Some(_) => Version::Client,
        };
        assert_eq!(found, expected, "{protocol:?} {kind:?} {settings:?} {mesh_upgrade}");
    };
    use navarch_model::networking::H2UpgradePolicy::{DoNotUpgrade, Upgrade};
    let plain = HttpSettings::default;
    let policy = |h2_upgrade_policy| HttpSettings { h2_upgrade_policy, ..plain() };
    let client = HttpSettings { use_client_protocol: true, ..plain() };
    check(Protocol::Http, ProxyKind::Sidecar, plain(), false, Version::Unstated);
    check(Protocol::Http, ProxyKind::Sidecar, plain(), true, Version::Http2);
    check(Protocol::Http, ProxyKind::Sidecar, policy(DoNotUpgrade), true, Version::Unstated);
    check(Protocol::Tcp, ProxyKind::Sidecar, plain(), true, Version::Unstated);
    check(Protocol::Tcp, ProxyKind::Sidecar, policy(Upgrade), false, Version::Http2);
    check(Protocol::Grpc, ProxyKind::Router, plain(), false, Version::Http2);
    check(Protocol::Unsupported, ProxyKind::Sidecar, plain(), true, Version::Client);
    check(Protocol::Unsupported, ProxyKind::Router, plain(), false, Version::Unstated);
    check(Protocol::Http, ProxyKind::Router, client, true, Version::Client);
}

#[test]
fn inbound_traffic_goes_on_without_being_caught_again() {
    let check = |target: InboundTarget, ip_mode, expected: (DiscoveryType, &[&str])| {
        let cluster = inbound_cluster(&InboundInput {
            port: 8080,
            target: target.clone(),
            service_port: 80,
            service_port_name: "main".to_owned(),
            protocol: Protocol::Http,
            services: vec![(Arc::new(Hashed::new(service(Resolution::ClientSide, Protocol::Http))), 80)],
            rule: None,
            connection_pool: connections(3),
            mesh: Arc::new(Hashed::new(mesh())),
            view: ClusterView { ip_mode, ..view() },
            patches: ClusterPatches::default(),
        });
        let sources: Vec<String> = cluster
            .upstream_bind_config
            .iter()
            .flat_map(|bind| {
                let extra = bind.extra_source_addresses.iter().filter_map(|extra| extra.address.as_ref());
                bind.source_address.iter().chain(extra).map(|source| source.address.clone())
            })
            .collect();
        assert_eq!(cluster.name, "inbound|8080||");
        assert_eq!(max_connections(&cluster), Some(3));
        assert_eq!(
            (discovery_type(&cluster).unwrap(), sources),
            (expected.0, expected.1.iter().map(|s| s.to_string()).collect()),
            "{target:?}"
        );
        let never_cleaned =
            cluster.cleanup_interval.is_some_and(|interval| interval.seconds == 9_223_372_035);
        assert_eq!(never_cleaned, expected.0 == DiscoveryType::OriginalDst);
    };
    let localhost = InboundTarget::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
    check(InboundTarget::OriginalDestination, IpMode::V4, (DiscoveryType::OriginalDst, &["127.0.0.6"]));
    check(InboundTarget::OriginalDestination, IpMode::V6, (DiscoveryType::OriginalDst, &["::6"]));
    check(
        InboundTarget::OriginalDestination,
        IpMode::Dual,
        (DiscoveryType::OriginalDst, &["127.0.0.6", "::6"]),
    );
    check(localhost, IpMode::V4, (DiscoveryType::Static, &[]));
    check(
        InboundTarget::Unix("unix:///run/app.sock".into()),
        IpMode::V4,
        (DiscoveryType::Static, &["127.0.0.6"]),
    );
}

#[test]
fn every_kind_of_proxy_has_its_fixed_clusters() {
    let check = |kind, dynamic_dns, expected: &[&str]| {
        let input = FixedInput {
            mesh: Arc::new(Hashed::new(mesh())),
            view: ClusterView { kind, ..view() },
            dynamic_dns,
            external_secrets: false,
            patches: ClusterPatches::default(),
        };
        let names: Vec<String> =
            Fixed::run(&input).iter().map(|cluster| cluster.name().to_string()).collect();
        assert_eq!(names, expected);
    };
    let sidecar = ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"];
    check(ProxyKind::Router, None, &sidecar[..1]);
    check(ProxyKind::Sidecar, None, &sidecar);
    let with_dns = [&sidecar[..2], &["AllowAnyDynamicDNSCluster"], &sidecar[2..]].concat();
    check(ProxyKind::Sidecar, Some(NameServer::Default), &with_dns);
}

#[test]
fn envoy_filters_change_remove_and_add_clusters() {
    let patch = |operation, context, matches: ClusterMatch, value: serde_json::Value| {
        let patch = EnvoyConfigObjectPatch {
            apply_to: ApplyTo::Cluster,
            match_: Some(EnvoyConfigObjectMatch {
                context,
                object_types: Some(ObjectTypes::Cluster(matches)),
                ..EnvoyConfigObjectMatch::default()
            }),
            patch: Some(Patch { operation, value: Some(Json::from(&value)), ..Patch::default() }),
        };
        let origin = Origin::object(ObjectKey::new(Kind::EnvoyFilter, "default", "patches"));
        ClusterPatch::parse(origin, &patch).expect("a patch")
    };
    // Name of each cluster that is left, and its connect timeout in seconds.
    let check = |patches: Vec<ClusterPatch>, expected: &[(&str, i64)]| {
        let subset = Subset { name: "v1".into(), ..Subset::default() };
        let rule = DestinationRule { subsets: vec![subset], ..DestinationRule::default() };
        let mut input = input(service(Resolution::ClientSide, Protocol::Http), Some(rule));
        input.patches = Arc::new(Hashed::new(patches));
        let found: Vec<(String, i64)> = Outbound::run(&input)
            .iter()
            .map(|resource| {
                let cluster = Cluster::decode(resource.body()).unwrap();
                (cluster.name, cluster.connect_timeout.unwrap().seconds)
            })
            .collect();
        let expected: Vec<(String, i64)> = expected
            .iter()
            .map(|(subset, seconds)| (format!("outbound|80|{subset}|{HOST}"), *seconds))
            .collect();
        assert_eq!(found, expected);
    };
    let any = ClusterMatch::default;
    let timeout = || serde_json::json!({"connect_timeout": "3s"});
    use PatchContext::{Any, Gateway, SidecarOutbound};
    use PatchOperation::{Add, Merge, Remove};
    check(vec![patch(Merge, SidecarOutbound, any(), timeout())], &[("", 3), ("v1", 3)]);
    check(vec![patch(Merge, Gateway, any(), timeout())], &[("", 10), ("v1", 10)]);
    let v1 = || ClusterMatch { subset: "v1".into(), port_number: 80, service: HOST.into(), ..any() };
    check(vec![patch(Merge, Any, v1(), timeout())], &[("", 10), ("v1", 3)]);
    check(vec![patch(Remove, Any, v1(), timeout())], &[("", 10)]);
    let other_port = ClusterMatch { port_number: 81, ..any() };
    check(vec![patch(Remove, Any, other_port, timeout())], &[("", 10), ("v1", 10)]);

    let added = patch(Add, Any, any(), serde_json::json!({"name": "added"}));
    let names = |kind| {
        let input = FixedInput {
            mesh: Arc::new(Hashed::new(mesh())),
            view: ClusterView { kind, ..view() },
            dynamic_dns: None,
            external_secrets: false,
            patches: Arc::new(Hashed::new(vec![added.clone()])),
        };
        Fixed::run(&input).iter().filter(|cluster| &**cluster.name() == "added").count()
    };
    assert_eq!((names(ProxyKind::Sidecar), names(ProxyKind::Router)), (1, 1));
}

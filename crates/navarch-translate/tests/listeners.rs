//! Tables of listeners: what is merged, which chains a port has, what listener filters are switched off.

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, listener_filter_chain_match_predicate::Rule,
};
use navarch_model::endpoint::Locality;
use navarch_model::mesh::{MeshConfig, ProxyConfig};
use navarch_model::proxy::{CertificateFiles, ProxyFacts};
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name};
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::listeners::contribution::{Contribution, HttpChain, TcpChain};
use navarch_translate::listeners::inbound::{
    InboundPort, InboundSettings, MutualTlsMode, VirtualInboundInput, virtual_inbound,
};
use navarch_translate::listeners::merge::merge;
use navarch_translate::listeners::outbound::{OutboundSettings, listener};
use navarch_translate::listeners::settings::ListenerSettings;
use navarch_translate::listeners::tcp::TcpRoute;
use navarch_translate::listeners::tls::MutualTls;
use navarch_translate::patching::Trace;

fn facts() -> ProxyFacts {
    let id = "sidecar~0.0.0.0~~default.svc.cluster.local";
    let metadata = serde_json::json!({"CLUSTER_ID": "Kubernetes"});
    let metadata = metadata.as_object().expect("an object");
    ProxyFacts::parse(id, "", metadata, Locality::default()).expect("a node")
}

fn settings(direction: Direction) -> ListenerSettings {
    ListenerSettings::new(direction, &MeshConfig::default(), &ProxyConfig::default(), &facts())
}

fn outbound_settings() -> OutboundSettings {
    OutboundSettings {
        listener: settings(Direction::Outbound),
        catch_all: "PassthroughCluster".into(),
        resolves_unknown_hosts: false,
    }
}

/// A contribution as a service port makes it: `host` names its cluster, `names` and `blocks` restrict its TCP
/// chain.
fn contribution(protocol: Protocol, host: &str, names: &[&str], blocks: &[&str]) -> Contribution {
    let shared = |texts: &[&str]| texts.iter().map(|text| Name::from(*text)).collect();
    let tcp = TcpChain {
        server_names: shared(names),
        destination_blocks: shared(blocks),
        origin: None,
        names_origin: false,
        route: TcpRoute::to(&format!("outbound|80||{host}")),
    };
    let http = HttpChain {
        routes: "80".into(),
        protocol,
        detect: protocol != Protocol::HttpProxy,
        absolute_urls: false,
        mesh_alpn: false,
        dns_cache: None,
    };
    Contribution {
        binds: vec!["0.0.0.0".into()],
        bind_to_port: false,
        port: 80,
        protocol,
        tcp: if protocol.is_http() { Vec::new() } else { vec![tcp] },
        http: (protocol.is_http() || protocol.is_sniffed()).then_some(http),
    }
}

/// One chain in a line: what it matches, and where it goes.
fn describe(chain: &FilterChain) -> String {
    let FilterChainMatch { server_names, prefix_ranges, application_protocols, transport_protocol, .. } =
        chain.filter_chain_match.clone().unwrap_or_default();
    let ranges = prefix_ranges.iter().map(|range| range.address_prefix.clone());
    let mut parts: Vec<String> = server_names.into_iter().chain(ranges).collect();
    parts.extend(application_protocols.first().cloned());
    parts.push(transport_protocol);
    parts.retain(|part| !part.is_empty());
    let kind = chain.filters.last().map_or("", |filter| filter.name.rsplit('.').next().unwrap_or_default());
    format!("{}>{kind}", parts.join("+"))
}

fn check_merge(contributions: &[Contribution], expected: &[&str], conflicts: &[usize]) {
    let [first, later @ ..] = contributions else { panic!("nothing to merge") };
    let merged = merge(first, later.iter());
    assert_eq!(merged.conflicts, conflicts);
    let built = listener(&outbound_settings(), &merged.entry);
    let mut lines: Vec<String> = built.filter_chains.iter().map(describe).collect();
    lines.extend(built.default_filter_chain.iter().map(|chain| format!("default {}", describe(chain))));
    assert_eq!(lines, expected);
}

#[test]
fn http_ports_share_a_listener_that_lets_other_bytes_through() {
    let ports = [contribution(Protocol::Http, "a", &[], &[]), contribution(Protocol::Grpc, "b", &[], &[])];
    check_merge(&ports, &["http/1.1+raw_buffer>http_connection_manager", "default >tcp_proxy"], &[]);
}

#[test]
fn an_http_port_on_the_address_of_a_tcp_port_makes_both_be_told_apart() {
    let ports = [contribution(Protocol::Tcp, "a", &[], &[]), contribution(Protocol::Http, "b", &[], &[])];
    check_merge(&ports, &["http/1.1+raw_buffer>http_connection_manager", "default >tcp_proxy"], &[]);
}

#[test]
fn the_older_of_two_tcp_ports_keeps_the_address() {
    let ports = [contribution(Protocol::Tcp, "a", &[], &[]), contribution(Protocol::Tcp, "b", &[], &[])];
    check_merge(&ports, &[">tcp_proxy"], &[0]);
}

#[test]
fn tcp_ports_with_other_names_or_blocks_are_merged() {
    let ports = [
        contribution(Protocol::Tls, "a", &["a.example.com"], &[]),
        contribution(Protocol::Tls, "b", &["b.example.com"], &[]),
        contribution(Protocol::Tcp, "c", &[], &["10.0.0.0/8"]),
        contribution(Protocol::Tcp, "d", &[], &["10.1.2.3/8"]),
    ];
    check_merge(
        &ports,
        &["a.example.com>tcp_proxy", "b.example.com>tcp_proxy", "10.0.0.0>tcp_proxy", "default >tcp_proxy"],
        &[2],
    );
}

#[test]
fn nothing_joins_a_protocol_in_which_the_server_speaks_first() {
    let ports = [contribution(Protocol::Mongo, "a", &[], &[]), contribution(Protocol::Http, "b", &[], &[])];
    check_merge(&ports, &[">tcp_proxy"], &[0]);
    let ports = [contribution(Protocol::Http, "a", &[], &[]), contribution(Protocol::Mysql, "b", &[], &[])];
    check_merge(&ports, &["http/1.1+raw_buffer>http_connection_manager", "default >tcp_proxy"], &[0]);
}

#[test]
fn an_undeclared_port_replaces_an_http_port_with_an_address_of_its_own() {
    let mut http = contribution(Protocol::Http, "a", &[], &[]);
    if let Some(chain) = &mut http.http {
        chain.detect = false;
    }
    let ports = [http, contribution(Protocol::Unsupported, "b", &[], &[])];
    check_merge(&ports, &["http/1.1+raw_buffer>http_connection_manager", "default >tcp_proxy"], &[]);
}

fn port(target_port: u16, protocol: Protocol, mode: MutualTlsMode) -> InboundPort {
    InboundPort {
        service_port: 80,
        target_port,
        protocol,
        cluster: Name::from(format!("inbound|{target_port}||")),
        binds: vec!["0.0.0.0".into()],
        host: "a.default.svc.cluster.local".into(),
        stat_prefix: "".into(),
        mode,
        config: None,
    }
}

fn inbound(other_ports: MutualTlsMode, ports: Vec<InboundPort>) -> Listener {
    let tls = MutualTls::new(&MeshConfig::default(), CertificateFiles::default());
    let settings = Arc::new(Hashed::new(InboundSettings {
        listener: settings(Direction::Inbound),
        tls,
        retries: None,
        route_patches: Arc::default(),
    }));
    virtual_inbound(
        &VirtualInboundInput { settings, other_ports, policy_ports: Vec::new(), ports },
        &Trace::default(),
    )
}

fn check_chains(protocol: Protocol, mode: MutualTlsMode, expected: &[&str]) {
    let listener = inbound(MutualTlsMode::Disable, vec![port(8080, protocol, mode)]);
    let chains: Vec<String> = listener
        .filter_chains
        .iter()
        .filter(|chain| chain.filter_chain_match.as_ref().and_then(|m| m.destination_port) == Some(8080))
        .map(|chain| {
            let tls = if chain.transport_socket.is_some() { "mtls " } else { "" };
            format!("{tls}{}", describe(chain))
        })
        .collect();
    assert_eq!(chains, expected, "{protocol:?} {mode:?}");
}

#[test]
fn a_port_has_the_chains_of_its_protocol_and_mode() {
    use MutualTlsMode::{Disable, Permissive, Strict};
    check_chains(Protocol::Http, Strict, &["mtls tls>http_connection_manager"]);
    check_chains(
        Protocol::Http,
        Permissive,
        &["mtls istio+tls>http_connection_manager", "raw_buffer>http_connection_manager"],
    );
    check_chains(Protocol::Http, Disable, &["raw_buffer>http_connection_manager"]);
    check_chains(Protocol::Tcp, Strict, &["mtls tls>tcp_proxy"]);
    check_chains(
        Protocol::Tcp,
        Permissive,
        &["mtls istio+tls>tcp_proxy", "tls>tcp_proxy", "raw_buffer>tcp_proxy"],
    );
    check_chains(Protocol::Tcp, Disable, &["raw_buffer>tcp_proxy"]);
    check_chains(
        Protocol::Unsupported,
        Strict,
        &["mtls istio-http/1.0+tls>http_connection_manager", "mtls tls>tcp_proxy"],
    );
    check_chains(
        Protocol::Unsupported,
        Permissive,
        &[
            "mtls istio-http/1.0+tls>http_connection_manager",
            "http/1.1+raw_buffer>http_connection_manager",
            "mtls istio-peer-exchange+tls>tcp_proxy",
            "raw_buffer>tcp_proxy",
            "tls>tcp_proxy",
        ],
    );
    check_chains(
        Protocol::Unsupported,
        Disable,
        &["http/1.1+raw_buffer>http_connection_manager", "raw_buffer>tcp_proxy"],
    );
}

/// Ports on which an inspector is off, or on which alone it is on.
fn check_inspectors(other_ports: MutualTlsMode, ports: Vec<InboundPort>, expected: &[&str]) {
    let ranges = |rule: &Rule| {
        let one = |rule: &Rule| match rule {
            Rule::DestinationPortRange(range) => range.start.to_string(),
            other => panic!("unexpected {other:?}"),
        };
        match rule {
            Rule::OrMatch(set) => {
                set.rules.iter().filter_map(|rule| rule.rule.as_ref()).map(one).collect::<Vec<_>>().join(",")
            }
            rule => one(rule),
        }
    };
    let listener = inbound(other_ports, ports);
    let lines: Vec<String> = listener
        .listener_filters
        .iter()
        .map(|filter| {
            let name = filter.name.rsplit('.').next().unwrap_or_default();
            match filter.filter_disabled.as_ref().and_then(|predicate| predicate.rule.as_ref()) {
                None => name.to_owned(),
                Some(Rule::NotMatch(only)) => {
                    format!("{name} only {}", only.rule.as_ref().map(ranges).unwrap_or_default())
                }
                Some(rule) => format!("{name} not {}", ranges(rule)),
            }
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn inspectors_are_off_where_no_chain_needs_them() {
    use MutualTlsMode::{Disable, Permissive, Strict};
    let ports = || vec![port(8080, Protocol::Http, Permissive), port(9000, Protocol::Tcp, Disable)];
    check_inspectors(
        Permissive,
        ports(),
        &["original_dst", "tls_inspector not 9000,15006", "http_inspector not 8080,9000,15006"],
    );
    check_inspectors(
        Disable,
        ports(),
        &["original_dst", "tls_inspector only 8080", "http_inspector not 8080,9000,15006"],
    );
    check_inspectors(Strict, ports(), &["original_dst", "tls_inspector not 9000,15006"]);
}

//! Envoy's rules that no configuration of ours exercises in full: resources written by hand.

use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType, dynamic, json};
use navarch_simulate::{Action, Call, Protocol, Stage, Tls, simulate};
use serde_json::{Value, json};
use std::sync::Arc;

fn set(ty: XdsType, resources: Vec<Value>) -> ResourceSet {
    let full_name = ty.type_url().rsplit('/').next().unwrap();
    ResourceSet::of(resources.into_iter().map(|json| {
        let message = json::from_json(full_name, &json).unwrap();
        Arc::new(Resource::of(ty, json["name"].as_str().unwrap(), &dynamic::encode(&message)))
    }))
}

fn tcp_proxy(cluster: &str) -> Value {
    json!([{"name": "tcp", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": "x", "cluster": cluster,
    }}])
}

/// A listener on port 80 with chains of these names and matches, and both inspectors.
fn chains(chains: &[(&str, Value)], default: Option<&str>) -> ProxyResources {
    let list: Vec<Value> = chains
        .iter()
        .map(|(name, matched)| json!({"name": name, "filterChainMatch": matched, "filters": tcp_proxy("to")}))
        .collect();
    let mut listener = json!({
        "name": "l",
        "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}},
        "listenerFilters": [
            {"name": "envoy.filters.listener.tls_inspector"}, {"name": "envoy.filters.listener.http_inspector"},
        ],
        "filterChains": list,
    });
    if let Some(name) = default {
        listener["defaultFilterChain"] = json!({"name": name, "filters": tcp_proxy("to")});
    }
    ProxyResources::new(1).with(XdsType::Lds, set(XdsType::Lds, vec![listener]))
}

fn call(sni: Option<&str>) -> Call {
    let mut call = Call::tcp(([10, 0, 0, 1], 80).into());
    call.tls = sni.map(|sni| Tls { sni: sni.to_owned(), ..Tls::default() });
    call
}

#[track_caller]
fn check_chain(resources: &ProxyResources, call: &Call, expected: Option<&str>) {
    assert_eq!(simulate(resources, call).filter_chain.as_deref(), expected);
}

#[test]
fn server_names_from_exact_to_none() {
    let all = chains(
        &[
            ("any", json!({})),
            ("wide", json!({"serverNames": ["*.test"]})),
            ("narrow", json!({"serverNames": ["*.a.test", "b.other"]})),
            ("exact", json!({"serverNames": ["x.a.test"]})),
        ],
        None,
    );
    check_chain(&all, &call(Some("x.a.test")), Some("exact"));
    check_chain(&all, &call(Some("X.A.test")), Some("exact"));
    check_chain(&all, &call(Some("y.a.test")), Some("narrow"));
    check_chain(&all, &call(Some("b.other")), Some("narrow"));
    check_chain(&all, &call(Some("a.test")), Some("wide"));
    check_chain(&all, &call(Some("test")), Some("any"));
    check_chain(&all, &call(None), Some("any"));
}

#[test]
fn there_is_no_way_back_to_a_less_specific_chain() {
    let port = ("port", json!({"destinationPort": 80, "transportProtocol": "tls"}));
    let all = chains(&[port.clone(), ("any", json!({}))], Some("fallback"));
    check_chain(&all, &call(Some("a")), Some("port"));
    check_chain(&all, &call(None), Some("fallback"));
    check_chain(&chains(&[port, ("any", json!({}))], None), &call(None), None);
    let range = |prefix: &str, length: u32, more: Value| {
        let mut matched = json!({"prefixRanges": [{"addressPrefix": prefix, "prefixLen": length}]});
        matched.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        matched
    };
    let ranges = [
        ("wide", range("10.0.0.0", 8, json!({}))),
        ("narrow", range("10.0.0.0", 24, json!({}))),
        ("tls", range("10.0.0.1", 32, json!({"transportProtocol": "tls"}))),
    ];
    check_chain(&chains(&ranges, None), &call(Some("a")), Some("tls"));
    check_chain(&chains(&ranges, None), &call(None), None);
    check_chain(&chains(&ranges[..2], None), &call(None), Some("narrow"));
}

#[test]
fn the_first_protocol_offered_that_a_chain_has_wins() {
    let all = chains(
        &[
            ("h2", json!({"applicationProtocols": ["h2"]})),
            ("h1", json!({"applicationProtocols": ["http/1.1"]})),
            ("any", json!({})),
        ],
        None,
    );
    let mut offers = call(Some("a"));
    let mut check = |alpn: &[&str], expected| {
        offers.tls.as_mut().unwrap().alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        check_chain(&all, &offers, Some(expected));
    };
    check(&["http/1.1", "h2"], "h1");
    check(&["h2", "http/1.1"], "h2");
    check(&["x", "http/1.1"], "h1");
    check(&["x"], "any");
    check_chain(&all, &Call::http(([10, 0, 0, 1], 80).into(), "a"), Some("h1"));
    let clear = Call { protocol: Protocol::Http2, ..Call::http(([10, 0, 0, 1], 80).into(), "a") };
    check_chain(&all, &clear, Some("any"));
}

#[test]
fn what_depends_on_the_client_is_unknown() {
    let all = chains(
        &[("near", json!({"sourcePrefixRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]}))],
        None,
    );
    assert!(matches!(simulate(&all, &call(None)).action, Action::Unknown(_)));
}

/// A listener on port 80 with these virtual hosts inline; the cluster `to` exists.
fn http(virtual_hosts: Value) -> ProxyResources {
    let listener = json!({
        "name": "l",
        "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}},
        "filterChains": [{"filters": [{"name": "http", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": "x",
            "routeConfig": {"name": "inline", "virtualHosts": virtual_hosts},
        }}]}],
    });
    let cluster = json!({"name": "to", "type": "EDS"});
    ProxyResources::new(1)
        .with(XdsType::Lds, set(XdsType::Lds, vec![listener]))
        .with(XdsType::Cds, set(XdsType::Cds, vec![cluster]))
}

fn get(host: &str, path: &str) -> Call {
    Call { path: path.to_owned(), ..Call::http(([10, 0, 0, 1], 80).into(), host) }
}

#[test]
fn domains_from_exact_over_suffix_and_prefix_to_all() {
    let host = |name: &str, domains: Value| json!({"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "to"}}]});
    let all = http(json!([
        host("all", json!(["*"])),
        host("prefix", json!(["www.*"])),
        host("suffix", json!(["*.test"])),
        host("longer", json!(["*.a.test"])),
        host("exact", json!(["www.a.test", "x.test:8080"])),
    ]));
    let check = |host: &str, expected: &str| {
        assert_eq!(simulate(&all, &get(host, "/")).virtual_host.as_deref(), Some(expected), "{host}");
    };
    check("www.a.test", "exact");
    check("WWW.A.TEST", "exact");
    check("x.test:8080", "exact");
    check("x.test:81", "all");
    check("b.a.test", "longer");
    check("a.test", "suffix");
    check(".test", "all");
    check("www.other", "prefix");
    check("www.", "all");
}

#[test]
fn paths_and_conditions() {
    let to = json!({"cluster": "to"});
    let all = http(json!([{"name": "h", "domains": ["*"], "routes": [
        {"name": "segment", "match": {"pathSeparatedPrefix": "/seg"}, "route": to},
        {"name": "grpc", "match": {"prefix": "/g", "grpc": {}}, "route": to},
        {"name": "never", "match": {"prefix": "/f", "runtimeFraction": {"defaultValue": {"numerator": 0}}}, "route": to},
        {"name": "always", "match": {"prefix": "/f", "runtimeFraction": {"defaultValue": {"numerator": 100}}}, "route": to},
        {"name": "half", "match": {"prefix": "/h", "runtimeFraction": {"defaultValue": {"numerator": 50}}}, "route": to},
        {"name": "range", "match": {"prefix": "/r", "headers": [{"name": "n", "rangeMatch": {"start": 1, "end": 3}}]}, "route": to},
        {"name": "gone", "match": {"path": "/gone"}, "route": {"cluster": "missing"}},
    ]}]));
    let check = |call: &Call, expected: Option<&str>| {
        assert_eq!(simulate(&all, call).route.as_deref(), expected, "{}", call.path);
    };
    check(&get("a", "/seg"), Some("segment"));
    check(&get("a", "/seg/x"), Some("segment"));
    check(&get("a", "/seg?x"), Some("segment"));
    check(&get("a", "/segment"), None);
    check(&get("a", "/f"), Some("always"));
    check(&get("a", "/g"), None);
    let with = |path: &str, name: &str, value: &str| Call {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..get("a", path)
    };
    check(&with("/g", "content-type", "application/grpc+proto"), Some("grpc"));
    check(&with("/r", "n", "1"), Some("range"));
    check(&with("/r", "n", "3"), None);
    assert!(matches!(simulate(&all, &get("a", "/h")).action, Action::Unknown(_)));
    let Action::Blocked(blocked) = simulate(&all, &get("a", "/gone")).action else { panic!("forwarded") };
    assert_eq!((blocked.stage, blocked.status), (Stage::Cluster, Some(503)));
}

#[test]
fn an_empty_configuration_takes_nothing() {
    let Action::Blocked(blocked) = simulate(&ProxyResources::new(1), &get("a", "/")).action else {
        panic!("forwarded")
    };
    assert_eq!(blocked.stage, Stage::Listener);
}

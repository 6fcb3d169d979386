//! EnvoyFilter on listeners: a table of patches and what becomes of a listener with two chains.

use navarch_envoy::any::{any, unpack};
use navarch_envoy::proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter,
};
use navarch_envoy::proto::envoy::extensions::filters::http::router::v3::Router;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use navarch_envoy::proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use navarch_model::networking::{EnvoyFilter, PatchContext};
use navarch_model::yaml::{Budget, Decode, Decoder, parse};
use navarch_model::{Kind, ObjectKey, Origin};
use navarch_translate::filters::http::http_filter;
use navarch_translate::filters::network::network_filter;
use navarch_translate::listeners::address;
use navarch_translate::listeners::patch::{ListenerPatch, apply};
use navarch_translate::patching::Trace;

const HTTP: &str = "envoy.filters.network.http_connection_manager";

fn chain(name: &str, port: u32, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(port),
            server_names: vec![format!("{name}.example.com")],
            ..FilterChainMatch::default()
        }),
        filters,
        ..FilterChain::default()
    }
}

/// A listener with a chain for HTTP on port 80 and one for bytes on port 90.
fn listener(name: &str) -> Listener {
    let manager = HttpConnectionManager {
        http_filters: vec![
            http_filter("fault", &Router::default()),
            http_filter("router", &Router::default()),
        ],
        ..HttpConnectionManager::default()
    };
    let inspector = ListenerFilter { name: "inspector".to_owned(), ..ListenerFilter::default() };
    Listener {
        name: name.to_owned(),
        address: Some(address::address("0.0.0.0", 15006)),
        listener_filters: vec![inspector],
        filter_chains: vec![
            chain("web", 80, vec![network_filter(HTTP, &manager)]),
            chain("bytes", 90, vec![network_filter("tcp_proxy", &TcpProxy::default())]),
        ],
        ..Listener::default()
    }
}

fn patches(yaml: &str) -> Vec<ListenerPatch> {
    let text = format!("configPatches:\n{yaml}");
    let (documents, errors) = parse(&text, Budget::default());
    assert!(errors.is_empty(), "{errors:?}");
    let root = documents.first().and_then(|document| document.root.as_ref()).expect("a document");
    let mut decoder = Decoder::new();
    let filter = EnvoyFilter::decode(root, &mut decoder).expect("an EnvoyFilter");
    let origin = Origin::object(ObjectKey::new(Kind::EnvoyFilter, "default", "patches"));
    let parsed = filter
        .config_patches
        .iter()
        .map(|patch| ListenerPatch::parse(origin.clone(), patch).expect("a patch"));
    parsed.collect()
}

/// The listener in a few words: chains with their filters, HTTP filters in brackets.
fn describe(listener: Option<Listener>) -> String {
    let Some(listener) = listener else { return "removed".to_owned() };
    let chains = listener.filter_chains.iter().map(|chain| {
        let filters = chain.filters.iter().map(|filter| {
            let http = match &filter.config_type {
                Some(filter::ConfigType::TypedConfig(config)) => unpack::<HttpConnectionManager>(config).ok(),
                _ => None,
            };
            match http {
                Some(manager) => {
                    let names: Vec<_> = manager.http_filters.into_iter().map(|http| http.name).collect();
                    format!("hcm[{}]", names.join(" "))
                }
                None => filter.name.clone(),
            }
        });
        format!("{}: {}", chain.name, filters.collect::<Vec<_>>().join(" "))
    });
    let inspectors = listener.listener_filters.iter().map(|filter| filter.name.clone());
    format!("({}) {}", inspectors.collect::<Vec<_>>().join(" "), chains.collect::<Vec<_>>().join("; "))
}

fn check(name: &str, yaml: &str, expected: &str) {
    assert_eq!(
        describe(apply(listener(name), &patches(yaml).iter().collect::<Vec<_>>(), &Trace::default())),
        expected,
        "{yaml}"
    );
}

const UNCHANGED: &str = "(inspector) web: hcm[fault router]; bytes: tcp_proxy";

#[test]
fn filters_are_inserted_next_to_the_one_that_is_named() {
    let http = |operation: &str, sub: &str| {
        format!(
            "- applyTo: HTTP_FILTER\n  match: {{listener: {{filterChain: {{filter: {{name: {HTTP}{sub}}}}}}}}}\n  \
             patch: {{operation: {operation}, value: {{name: new}}}}\n"
        )
    };
    let at_router = ", subFilter: {name: router}";
    check("l", &http("INSERT_BEFORE", at_router), "(inspector) web: hcm[fault new router]; bytes: tcp_proxy");
    check("l", &http("INSERT_AFTER", at_router), "(inspector) web: hcm[fault router new]; bytes: tcp_proxy");
    check("l", &http("INSERT_FIRST", at_router), "(inspector) web: hcm[new fault router]; bytes: tcp_proxy");
    check("l", &http("REPLACE", at_router), "(inspector) web: hcm[fault new]; bytes: tcp_proxy");
    check("l", &http("REMOVE", at_router), "(inspector) web: hcm[fault]; bytes: tcp_proxy");
    check("l", &http("INSERT_BEFORE", ""), "(inspector) web: hcm[new fault router]; bytes: tcp_proxy");
    check("l", &http("INSERT_AFTER", ""), "(inspector) web: hcm[fault router new]; bytes: tcp_proxy");
    check("l", &http("REMOVE", ""), UNCHANGED);
    let missing = ", subFilter: {name: nothing}";
    check("l", &http("INSERT_BEFORE", missing), UNCHANGED);
}

#[test]
fn network_and_listener_filters_follow_the_same_rules() {
    let network = "- applyTo: NETWORK_FILTER\n  match: {listener: {filterChain: {filter: {name: tcp_proxy}}}}\n  \
                   patch: {operation: INSERT_BEFORE, value: {name: new}}\n";
    check("l", network, "(inspector) web: hcm[fault router]; bytes: new tcp_proxy");
    let inspector = "- applyTo: LISTENER_FILTER\n  match: {listener: {listenerFilter: inspector}}\n  \
                     patch: {operation: REPLACE, value: {name: new}}\n";
    check("l", inspector, "(new) web: hcm[fault router]; bytes: tcp_proxy");
}

#[test]
fn a_port_means_a_chain_of_a_virtual_listener_and_the_address_of_others() {
    let by_port = |port: u16| {
        format!(
            "- applyTo: NETWORK_FILTER\n  match: {{listener: {{portNumber: {port}}}}}\n  \
             patch: {{operation: INSERT_FIRST, value: {{name: new}}}}\n"
        )
    };
    check("virtualInbound", &by_port(90), "(inspector) web: hcm[fault router]; bytes: new tcp_proxy");
    check("l", &by_port(90), UNCHANGED);
    check("l", &by_port(15006), "(inspector) web: new hcm[fault router]; bytes: new tcp_proxy");
}

#[test]
fn chains_are_matched_added_and_removed() {
    let remove = |wanted: &str| {
        format!(
            "- applyTo: FILTER_CHAIN\n  match: {{listener: {{filterChain: {{{wanted}}}}}}}\n  \
             patch: {{operation: REMOVE}}\n"
        )
    };
    check("l", &remove("sni: web.example.com"), "(inspector) bytes: tcp_proxy");
    check("l", &remove("destinationPort: 90"), "(inspector) web: hcm[fault router]");
    check("l", &remove("name: other"), UNCHANGED);
    check("l", &remove("transportProtocol: tls"), UNCHANGED);
    let add =
        "- applyTo: FILTER_CHAIN\n  patch: {operation: ADD, value: {name: more, filters: [{name: x}]}}\n";
    check("l", add, "(inspector) web: hcm[fault router]; bytes: tcp_proxy; more: x");
}

#[test]
fn listeners_are_removed_and_merged() {
    let remove = "- applyTo: LISTENER\n  match: {listener: {name: l}}\n  patch: {operation: REMOVE}\n";
    check("l", remove, "removed");
    check("other", remove, UNCHANGED);
    let merge =
        "- applyTo: LISTENER\n  patch: {operation: MERGE, value: {listenerFilters: [{name: more}]}}\n";
    check("l", merge, "(inspector more) web: hcm[fault router]; bytes: tcp_proxy");
    let replace = merge.replace("MERGE,", "MERGE_AND_REPLACE_LIST,");
    check("l", &replace, "(more) web: hcm[fault router]; bytes: tcp_proxy");
}

#[test]
fn a_typed_configuration_is_merged_into_one_of_its_type_only() {
    let merge = |url: &str, field: &str| {
        format!(
            "- applyTo: NETWORK_FILTER\n  match: {{listener: {{filterChain: {{filter: {{name: tcp_proxy}}}}}}}}\n  \
             patch: {{operation: MERGE, value: {{typedConfig: {{\"@type\": {url}, {field}: new}}}}}}\n"
        )
    };
    let stat_prefix = |yaml: &str| {
        let patched = apply(listener("l"), &patches(yaml).iter().collect::<Vec<_>>(), &Trace::default())
            .expect("a listener");
        let filter = patched.filter_chains.get(1).and_then(|chain| chain.filters.first()).cloned();
        match filter.and_then(|filter| filter.config_type) {
            Some(filter::ConfigType::TypedConfig(config)) => {
                unpack::<TcpProxy>(&config).expect("a TCP proxy").stat_prefix
            }
            other => panic!("unexpected {other:?}"),
        }
    };
    let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    assert_eq!(stat_prefix(&merge(tcp, "statPrefix")), "new");
    let other = any(&HttpConnectionManager::default()).type_url;
    assert_eq!(stat_prefix(&merge(&other, "statPrefix")), "");
}

#[test]
fn a_listener_without_context_is_added_once() {
    let add = |context: &str| {
        format!(
            "- applyTo: LISTENER\n  match: {{context: {context}}}\n  \
             patch: {{operation: ADD, value: {{name: extra}}}}\n"
        )
    };
    let added = |context: &str, of: PatchContext| {
        patches(&add(context)).iter().filter(|patch| patch.is_for(of) && patch.added(of).is_some()).count()
    };
    assert_eq!(added("ANY", PatchContext::SidecarInbound), 0);
    assert_eq!(added("ANY", PatchContext::SidecarOutbound), 1);
    assert_eq!(added("SIDECAR_INBOUND", PatchContext::SidecarInbound), 1);
    assert_eq!(added("SIDECAR_INBOUND", PatchContext::SidecarOutbound), 0);
}

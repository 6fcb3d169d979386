use serde_json::json;

use super::*;
use crate::any::any;
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use crate::proto::envoy::extensions::filters::http::router::v3::Router;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use crate::proto::udpa::r#type::v1::TypedStruct;
use crate::wkt;

/// An extension whose message has no generated type.
fn typed_struct(inner: &str, value: prost_types::Struct) -> crate::Any {
    any(&TypedStruct { type_url: inner.to_owned(), value: Some(value) })
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const EXTENSION: &str = "envoy.config.core.v3.TypedExtensionConfig";

/// `input` reads as a `name`, and that prints as `printed`, which reads as the same message.
fn check(name: &str, input: Value, printed: Value) {
    let message = from_json(name, &input).unwrap();
    let output = print::message(&message);
    assert_eq!(output.to_string(), printed.to_string(), "{name} {input}");
    assert_eq!(from_json(name, &output).unwrap(), message, "{name} {input}");
    assert_eq!(to_json(name, &crate::dynamic::encode(&message)), output, "{name} {input}");
}

/// `input` does not read as a `name`.
fn check_error(name: &str, input: Value, expected: &str) {
    assert_eq!(from_json(name, &input).unwrap_err().to_string(), expected, "{name} {input}");
}

/// `{"@type": url, "value": value}` inside the shortest message with an `Any`.
fn extension(typed_config: Value) -> Value {
    json!({ "name": "x", "typedConfig": typed_config })
}

#[test]
fn the_descriptor_set_decodes() {
    assert!(pool().all_messages().count() > 1600);
    for name in [
        "envoy.service.discovery.v3.DiscoveryRequest",
        "udpa.type.v1.TypedStruct",
        "xds.type.v3.TypedStruct",
        "xds.type.matcher.v3.CelMatcher",
        "xds.type.matcher.v3.HttpAttributesCelMatchInput",
        "xds.type.matcher.v3.IPMatcher",
        "xds.data.orca.v3.OrcaLoadReport",
        "stats.PluginConfig",
        "istio.networking.nds.v1.NameTable",
        "istio.v1.auth.IstioCertificateRequest",
        "istio.workload.Address",
        "istio.security.Authorization",
        "envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy",
    ] {
        assert!(descriptor(name).is_some(), "{name}");
    }
    assert!(pool().services().any(|service| service.name() == "AggregatedDiscoveryService"));
}

#[test]
fn fields_take_their_canonical_form() {
    check(
        CLUSTER,
        json!({
            "type": "EDS",
            "name": "a",
            "connect_timeout": "0.25s",
            "per_connection_buffer_limit_bytes": 32768,
            "circuit_breakers": { "thresholds": [{ "priority": 1, "max_retries": "3" }] },
            "metadata": { "filter_metadata": { "b": { "z": 1.0, "a": [null, true, "x", 1.5] }, "a": {} } },
            "common_lb_config": { "healthy_panic_threshold": { "value": 12.5 } },
        }),
        json!({
            "circuitBreakers": { "thresholds": [{ "maxRetries": 3, "priority": "HIGH" }] },
            "commonLbConfig": { "healthyPanicThreshold": { "value": 12.5 } },
            "connectTimeout": "0.250s",
            "metadata": { "filterMetadata": { "a": {}, "b": { "a": [null, true, "x", 1.5], "z": 1 } } },
            "name": "a",
            "perConnectionBufferLimitBytes": 32768,
            "type": "EDS",
        }),
    );
}

#[test]
fn numbers_take_their_canonical_form() {
    let extension = |typed: Value| json!({ "name": "x", "typedConfig": typed });
    for (short, input, printed) in [
        ("DoubleValue", json!(100.0), json!(100)),
        ("DoubleValue", json!(0.1), json!(0.1)),
        ("DoubleValue", json!("-Infinity"), json!("-Infinity")),
        ("DoubleValue", json!("NaN"), json!("NaN")),
        ("FloatValue", json!(0.1), json!(0.1)),
        ("Int64Value", json!(-5), json!("-5")),
        ("UInt64Value", json!("18446744073709551615"), json!("18446744073709551615")),
        ("UInt32Value", json!(1e3), json!(1000)),
        ("BoolValue", json!(false), json!(false)),
        ("StringValue", json!("s"), json!("s")),
        ("BytesValue", json!("-_8"), json!("+/8=")),
        ("Duration", json!("3600s"), json!("3600s")),
        ("Timestamp", json!("2026-01-02T03:04:05Z"), json!("2026-01-02T03:04:05Z")),
        ("Struct", json!({ "b": 2, "a": 1 }), json!({ "a": 1, "b": 2 })),
        ("Empty", json!({}), json!({})),
    ] {
        let url = format!("type.googleapis.com/google.protobuf.{short}");
        let (input, printed) =
            (json!({ "@type": url, "value": input }), json!({ "@type": url, "value": printed }));
        let message = from_json(EXTENSION, &extension(input)).unwrap();
        assert_eq!(
            print::message(&message).to_string(),
            json!({ "name": "x", "typedConfig": printed }).to_string()
        );
    }
}

#[test]
fn every_any_is_expanded() {
    let router = any(&Router { suppress_envoy_headers: true, ..Router::default() });
    let stats = typed_struct("type.googleapis.com/x.Stats", wkt::structure([("b", wkt::number(2.0))]));
    let unknown = crate::Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: vec![8, 1].into() };
    let http_filter = |name: &str, config| HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "in".to_owned(),
        http_filters: vec![
            http_filter("stats", stats),
            http_filter("y", unknown),
            http_filter("router", router),
        ],
        ..HttpConnectionManager::default()
    };
    let filter =
        Filter { name: "hcm".to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(&manager))) };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    let listener = Listener { name: "l".to_owned(), filter_chains: vec![chain], ..Listener::default() };
    let printed = json!({
        "filterChains": [{ "filters": [{ "name": "hcm", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "httpFilters": [
                { "name": "stats", "typedConfig": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "typeUrl": "type.googleapis.com/x.Stats",
                    "value": { "b": 2 },
                } },
                { "name": "y", "typedConfig": { "@type": "type.googleapis.com/x.Y", "value": "CAE=" } },
                { "name": "router", "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppressEnvoyHeaders": true,
                } },
            ],
            "statPrefix": "in",
        } }] }],
        "name": "l",
    });
    assert_eq!(typed_to_json(&listener).to_string(), printed.to_string());
    let read = from_json(&Listener::full_name(), &printed).unwrap();
    assert_eq!(Listener::decode(crate::dynamic::encode(&read)).unwrap(), listener);
}

#[test]
fn unreadable_payloads_stay_encoded() {
    let printed = |url: &str, value: &str| json!({ "@type": url, "value": value });
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    assert_eq!(any_to_json(cluster, &[0xff]), printed(cluster, "/w=="));
    assert_eq!(to_json(cluster, &[0xff]), printed(cluster, "/w=="));
    assert_eq!(any_to_json("x.Y", b"a"), printed("x.Y", "YQ=="));
    assert_eq!(any_to_json("", b""), printed("", ""));
}

#[test]
fn nesting_is_bounded() {
    let url = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let mut nested = crate::Any::default();
    let mut input = json!({ "name": "innermost" });
    for _ in 0..300 {
        nested = any(&TypedExtensionConfig { name: String::new(), typed_config: Some(nested) });
        let mut typed = input;
        typed["@type"] = Value::from(url);
        input = json!({ "typedConfig": typed });
    }
    assert!(any_to_json(&nested.type_url, &nested.value).to_string().contains("\"value\":"));
    assert_eq!(from_json(EXTENSION, &input).unwrap_err().problem, Problem::Depth);

    let mut list = json!([]);
    for _ in 0..300 {
        list = json!([list]);
    }
    assert_eq!(
        from_json("google.protobuf.Struct", &json!({ "a": list })).unwrap_err().problem,
        Problem::Depth
    );
}

#[test]
fn errors_say_where() {
    check_error("x.Y", json!({}), "unknown message type \"x.Y\"");
    check_error(CLUSTER, json!([]), "expected an object, found a list");
    check_error(CLUSTER, json!({ "nam": "a" }), "nam: envoy.config.cluster.v3.Cluster has no field \"nam\"");
    check_error(CLUSTER, json!({ "name": 1 }), "name: expected a string, found 1");
    check_error(
        CLUSTER,
        json!({ "connectTimeout": "a", "connect_timeout": "1s" }),
        "connectTimeout: failed to parse duration",
    );
    check_error(
        CLUSTER,
        json!({ "connectTimeout": "1s", "connect_timeout": "1s" }),
        "connect_timeout: the field is set twice",
    );
    check_error(
        CLUSTER,
        json!({ "type": "EDS", "clusterType": {} }),
        "clusterType: cannot be set together with \"type\"",
    );
    check_error(
        CLUSTER,
        json!({ "circuitBreakers": { "thresholds": [{}, { "maxRetries": -1 }] } }),
        "circuitBreakers.thresholds[1].maxRetries: expected an unsigned 32-bit integer, found -1",
    );
    check_error(
        CLUSTER,
        json!({ "lbPolicy": "BEST" }),
        "lbPolicy: envoy.config.cluster.v3.Cluster.LbPolicy has no value \"BEST\"",
    );
    check_error(
        EXTENSION,
        extension(json!({ "a": 1 })),
        "typedConfig: expected an \"@type\" with the type URL of the message",
    );
    check_error(
        EXTENSION,
        extension(json!({ "@type": "a/x.Y", "b": 1 })),
        "typedConfig: unknown message type \"a/x.Y\"",
    );
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    check_error(
        EXTENSION,
        extension(json!({ "@type": router, "startChildSpan": "yes" })),
        "typedConfig.startChildSpan: expected true or false, found \"yes\"",
    );
}

#[test]
fn unknown_keys_can_be_skipped() {
    let input = json!({ "name": "a", "newer": 1, "circuitBreakers": { "thresholds": [{ "newest": {} }] } });
    let (message, skipped) = from_json_lenient(CLUSTER, &input).unwrap();
    assert_eq!(print::message(&message), json!({ "circuitBreakers": { "thresholds": [{}] }, "name": "a" }));
    assert_eq!(skipped, ["newer", "circuitBreakers.thresholds[0].newest"]);
}

#[test]
fn null_means_absent() {
    check(CLUSTER, json!({ "name": null, "metadata": null }), json!({}));
    check("google.protobuf.Struct", json!({ "a": null }), json!({ "a": null }));
}

#[test]
fn reads_istio_messages() {
    check(
        "istio.workload.Address",
        json!({ "workload": {
            "uid": "a",
            "addresses": ["CgAAAQ=="],
            "services": { "b/c": { "ports": [{ "servicePort": 80 }] }, "a/b": {} },
            "waypoint": { "address": { "length": 0 } },
            "tunnelProtocol": "HBONE",
        } }),
        json!({ "workload": {
            "addresses": ["CgAAAQ=="],
            "services": { "a/b": {}, "b/c": { "ports": [{ "servicePort": 80 }] } },
            "tunnelProtocol": "HBONE",
            "uid": "a",
            "waypoint": { "address": { "length": 0 } },
        } }),
    );
}

#[test]
fn damaged_bytes_never_panic() {
    let url = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let inner =
        typed_struct("a/b", wkt::structure([("k", wkt::list([wkt::number(1.5), wkt::boolean(true)]))]));
    let bytes = TypedExtensionConfig { name: "n".to_owned(), typed_config: Some(inner) }.encode_to_vec();
    let mut printed = std::collections::BTreeSet::new();
    for at in 0..bytes.len() {
        printed.insert(to_json(url, &bytes[..at]).to_string());
        for damage in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= damage;
            let json = any_to_json(url, &damaged);
            printed.insert(json.to_string());
            // What was printed from readable bytes is readable, unless it names a type that we do not know.
            let read = from_json_lenient("google.protobuf.Any", &json);
            assert!(
                !matches!(read, Err(JsonError { problem: Problem::Form { .. }, .. })),
                "{json}: {read:?}"
            );
        }
    }
    assert!(printed.len() > 100);
}

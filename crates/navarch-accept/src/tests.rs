use navarch_envoy::dynamic::encode;
use navarch_envoy::json::from_json;
use serde_json::{Value as Json, json};

use super::*;

/// What is wrong with a message, as `path: words`.
#[track_caller]
fn check(full_name: &str, message: Json, expected: &[&str]) {
    let bytes = encode(&from_json(full_name, &message).unwrap());
    let found: Vec<String> = violations(full_name, &bytes)
        .iter()
        .map(|Violation { path, rule: _, words }| format!("{path}: {words}"))
        .collect();
    assert_eq!(found, expected, "{message}");
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

#[test]
fn constraints_of_every_kind_are_checked() {
    let cluster = |fields: Json| {
        let mut cluster = json!({ "name": "a" });
        cluster.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        cluster
    };
    check(CLUSTER, cluster(json!({})), &[]);
    check(CLUSTER, json!({}), &["name: is empty, but must have at least 1 character"]);
    check(
        CLUSTER,
        cluster(json!({ "connectTimeout": "0s" })),
        &["connect_timeout: is 0s, but must be greater than 0s"],
    );
    check(
        CLUSTER,
        cluster(json!({ "dnsRefreshRate": "0.000999s" })),
        &["dns_refresh_rate: is 0.000999s, but must be greater than 0.001s"],
    );
    check(
        CLUSTER,
        cluster(json!({ "outlierDetection": { "maxEjectionPercent": 101 } })),
        &["outlier_detection.max_ejection_percent: is 101, but must be at most 100"],
    );
    check(
        CLUSTER,
        cluster(json!({ "ringHashLbConfig": { "minimumRingSize": 8_388_609 } })),
        &["ring_hash_lb_config.minimum_ring_size: is 8388609, but must be at most 8388608"],
    );
    check(
        CLUSTER,
        cluster(json!({ "lbPolicy": 77 })),
        &["lb_policy: is 77, which is not a value of its type"],
    );
    check(
        CLUSTER,
        cluster(json!({ "healthChecks": [{ "timeout": "1s", "interval": "1s", "healthyThreshold": 1 }] })),
        &[
            "health_checks[0].health_checker: is missing: one of `http_health_check`, `tcp_health_check`, \
             `grpc_health_check`, `custom_health_check` must be set",
            "health_checks[0].unhealthy_threshold: is missing, but required",
        ],
    );
}

#[test]
fn lists_maps_and_texts_are_checked() {
    let host = |fields: Json| {
        let mut host = json!({ "name": "h", "domains": ["*"] });
        host.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "virtualHosts": [host] })
    };
    check(ROUTES, host(json!({})), &[]);
    check(
        ROUTES,
        host(json!({ "domains": [] })),
        &["virtual_hosts[0].domains: is empty, but must have at least 1 element"],
    );
    check(
        ROUTES,
        host(json!({ "requestHeadersToRemove": ["a", "b c", "", "d"] })),
        &["virtual_hosts[0].request_headers_to_remove[2]: is empty, but must have at least 1 character"],
    );
    check(
        ROUTES,
        host(json!({ "routes": [{ "match": {}, "route": { "cluster": "" } }] })),
        &[
            "virtual_hosts[0].routes[0].match.path_specifier: is missing: one of `prefix`, `path`, `safe_regex`, \
             `connect_matcher`, `path_separated_prefix`, `path_match_policy` must be set",
            "virtual_hosts[0].routes[0].route.cluster: is empty, but must have at least 1 character",
        ],
    );
}

#[test]
fn extensions_are_looked_up_in_their_places_and_read() {
    let listener = |config: Json| {
        json!({
            "name": "l",
            "address": { "socketAddress": { "address": "127.0.0.1", "portValue": 80 } },
            "filterChains": [{ "filters": [{ "name": "f", "typedConfig": config }] }],
        })
    };
    let echo = "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo";
    let listeners = "envoy.config.listener.v3.Listener";
    check(listeners, listener(json!({ "@type": echo })), &[]);
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    check(
        listeners,
        listener(json!({ "@type": router })),
        &[
            "filter_chains[0].filters[0].typed_config: has the type `envoy.extensions.filters.http.router.v3.Router`, \
           which is an extension of `envoy.filters.http`, but must be one of `envoy.filters.network`",
        ],
    );
    let typed = |inner: &str, value: Json| json!({ "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "typeUrl": inner, "value": value });
    check(
        listeners,
        listener(typed("type.googleapis.com/a.B", json!({}))),
        &[
            "filter_chains[0].filters[0].typed_config: has the type `a.B`, which stock Envoy does not have as an \
           extension of `envoy.filters.network`",
        ],
    );
    let limit = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
    check(
        listeners,
        listener(typed(limit, json!({ "stat_prefix": "x", "max_connections": 0 }))),
        &[
            "filter_chains[0].filters[0].typed_config.max_connections: is 0, but must be at least 1",
            "filter_chains[0].filters[0]: is the filter `f`, which cannot be the last one",
        ],
    );
}

//! A static bootstrap from the resources of one proxy, so that Envoy can be asked about them.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Clusters that resources refer to and that a proxy's own bootstrap brings.
const BROUGHT: [&str; 5] = ["xds-grpc", "sds-grpc", "agent", "prometheus_stats", "zipkin"];

/// Resources in proto3 JSON by golden file stem (`clusters`, `endpoints`, `listeners`, `routes`,
/// `secrets`, `extensions`).
pub type Resources = BTreeMap<String, Vec<Value>>;

/// A bootstrap with everything inline, for [`super::validate`]: listeners and clusters as they
/// are; each route configuration inside a listener and each load assignment inside a cluster
/// that exist only to hold it. Subscriptions inside resources stay, and are not made.
pub fn of_resources(resources: &Resources) -> Value {
    let list = |stem: &str| resources.get(stem).cloned().unwrap_or_default();
    let mut clusters = list("clusters");
    clusters.iter_mut().for_each(fetch_secrets_from_agent);
    let names: Vec<Value> = clusters.iter().map(|cluster| cluster["name"].clone()).collect();
    clusters.extend(BROUGHT.into_iter().filter(|name| !names.contains(&json!(name))).map(grpc_cluster));
    clusters.extend(list("endpoints").into_iter().enumerate().map(|(n, load)| holding_endpoints(n, load)));

    let mut listeners = list("listeners");
    listeners.extend(list("routes").into_iter().enumerate().map(|(n, routes)| holding_routes(n, routes)));

    // An extension configuration has no place of its own: as a filter of a holding listener.
    let (network, http): (Vec<_>, Vec<_>) = list("extensions").into_iter().partition(is_network_filter);
    if !http.is_empty() || !network.is_empty() {
        listeners.push(holding_filters(network, http));
    }
    listeners.iter_mut().for_each(count_in_plain_scopes);
    json!({
        "node": {"id": "validate", "cluster": "validate"},
        "dynamicResources": {"adsConfig": {
            // Virtual hosts are discovered over no other.
            "apiType": "DELTA_GRPC",
            "grpcServices": [{"envoyGrpc": {"clusterName": "xds-grpc"}}],
        }},
        "staticResources": {"clusters": clusters, "listeners": listeners, "secrets": list("secrets")},
        "bootstrapExtensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typedConfig": {"@type":
                "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
        }],
    })
}

/// Envoy 1.40 crashes on a static cluster that takes secrets over ADS, because clusters are made
/// before ADS is. The same cluster that came over ADS is fine, so only the source is changed.
fn fetch_secrets_from_agent(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(fetch_secrets_from_agent),
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "sdsConfig" && field.get("ads").is_some() {
                    *field = json!({"resourceApiVersion": "V3", "apiConfigSource": {
                        "apiType": "GRPC",
                        "transportApiVersion": "V3",
                        "grpcServices": [{"envoyGrpc": {"clusterName": "sds-grpc"}}],
                    }});
                }
                fetch_secrets_from_agent(field);
            }
        }
        _ => {}
    }
}

/// Envoy 1.40 crashes while it validates scopes of statistics that are shared or have limits. It runs with
/// them: `e2e_metrics.rs`.
fn count_in_plain_scopes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(count_in_plain_scopes),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(scope) if name == "statsScope" => scope.retain(|name, _| name == "prefix"),
                    field => count_in_plain_scopes(field),
                }
            }
        }
        _ => {}
    }
}

fn grpc_cluster(name: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": {"http2ProtocolOptions": {}},
        }},
    })
}

fn holding_endpoints(n: usize, mut load: Value) -> Value {
    let name = format!("validate-endpoints-{n}");
    load["clusterName"] = json!(name);
    json!({"name": name, "type": "STATIC", "loadAssignment": load})
}

fn holding_routes(n: usize, mut routes: Value) -> Value {
    // The clusters that routes name may be elsewhere, as with RDS.
    routes["validateClusters"] = json!(false);
    holding_listener(&format!("validate-routes-{n}"), json!({"routeConfig": routes}), Vec::new())
}

fn is_network_filter(extension: &Value) -> bool {
    extension["typedConfig"]["@type"].as_str().is_some_and(|ty| ty.contains(".filters.network."))
}

fn holding_filters(network: Vec<Value>, http: Vec<Value>) -> Value {
    let routes = json!({"routeConfig": {"virtualHosts": []}});
    let mut listener = holding_listener("validate-extensions", routes, http);
    if let Some(filters) = listener["filterChains"][0]["filters"].as_array_mut() {
        filters.splice(0..0, network);
    }
    listener
}

fn holding_listener(name: &str, mut manager: Value, mut filters: Vec<Value>) -> Value {
    filters.push(json!({
        "name": "router",
        "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    if let Some(manager) = manager.as_object_mut() {
        let more = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": name,
            "httpFilters": filters,
        });
        manager.extend(more.as_object().cloned().unwrap_or_else(Map::new));
    }
    json!({
        "name": name,
        // Port 0: validating binds nothing, and no two of these are in each other's way.
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}},
        "filterChains": [{"filters": [{"name": "manager", "typedConfig": manager}]}],
    })
}

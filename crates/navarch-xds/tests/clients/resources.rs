//! Hand-made resources in proto3 JSON.

use std::net::SocketAddr;

use serde_json::{Value, json};

pub fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"})
}

/// A cluster with endpoints of its own name.
pub fn cluster(name: &str) -> Value {
    cluster_of(name, name)
}

/// A cluster with the endpoints of `service`.
pub fn cluster_of(name: &str, service: &str) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"service_name": service, "eds_config": ads()},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0.0}},
    })
}

/// A cluster that can be read but not be used: it does not say where its endpoints come from.
pub fn bad_cluster(name: &str) -> Value {
    json!({"name": name, "type": "EDS", "connect_timeout": "1s"})
}

pub fn endpoint(address: SocketAddr, health: &str) -> Value {
    let address = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({"endpoint": {"address": {"socket_address": address}}, "health_status": health})
}

pub fn endpoints(service: &str, endpoints: &[Value]) -> Value {
    json!({"cluster_name": service, "endpoints": [{
        "locality": {"zone": "z"}, "load_balancing_weight": 1, "lb_endpoints": endpoints}]})
}

/// The one endpoint of `service`.
pub fn at(service: &str, address: SocketAddr) -> Value {
    endpoints(service, &[endpoint(address, "HEALTHY")])
}

/// A route configuration that sends everything to `cluster`.
pub fn route(name: &str, cluster: &str) -> Value {
    routes(name, &json!({"route": {"cluster": cluster}}))
}

/// A route configuration that answers everything itself.
pub fn answer(name: &str, body: &str) -> Value {
    routes(name, &json!({"direct_response": {"status": 200, "body": {"inline_string": body}}}))
}

fn routes(name: &str, action: &Value) -> Value {
    let mut all = action.clone();
    all["match"] = json!({"prefix": "/"});
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [all]}]})
}

/// What a connection manager does: `{"rds": ...}` or `{"route_config": ...}`, and the filters before the
/// router.
pub fn manager(routes: &Value, filters: &[Value]) -> Value {
    let mut filters = filters.to_vec();
    filters.push(json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}));
    let mut manager = routes.clone();
    manager["@type"] = json!(
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    );
    manager["stat_prefix"] = json!("in");
    manager["http_filters"] = json!(filters);
    manager
}

/// A listener with one filter chain.
pub fn listener(name: &str, port: u16, manager: &Value) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"name": "only", "filters": [{"name": "manager", "typed_config": manager}]}],
    })
}

/// A listener whose routes come over RDS.
pub fn rds_listener(name: &str, port: u16, route: &str) -> Value {
    let rds = json!({"rds": {"route_config_name": route, "config_source": ads()}});
    listener(name, port, &manager(&rds, &[]))
}

/// A listener that answers everything itself.
pub fn answering(name: &str, port: u16, body: &str) -> Value {
    listener(name, port, &manager(&json!({"route_config": answer("inline", body)}), &[]))
}

/// A listener that can be read but not be used: statistics need a prefix.
pub fn bad_listener(name: &str, port: u16) -> Value {
    let mut listener = answering(name, port, "bad");
    listener["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = json!("");
    listener
}

/// A server certificate, and its key.
pub fn secret(name: &str, certificate: &str, key: &str) -> Value {
    json!({"name": name, "tls_certificate": {
        "certificate_chain": {"inline_string": certificate}, "private_key": {"inline_string": key}}})
}

/// A script that runs on every response.
pub fn lua(name: &str, body: &str) -> Value {
    json!({"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": body}}})
}

/// `cluster` with TLS, and the trust bundle `secret`.
pub fn validating(mut cluster: Value, secret: &str) -> Value {
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"validation_context_sds_secret_config": {"name": secret, "sds_config": ads()}}}});
    cluster
}

/// `cluster`, used only after each endpoint has answered a probe, for which it has half a minute.
pub fn health_checked(mut cluster: Value) -> Value {
    cluster["health_checks"] = json!([{
        "timeout": "30s", "interval": "30s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": "/"}}]);
    cluster
}

/// A trust bundle.
pub fn trust(name: &str) -> Value {
    json!({"name": name, "validation_context": {"trusted_ca": {"inline_string": include_str!("certs/a.crt")}}})
}

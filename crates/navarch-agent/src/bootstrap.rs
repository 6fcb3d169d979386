//! The bootstrap of stock Envoy.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::node::Node;

/// Name of the static cluster that leads to the control plane, as in Istio's bootstrap.
pub const XDS_CLUSTER: &str = "xds-grpc";

/// What a bootstrap is made from.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub node: Node,
    /// Host (address or name) and port of the control plane.
    pub xds: Authority,
    /// Where Envoy's admin interface listens; nowhere if absent.
    pub admin: Option<SocketAddr>,
    /// State of the world instead of delta.
    pub state_of_the_world: bool,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub host: String,
    pub port: u16,
}

impl Bootstrap {
    /// The bootstrap as JSON, for `envoy -c`.
    ///
    /// The ADS stream is delta, names the node in its first message only (the node of stock Envoy is 60 kB) and pings, so that a
    /// half-open connection is noticed within 40 seconds. CDS and LDS are waited for without limit: a proxy without
    /// configuration should not report that it is ready.
    pub fn to_json(&self) -> Value {
        let mut bootstrap = json!({
            "node": self.node,
            "dynamic_resources": {
                "ads_config": {
                    "api_type": if self.state_of_the_world { "GRPC" } else { "DELTA_GRPC" },
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
                },
                "cds_config": ads_source(),
                "lds_config": ads_source(),
            },
            "static_resources": { "clusters": [self.xds_cluster()] },
            "layered_runtime": {
                "layers": [{
                    "name": "static",
                    "static_layer": {
                        // Without a limit Envoy warns at every start; the limit is the one Istio's bootstrap documents as unlimited.
                        "overload": { "global_downstream_max_connections": 2_147_483_647 },
                    },
                }, { "name": "admin", "admin_layer": {} }],
            },
        });
        if let (Some(admin), Value::Object(fields)) = (self.admin, &mut bootstrap) {
            fields.insert("admin".to_owned(), json!({ "address": socket_address(admin.ip(), admin.port()) }));
        }
        bootstrap
    }

    fn xds_cluster(&self) -> Value {
        let (kind, address) = match self.xds.host.parse::<IpAddr>() {
            Ok(ip) => ("STATIC", socket_address(ip, self.xds.port)),
            Err(_) => (
                "STRICT_DNS",
                json!({ "socket_address": { "address": self.xds.host, "port_value": self.xds.port } }),
            ),
        };
        json!({
            "name": XDS_CLUSTER,
            "type": kind,
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": XDS_CLUSTER,
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
            },
            "circuit_breakers": {
                "thresholds": [{
                    "priority": "DEFAULT",
                    "max_connections": 100_000,
                    "max_pending_requests": 100_000,
                    "max_requests": 100_000,
                }],
            },
            "upstream_connection_options": { "tcp_keepalive": { "keepalive_time": 300 } },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {
                        "http2_protocol_options": {
                            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
                        },
                    },
                },
            },
        })
    }
}

fn ads_source() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

fn socket_address(ip: IpAddr, port: u16) -> Value {
    json!({ "socket_address": { "address": ip.to_string(), "port_value": port } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(host: &str) -> Value {
        Bootstrap {
            node: Node { id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".to_owned(), ..Node::default() },
            xds: Authority { host: host.to_owned(), port: 15010 },
            admin: Some("127.0.0.1:15000".parse().expect("an address")),
            state_of_the_world: false,
        }
        .to_json()
    }

    #[test]
    fn a_name_is_resolved_and_an_address_is_not() {
        for (host, kind) in
            [("127.0.0.1", "STATIC"), ("::1", "STATIC"), ("navarch.example.com", "STRICT_DNS")]
        {
            assert_eq!(bootstrap(host)["static_resources"]["clusters"][0]["type"], kind, "{host}");
        }
    }

    #[test]
    fn the_node_is_named_once_and_config_is_waited_for() {
        let made = bootstrap("127.0.0.1");
        let dynamic = &made["dynamic_resources"];
        assert_eq!(dynamic["ads_config"]["set_node_on_first_message_only"], true);
        assert_eq!(dynamic["cds_config"]["initial_fetch_timeout"], "0s");
        assert_eq!(made["node"]["id"], "sidecar~10.0.0.1~a.b~b.svc.cluster.local");
        assert_eq!(made["admin"]["address"]["socket_address"]["port_value"], 15000);
    }
}

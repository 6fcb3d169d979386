//! The bootstrap of stock Envoy.

mod parts;
mod settings;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use navarch_envoy::dynamic::{self, Lists};
use navarch_envoy::json::{from_json_lenient, to_json};
use navarch_model::mesh::ProxyConfig;
use serde_json::{Value, json};

pub use self::parts::XDS_CLUSTER;
use self::parts::socket_address;
use crate::node::Node;

/// Names of the clusters and listeners of [`Pages`], as in Istio's bootstrap.
const READY: &str = "agent";
const METRICS: &str = "prometheus_stats";

/// The full name of the message.
const MESSAGE: &str = "envoy.config.bootstrap.v3.Bootstrap";

const DOWNSTREAM_CONNECTIONS: &str = "type.googleapis.com/\
    envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";

/// What a bootstrap is made from.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub node: Node,
    pub xds: Xds,
    /// Where Envoy's admin interface listens; nowhere if absent.
    pub admin: Option<SocketAddr>,
    /// State of the world instead of delta.
    pub state_of_the_world: bool,
    /// What Envoy answers for its agent.
    pub pages: Pages,
    /// Settings of the proxy: [`ProxyConfig::unstated`] where nothing is set.
    pub config: ProxyConfig,
    /// What is merged into it at the end, encoded: what EnvoyFilters add.
    pub patch: Vec<u8>,
}

/// Listeners of Envoy that lead to its agent and to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Where `/healthz/ready` is, and the agent that answers it. It comes through Envoy, so that it is
    /// Envoy's too.
    pub ready: Option<(SocketAddr, SocketAddr)>,
    /// Where `/stats/prometheus` is: Envoy's own metrics.
    pub metrics: Option<SocketAddr>,
}

/// Where Envoy gets its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xds {
    /// At the control plane: host (address or name) and port, and how Envoy speaks TLS with it; plaintext if
    /// absent.
    Server(Authority, Option<Tls>),
    /// On the Unix socket of an agent.
    Socket(PathBuf),
}

/// TLS with the control plane. Files are named and not read: Envoy reads them when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Roots of the control plane's certificate.
    pub ca: PathBuf,
    /// Name that the certificate must have; the host of the control plane if absent.
    pub name: Option<String>,
    /// Certificate and key that prove who the proxy is.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub host: String,
    pub port: u16,
}

/// `host:port`, with an IPv6 address in brackets.
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authority { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Bootstrap {
    /// The bootstrap as JSON, for `envoy -c`.
    ///
    /// The ADS stream is delta, names the node in its first message only (the node of stock Envoy is 60 kB)
    /// and pings, so that a half-open connection is noticed within 40 seconds. CDS and LDS are waited for
    /// without limit: a proxy without configuration should not report that it is ready.
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
            "static_resources": self.static_resources(),
            // Listeners and clusters within the proxy (`internal_listener`) need it before they come over
            // xDS.
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                },
            }],
            "layered_runtime": { "layers": [{ "name": "admin", "admin_layer": {} }] },
            "overload_manager": {
                // Without a limit Envoy warns at every start; this one stands for none.
                "resource_monitors": [{
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": DOWNSTREAM_CONNECTIONS,
                        "max_active_downstream_connections": settings::connections_max(&self.config),
                    },
                }],
            },
        });
        if let (Some(admin), Value::Object(fields)) = (self.admin, &mut bootstrap) {
            fields.insert("admin".to_owned(), json!({ "address": socket_address(admin.ip(), admin.port()) }));
        }
        completed(bootstrap, &self.node, &self.config, &self.patch)
    }

    /// Takes the addresses that an Envoy with the bootstrap `there` has, where nobody asked for others: to
    /// who looks whether they are free, they are taken. `agent` is where the agent's own pages are.
    pub fn keep_addresses(&mut self, there: &Value, agent: SocketAddr) {
        let address = |of: &Value| {
            let address = field(&of["address"], "socket_address");
            let port = u16::try_from(field(address, "port_value").as_u64()?).ok()?;
            Some(SocketAddr::new(address["address"].as_str()?.parse().ok()?, port))
        };
        let listener = |name: &str| {
            let listeners = field(there, "static_resources")["listeners"].as_array()?;
            listeners.iter().find(|listener| listener["name"] == name).and_then(address)
        };
        if self.admin.is_some_and(|own| own.port() == 0) {
            self.admin = address(&there["admin"]).or(self.admin);
        }
        let Pages { ready, metrics } = &mut self.pages;
        *ready = ready.or_else(|| Some((listener(READY)?, agent)));
        *metrics = metrics.or_else(|| listener(METRICS));
    }

    fn static_resources(&self) -> Value {
        let mut clusters = vec![self.xds_cluster()];
        let mut listeners = Vec::new();
        if let Some((listen, agent)) = self.pages.ready {
            clusters.push(static_cluster(READY, agent));
            listeners.push(page(listen, "/healthz/ready", READY, false));
        }
        if let (Some(listen), Some(admin)) = (self.pages.metrics, self.admin) {
            clusters.push(static_cluster(METRICS, admin));
            let is_compressed = self.config.stats_compression.unwrap_or(true);
            listeners.push(page(listen, "/stats/prometheus", METRICS, is_compressed));
        }
        if listeners.is_empty() {
            json!({ "clusters": clusters })
        } else {
            json!({ "clusters": clusters, "listeners": listeners })
        }
    }

    fn xds_cluster(&self) -> Value {
        let (kind, address) = match &self.xds {
            Xds::Socket(path) => ("STATIC", json!({ "pipe": { "path": path } })),
            Xds::Server(Authority { host, port }, _) => match host.parse::<IpAddr>() {
                Ok(ip) => ("STATIC", socket_address(ip, *port)),
                Err(_) => {
                    ("STRICT_DNS", json!({ "socket_address": { "address": host, "port_value": port } }))
                }
            },
        };
        let mut cluster = json!({
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
        });
        if let (Xds::Server(server, Some(tls)), Value::Object(fields)) = (&self.xds, &mut cluster) {
            fields.insert("transport_socket".to_owned(), transport_socket(&server.host, tls));
        }
        cluster
    }
}

/// A bootstrap with what a ProxyConfig says of it, and with a patch (encoded) merged into it.
#[must_use]
pub fn completed(mut bootstrap: Value, node: &Node, config: &ProxyConfig, patch: &[u8]) -> Value {
    if let Value::Object(fields) = &mut bootstrap {
        settings::add(fields, config, node);
    }
    if patch.is_empty() { bootstrap } else { merged(bootstrap, patch) }
}

/// A bootstrap with a patch merged into it, as protobuf merges. Names of fields are those of JSON then.
fn merged(bootstrap: Value, patch: &[u8]) -> Value {
    let made = from_json_lenient(MESSAGE, &bootstrap).map_err(|error| error.to_string());
    let made = made.and_then(|(mut base, _)| {
        let patch = dynamic::decode(MESSAGE, patch).map_err(|error| error.to_string())?;
        dynamic::merge(&mut base, &patch, Lists::Append).map_err(|error| error.to_string())?;
        Ok(to_json(MESSAGE, &dynamic::encode(&base)))
    });
    made.unwrap_or_else(|error| {
        tracing::warn!(error, "the bootstrap cannot be patched, and is used as it is");
        bootstrap
    })
}

/// A field of a bootstrap, by its name in protobuf; a patched one has the names of JSON.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                camel.push(letter.to_ascii_uppercase());
                upper = false;
            }
            letter => camel.push(letter),
        }
    }
    value.get(name).or_else(|| value.get(&camel)).unwrap_or(&Value::Null)
}

fn transport_socket(host: &str, tls: &Tls) -> Value {
    let name = tls.name.as_deref().unwrap_or(host);
    // An address has to be in the certificate as one, and is not sent as a server name (RFC 6066, 3).
    let is_name = name.parse::<IpAddr>().is_err();
    let san = json!({
        "san_type": if is_name { "DNS" } else { "IP_ADDRESS" },
        "matcher": { "exact": name },
    });
    let mut common = json!({
        "alpn_protocols": ["h2"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        "validation_context": {
            "trusted_ca": { "filename": tls.ca },
            "match_typed_subject_alt_names": [san],
        },
    });
    if let (Some((certificate, key)), Value::Object(fields)) = (&tls.client, &mut common) {
        let pair = json!({
            "certificate_chain": { "filename": certificate },
            "private_key": { "filename": key },
        });
        fields.insert("tls_certificates".to_owned(), json!([pair]));
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": if is_name { name } else { "" },
            "common_tls_context": common,
        },
    })
}

fn static_cluster(name: &str, address: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": socket_address(address.ip(), address.port()) } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

/// A listener with one page, which a cluster has.
fn page(listen: SocketAddr, path: &str, cluster: &str, is_compressed: bool) -> Value {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let mut filters: Vec<Value> = if is_compressed { compressors().collect() } else { Vec::new() };
    filters.push(json!({ "name": "envoy.filters.http.router", "typed_config": { "@type": router } }));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                  HttpConnectionManager",
        "stat_prefix": cluster,
        "route_config": {
            "virtual_hosts": [{
                "name": cluster,
                "domains": ["*"],
                "routes": [{ "match": { "path": path }, "route": { "cluster": cluster } }],
            }],
        },
        "http_filters": filters,
    });
    json!({
        "name": cluster,
        "address": socket_address(listen.ip(), listen.port()),
        // Two Envoys would share the port, and each answer some of the calls.
        "enable_reuse_port": false,
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
        }],
    })
}

/// For metrics, which are long and shrink to a tenth.
fn compressors() -> impl Iterator<Item = Value> {
    [("gzip", "Gzip"), ("zstd", "Zstd")].into_iter().map(|(library, message)| {
        let package = format!("type.googleapis.com/envoy.extensions.compression.{library}.compressor.v3");
        json!({
            "name": format!("envoy.filters.http.compressor.{library}"),
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
                "compressor_library": {
                    "name": library,
                    "typed_config": { "@type": format!("{package}.{message}") },
                },
            },
        })
    })
}

fn ads_source() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

#[cfg(test)]
mod tests {
    use navarch_model::mesh::{StatedProxyConfig, read_stated};

    use super::*;

    fn bootstrap(host: &str) -> Value {
        typed(host).to_json()
    }

    fn typed(host: &str) -> Bootstrap {
        Bootstrap {
            node: Node { id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".to_owned(), ..Node::default() },
            xds: Xds::Server(
                Authority { host: host.to_owned(), port: 15010 },
                Some(Tls {
                    ca: "/etc/ca.pem".into(),
                    name: None,
                    client: Some(("/etc/cert.pem".into(), "/etc/key.pem".into())),
                }),
            ),
            admin: Some("127.0.0.1:15000".parse().expect("an address")),
            state_of_the_world: false,
            pages: Pages {
                ready: Some((([127, 0, 0, 1], 15021).into(), ([127, 0, 0, 1], 15020).into())),
                metrics: Some(([127, 0, 0, 1], 15090).into()),
            },
            config: ProxyConfig::unstated(),
            patch: Vec::new(),
        }
    }

    #[test]
    fn what_a_proxy_config_says_is_in_the_bootstrap() {
        let mut stated = StatedProxyConfig::default();
        stated
            .put_text(
                "{extraStatTags: [tier], proxyStatsMatcher: {inclusionPrefixes: [mine]}, statsdUdpAddress: '10.0.0.9:8125', \
                 tracing: {zipkin: {address: 'zipkin:9411'}}, runtimeValues: {re: '1'}, statsCompression: false, \
                 envoyAccessLogService: {address: 'logs:15000', tlsSettings: {mode: ISTIO_MUTUAL}}, \
                 envoyMetricsService: {address: '10.0.0.8:15000'}, connectionSettings: {globalDownstreamConnectionLimit: 7}}",
            )
            .expect("readable");
        let (config, findings) = read_stated(&stated);
        assert_eq!(findings, []);
        let made = Bootstrap { config, ..typed("10.0.0.1") }.to_json();
        let patterns = made["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"].to_string();
        assert!(patterns.contains("mine") && patterns.contains("listener_manager"), "{patterns}");
        assert_eq!(made["stats_config"]["stats_tags"][0]["tag_name"], "tier");
        assert_eq!(made["layered_runtime"]["layers"][0]["static_layer"]["re"], "1");
        assert_eq!(made["tracing"]["http"]["typed_config"]["collector_cluster"], "zipkin");
        let sinks: Vec<_> =
            made["stats_sinks"].as_array().into_iter().flatten().map(|s| &s["name"]).collect();
        assert_eq!(sinks, ["envoy.stat_sinks.statsd", "envoy.stat_sinks.metrics_service"]);
        let clusters = made["static_resources"]["clusters"].as_array().cloned().unwrap_or_default();
        let kinds: Vec<_> = clusters[3..].iter().map(|c| (&c["name"], &c["type"])).collect();
        assert_eq!(
            kinds.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>(),
            [
                r#""zipkin" "STRICT_DNS""#,
                r#""envoy_accesslog_service" "STRICT_DNS""#,
                r#""envoy_metrics_service" "STATIC""#
            ]
        );
        let limit = &made["overload_manager"]["resource_monitors"][0]["typed_config"];
        assert_eq!(limit["max_active_downstream_connections"], 7);
    }

    #[test]
    fn what_envoy_filters_add_is_merged() {
        let patch = json!({
            "static_resources": { "clusters": [{ "name": "added" }] },
            "stats_flush_interval": "7s",
            "admin": { "address": { "socket_address": { "port_value": 1 } } },
        });
        let (patch, _) = from_json_lenient(MESSAGE, &patch).expect("a bootstrap");
        let made = Bootstrap { patch: dynamic::encode(&patch).to_vec(), ..typed("10.0.0.1") };
        let json = made.to_json();
        let clusters = json["staticResources"]["clusters"].as_array().cloned().unwrap_or_default();
        assert_eq!(clusters.last().map(|cluster| &cluster["name"]), Some(&json!("added")));
        assert_eq!(clusters[0]["name"], XDS_CLUSTER);
        assert_eq!(json["statsFlushInterval"], "7s");
        assert_eq!(
            json["admin"]["address"]["socketAddress"],
            json!({ "address": "127.0.0.1", "portValue": 1 })
        );
        // Addresses are found in it, too.
        let mut next = typed("10.0.0.1");
        next.admin = Some("127.0.0.1:0".parse().expect("an address"));
        next.pages = Pages::default();
        next.keep_addresses(&json, ([127, 0, 0, 1], 15020).into());
        assert_eq!(next.admin, Some("127.0.0.1:1".parse().expect("an address")));
        assert_eq!(next.pages, typed("10.0.0.1").pages);
    }

    #[test]
    fn addresses_that_nobody_asked_for_stay() {
        let before = bootstrap("10.0.0.1");
        let agent = SocketAddr::from(([127, 0, 0, 1], 15020));
        let mut next = typed("10.0.0.1");
        // What somebody who looks for free ports finds while Envoy has the usual ones.
        next.admin = Some("127.0.0.1:0".parse().expect("an address"));
        next.pages = Pages::default();
        next.keep_addresses(&before, agent);
        assert_eq!(next.to_json(), before);
        let mut stated = typed("10.0.0.1");
        stated.admin = Some("127.0.0.1:25000".parse().expect("an address"));
        let as_stated = stated.to_json();
        stated.keep_addresses(&before, agent);
        assert_eq!(stated.to_json(), as_stated);
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

    #[test]
    fn pages_lead_to_the_agent_and_to_envoy() {
        let made = bootstrap("127.0.0.1");
        let names = |kind: &str| -> Vec<String> {
            let all = made["static_resources"][kind].as_array().into_iter().flatten();
            all.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(names("clusters"), [XDS_CLUSTER, "agent", "prometheus_stats"]);
        assert_eq!(names("listeners"), ["agent", "prometheus_stats"]);
    }

    #[test]
    fn the_certificate_must_be_of_the_host() {
        for (host, kind, sni) in [
            ("127.0.0.1", "IP_ADDRESS", ""),
            ("::1", "IP_ADDRESS", ""),
            ("navarch.example.com", "DNS", "navarch.example.com"),
        ] {
            let made = bootstrap(host);
            let tls = &made["static_resources"]["clusters"][0]["transport_socket"]["typed_config"];
            assert_eq!(tls["sni"], sni, "{host}");
            let validation = &tls["common_tls_context"]["validation_context"];
            let san = &validation["match_typed_subject_alt_names"][0];
            assert_eq!((&san["san_type"], &san["matcher"]["exact"]), (&json!(kind), &json!(host)));
            assert_eq!(validation["trusted_ca"]["filename"], "/etc/ca.pem");
            let client = &tls["common_tls_context"]["tls_certificates"][0];
            assert_eq!(client["private_key"]["filename"], "/etc/key.pem");
        }
    }
}

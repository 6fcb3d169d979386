//! What a ProxyConfig says of a bootstrap: statistics, where they and traces and access logs go, limits.

use std::net::IpAddr;

use navarch_model::mesh::{ProxyConfig, RemoteService, Tracer};
use navarch_model::networking::ClientTlsMode;
use serde_json::{Map, Value, json};

use super::parts::{XDS_CLUSTER, socket_address};
use crate::node::Node;

/// Statistics that are kept whatever else is asked for, once somebody says which are: those that agents, and
/// boards for Istio, look at.
const KEPT_PREFIXES: [&str; 7] =
    ["reporter=", "istio", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"];
const KEPT_SUFFIXES: [&str; 5] =
    ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active"];
const KEPT_REGEXES: [&str; 1] = [r"vhost\..*\.route\..*"];

/// Annotations of the workload that say the same as fields, separated by commas.
const ANNOTATED_PREFIXES: &str = "sidecar.istio.io/statsInclusionPrefixes";
const ANNOTATED_SUFFIXES: &str = "sidecar.istio.io/statsInclusionSuffixes";
const ANNOTATED_REGEXES: &str = "sidecar.istio.io/statsInclusionRegexps";
const ANNOTATED_TAGS: &str = "sidecar.istio.io/extraStatTags";
const ANNOTATED_BUCKETS: &str = "sidecar.istio.io/statsHistogramBuckets";

/// Adds what the configuration says to a bootstrap.
pub(super) fn add(bootstrap: &mut Map<String, Value>, config: &ProxyConfig, node: &Node) {
    let statistics = statistics(config, node);
    if !statistics.is_empty() {
        bootstrap.insert("stats_config".to_owned(), Value::Object(statistics));
    }
    let sinks = sinks(config);
    if !sinks.is_empty() {
        bootstrap.insert("stats_sinks".to_owned(), Value::Array(sinks));
    }
    if let Some(tracing) = tracing(config, node) {
        bootstrap.insert("tracing".to_owned(), tracing);
    }
    if !config.runtime_values.is_empty() {
        let own = json!({ "name": "proxy_config", "static_layer": config.runtime_values });
        let runtime = bootstrap.entry("layered_runtime").or_insert_with(|| json!({ "layers": [] }));
        if let Value::Array(layers) = &mut runtime["layers"] {
            layers.insert(0, own);
        }
    }
    let clusters = clusters(config);
    if let Some(Value::Array(known)) =
        bootstrap.get_mut("static_resources").map(|resources| &mut resources["clusters"])
    {
        known.extend(clusters);
    }
}

/// The connections that the proxy takes at all.
pub(super) fn connections_max(config: &ProxyConfig) -> i32 {
    let settings = config.connection_settings.as_ref();
    let stated = settings.and_then(|settings| settings.global_downstream_connection_limit);
    stated.filter(|limit| *limit > 0).unwrap_or(i32::MAX)
}

fn annotation<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    node.metadata.get("ANNOTATIONS")?.get(name)?.as_str().filter(|text| !text.trim().is_empty())
}

fn statistics(config: &ProxyConfig, node: &Node) -> Map<String, Value> {
    let listed = |name: &str| {
        let text = annotation(node, name).unwrap_or_default().to_owned();
        text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect::<Vec<_>>()
    };
    let mut made = Map::new();
    let mut tags = config.extra_stat_tags.clone();
    tags.extend(listed(ANNOTATED_TAGS));
    tags.dedup();
    if !tags.is_empty() {
        let tags: Vec<Value> = tags
            .iter()
            // As in the names that Istio's metrics have.
            .map(|tag| json!({ "tag_name": tag, "regex": format!(r"({tag}\.=\.(.*?);\.)") }))
            .collect();
        made.insert("stats_tags".to_owned(), Value::Array(tags));
    }
    let matcher = config.proxy_stats_matcher.clone().unwrap_or_default();
    let wanted = [
        ("prefix", matcher.inclusion_prefixes, listed(ANNOTATED_PREFIXES), &KEPT_PREFIXES[..]),
        ("suffix", matcher.inclusion_suffixes, listed(ANNOTATED_SUFFIXES), &KEPT_SUFFIXES[..]),
        ("regex", matcher.inclusion_regexps, listed(ANNOTATED_REGEXES), &KEPT_REGEXES[..]),
    ];
    if wanted.iter().any(|(_, stated, annotated, _)| !stated.is_empty() || !annotated.is_empty()) {
        let mut patterns = Vec::new();
        for (kind, stated, annotated, kept) in wanted {
            let kept = kept.iter().map(|text| (*text).to_owned());
            for text in kept.chain(stated).chain(annotated) {
                patterns.push(match kind {
                    "regex" => json!({ "safe_regex": { "regex": text } }),
                    kind => json!({ kind: text }),
                });
            }
        }
        made.insert("stats_matcher".to_owned(), json!({ "inclusion_list": { "patterns": patterns } }));
    }
    let buckets = annotation(node, ANNOTATED_BUCKETS).and_then(|text| serde_json::from_str(text).ok());
    if let Some(Value::Object(buckets)) = buckets {
        let settings: Vec<Value> = buckets
            .iter()
            .map(|(prefix, buckets)| json!({ "match": { "prefix": prefix }, "buckets": buckets }))
            .collect();
        made.insert("histogram_bucket_settings".to_owned(), Value::Array(settings));
    }
    made
}

/// Where statistics are sent to.
fn sinks(config: &ProxyConfig) -> Vec<Value> {
    let mut sinks = Vec::new();
    if let Some((host, port)) = split(&config.statsd_udp_address) {
        match host.parse::<IpAddr>() {
            Ok(ip) => sinks.push(json!({
                "name": "envoy.stat_sinks.statsd",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
                    "address": socket_address(ip, port),
                },
            })),
            Err(_) => {
                tracing::warn!(
                    host,
                    "statsdUdpAddress has to be an IP address: statistics are not sent there"
                );
            }
        }
    }
    if metrics_service(config).is_some() {
        sinks.push(json!({
            "name": "envoy.stat_sinks.metrics_service",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
                "transport_api_version": "V3",
                "grpc_service": { "envoy_grpc": { "cluster_name": METRICS_SERVICE } },
            },
        }));
    }
    sinks
}

const METRICS_SERVICE: &str = "envoy_metrics_service";
/// The cluster that access logs of the mesh are sent to, in the listeners of the control plane.
const ACCESS_LOG_SERVICE: &str = "envoy_accesslog_service";
const ZIPKIN: &str = "zipkin";
const DATADOG: &str = "datadog_agent";

fn metrics_service(config: &ProxyConfig) -> Option<RemoteService> {
    let older = &config.envoy_metrics_service_address;
    let older = || RemoteService { address: older.clone(), ..RemoteService::default() };
    let service = config.envoy_metrics_service.clone().unwrap_or_else(older);
    Some(service).filter(|service| split(&service.address).is_some())
}

/// The address of the collector, and how traces are sent there.
fn collector(config: &ProxyConfig) -> Option<(&'static str, String)> {
    let tracer = config.tracing.as_ref().and_then(|tracing| tracing.tracer.as_ref());
    let found = match tracer {
        Some(Tracer::Zipkin(zipkin)) => (ZIPKIN, zipkin.address.clone()),
        Some(Tracer::Datadog(datadog)) => (DATADOG, datadog.address.clone()),
        Some(Tracer::Lightstep(_) | Tracer::Stackdriver(_) | Tracer::OpenCensusAgent(_)) => {
            tracing::warn!(
                "Envoy has no such tracer any more; use an extension provider, such as opentelemetry"
            );
            return None;
        }
        None => (ZIPKIN, config.zipkin_address.clone()),
    };
    split(&found.1).is_some().then_some(found)
}

fn tracing(config: &ProxyConfig, node: &Node) -> Option<Value> {
    let (cluster, _) = collector(config)?;
    let typed_config = if cluster == ZIPKIN {
        json!({
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": cluster,
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": true,
            "shared_span_context": false,
        })
    } else {
        json!({
            "@type": "type.googleapis.com/envoy.config.trace.v3.DatadogConfig",
            "collector_cluster": cluster,
            "service_name": node.cluster,
        })
    };
    let name = if cluster == ZIPKIN { "envoy.tracers.zipkin" } else { "envoy.tracers.datadog" };
    Some(json!({ "http": { "name": name, "typed_config": typed_config } }))
}

fn clusters(config: &ProxyConfig) -> Vec<Value> {
    let tls = config.tracing.as_ref().and_then(|tracing| tracing.tls_settings.clone());
    let collector = collector(config).map(|(name, address)| {
        (name, RemoteService { address, tls_settings: tls, ..RemoteService::default() }, false)
    });
    let log = config.envoy_access_log_service.clone().map(|service| (ACCESS_LOG_SERVICE, service, true));
    let metrics = metrics_service(config).map(|service| (METRICS_SERVICE, service, true));
    let all = collector.into_iter().chain(log).chain(metrics);
    all.filter_map(|(name, service, is_grpc)| cluster(name, &service, is_grpc)).collect()
}

/// A cluster that leads to a service outside of the proxy.
fn cluster(name: &str, service: &RemoteService, is_grpc: bool) -> Option<Value> {
    let RemoteService { address, tls_settings, tcp_keepalive } = service;
    let (host, port) = split(address)?;
    let (kind, address) = match host.parse::<IpAddr>() {
        Ok(ip) => ("STATIC", socket_address(ip, port)),
        Err(_) => ("STRICT_DNS", json!({ "socket_address": { "address": host, "port_value": port } })),
    };
    let mut cluster = Map::new();
    let mut put = |key: &str, value: Value| _ = cluster.insert(key.to_owned(), value);
    put("name", json!(name));
    put("type", json!(kind));
    put("connect_timeout", json!("1s"));
    put("respect_dns_ttl", json!(true));
    put(
        "load_assignment",
        json!({
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        }),
    );
    if is_grpc {
        put(
            "typed_extension_protocol_options",
            json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            }),
        );
    }
    if let Some(keepalive) = tcp_keepalive {
        let mut options = Map::new();
        if keepalive.probes > 0 {
            options.insert("keepalive_probes".to_owned(), json!(keepalive.probes));
        }
        for (key, time) in [("keepalive_time", keepalive.time), ("keepalive_interval", keepalive.interval)] {
            if let Some(time) = time {
                options.insert(key.to_owned(), json!(time.as_secs()));
            }
        }
        put("upstream_connection_options", json!({ "tcp_keepalive": options }));
    }
    let Some(tls) = tls_settings else { return Some(Value::Object(cluster)) };
    let secret = |name: &str| {
        json!({
            "name": name,
            "sds_config": {
                "resource_api_version": "V3",
                "api_config_source": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
                },
            },
        })
    };
    let mut common = match tls.mode {
        ClientTlsMode::Disable => return Some(Value::Object(cluster)),
        ClientTlsMode::IstioMutual => json!({
            "tls_certificate_sds_secret_configs": [secret(crate::secrets::WORKLOAD)],
            "validation_context_sds_secret_config": secret(crate::secrets::ROOTS),
        }),
        ClientTlsMode::Mutual => json!({
            "tls_certificates": [{
                "certificate_chain": { "filename": tls.client_certificate },
                "private_key": { "filename": tls.private_key },
            }],
        }),
        ClientTlsMode::Simple => json!({}),
    };
    if tls.mode != ClientTlsMode::IstioMutual && !tls.ca_certificates.is_empty() {
        let names: Vec<Value> = tls
            .subject_alt_names
            .iter()
            .map(|name| json!({ "san_type": "DNS", "matcher": { "exact": name } }))
            .collect();
        let mut validation = json!({ "trusted_ca": { "filename": tls.ca_certificates } });
        if !names.is_empty() {
            validation["match_typed_subject_alt_names"] = Value::Array(names);
        }
        common["validation_context"] = validation;
    }
    if is_grpc {
        common["alpn_protocols"] = json!(["h2"]);
    }
    let sni = if tls.sni.is_empty() && host.parse::<IpAddr>().is_err() { host } else { &tls.sni };
    let socket = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": sni,
            "common_tls_context": common,
        },
    });
    cluster.insert("transport_socket".to_owned(), socket);
    Some(Value::Object(cluster))
}

/// Host and port of an address.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

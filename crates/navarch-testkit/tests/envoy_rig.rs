//! The rig itself, against a real Envoy with a static configuration.

use navarch_testkit::{
    envoy::{self, Envoy},
    http, ports,
};
use serde_json::{Value, json};

fn bootstrap(port: u16, body: &str) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({
        "node": {"id": "rig", "cluster": "test"},
        "static_resources": {"listeners": [{
            "name": "front",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
        }]},
    })
}

#[tokio::test]
async fn runs_serves_and_ends() -> anyhow::Result<()> {
    let port = ports::free_port()?;
    let mut envoy = Envoy::start("rig", bootstrap(port, "hello")).await?;
    envoy.wait_live().await?;
    assert_eq!(envoy.state().await?, "LIVE");
    assert!(envoy.ready().await?);
    assert_eq!(envoy.listeners().await?["front"].port(), port);
    assert!(envoy.rejections().await?.is_empty());

    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(http::get(&url).await?.ok()?.text(), "hello");
    assert_eq!(envoy.stat("http.in.downstream_rq_2xx").await?, 1);
    assert!(envoy.config_dump().await?["configs"].is_array());
    assert!(envoy.clusters().await?.is_object());

    let status = envoy.terminate().await?;
    assert!(status.success(), "{status}");
    assert!(http::get(&url).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_broken_bootstrap_fails_with_the_reason() {
    let error = Envoy::start("broken", json!({"static_resources": 7})).await.unwrap_err();
    assert!(format!("{error:#}").contains("static_resources"), "{error:#}");
}

#[test]
fn validate_tells_good_from_bad() -> anyhow::Result<()> {
    let good = bootstrap(1, "x");
    envoy::validate("good", &good)?;
    let mut bad = good.clone();
    bad["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] =
        json!("");
    let all = [("a".into(), good.clone()), ("b".into(), bad), ("c".into(), good)];
    let rejected = envoy::validate_all(&all)?;
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(rejected[0].name, "b");
    assert!(rejected[0].reason.contains("StatPrefix"), "{}", rejected[0].reason);
    Ok(())
}

#[tokio::test]
async fn readiness_is_bounded() -> anyhow::Result<()> {
    // Without clusters, for which it may wait as long as it takes, Envoy does not become ready.
    let nowhere =
        json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}}}});
    let config = json!({
        "node": {"id": "rig", "cluster": "test"},
        "dynamic_resources": {"cds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
        }},
        "static_resources": {"clusters": [{
            "name": "xds",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [nowhere]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
        }]},
    });
    let result = async {
        let mut envoy = Envoy::start("never-live", config).await?;
        envoy.wait_live_within(std::time::Duration::from_millis(300)).await
    };
    let error = format!("{:#}", result.await.expect_err("it cannot become ready"));
    assert!(error.contains("gave up after 300ms"), "{error}");
    Ok(())
}

#[test]
fn resources_of_a_proxy_are_validated_wherever_they_are() -> anyhow::Result<()> {
    let route = |name: &str| json!({"name": "80", "virtualHosts": [{"name": name, "domains": ["*"]}]});
    let load = |port: u32| {
        json!({"clusterName": "c", "endpoints": [{"lbEndpoints": [{"endpoint": {
            "address": {"socketAddress": {"address": "10.0.0.1", "portValue": port}}}}]}]})
    };
    let eds = json!({"name": "c", "type": "EDS",
        "edsClusterConfig": {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}});
    let filter = |mode: Value| {
        json!({"name": "lua", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua", "inlineCode": mode}})
    };
    let bootstrap = |routes: Value, load: Value, filter: Value| {
        let of = |stem: &str, value| (stem.to_owned(), vec![value]);
        let all = [
            of("clusters", eds.clone()),
            of("routes", routes),
            of("endpoints", load),
            of("extensions", filter),
        ];
        envoy::bootstrap::of_resources(&all.into())
    };
    let (good_filter, bad_filter) = (filter(json!("x = 1")), filter(json!("x =")));
    let all = [
        ("good".into(), bootstrap(route("a"), load(80), good_filter.clone())),
        ("route".into(), bootstrap(route(""), load(80), good_filter.clone())),
        ("endpoint".into(), bootstrap(route("a"), load(80_000), good_filter)),
        ("filter".into(), bootstrap(route("a"), load(80), bad_filter)),
    ];
    let rejected: Vec<String> = envoy::validate_all(&all)?.into_iter().map(|r| r.name).collect();
    assert_eq!(rejected, ["route", "endpoint", "filter"]);
    Ok(())
}

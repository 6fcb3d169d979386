//! Secrets, endpoints and extensions that change.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use navarch_envoy::XdsType;
use navarch_envoy::wire::put_field;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{http, ports, wait};
use prost::Message;
use serde_json::{Value, json};

use crate::resources::{
    ads, answer, answering, cluster, endpoint, endpoints, listener, lua, manager, rds_listener, route, secret,
};
use crate::rig::{
    Config, Plane, Protocol, assert_clean, backend, bootstrap, instance, live_envoy, sum, url, wait_body,
    wait_stat,
};

both!(
    e19_secret_is_rotated,
    e20_health_of_endpoints,
    e21_extension_is_updated_and_rejected,
    e22_runtime_is_discovered,
);

const CERTIFICATES: [[&str; 2]; 2] = [
    [include_str!("certs/a.crt"), include_str!("certs/a.key")],
    [include_str!("certs/b.crt"), include_str!("certs/b.key")],
];

async fn wait_certificate(envoy: &Envoy, name: &str) -> Result<()> {
    wait::until("the certificate", wait::STEP, || async {
        let page = envoy.admin_get("/certs").await?.ok()?.text();
        ensure!(page.contains(name) && page.matches("\"dns\"").count() == 1, "{page}");
        Ok(())
    })
    .await
}

/// The certificate that a new connection is shown, in PEM.
async fn shown_certificate(port: u16) -> Result<String> {
    let mut client = tokio::process::Command::new("openssl");
    client
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(wait::STEP, client.output()).await.context("no handshake")?;
    let text = String::from_utf8(output.context("openssl")?.stdout)?;
    let (start, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let (from, to) =
        text.find(start).zip(text.find(end)).with_context(|| format!("no certificate: {text}"))?;
    Ok(text[from..to + end.len()].to_owned())
}

async fn e19_secret_is_rotated(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let of = |n: usize| secret("server", CERTIFICATES[n][0], CERTIFICATES[n][1]);
    let mut secure = answering("front", port, "secure");
    secure["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "server", "sds_config": ads()}]}}});
    let config = Config::default().with(XdsType::Lds, &secure).with(XdsType::Sds, &of(0));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e19", protocol).await?;
    wait_certificate(&envoy, "a.test").await?;
    ensure!(shown_certificate(port).await? == CERTIFICATES[0][0].trim(), "another certificate is shown");
    let updates = sum(&envoy, "ssl_context_update_by_sds$").await?;
    plane.publish(&config.with(XdsType::Sds, &of(1)));
    wait_certificate(&envoy, "b.test").await?;
    ensure!(shown_certificate(port).await? == CERTIFICATES[1][0].trim(), "another certificate is shown");
    ensure!(sum(&envoy, "ssl_context_update_by_sds$").await? == updates + 1, "not by SDS");
    let touched =
        sum(&envoy, r"listener_manager\.(listener_modified|listener_in_place_updated|total_.*draining)$");
    ensure!(touched.await? == 0, "the listener was touched");
    plane.accepted().await?;
    assert_clean(&envoy).await
}

async fn e20_health_of_endpoints(protocol: Protocol) -> Result<()> {
    const HEALTH: [&str; 4] = ["HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING"];
    let port = ports::free_port()?;
    let mut apps = Vec::new();
    for name in HEALTH {
        apps.push(backend(name).await?);
    }
    let with_health = |health: &dyn Fn(usize) -> &'static str| {
        let all: Vec<_> =
            apps.iter().enumerate().map(|(n, app)| endpoint(app.address(), health(n))).collect();
        endpoints("one", &all)
    };
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &with_health(&|n| HEALTH[n]))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e20", protocol).await?;
    for (what, count) in [("total", 4), ("healthy", 1), ("degraded", 1)] {
        wait_stat(&envoy, &format!("cluster.one.membership_{what}"), |found| found == count).await?;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(instance(port).await?);
    }
    ensure!(
        seen.contains("HEALTHY") && !seen.contains("UNHEALTHY") && !seen.contains("DRAINING"),
        "{seen:?}"
    );

    plane.publish(&config.with(XdsType::Eds, &with_health(&|_| "HEALTHY")));
    wait_stat(&envoy, "cluster.one.membership_healthy", |count| count == 4).await?;
    for _ in 0..100 {
        seen.insert(instance(port).await?);
    }
    ensure!(seen.len() == HEALTH.len(), "only {seen:?} answer");
    plane.accepted().await?;
    assert_clean(&envoy).await
}

async fn e21_extension_is_updated_and_rejected(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let script = |value: &str| {
        lua(
            "ext",
            &format!("function envoy_on_response(handle) handle:headers():add('x-script', '{value}') end"),
        )
    };
    let discovered = json!({"name": "ext", "config_discovery": {"config_source": ads(),
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"]}});
    let manager = manager(&json!({"route_config": answer("inline", "ok")}), &[discovered]);
    let config = Config::default()
        .with(XdsType::Lds, &listener("front", port, &manager))
        .with(XdsType::Ecds, &script("1"));
    let wait_script = |value: &'static str| {
        wait::until("the script", wait::STEP, move || async move {
            let answer = http::get(url(port)).await?.ok()?;
            ensure!(answer.header("x-script") == value, "{:?}", answer.headers);
            Ok(())
        })
    };
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e21", protocol).await?;
    wait_script("1").await?;
    let reloads = sum(&envoy, r"extension_config_discovery.*ext\.config_reload$").await?;
    let config = config.with(XdsType::Ecds, &script("2"));
    plane.publish(&config);
    wait_script("2").await?;
    ensure!(sum(&envoy, r"extension_config_discovery.*ext\.config_reload$").await? == reloads + 1, "reloads");
    assert_clean(&envoy).await?;

    plane.publish(&config.clone().with(XdsType::Ecds, &lua("ext", "function (")));
    wait::until("the rejection", wait::STEP, || async {
        ensure!(sum(&envoy, r"extension_config_discovery.*ext\.config_fail$").await? == 1, "not rejected");
        Ok(())
    })
    .await?;
    wait_script("2").await?;
    plane.publish(&config.with(XdsType::Ecds, &script("3")));
    wait_script("3").await?;
    ensure!(
        sum(&envoy, r"listener_manager\.(listener_modified|listener_in_place_updated)$").await? == 0,
        "listener"
    );
    plane.accepted().await
}

/// `envoy.service.runtime.v3.Runtime` with one number.
fn runtime(name: &str, key: &str, value: f64) -> Vec<u8> {
    let kind = Some(prost_types::value::Kind::NumberValue(value));
    let fields = [(key.to_owned(), prost_types::Value { kind })];
    let layer = prost_types::Struct { fields: fields.into_iter().collect() };
    let mut message = Vec::new();
    put_field(&mut message, 0x0a, name.as_bytes());
    put_field(&mut message, 0x12, &layer.encode_to_vec());
    message
}

/// Envoy asks for nothing else before its runtime is answered, although there is none at first. Later it
/// decides which route a request takes.
async fn e22_runtime_is_discovered(protocol: Protocol) -> Result<()> {
    const KEY: &str = "test.new";
    let port = ports::free_port()?;
    let answering = |body: &str, matching: &Value| {
        let response = json!({"status": 200, "body": {"inline_string": body}});
        json!({"match": matching, "direct_response": response})
    };
    let fraction = json!({"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": KEY});
    let routes = [
        answering("new", &json!({"prefix": "/", "runtime_fraction": fraction})),
        answering("old", &json!({"prefix": "/"})),
    ];
    let routes = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]});
    let front = listener("front", port, &manager(&json!({"route_config": routes}), &[]));
    let config = Config::default().with(XdsType::Lds, &front);
    let mut plane = Plane::start(Some(&config)).await?;
    let mut bootstrap = bootstrap(plane.address(), "e22", protocol);
    bootstrap["layered_runtime"] = json!({"layers": [
        {"name": "base", "static_layer": {"test.base": 1}},
        {"name": "found", "rtds_layer": {"name": "rt", "rtds_config": ads()}}]});
    let envoy = live_envoy("e22", protocol, bootstrap).await?;
    wait_body(port, "old").await?;
    let loads = envoy.stat("runtime.load_success").await?;
    for (n, value, body) in [(1, 100.0, "new"), (2, 0.0, "old"), (3, 100.0, "new")] {
        plane.publish(&config.clone().with_encoded(XdsType::Rtds, "rt", &runtime("rt", KEY, value)));
        wait_body(port, body).await?;
        let page = envoy.admin_get("/runtime").await?.ok()?.json()?;
        let shown = page["entries"][KEY]["final_value"].as_str().context("no value")?;
        ensure!(shown.parse() == Ok(value), "{page}");
        wait_stat(&envoy, "runtime.load_success", |count| count == loads + n).await?;
    }
    ensure!(envoy.stat("runtime.load_error").await? == 0, "an error");
    plane.accepted().await?;
    assert_clean(&envoy).await
}

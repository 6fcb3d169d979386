//! Secrets, endpoints and extensions that change.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{http, ports, wait};
use serde_json::json;

use crate::resources::{
    ads, answer, answering, cluster, endpoint, endpoints, listener, lua, manager, rds_listener, route, secret,
};
use crate::rig::{Config, Plane, Protocol, assert_clean, backend, instance, sum, url, wait_stat};

both!(e19_secret_is_rotated, e20_health_of_endpoints, e21_extension_is_updated_and_rejected);

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
    let updates = sum(&envoy, "ssl_context_update_by_sds$").await?;
    plane.publish(&config.with(XdsType::Sds, &of(1)));
    wait_certificate(&envoy, "b.test").await?;
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

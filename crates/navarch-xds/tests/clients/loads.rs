//! Load reports.

use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{http, ports, wait};
use serde_json::json;

use crate::resources::{at, cluster, rds_listener, route};
use crate::rig::{
    Config, Load, Plane, Protocol, Settings, backend, bootstrap, grpc_service, live_envoy, url, wait_stat,
};

both!(e28_load_reports_add_up);

const REQUESTS: u64 = 25;

/// Reports are differences: their sums are exactly what was sent, over a restart of the server too.
async fn e28_load_reports_add_up(protocol: Protocol) -> Result<()> {
    let app = backend("one").await?;
    let (answered, refused, dropped) = (ports::free_port()?, ports::free_port()?, ports::free_port()?);
    let nobody = ([127, 0, 0, 1], ports::free_port()?).into();
    let mut full = at("full", app.address());
    full["policy"] = json!({"drop_overloads": [
        {"category": "all", "drop_percentage": {"numerator": 100, "denominator": "HUNDRED"}}]});
    let config = Config::default()
        .with(XdsType::Cds, &cluster("good"))
        .with(XdsType::Cds, &cluster("dead"))
        .with(XdsType::Cds, &cluster("full"))
        .with(XdsType::Eds, &at("good", app.address()))
        .with(XdsType::Eds, &at("dead", nobody))
        .with(XdsType::Eds, &full)
        .with(XdsType::Lds, &rds_listener("answered", answered, "good"))
        .with(XdsType::Lds, &rds_listener("refused", refused, "dead"))
        .with(XdsType::Lds, &rds_listener("dropped", dropped, "full"))
        .with(XdsType::Rds, &route("good", "good"))
        .with(XdsType::Rds, &route("dead", "dead"))
        .with(XdsType::Rds, &route("full", "full"));
    let settings = Settings { load_report_interval: Duration::from_millis(500), ..Settings::default() };
    let mut plane = Plane::start_with(settings, Some(&config)).await?;
    let mut bootstrap = bootstrap(plane.address(), "e28", protocol);
    bootstrap["cluster_manager"]["load_stats_config"] = json!({
        "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc_service("xds")]});
    let envoy = live_envoy("e28", protocol, bootstrap).await?;
    plane.accepted().await?;
    wait_report(&envoy).await?;

    let call = async |times: u64| -> Result<()> {
        for _ in 0..times {
            ensure!(http::get(url(answered)).await?.status == 200, "not answered");
            ensure!(http::get(url(refused)).await?.status == 503, "not refused");
            ensure!(http::get(url(dropped)).await?.status == 503, "not dropped");
        }
        Ok(())
    };
    call(REQUESTS).await?;
    wait_loads(&plane, REQUESTS).await?;
    plane.down();
    wait_stat(&envoy, "load_reporter.errors", |count| count >= 1).await?;
    plane.up(Some(&config)).await?;
    wait_stat(&envoy, "load_reporter.requests", |count| count == 2).await?;
    wait_report(&envoy).await?;
    call(REQUESTS).await?;
    wait_loads(&plane, 2 * REQUESTS).await?;
    drop(envoy);
    wait::until("the end of the reports", wait::STEP, || async {
        ensure!(plane.heard().load_streams_ended() >= 1, "not ended");
        Ok(())
    })
    .await
}

/// Waits for two more reports. What is called a response is what Envoy sends, and a request is what it was
/// told; and of a new cluster it counts from the report after.
async fn wait_report(envoy: &Envoy) -> Result<()> {
    let reports = envoy.stat("load_reporter.responses").await?;
    wait_stat(envoy, "load_reporter.responses", |count| count >= reports + 2).await
}

async fn wait_loads(plane: &Plane, requests: u64) -> Result<()> {
    let of = |cluster| plane.heard().load(cluster);
    wait::until("load reports", wait::STEP, || async {
        let sums = (of("good"), of("dead"), of("full"));
        let expected = (
            Load { succeeded: requests, ..Load::default() },
            Load { failed: requests, ..Load::default() },
            Load { dropped: requests, ..Load::default() },
        );
        ensure!(sums == expected, "{sums:?}");
        Ok(())
    })
    .await
}

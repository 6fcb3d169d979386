//! More than one of something: two servers for one Envoy, two processes of one Envoy.

use anyhow::{Context, Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{ports, wait};
use serde_json::json;

use crate::load::Load;
use crate::resources::{at, cluster, rds_listener, route};
use crate::rig::{
    Config, Plane, Protocol, Settings, assert_clean, backend, bootstrap, grpc_cluster, grpc_service,
    live_envoy, wait_clusters, wait_instance, wait_stat,
};

both!(e25_hot_restart_without_an_error, e27_failover_and_back);

/// Two processes follow the control plane as one node for a while. The new one takes over when it has
/// everything.
async fn e25_hot_restart_without_an_error(protocol: Protocol) -> Result<()> {
    let (one, two, port) = (backend("one").await?, backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Eds, &at("c", one.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "c"));
    let mut plane = Plane::start(Some(&config)).await?;
    // As unique as the port: processes of one base id are one Envoy.
    let base = u32::from(ports::free_port()?);
    let start = async |epoch| {
        let name = format!("xds-e25-{protocol:?}-{epoch}");
        let bootstrap = bootstrap(plane.address(), "e25", protocol);
        Envoy::start_epoch(&name, bootstrap, base, epoch, &["--parent-shutdown-time-s", "3"]).await
    };
    let mut old = start(0).await?;
    old.wait_live().await?;
    plane.accepted().await?;
    let load = Load::start(port);
    let mut new = start(1).await?;
    new.wait_live().await?;
    wait_stat(&new, "server.hot_restart_generation", |generation| generation == 2).await?;
    plane.publish(&config.with(XdsType::Eds, &at("c", two.address())));
    wait_instance(port, "two").await?;
    wait::until("the old process to end", wait::STEP, || {
        let running = old.process().check_running();
        async move {
            ensure!(running.is_err(), "it runs");
            Ok(())
        }
    })
    .await?;
    wait::until("its stream to end", wait::STEP, || async {
        ensure!(plane.registry().len() == 1, "{} streams", plane.registry().len());
        Ok(())
    })
    .await?;
    ensure!(plane.heard().most_at_once() == 2, "{} streams at once", plane.heard().most_at_once());
    plane.accepted().await?;
    wait_instance(port, "two").await?;
    load.must_be_clean().await?;
    assert_clean(&new).await?;
    // It removes what the processes shared.
    new.terminate().await.map(drop)
}

/// The first server is not there at the start, and comes when the second goes. The second one's versions mean
/// nothing to it, and yet say what the client has.
async fn e27_failover_and_back(protocol: Protocol) -> Result<()> {
    let (one, two, port) = (backend("one").await?, backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Eds, &at("c", one.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "c"));
    let more =
        config.clone().with(XdsType::Cds, &cluster("more")).with(XdsType::Eds, &at("more", one.address()));
    let mut primary = Plane::stopped(Settings::default())?;
    let mut secondary = Plane::start(Some(&more)).await?;
    let mut bootstrap = bootstrap(primary.address(), "e27", protocol);
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().context("clusters")?;
    clusters.push(grpc_cluster("xds-second", secondary.address()));
    let services = bootstrap["dynamic_resources"]["ads_config"]["grpc_services"].as_array_mut();
    services.context("services")?.push(grpc_service("xds-second"));
    bootstrap["layered_runtime"] = json!({"layers": [{"name": "static", "static_layer":
        {"envoy.restart_features.xds_failover_support": true}}]});

    let envoy = live_envoy("e27", protocol, bootstrap).await?;
    wait_stat(&envoy, CONNECTED, |state| state == 2).await?;
    secondary.accepted().await?;
    wait_instance(port, "one").await?;
    wait_clusters(&envoy, &["c", "more", "xds-second"]).await?;
    wait_identifier(&envoy, &secondary.identifier()).await?;

    // It stays where it is as long as that works.
    let load = Load::start(port);
    primary.up(Some(&config)).await?;
    secondary.publish(&more.with(XdsType::Eds, &at("c", two.address())));
    wait_instance(port, "two").await?;
    ensure!(envoy.stat(CONNECTED).await? == 2 && primary.registry().is_empty(), "it has moved");

    secondary.down();
    wait_stat(&envoy, CONNECTED, |state| state == 1).await?;
    wait_instance(port, "one").await?;
    // Over delta Envoy forgets the versions of the other server, and nobody can tell it what is gone.
    if protocol == Protocol::Sotw {
        wait_clusters(&envoy, &["c", "xds-second"]).await?;
    }
    wait_identifier(&envoy, &primary.identifier()).await?;
    primary.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

const CONNECTED: &str = "control_plane.connected_state";

/// Waits until Envoy says that this server serves it.
async fn wait_identifier(envoy: &Envoy, identifier: &str) -> Result<()> {
    wait::until("the identifier of the server", wait::STEP, || async {
        let text = envoy.admin_get("/stats?filter=control_plane.identifier").await?.ok()?.text();
        ensure!(text.contains(&format!("\"{identifier}\"")), "{text}");
        Ok(())
    })
    .await
}

//! First configuration.

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::{http, ports};

use crate::resources::{at, cluster, rds_listener, route};
use crate::rig::{Config, Plane, Protocol, assert_clean, backend, clusters, url, wait_instance, wait_stat};

both!(e01_cold_start, e02_a_cluster_without_endpoints_does_not_hold_the_start);

/// From nothing to serving; before there is anything to serve, Envoy does not claim to be ready.
async fn e01_cold_start(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(None).await?;
    let mut envoy = plane.envoy("e01", protocol).await?;
    wait_stat(&envoy, "control_plane.connected_state", |state| state == 1).await?;
    ensure!(!envoy.ready().await? && envoy.state().await? != "LIVE", "ready without a configuration");
    ensure!(clusters(&envoy).await?.is_empty(), "clusters from nowhere");

    plane.publish(&config);
    envoy.wait_live().await?;
    wait_instance(port, "one").await?;
    for stat in ["cluster_manager.cds.update_success", "listener_manager.lds.update_success"] {
        ensure!(envoy.stat(stat).await? >= 1, "{stat}");
    }
    plane.accepted().await?;
    assert_clean(&envoy).await
}

/// Envoy asks for the endpoints, and would wait forever; it is told that there are none.
async fn e02_a_cluster_without_endpoints_does_not_hold_the_start(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e02", protocol).await?;
    let status = http::get(url(port)).await?.status;
    ensure!(status == 503, "{status} from nowhere");
    plane.publish(&config.with(XdsType::Eds, &at("one", app.address())));
    wait_instance(port, "one").await?;
    assert_clean(&envoy).await
}

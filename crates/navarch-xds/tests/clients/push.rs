//! Changes of clusters while they serve: warming and order.

use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::ports;
use serde_json::json;

use crate::load::Load;
use crate::resources::{at, cluster, cluster_of, rds_listener, route};
use crate::rig::{
    Config, Plane, Protocol, assert_clean, backend, dump, wait_clusters, wait_instance, wait_stat,
};

both!(
    e04_changed_cluster_does_not_stall,
    e06_second_cluster_of_a_service_does_not_stall,
    e07_traffic_moves_between_clusters_without_an_error,
    e07_a_route_to_nowhere_is_an_error,
);

/// A changed cluster warms until its endpoints come once more, although they are the same.
async fn e04_changed_cluster_does_not_stall(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let mut config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e04", protocol).await?;
    let load = Load::start(port);
    for n in 1..=3 {
        let mut changed = cluster("one");
        changed["connect_timeout"] = json!(format!("{}s", n + 1));
        config = config.with(XdsType::Cds, &changed);
        plane.publish(&config);
        wait_stat(&envoy, "cluster_manager.cluster_modified", |count| count == n).await?;
        wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 0).await?;
        let active = dump(&envoy, "dynamic_active_clusters").await?;
        let timeout = &active[0]["cluster"]["connect_timeout"];
        ensure!(*timeout == changed["connect_timeout"], "{timeout} is active");
    }
    plane.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

/// Envoy does not ask for endpoints that it is subscribed to already, and yet waits for them.
async fn e06_second_cluster_of_a_service_does_not_stall(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("shared").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster_of("one", "shared"))
        .with(XdsType::Eds, &at("shared", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e06", protocol).await?;
    let both = config.with(XdsType::Cds, &cluster_of("two", "shared")).with(XdsType::Rds, &route("r", "two"));
    plane.publish(&both);
    wait_clusters(&envoy, &["one", "two"]).await?;
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 0).await?;
    wait_stat(&envoy, "cluster.two.membership_healthy", |count| count == 1).await?;
    plane.publish(&both.without(XdsType::Cds, "one"));
    wait_clusters(&envoy, &["two"]).await?;
    wait_instance(port, "shared").await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

/// In each revision the route goes to a new cluster and the old one is gone.
async fn e07_traffic_moves_between_clusters_without_an_error(protocol: Protocol) -> Result<()> {
    let apps = [backend("even").await?, backend("odd").await?];
    let port = ports::free_port()?;
    let revision = |n: usize| {
        let name = format!("c{n}");
        Config::default()
            .with(XdsType::Cds, &cluster(&name))
            .with(XdsType::Eds, &at(&name, apps[n % 2].address()))
            .with(XdsType::Lds, &rds_listener("front", port, "r"))
            .with(XdsType::Rds, &route("r", &name))
    };
    let mut plane = Plane::start(Some(&revision(0))).await?;
    let envoy = plane.live_envoy("e07", protocol).await?;
    let load = Load::start(port);
    // One after the other, then faster than the client takes them.
    for n in 1..=6 {
        plane.publish(&revision(n));
        wait_instance(port, ["even", "odd"][n % 2]).await?;
    }
    for n in 7..=31 {
        plane.publish(&revision(n));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    wait_instance(port, "odd").await?;
    wait_clusters(&envoy, &["c31"]).await?;
    plane.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

/// The negative control: the clients see what goes wrong.
async fn e07_a_route_to_nowhere_is_an_error(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e07-control", protocol).await?;
    let load = Load::start(port);
    plane.publish(&config.with(XdsType::Rds, &route("r", "nowhere")));
    wait_stat(&envoy, "http.in.downstream_rq_5xx", |count| count > 0).await?;
    let outcome = load.stop().await?;
    ensure!(outcome.bad.keys().any(|what| what.starts_with("503")), "{outcome:?}");
    Ok(())
}

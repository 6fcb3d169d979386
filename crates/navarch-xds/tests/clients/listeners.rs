//! Changes of listeners and routes under load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{http, ports, wait};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::load::{KeepAlive, Load};
use crate::resources::{answer, answering, rds_listener};
use crate::rig::{Config, Plane, Protocol, assert_clean, url, wait_body, wait_stat};

both!(
    e13_filter_chain_is_updated_in_place,
    e14_listener_is_replaced,
    e15_same_listener_again_is_nothing,
    e16_listener_is_removed,
    e17_listener_is_renamed_on_its_address,
    e18_route_changes_under_a_connection,
);

async fn started(name: &str, protocol: Protocol, config: &Config) -> Result<(Plane, Envoy)> {
    let plane = Plane::start(Some(config)).await?;
    let envoy = plane.live_envoy(name, protocol).await?;
    plane.accepted().await?;
    Ok((plane, envoy))
}

async fn stats(envoy: &Envoy, names: [&str; 2]) -> Result<[u64; 2]> {
    Ok([
        envoy.stat(&format!("listener_manager.{}", names[0])).await?,
        envoy.stat(&format!("listener_manager.{}", names[1])).await?,
    ])
}

/// Updates in place count as modified, too.
const UPDATES: [&str; 2] = ["listener_in_place_updated", "listener_modified"];

/// Uses a connection until it is closed, which must be announced. A client that gets no time to ask while the
/// listener drains misses that.
async fn until_closed(mut connection: KeepAlive) -> Result<()> {
    const MISSED: Duration = Duration::from_millis(300);
    let mut answered = Instant::now();
    loop {
        match connection.get().await {
            Ok((_, true)) => return Ok(()),
            Ok(_) => {
                answered = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) if answered.elapsed() < MISSED => return Err(error.context("closed without a word")),
            Err(_) => return Ok(()),
        }
    }
}

/// A connection that is in use from now until it is closed.
async fn old_connection(port: u16, body: &str) -> Result<JoinHandle<Result<()>>> {
    let mut connection = KeepAlive::connect(port).await?;
    ensure!(connection.get().await?.0 == body, "not the old answer");
    Ok(tokio::spawn(until_closed(connection)))
}

async fn closed(connection: JoinHandle<Result<()>>) -> Result<()> {
    tokio::time::timeout(wait::STEP, connection).await.context("the old connection stays")??
}

async fn e13_filter_chain_is_updated_in_place(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let config = Config::default().with(XdsType::Lds, &answering("front", port, "old"));
    let (mut plane, envoy) = started("e13", protocol, &config).await?;
    let old = old_connection(port, "old").await?;
    let load = Load::start(port);
    plane.publish(&config.with(XdsType::Lds, &answering("front", port, "new")));
    wait_body(port, "new").await?;
    ensure!(stats(&envoy, UPDATES).await? == [1, 1], "{:?}", stats(&envoy, UPDATES).await?);
    closed(old).await?;
    wait_stat(&envoy, "listener_manager.total_filter_chains_draining", |count| count == 0).await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

async fn e14_listener_is_replaced(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let config = Config::default().with(XdsType::Lds, &answering("front", port, "old"));
    let (mut plane, envoy) = started("e14", protocol, &config).await?;
    let old = old_connection(port, "old").await?;
    let load = Load::start(port);
    let mut changed = answering("front", port, "new");
    changed["per_connection_buffer_limit_bytes"] = json!(65_536);
    plane.publish(&config.with(XdsType::Lds, &changed));
    wait_body(port, "new").await?;
    ensure!(stats(&envoy, UPDATES).await? == [0, 1], "{:?}", stats(&envoy, UPDATES).await?);
    closed(old).await?;
    wait_stat(&envoy, "listener_manager.total_listeners_draining", |count| count == 0).await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

async fn e15_same_listener_again_is_nothing(protocol: Protocol) -> Result<()> {
    let (one, two) = (ports::free_port()?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Lds, &answering("one", one, "1"))
        .with(XdsType::Lds, &answering("two", two, "2"));
    let (mut plane, envoy) = started("e15", protocol, &config).await?;
    let success = envoy.stat("listener_manager.lds.update_success").await?;
    // Made anew, with the same content: nothing is sent.
    plane.publish(
        &config
            .clone()
            .with(XdsType::Lds, &answering("one", one, "1"))
            .with(XdsType::Lds, &answering("two", two, "2")),
    );
    plane.accepted().await?;
    ensure!(envoy.stat("listener_manager.lds.update_success").await? == success, "sent again");
    // Only the one that changed is updated.
    plane.publish(&config.with(XdsType::Lds, &answering("two", two, "changed")));
    wait_body(two, "changed").await?;
    ensure!(stats(&envoy, UPDATES).await? == [1, 1], "{:?}", stats(&envoy, UPDATES).await?);
    assert_clean(&envoy).await
}

async fn e16_listener_is_removed(protocol: Protocol) -> Result<()> {
    let (stays, goes) = (ports::free_port()?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Lds, &answering("stays", stays, "1"))
        .with(XdsType::Lds, &answering("goes", goes, "2"));
    let (mut plane, envoy) = started("e16", protocol, &config).await?;
    let old = old_connection(goes, "2").await?;
    let load = Load::start(stays);
    plane.publish(&config.without(XdsType::Lds, "goes"));
    wait_stat(&envoy, "listener_manager.listener_removed", |count| count == 1).await?;
    closed(old).await?;
    wait::until("connections to be refused", wait::STEP, || async {
        ensure!(http::get(url(goes)).await.is_err(), "still answers");
        Ok(())
    })
    .await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

async fn e17_listener_is_renamed_on_its_address(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let config = Config::default().with(XdsType::Lds, &answering("old", port, "old"));
    let (mut plane, envoy) = started("e17", protocol, &config).await?;
    let load = Load::start(port);
    plane.publish(&Config::default().with(XdsType::Lds, &answering("new", port, "new")));
    wait_body(port, "new").await?;
    plane.accepted().await?;
    let names: Vec<_> = envoy.listeners().await?.into_keys().collect();
    ensure!(names == ["new"], "{names:?}");
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

async fn e18_route_changes_under_a_connection(protocol: Protocol) -> Result<()> {
    let port = ports::free_port()?;
    let config = Config::default()
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &answer("r", "old"));
    let (mut plane, envoy) = started("e18", protocol, &config).await?;
    let reloads = envoy.stat("http.in.rds.r.config_reload").await?;
    let mut connection = KeepAlive::connect(port).await?;
    ensure!(connection.get().await?.0 == "old", "not the old answer");
    plane.publish(&config.with(XdsType::Rds, &answer("r", "new")));
    wait_stat(&envoy, "http.in.rds.r.config_reload", |count| count == reloads + 1).await?;
    let (body, close) = connection.get().await?;
    ensure!(body == "new" && !close, "{body}, {close}");
    ensure!(stats(&envoy, UPDATES).await? == [0, 0], "{:?}", stats(&envoy, UPDATES).await?);
    assert_clean(&envoy).await
}

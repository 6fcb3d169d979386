//! Many clusters, and what an operator sees of versions.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{ports, wait};
use serde_json::{Value, json};

use crate::resources::{answer, at, cluster, rds_listener};
use crate::rig::{Config, Plane, Protocol, assert_clean, sum, wait_stat};

both!(e29_two_thousand_clusters, e32_versions_are_the_same_on_all_proxies);

const CLUSTERS: u64 = 2000;

async fn e29_two_thousand_clusters(protocol: Protocol) -> Result<()> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let config = (0..CLUSTERS).map(|n| format!("c{n}")).fold(Config::default(), |config, name| {
        config.with(XdsType::Cds, &cluster(&name)).with(XdsType::Eds, &at(&name, nowhere))
    });
    let mut plane = Plane::start(Some(&config)).await?;
    let mut envoy = plane.envoy("e29", protocol).await?;
    envoy.wait_live_within(Duration::from_secs(90)).await?;
    wait_stat(&envoy, "cluster_manager.active_clusters", |count| count == CLUSTERS + 1).await?;
    plane.accepted().await?;

    // A change of one is a change of one.
    let mut changed = cluster("c7");
    changed["connect_timeout"] = json!("2s");
    plane.publish(&config.with(XdsType::Cds, &changed));
    wait_stat(&envoy, "cluster_manager.cluster_modified", |count| count == 1).await?;
    plane.accepted().await?;
    ensure!(
        sum(&envoy, r"^cluster_manager\.(cluster_removed|warming_clusters)$").await? == 0,
        "others were touched"
    );
    ensure!(envoy.stat("cluster_manager.cluster_modified").await? == 1, "others were touched");
    assert_clean(&envoy).await
}

/// `version_info` of clusters and of listeners.
async fn versions(envoy: &Envoy) -> Result<[String; 2]> {
    let dump = envoy.config_dump().await?;
    let of = |name: &str| {
        let parts = dump["configs"].as_array().into_iter().flatten();
        let part = parts.clone().find(|part| part["@type"].as_str().is_some_and(|ty| ty.ends_with(name)));
        let version = part.and_then(|part: &Value| part["version_info"].as_str()).unwrap_or_default();
        (!version.is_empty()).then(|| version.to_owned()).with_context(|| format!("no version in {name}"))
    };
    Ok([of(".ClustersConfigDump")?, of(".ListenersConfigDump")?])
}

async fn e32_versions_are_the_same_on_all_proxies(protocol: Protocol) -> Result<()> {
    let (nowhere, port) = (SocketAddr::from(([127, 0, 0, 1], 9)), ports::free_port()?);
    let front = |name: &str| {
        let mut front = rds_listener(name, port, "r");
        // Two Envoys on one machine.
        front["enable_reuse_port"] = json!(true);
        front
    };
    let config = |timeout: &str, listener: &str| {
        let mut one = cluster("one");
        one["connect_timeout"] = json!(timeout);
        Config::default()
            .with(XdsType::Cds, &one)
            .with(XdsType::Eds, &at("one", nowhere))
            .with(XdsType::Lds, &front(listener))
            .with(XdsType::Rds, &answer("r", "ok"))
    };
    let mut plane = Plane::start(Some(&config("1s", "a"))).await?;
    let envoys = [plane.live_envoy("e32-a", protocol).await?, plane.live_envoy("e32-b", protocol).await?];
    let mut seen = BTreeSet::new();
    for (timeout, listener) in [("1s", "a"), ("2s", "b"), ("1s", "a")] {
        plane.publish(&config(timeout, listener));
        let same = wait::until("the same versions everywhere", wait::STEP, || async {
            plane.accepted().await?;
            let (a, b) = (versions(&envoys[0]).await?, versions(&envoys[1]).await?);
            ensure!(a == b, "{a:?} is not {b:?}");
            Ok(a)
        })
        .await?;
        seen.insert(same);
    }
    // The first content again has the first version again: it is a matter of content, in any process.
    ensure!(seen.len() == 2, "{seen:?}");
    plane.down();
    plane.up(Some(&config("1s", "a"))).await?;
    plane.accepted().await?;
    for envoy in &envoys {
        ensure!(seen.contains(&versions(envoy).await?), "another process, another version");
    }
    Ok(())
}

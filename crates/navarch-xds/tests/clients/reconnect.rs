//! The control plane goes and comes back, as another process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{ports, wait};

use crate::load::Load;
use crate::proxy::{Proxy, Seen};
use crate::resources::{answering, at, cluster, health_checked, rds_listener, route, trust, validating};
use crate::rig::{
    Config, Plane, Protocol, Settings, assert_clean, backend, bootstrap, clusters, live_envoy, wait_clusters,
    wait_instance, wait_stat,
};

both!(
    e08_reconnect_changes_nothing,
    e09_reconnect_while_warming,
    e09_reconnect_while_a_cluster_is_probed,
    e09_secret_of_the_next_process,
    e10_deletion_during_an_outage,
    e23_connections_end_at_their_age,
    e24_server_gone_and_back,
);

const CONNECTED: &str = "control_plane.connected_state";

/// Counters that move when something is applied.
const APPLIED: &str = r"^(cluster_manager\.cluster_(added|modified|removed)|listener_manager\.listener_(added|modified|removed|in_place_updated)|http\.in\.rds\..*config_reload)$";

async fn outage(plane: &mut Plane, envoy: &Envoy) -> Result<()> {
    plane.down();
    wait_stat(envoy, CONNECTED, |state| state == 0).await
}

async fn back(plane: &mut Plane, envoy: &Envoy, config: &Config) -> Result<()> {
    plane.up(Some(config)).await?;
    wait_stat(envoy, CONNECTED, |state| state == 1).await?;
    plane.accepted().await
}

async fn e08_reconnect_changes_nothing(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Eds, &at("two", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e08", protocol).await?;
    plane.accepted().await?;
    let load = Load::start(port);
    let before = envoy.stats(APPLIED).await?;
    ensure!(before.get("cluster_manager.cluster_added").is_some_and(|count| *count >= 2), "{before:?}");
    for _ in 0..2 {
        outage(&mut plane, &envoy).await?;
        back(&mut plane, &envoy, &config).await?;
        ensure!(plane.registry().len() == 1, "more than one stream");
        if protocol == Protocol::Delta {
            // It says what it holds, and nothing waits for it.
            let sent = [sent(&plane, XdsType::Eds), sent(&plane, XdsType::Rds)];
            ensure!(sent == [0, 0], "assignments and routes were sent again: {sent:?} responses");
        }
    }
    let after = envoy.stats(APPLIED).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

/// The stream is lost between a new cluster and its endpoints, and then the process. Envoy comes back without
/// asking for clusters, since one of them is warming; it does when it has got its endpoints.
async fn e09_reconnect_while_warming(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let proxy = Proxy::start(plane.address()).await?;
    let envoy = live_envoy("e09", protocol, bootstrap(proxy.address(), "e09", protocol)).await?;
    wait_instance(port, "two").await?;
    plane.accepted().await?;

    proxy.cut_before(XdsType::Eds);
    let config = config.with(XdsType::Cds, &cluster("two")).with(XdsType::Eds, &at("two", app.address()));
    plane.publish(&config);
    wait::until("the cut", wait::STEP, || async { proxy.has_cut() }).await?;
    wait_stat(&envoy, CONNECTED, |state| state == 0).await?;
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 1).await?;

    // Meanwhile the routes move to the cluster that is warming.
    plane.down();
    let config = config.with(XdsType::Rds, &route("r", "two"));
    plane.up(Some(&config)).await?;
    proxy.heal();
    wait_clusters(&envoy, &["one", "two"]).await?;
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 0).await?;
    wait_instance(port, "two").await?;
    wait::until("everything to be accepted", wait::STEP, || async {
        let seen = proxy.seen();
        let position = |what| seen.iter().position(|seen| *seen == what).context("not seen");
        let endpoints = position(Seen::Response(XdsType::Eds))?;
        let clusters = position(Seen::Request(XdsType::Cds))?;
        ensure!(position(Seen::Request(XdsType::Eds))? < endpoints && endpoints < clusters, "{seen:?}");
        ensure!(position(Seen::Request(XdsType::Lds)).is_ok(), "{seen:?}");
        ensure!(position(Seen::Request(XdsType::Rds)).is_ok(), "{seen:?}");
        Ok(())
    })
    .await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

/// The secret that a cluster waits for comes from the next process.
async fn e09_secret_of_the_next_process(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e09-secret", protocol).await?;
    let config = config
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("two", app.address()))
        .with(XdsType::Cds, &validating(cluster("three"), "missing"))
        .with(XdsType::Eds, &at("three", app.address()));
    plane.publish(&config);
    match protocol {
        // Nothing can be said of a secret that is not there, so its cluster waits.
        Protocol::Sotw => wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 1).await?,
        // Over delta the client is told so, and does not wait.
        Protocol::Delta => wait_clusters(&envoy, &["one", "three", "two"]).await?,
    }
    outage(&mut plane, &envoy).await?;
    let config = config.with(XdsType::Sds, &trust("missing")).with(XdsType::Rds, &route("r", "two"));
    plane.up(Some(&config)).await?;
    wait_clusters(&envoy, &["one", "three", "two"]).await?;
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 0).await?;
    wait_stat(&envoy, "cluster.three.membership_healthy", |count| count == 1).await?;
    wait_instance(port, "two").await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

/// Responses of a type on the streams that there are.
fn sent(plane: &Plane, ty: XdsType) -> u64 {
    let streams = plane.registry().streams();
    streams.iter().flat_map(|stream| &stream.types).filter(|of| of.ty == ty).map(|of| of.sent_total).sum()
}

/// While a cluster is probed for the first time Envoy says that it holds all assignments, and asks for no
/// clusters. It is answered: the server cannot know what the cluster waits for.
async fn e09_reconnect_while_a_cluster_is_probed(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    // Accepts connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e09-probed", protocol).await?;
    let probed = config
        .clone()
        .with(XdsType::Cds, &health_checked(cluster("probed")))
        .with(XdsType::Eds, &at("probed", silent.local_addr()?));
    plane.publish(&probed);
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 1).await?;
    wait::until("the assignment of the cluster", wait::STEP, || async {
        ensure!(sent(&plane, XdsType::Eds) >= 2, "not sent");
        Ok(())
    })
    .await?;
    outage(&mut plane, &envoy).await?;
    plane.up(Some(&probed)).await?;
    wait::until("assignments to be sent again", wait::STEP, || async {
        ensure!(sent(&plane, XdsType::Eds) >= 1, "not sent");
        Ok(())
    })
    .await?;
    plane.publish(&config);
    wait_clusters(&envoy, &["one"]).await?;
    plane.accepted().await?;
    wait_instance(port, "one").await?;
    assert_clean(&envoy).await
}

async fn e10_deletion_during_an_outage(protocol: Protocol) -> Result<()> {
    let (app, port, gone) = (backend("one").await?, ports::free_port()?, ports::free_port()?);
    let less = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let more = less
        .clone()
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("two", app.address()))
        .with(XdsType::Lds, &answering("side", gone, "side"));
    let mut plane = Plane::start(Some(&more)).await?;
    let envoy = plane.live_envoy("e10", protocol).await?;
    plane.accepted().await?;
    ensure!(envoy.listeners().await?.len() == 2 && clusters(&envoy).await?.len() == 2, "not all there");
    outage(&mut plane, &envoy).await?;
    back(&mut plane, &envoy, &less).await?;
    wait_clusters(&envoy, &["one"]).await?;
    wait::until("the listener to be gone", wait::STEP, || async {
        let names: Vec<_> = envoy.listeners().await?.into_keys().collect();
        ensure!(names == ["front"], "{names:?}");
        Ok(())
    })
    .await?;
    wait_instance(port, "one").await?;
    assert_clean(&envoy).await
}

/// Connections end at their age, and the streams go on in new ones. Nothing is applied again, and nobody
/// notices.
async fn e23_connections_end_at_their_age(protocol: Protocol) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("one"))
        .with(XdsType::Eds, &at("one", app.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "one"));
    let settings = Settings {
        connection_age_max: Some(Duration::from_secs(2)),
        grace: Duration::from_secs(1),
        ..Settings::default()
    };
    let mut plane = Plane::start_with(settings, Some(&config)).await?;
    let envoy = plane.live_envoy("e23", protocol).await?;
    plane.accepted().await?;
    let load = Load::start(port);
    let before = envoy.stats(APPLIED).await?;
    wait::until("two more streams", wait::STEP, || async {
        let returns = plane.heard().returns();
        ensure!(returns >= 2, "{returns}");
        Ok(())
    })
    .await?;
    wait_stat(&envoy, "cluster.xds.upstream_cx_close_notify", |count| count >= 2).await?;
    plane.accepted().await?;
    let after = envoy.stats(APPLIED).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    // And what changes arrives.
    let app = backend("two").await?;
    plane.publish(&config.with(XdsType::Eds, &at("one", app.address())));
    wait_instance(port, "two").await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

/// The last configuration serves during the outage; what changed meanwhile arrives after it.
async fn e24_server_gone_and_back(protocol: Protocol) -> Result<()> {
    let (one, two, port) = (backend("one").await?, backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Eds, &at("c", one.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "c"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e24", protocol).await?;
    plane.accepted().await?;
    let load = Load::start(port);
    outage(&mut plane, &envoy).await?;
    wait_stat(&envoy, "cluster.xds.upstream_cx_connect_fail", |count| count >= 2).await?;
    wait_instance(port, "one").await?;
    back(&mut plane, &envoy, &config.with(XdsType::Eds, &at("c", two.address()))).await?;
    wait_instance(port, "two").await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

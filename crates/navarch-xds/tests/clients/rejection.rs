//! Resources that Envoy rejects, and their siblings.

use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::{ports, wait};

use crate::resources::{answering, at, bad_cluster, bad_listener, cluster};
use crate::rig::{Config, Plane, Protocol, backend, clusters, wait_body, wait_clusters, wait_stat};

both!(e11_siblings_of_a_bad_cluster, e11_siblings_of_a_bad_listener, e12_reconnect_after_a_rejection);

const CDS_REJECTED: &str = "cluster_manager.cds.update_rejected";
const LDS_REJECTED: &str = "listener_manager.lds.update_rejected";

/// Waits until the server holds back one resource from the one client: the rejection is on its way to it.
async fn wait_set_aside(plane: &Plane, name: &str) -> Result<()> {
    wait::until("the bad resource to be set aside", wait::STEP, || async {
        let streams = plane.registry().streams();
        let types = streams.iter().flat_map(|stream| &stream.types);
        let found: Vec<_> = types.flat_map(|ty| ty.set_aside.iter().map(AsRef::<str>::as_ref)).collect();
        ensure!(found == [name], "{found:?} are");
        Ok(())
    })
    .await
}

async fn e11_siblings_of_a_bad_cluster(protocol: Protocol) -> Result<()> {
    let app = backend("one").await?;
    let config =
        Config::default().with(XdsType::Cds, &cluster("one")).with(XdsType::Eds, &at("one", app.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e11-cds", protocol).await?;
    let broken = config
        .with(XdsType::Cds, &bad_cluster("bad"))
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("two", app.address()));
    plane.publish(&broken);
    wait_stat(&envoy, CDS_REJECTED, |count| count >= 1).await?;
    wait_clusters(&envoy, &["one", "two"]).await?;
    wait_set_aside(&plane, "bad").await?;

    // It is not asked again and again.
    let rejected = envoy.stat(CDS_REJECTED).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ensure!(envoy.stat(CDS_REJECTED).await? == rejected, "sent again");

    // Others go on to change, and what was bad comes when it is good.
    let more = broken.with(XdsType::Cds, &cluster("three")).with(XdsType::Eds, &at("three", app.address()));
    plane.publish(&more);
    wait_clusters(&envoy, &["one", "three", "two"]).await?;
    ensure!(envoy.stat(CDS_REJECTED).await? == rejected, "sent again with others");
    plane.publish(&more.with(XdsType::Cds, &cluster("bad")).with(XdsType::Eds, &at("bad", app.address())));
    wait_clusters(&envoy, &["bad", "one", "three", "two"]).await?;
    plane.accepted().await
}

async fn e11_siblings_of_a_bad_listener(protocol: Protocol) -> Result<()> {
    let (one, two, three) = (ports::free_port()?, ports::free_port()?, ports::free_port()?);
    let config = Config::default().with(XdsType::Lds, &answering("one", one, "1"));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e11-lds", protocol).await?;
    let broken = Config::default()
        .with(XdsType::Lds, &answering("one", one, "changed"))
        .with(XdsType::Lds, &answering("two", two, "2"))
        .with(XdsType::Lds, &bad_listener("bad", three));
    plane.publish(&broken);
    wait_stat(&envoy, LDS_REJECTED, |count| count >= 1).await?;
    wait_body(one, "changed").await?;
    wait_body(two, "2").await?;
    wait_set_aside(&plane, "bad").await?;
    let rejected = envoy.stat(LDS_REJECTED).await?;
    plane.publish(&broken.with(XdsType::Lds, &answering("bad", three, "good now")));
    wait_body(three, "good now").await?;
    ensure!(envoy.stat(LDS_REJECTED).await? == rejected, "sent again");
    plane.accepted().await
}

/// Envoy forgets which good resources of a rejected delta response it has, unless they are sent again; then
/// they could never be deleted by another process.
async fn e12_reconnect_after_a_rejection(protocol: Protocol) -> Result<()> {
    let app = backend("one").await?;
    let config =
        Config::default().with(XdsType::Cds, &cluster("one")).with(XdsType::Eds, &at("one", app.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e12", protocol).await?;
    let broken = config
        .clone()
        .with(XdsType::Cds, &bad_cluster("bad"))
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("two", app.address()));
    plane.publish(&broken);
    wait_stat(&envoy, CDS_REJECTED, |count| count >= 1).await?;
    wait_clusters(&envoy, &["one", "two"]).await?;
    wait::until("the siblings to be accepted", wait::STEP, || async {
        let streams = plane.registry().streams();
        let cds = streams.first().and_then(|s| s.types.iter().find(|ty| ty.ty == XdsType::Cds).cloned());
        let settled = cds.as_ref().is_some_and(|cds| {
            let nonce = |mark: &Option<navarch_xds::Mark>| mark.as_ref().map(|mark| mark.nonce.clone());
            nonce(&cds.sent) == nonce(&cds.acked) && !cds.set_aside.is_empty()
        });
        ensure!(settled, "{cds:?}");
        Ok(())
    })
    .await?;
    plane.down();
    wait_stat(&envoy, "control_plane.connected_state", |state| state == 0).await?;
    plane.up(Some(&config)).await?;
    wait_clusters(&envoy, &["one"]).await?;
    plane.accepted().await?;
    ensure!(clusters(&envoy).await? == ["one"], "something came back");
    Ok(())
}

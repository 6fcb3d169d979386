//! `navarch serve` and a stock Envoy: first sync, live changes, a crash of the server.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Fixture, METADATA, NODE, PLAINTEXT, bootstrap, routes, settled, workload};
use navarch_testkit::{
    envoy::Envoy,
    navarch::{self, Server},
    ports, wait,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_was_first_becomes_live_with_nothing_rejected() -> Result<()> {
    let fixture = Fixture::new("live").await?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));

    let mut envoy = Envoy::start("live-envoy", bootstrap(xds)?).await?;
    assert_eq!(envoy.state().await?, "PRE_INITIALIZING");
    assert!(!envoy.ready().await?);

    let _server = Server::start_on("live-server", &fixture.config, xds, admin, &[]).await?;
    envoy.wait_live().await?;
    assert_eq!(envoy.state().await?, "LIVE");
    let name = format!("127.0.0.1_{}", fixture.port);
    assert!(envoy.listeners().await?.contains_key(&name));
    assert_eq!(fixture.version().await?, "v1");
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_route_is_in_effect_and_sends_only_routes() -> Result<()> {
    let fixture = Fixture::new("edit").await?;
    let server = fixture.serve("edit-server").await?;
    let envoy = fixture.sidecar("edit-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    let before = settled(&envoy).await?;

    fixture.write("routes.yaml", &routes("v2"))?;
    fixture.wait_for("v2").await?;

    let after = settled(&envoy).await?;
    assert_eq!(
        (after.cds, after.eds, after.lds),
        (before.cds, before.eds, before.lds),
        "{before:?} {after:?}"
    );
    assert_eq!(after.rds, before.rds + 1);
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_change_sends_only_endpoints() -> Result<()> {
    let fixture = Fixture::new("endpoints").await?;
    let server = fixture.serve("endpoints-server").await?;
    let envoy = fixture.sidecar("endpoints-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    let before = settled(&envoy).await?;

    // Version 1 moves to where version 2 is, so a call tells.
    fixture.write("workload-v1.yaml", &workload("v1", fixture.v2.address()))?;
    fixture.wait_for("v2").await?;

    let after = settled(&envoy).await?;
    assert_eq!(
        (after.cds, after.lds, after.rds),
        (before.cds, before.lds, before.rds),
        "{before:?} {after:?}"
    );
    // Of the service itself and of its subset v1.
    assert_eq!(after.eds, before.eds + 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_for_a_proxy_sends_nothing() -> Result<()> {
    let fixture = Fixture::new("untouched").await?;
    let server = fixture.serve("untouched-server").await?;
    let envoy = fixture.sidecar("untouched-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    let before = settled(&envoy).await?;

    // The same content again, a comment, a file that is not configuration, an object that this
    // proxy cannot see.
    fixture.write("routes.yaml", &routes("v1"))?;
    fixture
        .write("workload-v1.yaml", &format!("# moved by nobody\n{}", workload("v1", fixture.v1.address())))?;
    fixture.write("notes.txt", "not configuration")?;
    let hidden = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
        metadata: {name: hidden, namespace: elsewhere}\n\
        spec: {hosts: [hidden.test], exportTo: ['.'], ports: [{number: 80, name: http, protocol: HTTP}]}\n";
    fixture.write("hidden.yaml", hidden)?;
    // Longer than the loader may take to notice.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = settled(&envoy).await?;
    assert!(after.nothing_since(&before), "{before:?} {after:?}");

    // And it has been watching all the time.
    fixture.write("routes.yaml", &routes("v2"))?;
    fixture.wait_for("v2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_not_missed_and_resumes_without_sending_again() -> Result<()> {
    a_killed_server("delta", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_state_of_the_world() -> Result<()> {
    a_killed_server("sotw", &["--sotw"]).await
}

async fn a_killed_server(protocol: &str, extra: &[&str]) -> Result<()> {
    let fixture = Fixture::new(&format!("killed-{protocol}")).await?;
    // State of the world cannot say that a secret does not exist, so a cluster that could use
    // mutual TLS would wait for its certificate.
    fixture.write("plaintext.yaml", PLAINTEXT)?;
    let mut server = fixture.serve(&format!("killed-{protocol}-server")).await?;
    let bootstrap = navarch::bootstrap(NODE, &METADATA, server.xds(), extra)?;
    let mut envoy = Envoy::start(&format!("killed-{protocol}-envoy"), bootstrap).await?;
    envoy.wait_live().await?;
    fixture.wait_for("v1").await?;
    settled(&envoy).await?;
    let before = changes(&envoy).await?;

    server.kill();
    wait::until("Envoy to notice", wait::STEP, || async {
        ensure!(envoy.stat("control_plane.connected_state").await? == 0, "still connected");
        Ok(())
    })
    .await?;
    assert_eq!(fixture.version().await?, "v1");

    server.restart().await?;
    wait::until("Envoy to reconnect", wait::STEP, || async {
        ensure!(envoy.stat("control_plane.connected_state").await? == 1, "not connected");
        Ok(())
    })
    .await?;
    settled(&envoy).await?;
    // It answered on the new stream, EDS and RDS even in full, since an Envoy that was lost while
    // warming waits for that; but it changed nothing.
    assert_eq!(changes(&envoy).await?, before);
    assert_eq!(fixture.version().await?, "v1");

    fixture.write("routes.yaml", &routes("v2"))?;
    fixture.wait_for("v2").await?;
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_after_a_save_is_for_what_was_saved() -> Result<()> {
    let fixture = Fixture::new("wait").await?;
    let server = fixture.serve("wait-server").await?;
    let _envoy = fixture.sidecar("wait-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;

    let mut known = revision_of(&server.command(&["wait"])?)?;
    for version in ["v2", "v1"].into_iter().cycle().take(20) {
        fixture.write("routes.yaml", &routes(version))?;
        let live = revision_of(&server.command(&["wait"])?)?;
        assert!(live > known, "revision {live} is from before the save");
        known = live;
    }
    fixture.wait_for("v1").await?;

    // A signal that tells daemons to read again does not end the server.
    server.signal("HUP")?;
    wait::until("the server to read again", wait::STEP, || async {
        ensure!(server.log().contains("read again on SIGHUP"), "not yet");
        Ok(())
    })
    .await?;
    assert_eq!(revision_of(&server.command(&["wait"])?)?, known);
    Ok(())
}

/// The number in `revision N-CONTENT is live on ...`.
fn revision_of(said: &str) -> Result<u64> {
    let name = said.split_whitespace().nth(1).context("no revision")?;
    let (number, _) = name.split_once('-').context("no content")?;
    Ok(number.parse()?)
}

/// What Envoy has really added, changed or removed.
async fn changes(envoy: &Envoy) -> Result<BTreeMap<String, u64>> {
    envoy
        .stats(concat!(
            r"^cluster_manager\.cluster_(added|modified|removed|updated)$",
            r"|^listener_manager\.listener_(added|modified|removed|in_place_updated)$",
            r"|\.rds\..*\.config_reload$",
        ))
        .await
}

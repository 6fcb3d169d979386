//! A long silence of the API server, under calls: no proxy is sent anything, and no call is lost.

mod common;

use anyhow::{Context, Result, bail, ensure};
use common::{Fixture, api_server::serve_as, applied::apply, load::Load, received, settled};
use navarch_testkit::{kubernetes::ApiServer, navarch, navarch::Server, wait};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Seconds, unless `NAVARCH_OUTAGE=full`: then ten minutes.
fn away() -> Result<Duration> {
    match std::env::var("NAVARCH_OUTAGE").as_deref() {
        Err(_) => Ok(Duration::from_secs(5)),
        Ok("full") => Ok(Duration::from_secs(600)),
        Ok(other) => bail!("NAVARCH_OUTAGE={other}: full, or nothing"),
    }
}

/// How often it is looked whether anything has come.
const LOOK: Duration = Duration::from_secs(1);

const ROUTES: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices/echo";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_nothing_changes_and_no_call_is_lost() -> Result<()> {
    let away = away()?;
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let mut cluster =
        ApiServer::start("outage-cluster", printed["items"].as_array().context("a list")?).await?;
    let fixture = Fixture::new("outage").await?;
    for file in ["service.yaml", "workload-v1.yaml", "workload-v2.yaml", "routes.yaml"] {
        apply(&cluster, &std::fs::read_to_string(fixture.config.join(file))?).await?;
    }
    let server = serve_as("outage-server", &cluster.kubeconfig(), "default").await?;
    let envoy = fixture.sidecar("outage-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    heard(&server, true).await?;

    let pushes = async || server.metric("pilot_xds_pushes").await;
    let (before, pushed, revision) = (settled(&envoy).await?, pushes().await?, server.revision().await?);
    let load = Load::start(&format!("http://127.0.0.1:{}/", fixture.port), "echo.test");
    let route = cluster.get(ROUTES).await?;
    cluster.stop();
    let since = Instant::now();
    heard(&server, false).await?;
    // What happens in the store meanwhile is learned when the API server is back.
    cluster.put("networking.istio.io", "virtualservices", &[to_other_version(route)?]).await?;
    while since.elapsed() < away {
        tokio::time::sleep(LOOK.min(away.saturating_sub(since.elapsed()))).await;
        let now = received(&envoy).await?;
        ensure!(now.no_update_since(&before), "after {:?}: {before:?} {now:?}", since.elapsed());
        ensure!(pushes().await? == pushed && server.revision().await? == revision, "something was published");
    }
    heard(&server, false).await?;
    let silent = since.elapsed();

    cluster.start_again().await?;
    fixture.wait_for("v2").await?;
    heard(&server, true).await?;
    let after = settled(&envoy).await?;
    ensure!((after.cds, after.lds) == (before.cds, before.lds), "more than a route: {before:?} {after:?}");
    let calls = load.finish().await?;
    assert_eq!(envoy.rejections().await?, Default::default());
    eprintln!("{calls} calls, none lost; the API server was away for {silent:?}, and nothing was pushed");
    Ok(())
}

/// Waits until the server says that the API server is heard, or is not.
async fn heard(server: &Server, expected: bool) -> Result<()> {
    wait::until("what is said of the API server", wait::STEP, || async {
        let unheard = server.metric("navarch_source_unheard").await?;
        ensure!((unheard == 0.0) == expected, "{unheard} kinds are not heard");
        Ok(())
    })
    .await
}

/// The routes as the store has them, to the other version.
fn to_other_version(mut route: Value) -> Result<Value> {
    let metadata = route["metadata"].as_object_mut().context("metadata")?;
    metadata.remove("resourceVersion");
    route["spec"]["http"][0]["route"][0]["destination"]["subset"] = json!("v2");
    Ok(route)
}
